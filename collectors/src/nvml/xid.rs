//! Xid errors, which the driver tells as events.
//!
//! They are fetched with every tick and a timeout of zero, not awaited on a thread of their own: such a thread would have to
//! be out of the driver before each shutdown, and a second of delay costs an Xid nothing.

use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, EventSet, Nvml};
use plimsoll_trace::{Event, EventKind};
use serde_json::json;

use super::gpu::Gpu;
use super::raw;

/// In a storm of Xids the rest waits for the next tick.
const PER_TICK: usize = 64;

/// The events of all devices of one driver life.
#[derive(Debug)]
pub(super) struct Xids<'n> {
    set: EventSet<'n>,
}

/// One kind of Xid on one device, as often as it was told in one go.
#[derive(Debug)]
struct Told<'n> {
    device: Device<'n>,
    xid: Option<u64>,
    count: u32,
}

impl<'n> Xids<'n> {
    /// `None` when the driver has no events.
    pub(super) fn open(nvml: &'n Nvml) -> Option<Self> {
        nvml.create_event_set().ok().map(|set| Self { set })
    }

    /// Asks for the Xids of `gpu`. A device that does not tell them goes without.
    pub(super) fn watch(&self, gpu: &Gpu<'n>) {
        if let Err(error) = raw::register_xid(gpu.device(), &self.set) {
            tracing::debug!(device = %gpu.id(), %error, "no Xid events");
        }
    }

    /// What the driver has told since the last time, about devices that answer and about those that were lost.
    ///
    /// # Errors
    /// What the driver answered when it neither told an event nor said that there is none.
    pub(super) fn fetch(&self, gpus: &[Gpu<'n>], lost: &[Gpu<'n>]) -> (Vec<Event>, Result<(), NvmlError>) {
        let mut told: Vec<Told<'n>> = Vec::new();
        let mut outcome = Ok(());
        for _ in 0..PER_TICK {
            match self.set.wait(0) {
                Ok(event) => {
                    let Some(xid) = event.event_data else { continue };
                    let xid = match xid {
                        XidError::Value(xid) => Some(xid),
                        XidError::Unknown => None,
                    };
                    let same = |other: &&mut Told<'_>| {
                        other.xid == xid && raw::same_device(&other.device, &event.device)
                    };
                    match told.iter_mut().find(same) {
                        Some(former) => former.count += 1,
                        None => told.push(Told {
                            device: event.device,
                            xid,
                            count: 1,
                        }),
                    }
                }
                Err(NvmlError::Timeout) => break,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        (
            told.iter()
                .map(|told| told.event(gpus.iter().chain(lost)))
                .collect(),
            outcome,
        )
    }
}

impl Told<'_> {
    fn event<'g, 'n: 'g>(&self, mut gpus: impl Iterator<Item = &'g Gpu<'n>>) -> Event {
        // By handle first: a device that fell off the bus no longer knows its UUID.
        let id = gpus
            .find(|gpu| raw::same_device(gpu.device(), &self.device))
            .map(|gpu| gpu.id().clone())
            .or_else(|| self.device.uuid().ok().map(Into::into));
        let xid = self
            .xid
            .map_or_else(|| "unknown".to_owned(), |xid| xid.to_string());
        let whose = id.as_deref().unwrap_or("an unknown device");
        let mut detail = json!({ "xid": self.xid });
        if self.count > 1 {
            detail["count"] = json!(self.count);
        }
        let mut event =
            Event::new(EventKind::Xid, format!("{whose} reported Xid {xid}; see dmesg")).with_detail(detail);
        event.device = id;
        event
    }
}
