//! The slow lane: PCIe throughput, for which the driver blocks 20 ms per direction.
//!
//! It runs between ticks, one direction of one device at a time, and only while no tick waits.

use std::collections::VecDeque;
use std::time::Duration;

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::PcieUtilCounter;
use plimsoll_trace::{DeviceSample, Stamp};

/// The driver counts in thousands of bytes per second.
const KILO: u64 = 1000;

/// What was read of one device. It is shown once, and not long after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Throughput {
    tx_bytes_per_sec: Option<u64>,
    rx_bytes_per_sec: Option<u64>,
    until: Stamp,
}

impl Throughput {
    pub(super) fn write_to(self, sample: &mut DeviceSample, at: Stamp) {
        if at <= self.until {
            sample.pcie_tx_bytes_per_sec = self.tx_bytes_per_sec;
            sample.pcie_rx_bytes_per_sec = self.rx_bytes_per_sec;
        }
    }
}

/// One question of the slow lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Towards the host, of the device in this place.
    Tx(usize),
    /// From the host, of the device in this place.
    Rx(usize),
}

impl Step {
    /// The place of the device in its driver life's list.
    pub(super) const fn place(self) -> usize {
        let (Self::Tx(place) | Self::Rx(place)) = self;
        place
    }

    /// Asks the device. Blocks for 20 ms.
    pub(super) fn ask(self, device: &Device<'_>) -> Option<u64> {
        let counter = match self {
            Self::Tx(_) => PcieUtilCounter::Send,
            Self::Rx(_) => PcieUtilCounter::Receive,
        };
        let kilobytes = device.pcie_throughput(counter).ok()?;
        (kilobytes != u32::MAX).then(|| u64::from(kilobytes) * KILO)
    }
}

/// What is left to ask.
#[derive(Debug, Default)]
pub(super) struct SlowLane {
    /// When the present round began, which is the stamp of the tick before it.
    begun: Option<Stamp>,
    until: Stamp,
    steps: VecDeque<Step>,
    tx_bytes_per_sec: Option<u64>,
}

impl SlowLane {
    /// Begins a round after the tick `at` if it is time to. An interval of zero is never.
    pub(super) fn begin(&mut self, at: Stamp, interval: Duration, devices: usize) {
        let due = self.begun.is_none_or(|begun| at.since(begun) >= interval);
        if interval.is_zero() || !due || !self.steps.is_empty() {
            return;
        }
        self.begun = Some(at);
        self.until = at.plus(interval);
        self.steps
            .extend((0..devices).flat_map(|place| [Step::Tx(place), Step::Rx(place)]));
    }

    /// The next question, if there is one.
    pub(super) fn next(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    pub(super) fn is_done(&self) -> bool {
        self.steps.is_empty()
    }

    /// Takes an answer; with the second direction of a device its throughput is complete.
    pub(super) fn answered(&mut self, step: Step, bytes_per_sec: Option<u64>) -> Option<Throughput> {
        match step {
            Step::Tx(_) => {
                self.tx_bytes_per_sec = bytes_per_sec;
                None
            }
            Step::Rx(_) => Some(Throughput {
                tx_bytes_per_sec: self.tx_bytes_per_sec.take(),
                rx_bytes_per_sec: bytes_per_sec,
                until: self.until,
            }),
        }
    }

    /// The list of devices changed: the places that are left mean others now.
    pub(super) fn abort(&mut self) {
        self.steps.clear();
        self.tx_bytes_per_sec = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_asks_every_device_both_ways_and_rests() {
        let (mut lane, t, every) = (SlowLane::default(), Stamp::at_secs, Duration::from_secs(30));
        lane.begin(t(0), Duration::ZERO, 2);
        assert!(lane.is_done(), "off");
        lane.begin(t(0), every, 2);
        lane.begin(t(40), every, 2);
        let steps: Vec<Step> = std::iter::from_fn(|| lane.next()).collect();
        assert_eq!(steps, [Step::Tx(0), Step::Rx(0), Step::Tx(1), Step::Rx(1)]);
        lane.begin(t(29), every, 2);
        assert!(lane.is_done());
        lane.begin(t(30), every, 2);
        assert!(!lane.is_done());
        lane.abort();
        assert!(lane.is_done());
    }

    #[test]
    fn a_reading_is_shown_while_it_is_fresh() {
        let (mut lane, t) = (SlowLane::default(), Stamp::at_secs);
        lane.begin(t(0), Duration::from_secs(30), 1);
        assert_eq!(lane.answered(Step::Tx(0), Some(5_000)), None);
        let reading = lane.answered(Step::Rx(0), None).expect("both ways");
        let shown = |at| {
            let mut sample = DeviceSample::unknown("GPU-1".into());
            reading.write_to(&mut sample, at);
            (sample.pcie_tx_bytes_per_sec, sample.pcie_rx_bytes_per_sec)
        };
        assert_eq!(shown(t(30)), (Some(5_000), None));
        assert_eq!(shown(t(31)), (None, None));
    }
}
