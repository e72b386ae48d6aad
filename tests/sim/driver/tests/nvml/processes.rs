//! Process lists in all versions, and what processes keep busy.

use std::process::{Command, Stdio};

use nvml_wrapper::Nvml;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::{nvmlProcessInfo_t, nvmlProcessInfo_v1_t};
use plimsoll_sim_gpu::{Context, Fault, FaultKind, Gpu};

use crate::world::{GIB, cards, eventually, with_nvml};

const LIST: &str = "nvmlDeviceGetComputeRunningProcesses_v3";

/// Pid and memory of the compute processes on the first device, as the wrapper's two calls find them.
fn listed(nvml: &Nvml) -> Result<Vec<(u32, Option<u64>)>, NvmlError> {
    let list = nvml.device_by_index(0)?.running_compute_processes()?;
    let row = |process: nvml_wrapper::struct_wrappers::device::ProcessInfo| match process.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => (process.pid, Some(bytes)),
        UsedGpuMemory::Unavailable => (process.pid, None),
    };
    Ok(list.into_iter().map(row).collect())
}

/// Return code, count and records of one raw call with room for `room` records.
fn raw(nvml: &Nvml, room: usize) -> (u32, u32, Vec<nvmlProcessInfo_t>) {
    let device = nvml.device_by_index(0).expect("there");
    let mut count = u32::try_from(room).expect("small");
    let untouched = nvmlProcessInfo_t {
        pid: 7,
        usedGpuMemory: 7,
        gpuInstanceId: 7,
        computeInstanceId: 7,
    };
    // One more than the library is told of, to see that it stays untouched.
    let mut records = vec![untouched; room + 1];
    let call = nvml
        .lib()
        .nvmlDeviceGetComputeRunningProcesses_v3
        .as_ref()
        .expect("exported");
    // SAFETY: there is room for more than `count` records.
    let code = unsafe { call(device.handle(), &mut count, records.as_mut_ptr()) };
    let beyond = records.pop().expect("one more");
    assert_eq!(
        (beyond.pid, beyond.usedGpuMemory, beyond.computeInstanceId),
        (7, 7, 7)
    );
    (code, count, records)
}

fn phantoms(gpu: &Gpu, count: u32) {
    (0..count).for_each(|n| {
        gpu.attach_phantom(0, 5_000 + n, u64::from(n))
            .expect("attached")
            .leave()
    });
}

#[test]
fn none_one_and_many() {
    with_nvml(&cards(), |gpu, nvml| {
        assert_eq!(listed(nvml).expect("listed"), []);
        let process = gpu.attach(0, std::process::id()).expect("attached");
        process.resize(GIB + 1).expect("there is room");
        assert_eq!(
            listed(nvml).expect("listed"),
            [(std::process::id(), Some(GIB + 1))]
        );
        phantoms(gpu, 200);
        let list = listed(nvml).expect("listed");
        assert_eq!(list.len(), 201);
        assert!(list.contains(&(5_199, Some(199))));
        let device = nvml.device_by_index(0).expect("there");
        let old = device.running_compute_processes_v2().expect("listed");
        assert_eq!(old.len(), 201);
        assert_eq!(
            nvml.device_by_index(1)
                .expect("there")
                .running_compute_processes()
                .expect("listed")
                .len(),
            0
        );
    });
}

#[test]
fn too_little_room_answers_the_count() {
    with_nvml(&cards(), |gpu, nvml| {
        phantoms(gpu, 3);
        let (code, count, records) = raw(nvml, 2);
        assert_eq!((code, count), (7, 3));
        assert!(records.iter().all(|record| record.pid == 7));
        let (code, count, records) = raw(nvml, 3);
        assert_eq!((code, count), (0, 3));
        assert_eq!(
            records.iter().map(|record| record.pid).collect::<Vec<_>>(),
            [5_000, 5_001, 5_002]
        );
        assert!(records.iter().all(|record| record.gpuInstanceId == u32::MAX));
        let device = nvml.device_by_index(0).expect("there");
        let mut first = [nvmlProcessInfo_v1_t {
            pid: 0,
            usedGpuMemory: 0,
        }; 4];
        let mut count = 4;
        let call = nvml
            .lib()
            .nvmlDeviceGetComputeRunningProcesses
            .as_ref()
            .expect("exported");
        // SAFETY: there is room for four records.
        let code = unsafe { call(device.handle(), &mut count, first.as_mut_ptr()) };
        assert_eq!(code, 0);
        assert_eq!((count, first[2].pid, first[2].usedGpuMemory), (3, 5_002, 2));
    });
}

#[test]
fn lists_by_context() {
    with_nvml(&cards(), |gpu, nvml| {
        let process = gpu.attach_phantom(0, 4_000, GIB).expect("attached");
        process.set_contexts(&[Context::Graphics, Context::Mps]);
        let device = nvml.device_by_index(0).expect("there");
        assert_eq!(device.running_compute_processes().expect("listed").len(), 0);
        assert_eq!(device.running_graphics_processes().expect("listed").len(), 1);
        assert_eq!(device.mps_running_compute_processes().expect("listed").len(), 1);
    });
}

#[test]
fn a_process_that_is_attached_twice_is_one_row() {
    with_nvml(&cards(), |gpu, nvml| {
        let twice = [1, 2].map(|bytes| gpu.attach_phantom(0, 4_000, bytes).expect("attached"));
        assert_eq!(listed(nvml).expect("listed"), [(4_000, Some(3))]);
        drop(twice);
    });
}

#[test]
fn a_killed_process_leaves_the_list_and_its_memory() {
    with_nvml(&cards(), |gpu, nvml| {
        let mut child = Command::new("sleep")
            .arg("600")
            .stdout(Stdio::null())
            .spawn()
            .expect("started");
        let process = gpu.attach(0, child.id()).expect("attached");
        process.resize(3 * GIB).expect("there is room");
        let device = nvml.device_by_index(0).expect("there");
        assert_eq!(device.memory_info().expect("known").used, 3 * GIB);
        child.kill().expect("killed");
        child.wait().expect("waited");
        eventually("its memory is free", || {
            device.memory_info().expect("known").used == 0
        });
        assert_eq!(listed(nvml).expect("listed"), []);
    });
}

#[test]
fn pids_that_cannot_be() {
    with_nvml(&cards(), |gpu, nvml| {
        gpu.attach_phantom(0, 0, 1).expect("attached").leave();
        gpu.attach_phantom(0, u32::MAX, 2).expect("attached").leave();
        assert_eq!(listed(nvml).expect("listed"), [(0, Some(1)), (u32::MAX, Some(2))]);
    });
}

#[test]
fn memory_that_the_driver_does_not_know() {
    with_nvml(&cards(), |gpu, nvml| {
        phantoms(gpu, 2);
        gpu.inject(Fault::new(LIST, FaultKind::UnknownProcessMemory))
            .expect("injected");
        assert_eq!(listed(nvml).expect("listed"), [(5_000, None), (5_001, None)]);
    });
}

#[test]
fn a_list_that_grows_faster_than_it_is_read() {
    with_nvml(&cards(), |gpu, nvml| {
        phantoms(gpu, 1);
        gpu.inject(Fault::new(LIST, FaultKind::GrowingList(6)))
            .expect("injected");
        assert!(matches!(listed(nvml), Err(NvmlError::InsufficientSize(_))));
        let (code, count, _) = raw(nvml, 64);
        assert_eq!((code, count), (0, 19));
        gpu.clear_faults();
        assert_eq!(listed(nvml).expect("listed").len(), 1);
    });
}

#[test]
fn a_count_that_comes_with_success_hides_all_from_the_wrapper() {
    with_nvml(&cards(), |gpu, nvml| {
        phantoms(gpu, 3);
        gpu.inject(Fault::new(LIST, FaultKind::CountIsSuccess))
            .expect("injected");
        assert_eq!(listed(nvml).expect("listed"), []);
        let (code, count, _) = raw(nvml, 64);
        assert_eq!((code, count), (0, 3));
    });
}

#[test]
fn long_records_show_impossible_pids_and_stay_in_the_buffer() {
    with_nvml(&cards(), |gpu, nvml| {
        phantoms(gpu, 4);
        gpu.inject(Fault::new(LIST, FaultKind::LongRecords))
            .expect("injected");
        let pids: Vec<u32> = listed(nvml)
            .expect("listed")
            .into_iter()
            .map(|(pid, _)| pid)
            .collect();
        assert_eq!(pids, [5_000, 0, u32::MAX, 2]);
        // Exactly full: `raw` sees that nothing was written beyond.
        let (code, count, records) = raw(nvml, 4);
        assert_eq!((code, count, records[0].pid), (0, 4, 5_000));
    });
}

#[test]
fn what_processes_keep_busy() {
    with_nvml(&cards(), |gpu, nvml| {
        let device = nvml.device_by_index(0).expect("there");
        assert!(matches!(
            device.process_utilization_stats(None),
            Err(NvmlError::NotFound)
        ));
        let busy = gpu.attach_phantom(0, 4_000, GIB).expect("attached");
        busy.set_sm_busy_percent(55);
        busy.set_memory_busy_percent(12);
        let idle = gpu.attach_phantom(0, 4_001, GIB).expect("attached");
        let samples = device.process_utilization_stats(None).expect("known");
        assert_eq!(samples.len(), 1);
        let sample = &samples[0];
        assert_eq!(
            (sample.pid, sample.sm_util, sample.mem_util, sample.enc_util),
            (4_000, 55, 12, 0)
        );
        // Nothing new until the next sample is taken, and that one is younger.
        assert!(matches!(
            device.process_utilization_stats(sample.timestamp + 3_600_000_000),
            Err(NvmlError::NotFound)
        ));
        let mut next = None;
        eventually("the next sample", || {
            next = device.process_utilization_stats(sample.timestamp).ok();
            next.is_some()
        });
        assert!(next.expect("sampled")[0].timestamp > sample.timestamp);
        busy.set_sm_busy_percent(240);
        assert_eq!(
            device.process_utilization_stats(None).expect("known")[0].sm_util,
            240
        );
        drop((busy, idle));
    });
}

#[test]
fn old_samples_and_empty_answers_on_request() {
    const USE: &str = "nvmlDeviceGetProcessUtilization";
    with_nvml(&cards(), |gpu, nvml| {
        let device = nvml.device_by_index(0).expect("there");
        gpu.inject(Fault::new(USE, FaultKind::CountIsSuccess))
            .expect("injected");
        assert!(device.process_utilization_stats(None).expect("empty").is_empty());
        gpu.clear_faults();
        let busy = gpu.attach_phantom(0, 4_000, GIB).expect("attached");
        busy.set_sm_busy_percent(55);
        let seen = device.process_utilization_stats(None).expect("known")[0].timestamp;
        gpu.inject(Fault::new(USE, FaultKind::StaleStamps))
            .expect("injected");
        assert!(device.process_utilization_stats(seen).expect("known")[0].timestamp < seen);
    });
}

#[test]
fn the_name_of_a_process() {
    with_nvml(&cards(), |_, nvml| {
        let own = nvml.sys_process_name(std::process::id(), 1024).expect("known");
        assert_eq!(Some(own), std::env::args().next());
        assert_eq!(
            nvml.sys_process_name(std::process::id(), 4).expect("cut").len(),
            3
        );
        assert!(matches!(
            nvml.sys_process_name(u32::MAX, 64),
            Err(NvmlError::NotFound)
        ));
    });
}
