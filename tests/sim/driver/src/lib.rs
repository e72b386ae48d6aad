//! The driver library of the simulated GPU: NVML's functions with NVML's layouts over a state file, so that whatever
//! loads `libnvidia-ml.so.1` can load this instead. The state file lies beside the library and is called like it with
//! `.gpu` at the end, or the environment variable `PLIMSOLL_SIM_GPU` names it.
//!
//! The file is opened at the first `nvmlInit*` and let go at the last `nvmlShutdown`; no file means no driver. Structs
//! come from the bindings that the clients use too. Faults are asked for through the state file
//! ([`plimsoll_sim_gpu::Gpu::inject`]) and applied at one place, `call.rs`, so every function here can have any of them.
//!
//! As a Rust library this crate only tells where the shared library lies and makes copies of it that miss functions.
#![expect(
    unsafe_code,
    reason = "exports C functions, whose names the linker cannot check"
)]

mod abi;
mod beside;
mod call;
mod device;
mod error_text;
mod events;
mod library;
mod memory;
mod mig;
mod processes;
mod session;
mod strip;

use std::ffi::{c_char, c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlEventSet_t, nvmlReturn_t};
use plimsoll_sim_gpu::{Context, Function};

use crate::abi::{Out, OutMany, Text};

pub use crate::library::library_path;
pub use crate::strip::strip_symbols;

/// One exported function per line: `for device |call, device|` when its first parameter is a device, `|call|` when it
/// is about none, and nothing when it works without a session.
macro_rules! exports {
    ($(fn $name:ident($($argument:ident: $type:ty),*) $(for $handle:ident)? $(|$call:ident $(, $device:ident)?|)? = $body:expr;)+) => {
        $(
            /// NVML's function of this name.
            ///
            /// # Safety
            /// As NVML asks of its callers: each pointer is null or points to what its parameter's type says, an array with
            /// room for as many elements as the length or count beside it says, and a text ends with a zero byte.
            // SAFETY: the name is NVML's own, and whoever links or loads this library does so to get this function by it;
            // the macro's names are all different, so nothing else here has it.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($argument: $type),*) -> nvmlReturn_t {
                const FUNCTION: Function = Function::new(stringify!($name));
                exports!(@call [$($handle)?] [$($call $(, $device)?)?] $body)
            }
        )+
    };
    (@call [$handle:ident] [$call:ident, $device:ident] $body:expr) => {
        call::device(FUNCTION, $handle, |$call, $device| $body)
    };
    (@call [] [$call:ident] $body:expr) => {
        call::system(FUNCTION, |$call| $body)
    };
    (@call [] [] $body:expr) => {
        call::bare(|| $body(FUNCTION))
    };
}

exports! {
    fn nvmlInit_v2() = |function| session::init(function, 0);
    fn nvmlInitWithFlags(flags: c_uint) = |function| session::init(function, flags);
    fn nvmlShutdown() = session::shutdown;

    fn nvmlSystemGetDriverVersion(version: OutMany<c_char>, length: c_uint)
        |call| = device::driver_version(call, version, length);
    fn nvmlSystemGetNVMLVersion(version: OutMany<c_char>, length: c_uint)
        |call| = device::nvml_version(call, version, length);
    fn nvmlSystemGetCudaDriverVersion(version: Out<c_int>) |_call| = device::cuda_version(version);
    fn nvmlSystemGetCudaDriverVersion_v2(version: Out<c_int>) |_call| = device::cuda_version(version);
    fn nvmlSystemGetProcessName(pid: c_uint, name: OutMany<c_char>, length: c_uint)
        |_call| = processes::name(pid, name, length);

    fn nvmlDeviceGetCount_v2(count: Out<c_uint>) |call| = device::count(call, count);
    fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: Out<nvmlDevice_t>)
        |call| = device::by_index(call, index, device);
    fn nvmlDeviceGetHandleByUUID(uuid: Text, device: Out<nvmlDevice_t>) |call| = device::by_uuid(call, uuid, device);
    fn nvmlDeviceGetHandleByPciBusId_v2(bus_id: Text, device: Out<nvmlDevice_t>)
        |call| = device::by_bus_id(call, bus_id, device);

    fn nvmlDeviceGetName(device: nvmlDevice_t, name: OutMany<c_char>, length: c_uint)
        for device |_call, gpu| = name.put_text(&gpu.name(), length);
    fn nvmlDeviceGetUUID(device: nvmlDevice_t, uuid: OutMany<c_char>, length: c_uint)
        for device |_call, gpu| = uuid.put_text(&gpu.uuid(), length);
    fn nvmlDeviceGetIndex(device: nvmlDevice_t, index: Out<c_uint>) for device |call, gpu| = device::index(call, gpu, index);
    fn nvmlDeviceGetMinorNumber(device: nvmlDevice_t, number: Out<c_uint>) for device |_call, gpu| = device::minor(gpu, number);
    fn nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, pci: Out<nvml::nvmlPciInfo_t>) for device |call, gpu| = device::pci(call, gpu, pci);
    fn nvmlDeviceGetBrand(device: nvmlDevice_t, brand: Out<c_uint>) for device |call, gpu| = call.put(brand, gpu.brand());
    fn nvmlDeviceGetArchitecture(device: nvmlDevice_t, architecture: Out<c_uint>)
        for device |call, gpu| = call.put(architecture, gpu.architecture());

    fn nvmlDeviceGetMemoryInfo(device: nvmlDevice_t, memory: Out<nvml::nvmlMemory_t>) for device |call, gpu| = memory::v1(call, gpu, memory);
    fn nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, memory: Out<nvml::nvmlMemory_v2_t>) for device |call, gpu| = memory::v2(call, gpu, memory);
    fn nvmlDeviceGetBAR1MemoryInfo(device: nvmlDevice_t, memory: Out<nvml::nvmlBAR1Memory_t>) for device |call, gpu| = memory::bar1(call, gpu, memory);

    fn nvmlDeviceGetUtilizationRates(device: nvmlDevice_t, busy: Out<nvml::nvmlUtilization_t>) for device |call, gpu| = device::utilization(call, gpu, busy);
    fn nvmlDeviceGetTemperature(device: nvmlDevice_t, sensor: c_uint, celsius: Out<c_uint>)
        for device |call, gpu| = device::temperature(call, gpu, sensor, celsius);
    fn nvmlDeviceGetPowerUsage(device: nvmlDevice_t, milliwatts: Out<c_uint>)
        for device |call, gpu| = device::figure(call, gpu, milliwatts, gpu.power_milliwatts());
    fn nvmlDeviceGetEnforcedPowerLimit(device: nvmlDevice_t, milliwatts: Out<c_uint>)
        for device |call, gpu| = device::figure(call, gpu, milliwatts, gpu.power_limit_milliwatts());
    fn nvmlDeviceGetPowerManagementLimit(device: nvmlDevice_t, milliwatts: Out<c_uint>)
        for device |call, gpu| = device::figure(call, gpu, milliwatts, gpu.power_limit_milliwatts());
    fn nvmlDeviceGetPerformanceState(device: nvmlDevice_t, state: Out<c_uint>)
        for device |call, gpu| = device::figure(call, gpu, state, gpu.performance_state());
    fn nvmlDeviceGetClockInfo(device: nvmlDevice_t, kind: c_uint, mhz: Out<c_uint>)
        for device |call, gpu| = device::clock(call, gpu, kind, mhz, gpu.sm_clock_mhz(), gpu.memory_clock_mhz());
    fn nvmlDeviceGetMaxClockInfo(device: nvmlDevice_t, kind: c_uint, mhz: Out<c_uint>)
        for device |call, gpu| = device::clock(call, gpu, kind, mhz, gpu.max_sm_clock_mhz(), gpu.max_memory_clock_mhz());
    fn nvmlDeviceGetCurrentClocksThrottleReasons(device: nvmlDevice_t, reasons: Out<c_ulonglong>)
        for device |call, gpu| = device::throttle_reasons(call, gpu, reasons);
    fn nvmlDeviceGetCurrentClocksEventReasons(device: nvmlDevice_t, reasons: Out<c_ulonglong>)
        for device |call, gpu| = device::throttle_reasons(call, gpu, reasons);
    fn nvmlDeviceGetPcieThroughput(device: nvmlDevice_t, counter: c_uint, kb_per_sec: Out<c_uint>)
        for device |call, gpu| = device::pcie(call, gpu, counter, kb_per_sec);

    fn nvmlDeviceGetComputeRunningProcesses(device: nvmlDevice_t, count: Out<c_uint>, infos: OutMany<nvml::nvmlProcessInfo_v1_t>)
        for device |call, gpu| = processes::list(call, gpu, Context::Compute, count, infos);
    fn nvmlDeviceGetComputeRunningProcesses_v2(device: nvmlDevice_t, count: Out<c_uint>, infos: OutMany<nvml::nvmlProcessInfo_v2_t>)
        for device |call, gpu| = processes::list(call, gpu, Context::Compute, count, infos);
    fn nvmlDeviceGetComputeRunningProcesses_v3(device: nvmlDevice_t, count: Out<c_uint>, infos: OutMany<nvml::nvmlProcessInfo_t>)
        for device |call, gpu| = processes::list(call, gpu, Context::Compute, count, infos);
    fn nvmlDeviceGetGraphicsRunningProcesses(device: nvmlDevice_t, count: Out<c_uint>, infos: OutMany<nvml::nvmlProcessInfo_v1_t>)
        for device |call, gpu| = processes::list(call, gpu, Context::Graphics, count, infos);
    fn nvmlDeviceGetGraphicsRunningProcesses_v2(device: nvmlDevice_t, count: Out<c_uint>, infos: OutMany<nvml::nvmlProcessInfo_v2_t>)
        for device |call, gpu| = processes::list(call, gpu, Context::Graphics, count, infos);
    fn nvmlDeviceGetGraphicsRunningProcesses_v3(device: nvmlDevice_t, count: Out<c_uint>, infos: OutMany<nvml::nvmlProcessInfo_t>)
        for device |call, gpu| = processes::list(call, gpu, Context::Graphics, count, infos);
    fn nvmlDeviceGetMPSComputeRunningProcesses_v2(device: nvmlDevice_t, count: Out<c_uint>, infos: OutMany<nvml::nvmlProcessInfo_v2_t>)
        for device |call, gpu| = processes::list(call, gpu, Context::Mps, count, infos);
    fn nvmlDeviceGetMPSComputeRunningProcesses_v3(device: nvmlDevice_t, count: Out<c_uint>, infos: OutMany<nvml::nvmlProcessInfo_t>)
        for device |call, gpu| = processes::list(call, gpu, Context::Mps, count, infos);
    fn nvmlDeviceGetProcessUtilization(device: nvmlDevice_t, samples: OutMany<nvml::nvmlProcessUtilizationSample_t>, count: Out<c_uint>, last_seen: c_ulonglong)
        for device |call, gpu| = processes::utilization(call, gpu, samples, count, last_seen);

    fn nvmlDeviceGetMigMode(device: nvmlDevice_t, now: Out<c_uint>, pending: Out<c_uint>) for device |_call, gpu| = mig::mode(gpu, now, pending);
    fn nvmlDeviceGetMaxMigDeviceCount(device: nvmlDevice_t, count: Out<c_uint>) for device |_call, gpu| = mig::most_instances(gpu, count);
    fn nvmlDeviceGetMigDeviceHandleByIndex(device: nvmlDevice_t, index: c_uint, instance: Out<nvmlDevice_t>)
        for device |call, gpu| = mig::instance(call, gpu, index, instance);
    fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance: nvmlDevice_t, device: Out<nvmlDevice_t>)
        for instance |call, gpu| = mig::card_of(call, gpu, device);
    fn nvmlDeviceIsMigDeviceHandle(device: nvmlDevice_t, is_instance: Out<c_uint>) for device |_call, gpu| = mig::is_instance(gpu, is_instance);
    fn nvmlDeviceGetGpuInstanceId(device: nvmlDevice_t, id: Out<c_uint>) for device |_call, gpu| = mig::instance_id(gpu, gpu.gpu_instance(), id);
    fn nvmlDeviceGetComputeInstanceId(device: nvmlDevice_t, id: Out<c_uint>)
        for device |_call, gpu| = mig::instance_id(gpu, gpu.compute_instance(), id);

    fn nvmlEventSetCreate(set: Out<nvmlEventSet_t>) |call| = events::create(call, set);
    fn nvmlEventSetFree(set: nvmlEventSet_t) |call| = events::free(call, set);
    fn nvmlEventSetWait_v2(set: nvmlEventSet_t, data: Out<nvml::nvmlEventData_t>, timeout_ms: c_uint)
        |call| = events::wait(call, set, data, timeout_ms);
    fn nvmlDeviceGetSupportedEventTypes(device: nvmlDevice_t, types: Out<c_ulonglong>) for device |_call, gpu| = events::supported(gpu, types);
    fn nvmlDeviceRegisterEvents(device: nvmlDevice_t, types: c_ulonglong, set: nvmlEventSet_t)
        for device |call, gpu| = events::register(call, gpu, types, set);
}

/// The only function that answers a text, without a session and without faults.
// SAFETY: the name is NVML's own, as with the functions above.
#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(code: nvmlReturn_t) -> *const c_char {
    error_text::of(code).as_ptr()
}
