//! What outlives a driver life: which devices there are, which of them are missing, and what has been told about it.
//!
//! Sampling threads and whoever ticks them share it. It is locked for a few lines at a time, never across a call to
//! the driver.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use plimsoll_trace::units::show_duration;
use plimsoll_trace::{DeviceId, DeviceInfo, DeviceSample, Event, EventKind, Record, Stamp};
use serde_json::json;

use super::NvmlOptions;
use super::memory::Generations;
use super::refusal::Missing;
use super::throttle::Throttle;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Why there is no driver, as it was told; `None` while there is one.
    missing: Option<Missing>,
    devices: BTreeMap<DeviceId, Known>,
    /// Devices that the driver counts, but that never told who they are.
    faceless: usize,
    /// Where a thread hangs. Nobody touches it until it returns.
    hung: Vec<Spot>,
    retry: Retry,
    /// With which generation of the memory call each device is read.
    pub(super) generations: Generations,
    /// Ticks that found the thread still busy.
    pub(super) missed_ticks: u64,
    /// What is to be told with the next batch.
    news: Vec<Event>,
}

/// A device as a thread asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    /// The driver's index, which moves on to another device when devices come or go.
    pub(super) index: u32,
    /// `None` until the device has told who it is.
    pub(super) id: Option<DeviceId>,
}

impl Spot {
    /// Whether both mean the same device: the index counts only where nothing better is known.
    fn is(&self, other: &Self) -> bool {
        self.id == other.id && (self.id.is_some() || self.index == other.index)
    }
}

#[derive(Debug)]
struct Known {
    index: u32,
    /// The GPU that this is an instance of. Instances come and go with their GPU's list and are never lost.
    parent: Option<DeviceId>,
    answers: bool,
    told: Option<DeviceInfo>,
    throttle: Throttle,
}

/// How an index is to be treated at a start of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Caution {
    /// It is asked who is there.
    None,
    /// A thread hangs in the device that was there: it is asked only when devices have moved.
    Last,
    /// A thread hangs in whatever is there.
    Never,
}

/// When the lost devices are asked for again.
#[derive(Debug, Default)]
struct Retry {
    tries: u32,
    next: Option<Stamp>,
}

/// It is time to ask for lost devices.
#[derive(Debug)]
pub(super) struct Due {
    /// How often, this time included.
    pub(super) tries: u32,
    pub(super) devices: Vec<(DeviceId, u32)>,
}

impl Ledger {
    /// There is no driver. Told once for each reason.
    pub(super) fn driver_missing(&mut self, missing: Missing, library: &Path) {
        if self.missing.as_ref().map(Missing::word) == Some(missing.word()) {
            return;
        }
        let message = missing.message(library);
        tracing::warn!(reason = missing.word(), "{message}");
        let detail = json!({ "reason": missing.word(), "library": library.display().to_string() });
        self.news
            .push(Event::new(EventKind::DriverMissing, message).with_detail(detail));
        self.missing = Some(missing);
    }

    /// There is a driver, and it has devices.
    pub(super) fn driver_answers(&mut self) {
        if let Some(missing) = self.missing.take() {
            let message = "the NVIDIA driver answers again";
            tracing::info!(after = missing.word(), "{message}");
            self.news.push(
                Event::new(EventKind::DriverBack, message).with_detail(json!({ "after": missing.word() })),
            );
        }
    }

    /// Every device was gone at once, and a new start of the driver brought them back.
    pub(super) fn driver_reloaded(&mut self) {
        let message = "every device stopped answering, as when the driver is reloaded; it was started anew and \
                       sampling goes on";
        tracing::warn!("{message}");
        let detail = json!({ "reason": "driver_reloaded" });
        self.news
            .push(Event::new(EventKind::SamplingGap, message).with_detail(detail));
    }

    /// What a start of the driver found: the devices that told who they are, with their indexes, and how many did not.
    pub(super) fn found(&mut self, present: &[(DeviceId, u32)], silent: usize) {
        for (id, index) in present {
            self.devices
                .entry(id.clone())
                .and_modify(|known| known.index = *index)
                .or_insert_with(|| Known::new(*index, None));
        }
        let absent: Vec<DeviceId> = self
            .gpus()
            .filter(|(id, _)| !self.is_hung(id) && !present.iter().any(|(other, _)| other == *id))
            .map(|(id, _)| id.clone())
            .collect();
        // Those that do not tell who they are may well be those that are missing.
        let faceless = silent.saturating_sub(absent.len());
        for id in absent {
            self.lost(&id, "not_listed", "is not shown by the driver any more");
        }
        if faceless > self.faceless {
            let message = format!("{faceless} device(s) that the driver counts do not answer");
            tracing::warn!("{message}");
            let detail = json!({ "reason": "no_answer", "count": faceless });
            self.news
                .push(Event::new(EventKind::DeviceLost, message).with_detail(detail));
        }
        self.faceless = faceless;
    }

    /// A device gave no answer to anything. Told once.
    pub(super) fn lost(&mut self, id: &DeviceId, reason: &'static str, why: &str) {
        let Some(known) = self.devices.get_mut(id).filter(|known| known.answers) else {
            return;
        };
        known.answers = false;
        self.retry = Retry::default();
        let name = known
            .told
            .as_ref()
            .and_then(|info| info.name.as_deref())
            .unwrap_or("device");
        let message = format!("{name} {id} {why}; there are no samples of it until it answers again");
        tracing::warn!(device = %id, reason, "{message}");
        let event = Event::new(EventKind::DeviceLost, message).with_detail(json!({ "reason": reason }));
        self.news.push(event.on_device(id.clone()));
    }

    /// A call to a device has not returned for `lasted`.
    pub(super) fn hangs(&mut self, spot: &Spot, lasted: Duration) {
        let why = format!("has not answered a call for {}", show_duration(lasted));
        match self.known_id(spot) {
            Some(id) => self.lost(&id, "hung", &why),
            None if self.faceless == 0 => {
                self.faceless = 1;
                let message = format!("the device at index {} {why}", spot.index);
                tracing::warn!("{message}");
                let detail = json!({ "reason": "hung", "index": spot.index });
                self.news
                    .push(Event::new(EventKind::DeviceLost, message).with_detail(detail));
            }
            None => {}
        }
    }

    /// From now on nobody touches this device, because a thread hangs in it.
    pub(super) fn avoid(&mut self, spot: Spot) {
        self.hung.push(spot);
    }

    /// The thread that hung in this device returned, and the device answers in time.
    pub(super) fn released(&mut self, spot: &Spot) {
        self.hung.retain(|hung| !hung.is(spot));
        if self.known_id(spot).is_none() {
            self.faceless = self.faceless.max(1);
        }
        self.retry = Retry {
            tries: 0,
            next: Some(Stamp::default()),
        };
    }

    /// Whether a thread hangs in this device.
    pub(super) fn is_hung(&self, id: &DeviceId) -> bool {
        self.hung.iter().any(|hung| hung.id.as_ref() == Some(id))
    }

    /// What is to be done with the index at a start of the driver.
    pub(super) fn caution(&self, index: u32) -> Caution {
        let hung = self.hung.iter().filter(|hung| hung.index == index);
        hung.map(|hung| match hung.id {
            Some(_) => Caution::Last,
            None => Caution::Never,
        })
        .max()
        .unwrap_or(Caution::None)
    }

    /// Whether indexes mean other devices than before: then also one at which a thread hangs may. `asked` has who is at
    /// each of the indexes that have been asked.
    pub(super) fn has_moved(&self, asked: &[(DeviceId, u32)]) -> bool {
        let index_of = |id: &DeviceId| asked.iter().find(|(other, _)| other == id).map(|(_, at)| *at);
        let hung = self.hung.iter().filter_map(|hung| hung.id.as_ref());
        let elsewhere = hung.filter_map(index_of).next().is_some();
        elsewhere
            || self
                .gpus()
                .filter(|(id, _)| !self.is_hung(id))
                .any(|(id, known)| index_of(id).is_some_and(|index| index != known.index))
    }

    /// How many devices are lost because a call to them hangs, and how many for another reason.
    pub(super) fn absent(&self) -> (u64, u64) {
        let hung = self.hung.len();
        let lost = self.gpus().filter(|(_, known)| !known.answers).count() + self.faceless;
        (count(hung), count(lost.saturating_sub(hung)))
    }

    /// A sample was read. Adds what is to be told about its device.
    pub(super) fn sampled(
        &mut self,
        info: &DeviceInfo,
        index: u32,
        sample: &DeviceSample,
        at: Stamp,
        records: &mut Vec<Record>,
    ) {
        let id = &info.device;
        let known = self
            .devices
            .entry(id.clone())
            .or_insert_with(|| Known::new(index, info.parent.clone()));
        known.index = index;
        if !std::mem::replace(&mut known.answers, true) {
            let message = format!("{} {id} answers again", info.name.as_deref().unwrap_or("device"));
            tracing::info!(device = %id, "{message}");
            records.push(Record::Event(
                Event::new(EventKind::DeviceBack, message).on_device(id.clone()),
            ));
        }
        if known.told.as_ref() != Some(info) {
            known.told = Some(info.clone());
            records.push(Record::DeviceInfo(info.clone()));
        }
        let Some(reasons) = sample.throttle_reasons else {
            return;
        };
        let begun = known.throttle.observe(reasons, at);
        if !begun.is_empty() {
            let message = format!("{id} lowered its clocks: {}", begun.join(", "));
            let event = Event::new(EventKind::Throttle, message)
                .with_detail(json!({ "reasons": begun, "mask": reasons }))
                .on_device(id.clone());
            records.push(Record::Event(event));
        }
    }

    /// A GPU was read, and these instances of it. The others of it are no more.
    pub(super) fn has_instances(&mut self, gpu: &DeviceId, instances: &[&DeviceId]) {
        let generations = &self.generations;
        self.devices.retain(|id, known| {
            let keep = known.parent.as_ref() != Some(gpu) || instances.contains(&id);
            if !keep {
                generations.forget(id);
            }
            keep
        });
    }

    /// The lost devices, if it is time to ask for them again at `at`.
    pub(super) fn due(&mut self, at: Stamp, options: &NvmlOptions) -> Option<Due> {
        let devices: Vec<(DeviceId, u32)> = self
            .gpus()
            .filter(|(id, known)| !known.answers && !self.is_hung(id))
            .map(|(id, known)| (id.clone(), known.index))
            .collect();
        if devices.is_empty() && self.faceless == 0 {
            self.retry = Retry::default();
            return None;
        }
        let next = *self.retry.next.get_or_insert_with(|| at.plus(options.pause(0)));
        if at < next {
            return None;
        }
        self.retry.next = Some(at.plus(options.pause(self.retry.tries)));
        self.retry.tries += 1;
        Some(Due {
            tries: self.retry.tries,
            devices,
        })
    }

    /// What is to be told, once.
    pub(super) fn take_news(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.news)
    }

    /// Every device that is not an instance of another.
    fn gpus(&self) -> impl Iterator<Item = (&DeviceId, &Known)> {
        self.devices.iter().filter(|(_, known)| known.parent.is_none())
    }

    fn known_id(&self, spot: &Spot) -> Option<DeviceId> {
        spot.id.clone().filter(|id| self.devices.contains_key(id))
    }
}

impl Known {
    fn new(index: u32, parent: Option<DeviceId>) -> Self {
        Self {
            index,
            parent,
            answers: true,
            told: None,
            throttle: Throttle::default(),
        }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
