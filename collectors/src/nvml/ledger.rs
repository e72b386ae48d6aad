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
use super::refusal::Missing;
use super::throttle::Throttle;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Why there is no driver, as it was told; `None` while there is one.
    missing: Option<Missing>,
    devices: BTreeMap<DeviceId, Known>,
    /// Devices that the driver counts, but that never told who they are.
    faceless: usize,
    /// The indexes at which a thread hangs. They are not touched until it returns.
    hung: Vec<u32>,
    retry: Retry,
    /// Ticks that found the thread still busy.
    pub(super) missed_ticks: u64,
    /// What is to be told with the next batch.
    news: Vec<Event>,
}

#[derive(Debug)]
struct Known {
    index: u32,
    answers: bool,
    told: Option<DeviceInfo>,
    throttle: Throttle,
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
                .or_insert(Known {
                    index: *index,
                    answers: true,
                    told: None,
                    throttle: Throttle::default(),
                });
        }
        let absent: Vec<DeviceId> = self
            .devices
            .iter()
            .filter(|(id, known)| {
                !self.hung.contains(&known.index) && !present.iter().any(|(other, _)| other == *id)
            })
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

    /// A call to the device at `index` has not returned for `lasted`.
    pub(super) fn hangs(&mut self, index: u32, lasted: Duration) {
        let why = format!("has not answered a call for {}", show_duration(lasted));
        match self.id_at(index) {
            Some(id) => self.lost(&id, "hung", &why),
            None if self.faceless == 0 => {
                self.faceless = 1;
                let message = format!("the device at index {index} {why}");
                tracing::warn!("{message}");
                let detail = json!({ "reason": "hung", "index": index });
                self.news
                    .push(Event::new(EventKind::DeviceLost, message).with_detail(detail));
            }
            None => {}
        }
    }

    /// From now on nobody touches the device at `index`, because a thread hangs in it.
    pub(super) fn avoid(&mut self, index: u32) {
        self.hung.push(index);
    }

    /// The thread that hung in the device at `index` returned, and the device answers in time.
    pub(super) fn released(&mut self, index: u32) {
        self.hung.retain(|hung| *hung != index);
        if self.id_at(index).is_none() {
            self.faceless = self.faceless.max(1);
        }
        self.retry = Retry {
            tries: 0,
            next: Some(Stamp::default()),
        };
    }

    pub(super) fn is_avoided(&self, index: u32) -> bool {
        self.hung.contains(&index)
    }

    /// How many devices are lost because a call to them hangs, and how many for another reason.
    pub(super) fn absent(&self) -> (u64, u64) {
        let hung = self.hung.len();
        let lost = self.devices.values().filter(|known| !known.answers).count() + self.faceless;
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
        let known = self.devices.entry(id.clone()).or_insert_with(|| Known {
            index,
            answers: true,
            told: None,
            throttle: Throttle::default(),
        });
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

    /// The lost devices, if it is time to ask for them again at `at`.
    pub(super) fn due(&mut self, at: Stamp, options: &NvmlOptions) -> Option<Due> {
        let devices: Vec<(DeviceId, u32)> = self
            .devices
            .iter()
            .filter(|(_, known)| !known.answers && !self.hung.contains(&known.index))
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

    fn id_at(&self, index: u32) -> Option<DeviceId> {
        // A lost device keeps its last index, which another one may have now.
        let at_index = self.devices.iter().filter(|(_, known)| known.index == index);
        at_index
            .max_by_key(|(_, known)| known.answers)
            .map(|(id, _)| id.clone())
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
