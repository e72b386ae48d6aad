//! Faults on request: what a test switches on, and what the driver library asks at each call.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::calls::Function;
use crate::error::GpuError;
use crate::gpu::Gpu;
use crate::layout::{ClaimState, ClaimWord, FAULTS, FaultSlot};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// The call does nothing and returns this `nvmlReturn_t`, known or not.
    Code(u32),
    /// The call sleeps first (to the microsecond).
    Delay(Duration),
    /// The call burns processor time first (to the microsecond).
    Busy(Duration),
    /// The call does not return until the fault is taken back.
    Hang,
    /// Numbers are answered as all ones, which is how NVML writes "no value".
    AllOnes,
    /// The memory of each listed process is not available (`NVML_VALUE_NOT_AVAILABLE`).
    UnknownProcessMemory,
    /// Each call for a process list, with a buffer or without, finds this many processes more than the one before it.
    /// They have pids beyond any real one.
    GrowingList(u32),
    /// A list asked for with a null buffer answers SUCCESS instead of INSUFFICIENT_SIZE, with the count; process
    /// utilisation without news answers SUCCESS and no sample instead of NOT_FOUND.
    CountIsSuccess,
    /// Process lists are written as records of 32 bytes under the name of the version with 24, as drivers 535.43 to
    /// 535.86 did, but only as many as fit into the caller's buffer.
    LongRecords,
    /// Process utilisation answers samples of an hour ago again, whatever stamp the caller has seen.
    StaleStamps,
}

/// A fault to inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault<'a> {
    /// Exported name such as `nvmlDeviceGetMemoryInfo_v2`, or `*` for every function.
    pub function: &'a str,
    /// Only about this device; calls that are about no device then do not match.
    pub device: Option<usize>,
    /// What goes wrong.
    pub kind: FaultKind,
    /// How many matching calls go well first.
    pub after_calls: u64,
    /// How often it happens; `None` for always.
    pub times: Option<u64>,
    /// From then on only each n-th matching call fails; 0 and 1 mean each.
    pub every: u64,
}

impl<'a> Fault<'a> {
    /// From now on, at every call of this function, on every device.
    pub fn new(function: &'a str, kind: FaultKind) -> Self {
        Fault {
            function,
            device: None,
            kind,
            after_calls: 0,
            times: None,
            every: 1,
        }
    }
}

/// An injected fault, to take it back alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultId {
    index: usize,
    claim: ClaimWord,
}

/// All that goes wrong with one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fired {
    /// See [`FaultKind::Code`].
    pub code: Option<u32>,
    /// See [`FaultKind::Delay`].
    pub delay: Duration,
    /// See [`FaultKind::Busy`].
    pub busy: Duration,
    /// See [`FaultKind::Hang`]: the fault whose end to wait for.
    pub hang: Option<FaultId>,
    /// See [`FaultKind::AllOnes`].
    pub all_ones: bool,
    /// See [`FaultKind::UnknownProcessMemory`].
    pub unknown_process_memory: bool,
    /// See [`FaultKind::GrowingList`]: how many processes have come into being so far.
    pub grown: u32,
    /// See [`FaultKind::CountIsSuccess`].
    pub count_is_success: bool,
    /// See [`FaultKind::LongRecords`].
    pub long_records: bool,
    /// See [`FaultKind::StaleStamps`].
    pub stale_stamps: bool,
}

const EVERY_FUNCTION: &str = "*";

impl Gpu {
    /// Switches a fault on.
    ///
    /// # Errors
    /// When there is no such device, or too many faults are on at once.
    pub fn inject(&self, fault: Fault<'_>) -> Result<FaultId, GpuError> {
        if let Some(index) = fault.device.filter(|&index| index >= self.device_count()) {
            return Err(GpuError::NoDevice {
                index,
                count: self.device_count(),
            });
        }
        let (kind, value) = encode(fault.kind);
        let function = if fault.function == EVERY_FUNCTION {
            0
        } else {
            Function::new(fault.function).hash()
        };
        for (index, slot) in self.layout().faults.iter().enumerate() {
            let seen = slot.claim.load();
            if seen.state() != ClaimState::Free {
                continue;
            }
            let Some(filling) = slot.claim.fill(seen, std::process::id()) else {
                continue;
            };
            slot.function.store(function, SeqCst);
            slot.device.store(
                fault
                    .device
                    .map_or(0, |device| u32::try_from(device + 1).unwrap_or(0)),
                SeqCst,
            );
            slot.kind.store(kind, SeqCst);
            slot.value.store(value, SeqCst);
            slot.after_calls.store(fault.after_calls, SeqCst);
            slot.times.store(fault.times.unwrap_or(u64::MAX), SeqCst);
            slot.every.store(fault.every.max(1), SeqCst);
            slot.seen.store(0, SeqCst);
            self.layout()
                .faults_reached
                .fetch_max(u32::try_from(index + 1).unwrap_or_default(), SeqCst);
            if let Some(claim) = slot.claim.publish(filling) {
                return Ok(FaultId { index, claim });
            }
        }
        Err(GpuError::Full {
            what: "faults",
            limit: FAULTS,
        })
    }

    /// Takes one fault back; a call that hangs in it goes on.
    pub fn withdraw(&self, fault: FaultId) {
        self.layout().faults[fault.index].claim.free(fault.claim);
        self.ring();
    }

    /// Takes all faults back; calls that hang go on.
    pub fn clear_faults(&self) {
        for slot in &self.layout().faults {
            let seen = slot.claim.load();
            if seen.state() != ClaimState::Free {
                slot.claim.free(seen);
            }
        }
        self.ring();
    }

    /// Whether an injected fault has not been taken back yet.
    pub fn is_on(&self, fault: FaultId) -> bool {
        self.layout().faults[fault.index].claim.load() == fault.claim
    }

    /// For the driver library: what goes wrong with this call of `function` about `device`.
    pub fn faults(&self, function: Function, device: Option<usize>) -> Fired {
        let mut fired = Fired::default();
        let reached = (self.layout().faults_reached.load(SeqCst) as usize).min(FAULTS);
        for (index, slot) in self.layout().faults[..reached].iter().enumerate() {
            if let Some((claim, kind, nth)) = fires(slot, function, device) {
                fired.add(kind, nth, FaultId { index, claim });
            }
        }
        fired
    }
}

/// Whether this fault meets the call, with how many times it did before.
fn fires(slot: &FaultSlot, function: Function, device: Option<usize>) -> Option<(ClaimWord, FaultKind, u64)> {
    let claim = slot.claim.load();
    if claim.state() != ClaimState::Live {
        return None;
    }
    let of_function = slot.function.load(SeqCst);
    let of_device = (slot.device.load(SeqCst) as usize).checked_sub(1);
    if (of_function != 0 && of_function != function.hash()) || (of_device.is_some() && of_device != device) {
        return None;
    }
    let nth_call = slot
        .seen
        .fetch_add(1, SeqCst)
        .checked_sub(slot.after_calls.load(SeqCst))?;
    let every = slot.every.load(SeqCst).max(1);
    let nth = nth_call / every;
    let kind = decode(slot.kind.load(SeqCst), slot.value.load(SeqCst))?;
    let now = nth_call % every == 0 && nth < slot.times.load(SeqCst) && slot.claim.load() == claim;
    now.then_some((claim, kind, nth))
}

impl Fired {
    fn add(&mut self, kind: FaultKind, nth: u64, id: FaultId) {
        match kind {
            FaultKind::Code(code) => self.code = Some(code),
            FaultKind::Delay(time) => self.delay += time,
            FaultKind::Busy(time) => self.busy += time,
            FaultKind::Hang => self.hang = Some(id),
            FaultKind::AllOnes => self.all_ones = true,
            FaultKind::UnknownProcessMemory => self.unknown_process_memory = true,
            FaultKind::GrowingList(by) => {
                let calls = u32::try_from(nth + 1).unwrap_or(u32::MAX);
                self.grown = self.grown.saturating_add(by.saturating_mul(calls));
            }
            FaultKind::CountIsSuccess => self.count_is_success = true,
            FaultKind::LongRecords => self.long_records = true,
            FaultKind::StaleStamps => self.stale_stamps = true,
        }
    }
}

fn encode(kind: FaultKind) -> (u32, u64) {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    match kind {
        FaultKind::Code(code) => (1, code.into()),
        FaultKind::Delay(time) => (2, micros(time)),
        FaultKind::Busy(time) => (3, micros(time)),
        FaultKind::Hang => (4, 0),
        FaultKind::AllOnes => (5, 0),
        FaultKind::UnknownProcessMemory => (6, 0),
        FaultKind::GrowingList(by) => (7, by.into()),
        FaultKind::CountIsSuccess => (8, 0),
        FaultKind::LongRecords => (9, 0),
        FaultKind::StaleStamps => (10, 0),
    }
}

fn decode(kind: u32, value: u64) -> Option<FaultKind> {
    let number = u32::try_from(value).unwrap_or(u32::MAX);
    Some(match kind {
        1 => FaultKind::Code(number),
        2 => FaultKind::Delay(Duration::from_micros(value)),
        3 => FaultKind::Busy(Duration::from_micros(value)),
        4 => FaultKind::Hang,
        5 => FaultKind::AllOnes,
        6 => FaultKind::UnknownProcessMemory,
        7 => FaultKind::GrowingList(number),
        8 => FaultKind::CountIsSuccess,
        9 => FaultKind::LongRecords,
        10 => FaultKind::StaleStamps,
        _ => return None,
    })
}
