//! Init, shutdown, and drivers that come and go.

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use plimsoll_sim_gpu::{DriverState, Fault, FaultKind, Gpu};

use crate::figures::memory_v1;
use crate::world::{cards, init, library, with_nvml, with_state};

#[test]
fn no_driver_and_a_driver_of_another_version_are_told_apart() {
    with_state(&cards(), |gpu| {
        gpu.set_driver(DriverState::NotLoaded);
        assert!(matches!(init(&library()), Err(NvmlError::DriverNotLoaded)));
        gpu.set_driver(DriverState::VersionMismatch);
        assert!(matches!(init(&library()), Err(NvmlError::LibRmVersionMismatch)));
        assert_eq!(gpu.open_inits(), 0);
        gpu.set_driver(DriverState::Loaded);
        assert_eq!(
            init(&library())
                .expect("initialised")
                .device_count()
                .expect("known"),
            2
        );
        // A file that is not a state file is no missing driver, and no file is one.
        std::fs::write(gpu.path(), "rubbish").expect("written");
        assert!(matches!(init(&library()), Err(NvmlError::Unknown)));
        std::fs::remove_file(gpu.path()).expect("removed");
        assert!(matches!(init(&library()), Err(NvmlError::DriverNotLoaded)));
    });
}

#[test]
fn init_fails_a_few_times_and_then_works() {
    with_state(&cards(), |gpu| {
        gpu.inject(Fault {
            times: Some(2),
            ..Fault::new("nvmlInit_v2", FaultKind::Code(999))
        })
        .expect("injected");
        let went: Vec<bool> = (0..3).map(|_| init(&library()).is_ok()).collect();
        assert_eq!(went, [false, false, true]);
        assert_eq!((gpu.open_inits(), gpu.calls("nvmlInit_v2")), (0, 3));
    });
}

#[test]
fn after_a_reload_only_shutdown_and_init_help() {
    with_state(&cards(), |gpu| {
        let nvml = init(&library()).expect("initialised");
        let device = nvml.device_by_index(0).expect("there");
        device.memory_info().expect("known");
        gpu.reload_driver();
        assert!(matches!(device.memory_info(), Err(NvmlError::GpuLost)));
        assert!(matches!(
            nvml.device_by_uuid("GPU-22222222-bbbb"),
            Err(NvmlError::GpuLost)
        ));
        // A second init beside the stale one is counted and refreshes nothing.
        let second = init(&library()).expect("counted");
        assert_eq!(gpu.open_inits(), 2);
        assert!(matches!(second.device_by_index(0), Err(NvmlError::GpuLost)));
        drop(second);
        // SAFETY: the handle is only a number.
        let old = unsafe { device.handle() };
        drop(nvml);
        assert_eq!(gpu.open_inits(), 0);
        let fresh = init(&library()).expect("initialised");
        fresh
            .device_by_uuid("GPU-11111111-aaaa")
            .expect("there")
            .memory_info()
            .expect("known");
        assert_eq!(gpu.calls("call with a stale handle"), 0);
        assert_eq!(memory_v1(&fresh, old).map(|_| ()), Err(15));
        assert_eq!(gpu.calls("call with a stale handle"), 1);
    });
}

#[test]
fn a_driver_that_is_unloaded_takes_the_handles_with_it() {
    with_nvml(&cards(), |gpu, nvml| {
        let device = nvml.device_by_index(0).expect("there");
        gpu.set_driver(DriverState::NotLoaded);
        gpu.set_driver(DriverState::Loaded);
        assert!(matches!(device.memory_info(), Err(NvmlError::GpuLost)));
    });
}

#[test]
fn an_upgrade_meets_only_who_comes_later() {
    with_nvml(&cards(), |gpu, nvml| {
        gpu.set_driver(DriverState::VersionMismatch);
        nvml.device_by_index(0)
            .expect("there")
            .memory_info()
            .expect("known");
    });
}

#[test]
fn inits_are_counted_and_calls_outside_are_refused_and_noted() {
    with_state(&cards(), |gpu| {
        let nvml = init(&library()).expect("initialised");
        let mut count = 0;
        // SAFETY: the number lives during the calls; the wrapper's own init is ended and begun again around them.
        unsafe {
            assert_eq!(nvml.lib().nvmlInit_v2(), 0);
            assert_eq!(nvml.lib().nvmlShutdown(), 0);
            assert_eq!(nvml.lib().nvmlDeviceGetCount_v2(&mut count), 0);
            assert_eq!(nvml.lib().nvmlShutdown(), 0);
            assert_eq!(nvml.lib().nvmlDeviceGetCount_v2(&mut count), 1);
            assert_eq!(nvml.lib().nvmlShutdown(), 1);
            assert_eq!(gpu.calls("call while uninitialized"), 2);
            assert_eq!(nvml.lib().nvmlInit_v2(), 0);
        }
        assert_eq!(count, 2);
        drop(nvml);
        assert_eq!(gpu.open_inits(), 0);
    });
}

#[test]
fn many_lives_leave_no_map_and_no_descriptor() {
    fn resources() -> (usize, usize) {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("read");
        let mapped = maps
            .lines()
            .filter(|line| line.contains("gpu.state") || line.contains("sim_driver"))
            .count();
        (mapped, std::fs::read_dir("/proc/self/fd").expect("read").count())
    }
    with_state(&cards(), |gpu| {
        drop(init(&library()).expect("initialised"));
        let before = resources();
        for _ in 0..200 {
            let nvml = init(&library()).expect("initialised");
            nvml.device_by_index(0)
                .expect("there")
                .memory_info()
                .expect("known");
        }
        // Tests that wait for their turn may open a file or two, not hundreds.
        let after = resources();
        assert_eq!(after.0, before.0);
        assert!(after.1 < before.1 + 50, "{before:?} {after:?}");
        assert_eq!((gpu.open_inits(), gpu.calls("nvmlShutdown")), (0, 201));
    });
}

#[test]
fn each_copy_of_the_library_has_the_machine_that_lies_beside_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    with_state(&cards(), |_| {
        let machine = |name: &str, devices: &[_]| {
            let copy = folder.path().join(name);
            std::fs::copy(library(), &copy).expect("copied");
            let gpu = Gpu::create(&folder.path().join(format!("{name}.gpu")), devices).expect("created");
            (gpu, init(&copy).expect("initialised"))
        };
        let (one, first) = machine("one.so", &cards()[..1]);
        let (other, second) = machine("other.so", &cards()[1..]);
        let uuids =
            [&first, &second].map(|nvml| nvml.device_by_index(0).expect("there").uuid().expect("known"));
        assert_eq!(uuids, ["GPU-11111111-aaaa", "GPU-22222222-bbbb"]);
        other.set_driver(DriverState::NotLoaded);
        assert!(second.device_by_index(0).is_err());
        assert_eq!((one.open_inits(), first.device_count().expect("known")), (1, 1));
    });
}

#[test]
fn threads_share_one_library() {
    with_nvml(&cards(), |gpu, nvml: &Nvml| {
        std::thread::scope(|scope| {
            for index in [0, 1, 0, 1] {
                scope.spawn(move || {
                    let device = nvml.device_by_index(index).expect("there");
                    (0..500).for_each(|_| assert!(device.memory_info().is_ok()));
                });
            }
        });
        assert_eq!(gpu.calls("nvmlDeviceGetMemoryInfo_v2"), 2_000);
    });
}

#[test]
fn every_code_has_a_text() {
    with_nvml(&cards(), |_, nvml| {
        for (code, text) in [
            (0, "Success"),
            (15, "GPU is lost"),
            (30, "Reset type not supported"),
            (999, "Unknown Error"),
        ] {
            // SAFETY: the library answers a text that lives as long as it is loaded.
            let answer = unsafe { std::ffi::CStr::from_ptr(nvml.lib().nvmlErrorString(code)) };
            assert_eq!(answer.to_str().expect("plain"), text);
        }
    });
}
