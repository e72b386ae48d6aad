//! Libraries that miss functions, as older drivers do.

use std::io::ErrorKind;

use nvml_wrapper::error::NvmlError;
use plimsoll_sim_driver::strip_symbols;

use crate::figures::memory_v1;
use crate::world::{GIB, cards, init, library, with_state};

#[test]
fn a_stripped_function_is_not_found_and_every_other_one_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let old = folder.path().join("libnvidia-ml.so.1");
    let gone = [
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetGraphicsRunningProcesses_v3",
        "nvmlDeviceGetMPSComputeRunningProcesses_v3",
    ];
    strip_symbols(&library(), &gone, &old).expect("stripped");
    with_state(&cards(), |gpu| {
        gpu.attach_phantom(0, 4_000, GIB).expect("attached").leave();
        let nvml = init(&old).expect("initialised");
        let device = nvml.device_by_index(0).expect("there");
        assert!(matches!(
            device.memory_info(),
            Err(NvmlError::FailedToLoadSymbol(_))
        ));
        assert!(matches!(
            device.running_compute_processes(),
            Err(NvmlError::FailedToLoadSymbol(_))
        ));
        // SAFETY: the handle is only passed back to the library.
        let memory = memory_v1(&nvml, unsafe { device.handle() }).expect("known");
        assert_eq!(memory.used, GIB + (300 << 20));
        assert_eq!(device.running_compute_processes_v2().expect("listed").len(), 1);
        assert_eq!(device.uuid().expect("known"), "GPU-11111111-aaaa");
        let whole = init(&library()).expect("initialised");
        assert!(whole.device_by_index(0).expect("there").memory_info().is_ok());
    });
}

#[test]
fn a_library_that_misses_even_init() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let old = folder.path().join("libnvidia-ml.so.1");
    strip_symbols(&library(), &["nvmlInit_v2"], &old).expect("stripped");
    with_state(&cards(), |_| {
        assert!(matches!(init(&old), Err(NvmlError::FailedToLoadSymbol(_))))
    });
}

#[test]
fn what_cannot_be_stripped_is_said() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let into = folder.path().join("copy.so");
    let unknown = strip_symbols(&library(), &["nvmlNoSuchThing"], &into).expect_err("refused");
    assert!(
        unknown.to_string().ends_with("does not export nvmlNoSuchThing"),
        "{unknown}"
    );
    let whole = std::fs::read(library()).expect("read");
    let damaged = folder.path().join("damaged.so");
    for bytes in [&b""[..], b"\x7fELF", &whole[..64], &whole[..whole.len() / 2]] {
        std::fs::write(&damaged, bytes).expect("written");
        let refused = strip_symbols(&damaged, &["nvmlInit_v2"], &into).expect_err("refused");
        assert_eq!(refused.kind(), ErrorKind::InvalidData);
    }
    assert!(!into.exists());
}
