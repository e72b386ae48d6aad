//! Processes on a device and the memory they take.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::alive::{Round, started};
use crate::error::GpuError;
use crate::gpu::Gpu;
use crate::layout::{ClaimState, ClaimWord, SLOTS, Slot};

/// What a process does on a device, and so in which of the driver's lists it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// CUDA.
    Compute = 1,
    /// Graphics.
    Graphics = 2,
    /// CUDA through the multi-process service.
    Mps = 4,
}

/// The memory asked for is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("out of memory on the simulated GPU: {asked} more bytes asked for, {free} free")]
pub struct OutOfMemory {
    /// How much more was asked for, in bytes.
    pub asked: u64,
    /// What was free, in bytes.
    pub free: u64,
}

/// A process as the driver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessView {
    /// Its pid.
    pub pid: u32,
    /// Memory it has.
    pub used_bytes: u64,
    /// Percent of the multiprocessors' time.
    pub sm_busy_percent: u32,
    /// Percent of the memory's time.
    pub memory_busy_percent: u32,
    contexts: u32,
}

impl ProcessView {
    /// Whether it stands in the list of this context.
    pub fn has(&self, context: Context) -> bool {
        self.contexts & context as u32 != 0
    }
}

/// A process's place on one device; dropping it gives back place and memory.
#[derive(Debug)]
pub struct Process {
    gpu: Gpu,
    index: usize,
    claim: ClaimWord,
}

/// How often a request waits for another one that is just being decided, and how long.
const ATTEMPTS: u32 = 200;
const PAUSE: Duration = Duration::from_micros(50);

impl Gpu {
    /// Gives a running process a place on a device, without memory, in the list of compute processes.
    ///
    /// # Errors
    /// When there is no such device or process, or no place is left.
    pub fn attach(&self, device: usize, pid: u32) -> Result<Process, GpuError> {
        let started_ticks = started(pid).ok_or(GpuError::NoProcess { pid })?;
        self.take_slot(device, pid, started_ticks, 0)
    }

    /// Gives a pid that need not exist (0 and `u32::MAX` included) a place and memory, whatever is free. It counts
    /// until the returned place is dropped, or for ever after [`Process::leave`].
    ///
    /// # Errors
    /// When there is no such device, or no place is left.
    pub fn attach_phantom(&self, device: usize, pid: u32, used_bytes: u64) -> Result<Process, GpuError> {
        self.take_slot(device, pid, 0, used_bytes)
    }

    /// The living processes on one device; those on its MIG instances are not among them.
    pub fn processes(&self, device: usize) -> impl Iterator<Item = ProcessView> + use<> {
        let mut alive = self.alive.round();
        let views = self
            .reached()
            .iter()
            .filter_map(|slot| view(slot, device, &mut alive));
        // Collected, so that nobody else waits for the round while the caller works on it.
        views.map(|(_, view)| view).collect::<Vec<_>>().into_iter()
    }

    fn take_slot(
        &self,
        device: usize,
        pid: u32,
        started_ticks: u64,
        used_bytes: u64,
    ) -> Result<Process, GpuError> {
        if device >= self.device_count() {
            return Err(GpuError::NoDevice {
                index: device,
                count: self.device_count(),
            });
        }
        self.sweep();
        let own = std::process::id();
        let taken = self.layout().slots.iter().enumerate().find_map(|(index, slot)| {
            let seen = slot.claim.load();
            let filling = (seen.state() == ClaimState::Free).then(|| slot.claim.fill(seen, own))??;
            Some((index, slot, filling))
        });
        let full = GpuError::Full {
            what: "processes",
            limit: SLOTS,
        };
        let Some((index, slot, filling)) = taken else {
            return Err(full);
        };
        slot.pid.store(pid, SeqCst);
        slot.device
            .store(u32::try_from(device).unwrap_or_default(), SeqCst);
        slot.started_ticks.store(started_ticks, SeqCst);
        slot.used_bytes.store(used_bytes, SeqCst);
        slot.asked_bytes.store(0, SeqCst);
        slot.sm_busy_percent.store(0, SeqCst);
        slot.memory_busy_percent.store(0, SeqCst);
        slot.contexts.store(Context::Compute as u32, SeqCst);
        self.layout()
            .slots_reached
            .fetch_max(u32::try_from(index + 1).unwrap_or_default(), SeqCst);
        let claim = slot.claim.publish(filling).ok_or(full)?;
        Ok(Process {
            gpu: self.clone(),
            index,
            claim,
        })
    }

    /// Frees the slots of the dead, those that died while they filled one included.
    fn sweep(&self) {
        for slot in self.reached() {
            let seen = slot.claim.load();
            let started_ticks = slot.started_ticks.load(SeqCst);
            let dead = match seen.state() {
                ClaimState::Free => false,
                ClaimState::Filling(pid) => started(pid).is_none(),
                ClaimState::Live => {
                    started_ticks != 0 && started(slot.pid.load(SeqCst)) != Some(started_ticks)
                }
            };
            if dead {
                slot.claim.free(seen);
            }
        }
    }

    fn reached(&self) -> &[Slot] {
        let reached = (self.layout().slots_reached.load(SeqCst) as usize).min(SLOTS);
        &self.layout().slots[..reached]
    }

    /// What is taken on a device when every undecided request but that of slot `but` is counted, and when none is.
    fn taken(&self, device: usize, but: usize) -> (u64, u64) {
        let (mut asked, mut granted) = (0_u64, 0_u64);
        let mut alive = self.alive.round();
        for (index, slot) in self.reached().iter().enumerate() {
            if let Some((asks, view)) = view(slot, device, &mut alive).filter(|_| index != but) {
                asked = asked.saturating_add(asks.max(view.used_bytes));
                granted = granted.saturating_add(view.used_bytes);
            }
        }
        (asked, granted)
    }
}

/// A slot's content and what it asks for, if it is live, of this device, and its process runs.
fn view(slot: &Slot, device: usize, alive: &mut Round<'_>) -> Option<(u64, ProcessView)> {
    let claim = slot.claim.load();
    if claim.state() != ClaimState::Live || slot.device.load(SeqCst) as usize != device {
        return None;
    }
    let started_ticks = slot.started_ticks.load(SeqCst);
    let asked_bytes = slot.asked_bytes.load(SeqCst);
    let view = ProcessView {
        pid: slot.pid.load(SeqCst),
        used_bytes: slot.used_bytes.load(SeqCst),
        sm_busy_percent: slot.sm_busy_percent.load(SeqCst),
        memory_busy_percent: slot.memory_busy_percent.load(SeqCst),
        contexts: slot.contexts.load(SeqCst),
    };
    let same = slot.claim.load() == claim;
    (same && (started_ticks == 0 || alive.lives(view.pid, started_ticks))).then_some((asked_bytes, view))
}

impl Process {
    fn slot(&self) -> &Slot {
        &self.gpu.layout().slots[self.index]
    }

    /// Whether this place is still the one that was attached: another may have it once the process is dead.
    fn own(&self) -> Option<&Slot> {
        Some(self.slot()).filter(|slot| slot.claim.load() == self.claim)
    }

    /// Memory that it has.
    pub fn used_bytes(&self) -> u64 {
        self.own().map_or(0, |slot| slot.used_bytes.load(SeqCst))
    }

    /// Changes its memory to `bytes`, or leaves it as it is when the device has not that much. Less is always granted.
    ///
    /// # Errors
    /// When what it asks for, what the driver reserves, what others have and what is used by nobody known are more
    /// than the device's total.
    pub fn resize(&self, bytes: u64) -> Result<(), OutOfMemory> {
        let Some(slot) = self.own() else { return Ok(()) };
        let had = slot.used_bytes.load(SeqCst);
        if bytes <= had {
            slot.used_bytes.store(bytes, SeqCst);
            return Ok(());
        }
        let mut refused = OutOfMemory {
            asked: bytes - had,
            free: 0,
        };
        for attempt in 1..=ATTEMPTS {
            // First announce, then count: of two who ask at once at least one sees the other, so both together never
            // get more than there is. Who is killed here asks for nothing any more.
            slot.asked_bytes.store(bytes, SeqCst);
            let room = self.room();
            if bytes <= room.of_all_requests {
                slot.used_bytes.store(bytes, SeqCst);
                slot.asked_bytes.store(0, SeqCst);
                return Ok(());
            }
            slot.asked_bytes.store(0, SeqCst);
            refused.free = room.of_granted.saturating_sub(had);
            if bytes > room.of_granted {
                break;
            }
            // Only an undecided request of somebody else stands in the way; unequal pauses let one of them through.
            let turn = u32::try_from(self.index % 7).unwrap_or_default() + attempt % 3 + 1;
            std::thread::sleep(PAUSE * turn);
        }
        Err(refused)
    }

    /// How large this process may be, with and without what others ask for at this moment.
    fn room(&self) -> Room {
        let index = self.slot().device.load(SeqCst) as usize;
        let Some(device) = self.gpu.find(index) else {
            return Room {
                of_all_requests: 0,
                of_granted: 0,
            };
        };
        let usable = device.total_bytes().saturating_sub(device.reserved_bytes());
        let fixed = device
            .other_used_bytes()
            .saturating_add(device.instance_used_bytes());
        // A process that has just died must not be in the way of the one that takes its place.
        self.gpu.alive.forget();
        let (asked, granted) = self.gpu.taken(index, self.index);
        Room {
            of_all_requests: usable.saturating_sub(fixed).saturating_sub(asked),
            of_granted: usable.saturating_sub(fixed).saturating_sub(granted),
        }
    }

    /// Sets its share of the multiprocessors' time; values above 100 are answered as they are.
    pub fn set_sm_busy_percent(&self, percent: u32) {
        if let Some(slot) = self.own() {
            slot.sm_busy_percent.store(percent, SeqCst);
        }
    }

    /// Sets its share of the memory's time; values above 100 are answered as they are.
    pub fn set_memory_busy_percent(&self, percent: u32) {
        if let Some(slot) = self.own() {
            slot.memory_busy_percent.store(percent, SeqCst);
        }
    }

    /// Puts it into exactly these lists of the driver.
    pub fn set_contexts(&self, contexts: &[Context]) {
        if let Some(slot) = self.own() {
            slot.contexts.store(
                contexts.iter().fold(0, |bits, &context| bits | context as u32),
                SeqCst,
            );
        }
    }

    /// Leaves the place taken when this is dropped: a phantom then stays as long as the state file.
    pub fn leave(self) {
        std::mem::forget(self);
    }
}

struct Room {
    of_all_requests: u64,
    of_granted: u64,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.slot().claim.free(self.claim);
    }
}
