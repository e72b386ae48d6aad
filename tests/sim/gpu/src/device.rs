//! One device: its figures, which a test or a simulated engine sets and the driver library reads.

use std::sync::atomic::Ordering::SeqCst;

use crate::gpu::Gpu;
use crate::layout::Device;

/// One device of a state file.
#[derive(Clone, Debug)]
pub struct DeviceState {
    gpu: Gpu,
    index: usize,
}

/// A getter and a setter per figure of the layout.
macro_rules! figures {
    ($($(#[$doc:meta])+ $name:ident $set:ident: $type:ty,)+) => {
        impl DeviceState {
            $(
                $(#[$doc])+
                pub fn $name(&self) -> $type {
                    self.layout().$name.load(SeqCst)
                }

                #[doc = concat!("Sets [`DeviceState::", stringify!($name), "`].")]
                pub fn $set(&self, value: $type) {
                    self.layout().$name.store(value, SeqCst);
                }
            )+
        }
    };
}

figures! {
    /// All memory, reserved included.
    total_bytes set_total_bytes: u64,
    /// Memory that the driver keeps for itself.
    reserved_bytes set_reserved_bytes: u64,
    /// Memory in use by nobody known: not by any listed process, and not reserved.
    other_used_bytes set_other_used_bytes: u64,
    /// Size of the BAR1 window.
    bar1_total_bytes set_bar1_total_bytes: u64,
    /// BAR1 in use.
    bar1_used_bytes set_bar1_used_bytes: u64,
    /// Bits of `nvmlClocksThrottleReason*`.
    throttle_reasons set_throttle_reasons: u64,
    /// Percent of time in which a kernel ran, 0..=100 on a healthy driver; other values are answered as they are.
    gpu_busy_percent set_gpu_busy_percent: u32,
    /// Percent of time in which memory was read or written.
    memory_busy_percent set_memory_busy_percent: u32,
    /// Temperature of the chip.
    temperature_celsius set_temperature_celsius: u32,
    /// Power draw.
    power_milliwatts set_power_milliwatts: u32,
    /// Power limit in force.
    power_limit_milliwatts set_power_limit_milliwatts: u32,
    /// 0 (fastest) to 15; other values are answered as they are.
    performance_state set_performance_state: u32,
    /// Clock of the multiprocessors (and of graphics) now.
    sm_clock_mhz set_sm_clock_mhz: u32,
    /// Clock of the memory now.
    memory_clock_mhz set_memory_clock_mhz: u32,
    /// Highest clock of the multiprocessors.
    max_sm_clock_mhz set_max_sm_clock_mhz: u32,
    /// Highest clock of the memory.
    max_memory_clock_mhz set_max_memory_clock_mhz: u32,
    /// Sent over PCIe in KB/s.
    pcie_sent_kb_per_sec set_pcie_sent_kb_per_sec: u32,
    /// Received over PCIe in KB/s.
    pcie_received_kb_per_sec set_pcie_received_kb_per_sec: u32,
    /// `nvmlBrandType_t`; unknown values are answered as they are.
    brand set_brand: u32,
    /// `nvmlDeviceArchitecture_t`; unknown values are answered as they are.
    architecture set_architecture: u32,
    /// MIG instance's GPU instance id; `u32::MAX` for none.
    gpu_instance set_gpu_instance: u32,
    /// MIG instance's compute instance id; `u32::MAX` for none.
    compute_instance set_compute_instance: u32,
}

impl DeviceState {
    pub(crate) fn new(gpu: Gpu, index: usize) -> Self {
        DeviceState { gpu, index }
    }

    pub(crate) fn layout(&self) -> &Device {
        &self.gpu.layout().devices[self.index]
    }

    /// Place in the list that the state file was created from.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The device's UUID.
    pub fn uuid(&self) -> String {
        self.layout().uuid.get()
    }

    /// The product's name.
    pub fn name(&self) -> String {
        self.layout().name.get()
    }

    /// Index of the card that this is a MIG instance of.
    pub fn mig_parent(&self) -> Option<usize> {
        (self.layout().parent.load(SeqCst) as usize).checked_sub(1)
    }

    /// Whether MIG is on.
    pub fn mig_mode(&self) -> bool {
        self.layout().mig_mode.load(SeqCst) != 0
    }

    /// Switches MIG on or off; instances of a card whose MIG is off cannot be reached.
    pub fn set_mig_mode(&self, on: bool) {
        self.layout().mig_mode.store(on.into(), SeqCst);
    }

    /// Whether it has fallen off the bus.
    pub fn lost(&self) -> bool {
        self.layout().lost.load(SeqCst) != 0
    }

    /// Takes it off the bus, where every call about it fails, or brings it back.
    pub fn set_lost(&self, lost: bool) {
        self.layout().lost.store(lost.into(), SeqCst);
    }

    /// Whether the driver lists it.
    pub fn present(&self) -> bool {
        self.layout().absent.load(SeqCst) == 0
    }

    /// Takes it out of the driver's list, so that the others move up, or puts it back.
    pub fn set_present(&self, present: bool) {
        self.layout().absent.store((!present).into(), SeqCst);
    }

    /// In use without what the driver reserves: [`DeviceState::other_used_bytes`] + the sum over its living processes, and
    /// both of its MIG instances.
    pub fn used_bytes(&self) -> u64 {
        self.other_used_bytes()
            .saturating_add(self.own_process_bytes())
            .saturating_add(self.instance_used_bytes())
    }

    /// In use on the MIG instances of this card.
    pub(crate) fn instance_used_bytes(&self) -> u64 {
        self.instances()
            .map(|instance| instance.used_bytes())
            .fold(0, u64::saturating_add)
    }

    /// total - reserved - used, not below 0.
    pub fn free_bytes(&self) -> u64 {
        self.total_bytes()
            .saturating_sub(self.reserved_bytes())
            .saturating_sub(self.used_bytes())
    }

    /// The MIG instances of this card.
    pub fn instances(&self) -> impl Iterator<Item = DeviceState> + '_ {
        let own = self.index + 1;
        let devices = self
            .gpu
            .layout()
            .devices
            .iter()
            .take(self.gpu.device_count())
            .enumerate();
        devices
            .filter(move |(_, device)| device.parent.load(SeqCst) as usize == own)
            .map(|(index, _)| DeviceState::new(self.gpu.clone(), index))
    }

    fn own_process_bytes(&self) -> u64 {
        self.gpu
            .processes(self.index)
            .map(|process| process.used_bytes)
            .fold(0, u64::saturating_add)
    }
}
