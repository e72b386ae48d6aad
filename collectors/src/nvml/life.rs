//! One driver life: from a start of the driver to the moment in which its handles are no longer good.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use plimsoll_trace::{DeviceId, Record, Stamp};

use super::activity::{Abandoned, Pace};
use super::gpu::{Caches, Dead, Gpu};
use super::ledger::Spot;
use super::opening::open_all;
use super::refusal::{Missing, Refusal};
use super::slow::SlowLane;
use super::worker::World;
use super::xid::Xids;

/// Why a driver life ended.
#[derive(Debug)]
pub(super) enum End {
    /// Nobody wants samples any more.
    Closed,
    /// There is nothing to sample.
    Missing(Missing),
    /// A new start is needed.
    Again(Again),
    /// This thread was given up while it hung in this device; now the device answers.
    Recovered(Spot),
}

/// What the next driver life takes over from this one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Again {
    /// A tick that was not answered yet.
    pub(super) tick: Option<Stamp>,
    /// Every device was gone at once.
    pub(super) reloaded: bool,
}

/// Why [`Life`] cannot go on.
enum Stop {
    End(End),
    Abandoned(Abandoned),
}

impl From<Abandoned> for Stop {
    fn from(abandoned: Abandoned) -> Self {
        Self::Abandoned(abandoned)
    }
}

/// Every lost device is asked for in the present driver life, which costs the others nothing. A real loss is only healed
/// by a new start, and too many of those have hung drivers: so at tries 1, 2, 4, 8, …, and at every 30th.
const fn needs_new_start(tries: u32) -> bool {
    tries.is_power_of_two() || tries.is_multiple_of(30)
}

/// Samples the driver for as long as its handles are good.
pub(super) fn live(
    nvml: &Nvml,
    world: &World,
    caches: &mut Caches,
    inbox: &Receiver<Stamp>,
    again: Option<Again>,
) -> End {
    let driver = world
        .activity
        .at_driver(Pace::Sample, || nvml.sys_driver_version().ok());
    let stop = match Life::open(nvml, world, driver.as_deref(), again) {
        Ok(mut life) => {
            let ran = life.run(caches, inbox, again.and_then(|again| again.tick));
            // Its event set is given back to the driver, which may hang like any other call.
            world.activity.at_driver(Pace::Start, || drop(life));
            match ran {
                Ok(end) => return end,
                Err(stop) => stop,
            }
        }
        Err(stop) => stop,
    };
    match stop {
        Stop::End(end) => end,
        Stop::Abandoned(Abandoned { index }) => {
            probe(nvml, world, driver.as_deref(), inbox, world.spot(index))
        }
    }
}

struct Life<'n> {
    nvml: &'n Nvml,
    world: &'n World,
    driver: Option<&'n str>,
    count: u32,
    gpus: Vec<Gpu<'n>>,
    /// Devices that were lost in this life. They are kept to know whose an Xid is.
    lost: Vec<Gpu<'n>>,
    xids: Option<Xids<'n>>,
    slow: SlowLane,
    /// Why this life began, until its first tick.
    fresh: Option<Again>,
}

impl<'n> Life<'n> {
    fn open(
        nvml: &'n Nvml,
        world: &'n World,
        driver: Option<&'n str>,
        again: Option<Again>,
    ) -> Result<Self, Stop> {
        let activity = &world.activity;
        let count = match activity.at_driver(Pace::Sample, || nvml.device_count()) {
            Ok(0) => return Err(Stop::End(End::Missing(Missing::NoDevice))),
            Ok(count) => count,
            Err(error) => return Err(Stop::End(End::Missing(Missing::of(&error)))),
        };
        let xids = activity.at_driver(Pace::Sample, || Xids::open(nvml));
        let (gpus, silent) = open_all(nvml, world, driver, count, xids.as_ref())?;
        let present: Vec<(DeviceId, u32)> = gpus.iter().map(|gpu| (gpu.id().clone(), gpu.index())).collect();
        let mut ledger = world.ledger();
        ledger.driver_answers();
        ledger.found(&present, silent);
        drop(ledger);
        Ok(Self {
            nvml,
            world,
            driver,
            count,
            gpus,
            lost: Vec::new(),
            xids,
            slow: SlowLane::default(),
            fresh: again,
        })
    }

    fn run(
        &mut self,
        caches: &mut Caches,
        inbox: &Receiver<Stamp>,
        mut waiting: Option<Stamp>,
    ) -> Result<End, Stop> {
        loop {
            let next = match waiting.take() {
                Some(at) => Some(at),
                None => self.next_tick(inbox)?,
            };
            let Some(at) = next else { return Ok(End::Closed) };
            let restart = self.tick(at, caches)?;
            if restart {
                return Ok(End::Again(Again {
                    tick: None,
                    reloaded: false,
                }));
            }
            self.slow.begin(at, self.world.options.slow_lane, self.gpus.len());
        }
    }

    /// Waits for the next tick, on the slow lane as long as there is something to do there. `None` when there will be none.
    fn next_tick(&mut self, inbox: &Receiver<Stamp>) -> Result<Option<Stamp>, Stop> {
        loop {
            if self.slow.is_done() {
                return Ok(inbox.recv().ok());
            }
            match inbox.try_recv() {
                Ok(at) => return Ok(Some(at)),
                Err(TryRecvError::Disconnected) => return Ok(None),
                Err(TryRecvError::Empty) => {}
            }
            let Some(step) = self.slow.next() else { continue };
            let Some(gpu) = self.gpus.get_mut(step.place()) else {
                continue;
            };
            let answer = self
                .world
                .at_device(gpu.index(), Some(gpu.id()), Pace::Sample, || {
                    step.ask(gpu.device())
                })?;
            if let Some(throughput) = self.slow.answered(step, answer) {
                gpu.keep(throughput);
            }
        }
    }

    /// Answers one tick. Returns whether the driver should be started anew to get lost devices back.
    fn tick(&mut self, at: Stamp, caches: &mut Caches) -> Result<bool, Stop> {
        let after_reload = self.fresh.take().is_some_and(|again| again.reloaded);
        self.check_count(at, caches)?;
        self.world.begin_batch(at);

        let mut dead: Vec<(DeviceId, String)> = Vec::new();
        for gpu in &mut self.gpus {
            if let Err(Dead(why)) = read(gpu, self.world, at, caches)? {
                dead.push((gpu.id().clone(), why));
            }
        }
        let answered = self.gpus.len() - dead.len();
        if answered == 0 && !dead.is_empty() && !after_reload {
            return Err(reload(at));
        }
        if answered > 0 && after_reload {
            self.world.ledger().driver_reloaded();
        }
        if !dead.is_empty() {
            self.slow.abort();
            let is_dead = |gpu: &mut Gpu<'_>| dead.iter().any(|(id, _)| id == gpu.id());
            self.lost.extend(self.gpus.extract_if(.., is_dead));
            let mut ledger = self.world.ledger();
            for (id, why) in &dead {
                ledger.lost(id, "lost", &format!("does not answer any more ({why})"));
            }
        }
        let restart = self.ask_for_lost(at, caches)?;

        let mut records = Vec::new();
        if let Some(xids) = &self.xids {
            let (events, outcome) = self
                .world
                .activity
                .at_driver(Pace::Sample, || xids.fetch(&self.gpus, &self.lost));
            records.extend(events.into_iter().map(Record::Event));
            if let Err(error) = outcome
                && matches!(Refusal::of(&error), Refusal::Dead | Refusal::Passing)
            {
                caches.tally.add("xid_failed", 1);
            }
        }
        let (hung, lost) = self.world.ledger().absent();
        caches.tally.add("device_hung", hung);
        caches.tally.add("device_lost", lost);
        caches.identities.prune(at);
        self.world.deliver_batch(records, &mut caches.tally);
        Ok(restart)
    }

    /// The driver's own count: it changes when devices come or go, and it is refused when the driver is gone.
    fn check_count(&self, at: Stamp, caches: &mut Caches) -> Result<(), Stop> {
        match self
            .world
            .activity
            .at_driver(Pace::Sample, || self.nvml.device_count())
        {
            Ok(count) if count == self.count => {}
            Ok(_) => {
                return Err(Stop::End(End::Again(Again {
                    tick: Some(at),
                    reloaded: false,
                })));
            }
            Err(
                NvmlError::GpuLost
                | NvmlError::Uninitialized
                | NvmlError::DriverNotLoaded
                | NvmlError::LibRmVersionMismatch,
            ) => return Err(reload(at)),
            // Whether anything is wrong will show when the devices are asked.
            Err(_) => caches.tally.add("count_failed", 1),
        }
        self.world.ledger().driver_answers();
        Ok(())
    }

    /// Asks for lost devices if it is time to. Returns whether a new start of the driver is needed.
    fn ask_for_lost(&mut self, at: Stamp, caches: &mut Caches) -> Result<bool, Stop> {
        let Some(due) = self.world.ledger().due(at, &self.world.options) else {
            return Ok(false);
        };
        let mut missing = due.devices.is_empty();
        for (id, former_index) in due.devices {
            let (nvml, driver) = (self.nvml, self.driver);
            let found = self.world.at_device(former_index, Some(&id), Pace::Sample, || {
                let device: Device<'n> = nvml.device_by_uuid(&*id)?;
                let index = device.index().unwrap_or(former_index);
                Gpu::open(device, index, driver, None)
            })?;
            let back = match found {
                Ok(mut gpu) => match read(&mut gpu, self.world, at, caches)? {
                    Ok(()) => {
                        if let Some(xids) = &self.xids {
                            self.world
                                .at_device(gpu.index(), Some(gpu.id()), Pace::Sample, || xids.watch(&gpu))?;
                        }
                        self.lost.retain(|lost| lost.id() != gpu.id());
                        self.gpus.push(gpu);
                        true
                    }
                    Err(Dead(_)) => false,
                },
                Err(_) => false,
            };
            missing |= !back;
        }
        Ok(missing && needs_new_start(due.tries))
    }
}

fn reload(at: Stamp) -> Stop {
    Stop::End(End::Again(Again {
        tick: Some(at),
        reloaded: true,
    }))
}

/// Reads one device into the batch.
fn read(
    gpu: &mut Gpu<'_>,
    world: &World,
    at: Stamp,
    caches: &mut Caches,
) -> Result<Result<(), Dead>, Abandoned> {
    let mut readings = Vec::with_capacity(1);
    let (index, id) = (gpu.index(), gpu.id().clone());
    let answer = world.at_device(index, Some(&id), Pace::Sample, || {
        gpu.read(at, caches, &mut readings)
    })?;
    if answer.is_ok() {
        world.add_to_batch(index, readings);
    }
    Ok(answer)
}

/// This thread was given up, because a call to this device did not return in time. Now it did. The device goes back to the
/// others once it answers everything well within that time; until then only this thread waits for it.
fn probe(nvml: &Nvml, world: &World, driver: Option<&str>, inbox: &Receiver<Stamp>, spot: Spot) -> End {
    let mut caches = Caches::default();
    let index = spot.index;
    for failures in 0.. {
        let began = Instant::now();
        let device = match &spot.id {
            Some(id) => nvml.device_by_uuid(&**id),
            None => nvml.device_by_index(index),
        };
        let answer = device.and_then(|device| Gpu::open(device, index, driver, None));
        if let Ok(mut gpu) = answer {
            // Dead or alive, it answers: what it is worth is for the thread that samples to find out.
            let answered = gpu.read(Stamp::default(), &mut caches, &mut Vec::new());
            tracing::debug!(index, alive = answered.is_ok(), "a hung device answers again");
        }
        if began.elapsed() <= world.options.watchdog / 4 {
            break;
        }
        if !matches!(
            inbox.recv_timeout(world.options.pause(failures)),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        ) {
            return End::Closed;
        }
    }
    End::Recovered(spot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_starts_become_rare_but_never_end() {
        let tries: Vec<u32> = (1..100).filter(|tries| needs_new_start(*tries)).collect();
        assert_eq!(tries, [1, 2, 4, 8, 16, 30, 32, 60, 64, 90]);
    }
}
