//! The driver's functions that launch, and those of this library alone by which a program says what there is to launch.
#![expect(
    unsafe_code,
    reason = "exports C functions, and reads the memory of their callers"
)]

use std::ffi::{CStr, c_char, c_uint, c_void};

use crate::cuda::{Out, call, code, copy, params, plain, stream, work};
use crate::cupti::subscriber::Function;
use crate::record::{Copy, Shape};
use crate::{missing, settings};

const LAUNCH_KERNEL: Function = Function::new(307, c"cuLaunchKernel");
const GRAPH_LAUNCH: Function = Function::new(514, c"cuGraphLaunch");

params! {
    LaunchParams {
        function: usize, grid: [c_uint; 3], block: [c_uint; 3], shared_bytes: c_uint, stream: usize,
        parameters: *mut *mut c_void, extra: *mut *mut c_void
    }
    GraphParams { graph: usize, stream: usize }
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchKernel(
    function: usize,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    stream: usize,
    parameters: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> u32 {
    let params = LaunchParams {
        function,
        grid: [grid_x, grid_y, grid_z],
        block: [block_x, block_y, block_z],
        shared_bytes,
        stream,
        parameters,
        extra,
    };
    call(&LAUNCH_KERNEL, &params, |correlation| {
        let shape = Shape {
            grid: params.grid,
            block: params.block,
            shared_bytes,
        };
        work::launch(function, &shape, stream, correlation)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphLaunch(graph: usize, stream: usize) -> u32 {
    call(&GRAPH_LAUNCH, &GraphParams { graph, stream }, |correlation| {
        work::launch_graph(graph, stream, correlation)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreate(handle: Out<usize>, _flags: c_uint) -> u32 {
    plain(|_| handle.put(stream::create()?))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(_stream: usize) -> u32 {
    plain(|_| Ok(()))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(handle: usize) -> u32 {
    plain(|correlation| stream::synchronize(Some(handle), correlation))
}

/// A text of the caller.
///
/// # Safety
/// It is null, or ends with NUL.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: not null, so it ends with NUL as the caller promises.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

/// Only here: a kernel of this name, as a module would contain it. It takes so long on the device; 0 is a time that follows
/// from the name. The answer is a handle for `cuLaunchKernel`, or 0.
///
/// # Safety
/// `name` is null or ends with NUL.
#[unsafe(no_mangle)]
unsafe extern "C" fn plimsoll_sim_function(name: *const c_char, duration_ns: u64) -> usize {
    // SAFETY: as the caller promises.
    let Some(name) = (unsafe { text(name) }) else {
        return 0;
    };
    let usual = work::usual_duration_ns(name.to_bytes());
    let duration_ns = if duration_ns == 0 { usual } else { duration_ns };
    work::add_function(name.to_bytes(), duration_ns).unwrap_or(0)
}

/// Only here: how long a kernel of this name takes by itself, ns.
///
/// # Safety
/// `name` is null or ends with NUL.
#[unsafe(no_mangle)]
unsafe extern "C" fn plimsoll_sim_duration(name: *const c_char) -> u64 {
    // SAFETY: as the caller promises.
    unsafe { text(name) }.map_or(0, |name| work::usual_duration_ns(name.to_bytes()))
}

/// Only here: how long a copy of so many bytes takes, ns; `direction` as in CUPTI's records.
#[unsafe(no_mangle)]
extern "C" fn plimsoll_sim_copy_ns(direction: u32, bytes: u64) -> u64 {
    let direction = match direction {
        1 => Copy::HostToDevice,
        2 => Copy::DeviceToHost,
        _ => Copy::DeviceToDevice,
    };
    copy::duration_ns(direction, bytes)
}

/// Only here: a graph that launches these functions in order. The answer is a handle for `cuGraphLaunch`, or 0.
///
/// # Safety
/// `functions` points to `count` handles.
#[unsafe(no_mangle)]
unsafe extern "C" fn plimsoll_sim_graph(functions: *const usize, count: usize) -> usize {
    if functions.is_null() {
        return 0;
    }
    // SAFETY: as the caller promises.
    let nodes = unsafe { std::slice::from_raw_parts(functions, count) };
    work::add_graph(nodes).unwrap_or(0)
}

/// Only here: for this copy of the library an environment variable has this value. To be called before all else.
///
/// # Safety
/// Both are null or end with NUL.
#[unsafe(no_mangle)]
unsafe extern "C" fn plimsoll_sim_set(name: *const c_char, value: *const c_char) -> u32 {
    // SAFETY: as the caller promises.
    let (Some(name), Some(value)) = (unsafe { (text(name), text(value)) }) else {
        return code::INVALID_VALUE;
    };
    let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
    settings::choose(&name, &value);
    if name == settings::FAULTS {
        missing::hide(&value);
    }
    code::SUCCESS
}
