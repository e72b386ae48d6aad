//! What belongs to the driver rather than to one device: whether it is there, which life it lives, who uses it.

use std::sync::atomic::Ordering::SeqCst;

use crate::gpu::Gpu;

/// What the kernel side of the driver is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverState {
    /// It works.
    Loaded,
    /// The kernel module is not loaded.
    NotLoaded,
    /// The library was upgraded and the module was not.
    VersionMismatch,
}

impl Gpu {
    /// What the driver is doing.
    pub fn driver(&self) -> DriverState {
        match self.layout().driver_state.load(SeqCst) {
            1 => DriverState::NotLoaded,
            2 => DriverState::VersionMismatch,
            _ => DriverState::Loaded,
        }
    }

    /// Unloads, breaks or loads the driver. Unloading ends this life of the driver: handles from before are lost even
    /// when it is loaded again. A version mismatch meets only who initialises from now on.
    pub fn set_driver(&self, state: DriverState) {
        self.layout().driver_state.store(state as u32, SeqCst);
        if state == DriverState::NotLoaded {
            self.layout().driver_generation.fetch_add(1, SeqCst);
        }
        self.ring();
    }

    /// Unloads and loads the driver: handles from before answer that the GPU is lost until their process has shut NVML
    /// down as often as it had initialised it, and initialises anew.
    pub fn reload_driver(&self) {
        self.layout().driver_generation.fetch_add(1, SeqCst);
        self.ring();
    }

    /// Which life of the driver this is.
    pub fn driver_generation(&self) -> u32 {
        self.layout().driver_generation.load(SeqCst)
    }

    /// Version of the driver, such as `580.95.05`.
    pub fn driver_version(&self) -> String {
        self.layout().driver_version.get()
    }

    /// Sets [`Gpu::driver_version`], cut to 95 bytes.
    pub fn set_driver_version(&self, version: &str) {
        self.layout().driver_version.set(version);
    }

    /// Calls of `nvmlInit*` that no `nvmlShutdown` has answered yet, over all processes. What a killed process left
    /// open stays counted.
    pub fn open_inits(&self) -> i64 {
        self.layout().open_inits.load(SeqCst)
    }

    /// Event sets alive, over all processes. What a killed process left open stays counted.
    pub fn open_event_sets(&self) -> i64 {
        self.layout().open_event_sets.load(SeqCst)
    }

    /// For the driver library: one more (1) or one less (-1) initialisation.
    pub fn count_init(&self, change: i64) {
        self.layout().open_inits.fetch_add(change, SeqCst);
    }

    /// For the driver library: one more (1) or one less (-1) event set.
    pub fn count_event_set(&self, change: i64) {
        self.layout().open_event_sets.fetch_add(change, SeqCst);
    }
}
