//! A simulated GPU and a client of its driver library.

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use plimsoll_sim_gpu::{DeviceSpec, Gpu};

pub(crate) const GIB: u64 = 1 << 30;

/// The library finds its state file by the environment, which a process has once: tests take turns.
static TURN: Mutex<()> = Mutex::new(());

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // SAFETY: runs once, before any library is loaded, while the only tests that read the environment wait for it.
    unsafe { std::env::set_var("PLIMSOLL_SIM_GPU", folder.path().join("gpu.state")) };
    folder
});

pub(crate) fn library() -> PathBuf {
    plimsoll_sim_driver::library_path().expect("the library was built beside this test")
}

pub(crate) fn cards() -> Vec<DeviceSpec> {
    let card = DeviceSpec::new("GPU-11111111-aaaa", "Simulated 24 GiB", 24 * GIB);
    let small = DeviceSpec::new("GPU-22222222-bbbb", "Simulated 8 GiB", 8 * GIB);
    vec![
        DeviceSpec {
            reserved_bytes: 300 << 20,
            ..card
        },
        small,
    ]
}

pub(crate) fn init(library: &Path) -> Result<Nvml, NvmlError> {
    Nvml::builder().lib_path(library.as_os_str()).init()
}

/// Runs a story with a fresh state file at the place where the library looks for it.
pub(crate) fn with_state(devices: &[DeviceSpec], story: impl FnOnce(&Gpu)) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let gpu = Gpu::create(&FOLDER.path().join("gpu.state"), devices).expect("created");
    story(&gpu);
}

/// Runs a story with an initialised client, and sees that it leaves nothing behind.
pub(crate) fn with_nvml(devices: &[DeviceSpec], story: impl FnOnce(&Gpu, &Nvml)) {
    with_state(devices, |gpu| {
        let nvml = init(&library()).expect("initialised");
        assert_eq!(gpu.open_inits(), 1);
        story(gpu, &nvml);
        drop(nvml);
        assert_eq!((gpu.open_inits(), gpu.open_event_sets()), (0, 0));
        assert_eq!(gpu.calls("call while uninitialized"), 0);
    });
}

/// Waits for something that happens by itself.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "never happened: {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}
