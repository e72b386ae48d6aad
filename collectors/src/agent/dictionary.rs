//! What the numbers of one agent stand for.

use std::collections::HashMap;
use std::sync::Arc;

use plimsoll_trace::DeviceId;
use plimsoll_trace::wire::Frame;

use super::clock::Clocks;
use super::holding::{Holding, Pool};

/// More names than any agent keeps, and more bytes of them.
const MOST_NAMES: usize = 16_384;
const MOST_NAME_BYTES: usize = 16 << 20;
/// What a name costs beside its text.
const A_NAME: usize = 64;
/// More devices than any process has.
const MOST_DEVICES: usize = 256;

/// Names, devices and clocks of one agent.
#[derive(Debug)]
pub(super) struct Dictionary {
    names: HashMap<u32, Arc<str>>,
    holding: Holding,
    devices: HashMap<u32, DeviceId>,
    pub(super) clocks: Clocks,
}

/// What a frame did to the dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learned {
    /// It is no such frame.
    Nothing,
    /// It is known now.
    Known,
    /// It is known now, and a clock was set since the last reading.
    ClockStepped,
    /// There is no room for another name.
    Full,
}

impl Dictionary {
    pub(super) fn new(pool: &Pool) -> Self {
        Self {
            names: HashMap::new(),
            holding: Holding::new(pool.clone(), MOST_NAME_BYTES),
            devices: HashMap::new(),
            clocks: Clocks::default(),
        }
    }

    pub(super) fn learn(&mut self, frame: &Frame) -> Learned {
        match frame {
            Frame::Name { id, name } => {
                if self.names.len() >= MOST_NAMES && !self.names.contains_key(id) {
                    return Learned::Full;
                }
                let name = text(name);
                if let Some(before) = self.names.remove(id) {
                    self.holding.give_back(before.len() + A_NAME);
                }
                if !self.holding.take(name.len() + A_NAME) {
                    return Learned::Full;
                }
                self.names.insert(*id, name.into());
                Learned::Known
            }
            Frame::Device { index, uuid } => {
                if self.devices.len() >= MOST_DEVICES && !self.devices.contains_key(index) {
                    return Learned::Full;
                }
                self.devices.insert(*index, printed(uuid).into());
                Learned::Known
            }
            Frame::Clock(clock) if self.clocks.read(*clock) => Learned::ClockStepped,
            Frame::Clock(_) => Learned::Known,
            _ => Learned::Nothing,
        }
    }

    /// Whether a number that stands for one name is to stand for another.
    pub(super) fn renames(&self, frame: &Frame) -> bool {
        let Frame::Name { id, name } = frame else {
            return false;
        };
        self.names.get(id).is_some_and(|before| **before != text(name))
    }

    /// Whether all that a frame speaks of is known.
    pub(super) fn knows(&self, frame: &Frame) -> bool {
        let device = |index: u32| self.devices.contains_key(&index);
        let name = |id: u32| self.names.contains_key(&id);
        match frame {
            Frame::Kernels(kernels) => {
                let known = kernels
                    .stats
                    .iter()
                    .all(|stats| name(stats.name) && device(stats.device));
                known && self.clocks.is_known()
            }
            Frame::Spans(spans) => {
                let known = spans
                    .spans
                    .iter()
                    .all(|span| name(span.name) && device(span.device));
                known && self.clocks.is_known()
            }
            Frame::Copies(copies) => {
                copies.stats.iter().all(|stats| device(stats.device)) && self.clocks.is_known()
            }
            Frame::Memory(events) => {
                events.iter().all(|event| device(event.device)) && self.clocks.is_known()
            }
            Frame::Levels(levels) => device(levels.device) && self.clocks.is_known(),
            _ => true,
        }
    }

    /// The name; one that never came is called by its number.
    pub(super) fn name(&self, id: u32) -> Arc<str> {
        match self.names.get(&id) {
            Some(name) => Arc::clone(name),
            None => format!("(unnamed kernel {id})").into(),
        }
    }

    pub(super) fn device(&self, index: u32) -> Option<DeviceId> {
        self.devices.get(&index).cloned()
    }
}

/// A name as it is stored.
fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).replace('\0', "\u{fffd}")
}

/// A UUID as the driver prints it.
fn printed(uuid: &[u8; 16]) -> String {
    let mut text = "GPU".to_owned();
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 0 | 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text += &format!("{byte:02x}");
    }
    text
}

/// How much there is in a frame.
pub(super) fn items(frame: &Frame) -> usize {
    match frame {
        Frame::Kernels(kernels) => kernels.stats.len(),
        Frame::Spans(spans) => spans.spans.len(),
        Frame::Copies(copies) => copies.stats.len(),
        Frame::Memory(events) => events.len(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_written_as_the_driver_writes_them() {
        let uuid: [u8; 16] = std::array::from_fn(|byte| u8::try_from(byte * 17).unwrap_or(0));
        assert_eq!(printed(&uuid), "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn names_need_not_be_text_and_are_bounded() {
        let mut dictionary = Dictionary::new(&Pool::default());
        let name = |id, name: &[u8]| Frame::Name {
            id,
            name: name.to_vec(),
        };
        assert_eq!(dictionary.learn(&name(1, b"_Z3foo\xff\0")), Learned::Known);
        assert_eq!(&*dictionary.name(1), "_Z3foo\u{fffd}\u{fffd}");
        assert_eq!(&*dictionary.name(2), "(unnamed kernel 2)");
        for id in 2..=u32::try_from(MOST_NAMES).expect("small") {
            assert_eq!(dictionary.learn(&name(id, b"k")), Learned::Known);
        }
        assert_eq!(dictionary.learn(&name(0, b"k")), Learned::Full);
        assert_eq!(dictionary.learn(&name(1, b"k")), Learned::Known);
    }

    #[test]
    fn names_are_bounded_in_bytes_too() {
        let mut dictionary = Dictionary::new(&Pool::default());
        // Each byte becomes three.
        let name = |id, length| Frame::Name {
            id,
            name: vec![0xff; length],
        };
        let known = (0..16_384)
            .filter(|id| dictionary.learn(&name(*id, 4_096)) == Learned::Known)
            .count();
        assert!(
            (1_000..=MOST_NAME_BYTES / (3 * 4_096)).contains(&known),
            "{known}"
        );
        // A shorter name for the same number makes room.
        assert_eq!(dictionary.learn(&name(0, 1)), Learned::Known);
        assert_eq!(dictionary.learn(&name(20_000, 3_000)), Learned::Known);
    }
}
