//! Where everything goes, in pixels. The picture is 1000 wide; its height follows from what is in it.

use super::backend::{Anchor, Setting};
use super::ink::Ink;
use crate::text;

pub(super) const WIDTH: i32 = 1000;
/// Left of the lanes: value labels.
pub(super) const LEFT: i32 = 64;
/// Right of the lanes: names of lines.
pub(super) const RIGHT: i32 = 176;
/// Between text and the picture's edge.
pub(super) const MARGIN: i32 = 16;
/// How wide a lane is.
pub(super) const LANE_WIDTH: i32 = WIDTH - LEFT - RIGHT;
/// The strip of markers above the first lane.
pub(super) const STRIP: i32 = 34;
const CAPTION: i32 = 18;
const TIME_LABELS: i32 = 22;

/// How much time a pixel's column takes.
pub(crate) fn column_ns(from_ns: i64, to_ns: i64) -> i64 {
    (to_ns.saturating_sub(from_ns) / i64::from(LANE_WIDTH)).max(1)
}

/// One lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LaneBox {
    pub(super) top: i32,
    pub(super) height: i32,
    /// Kept free above the capacity line.
    pub(super) headroom: i32,
    pub(super) value_ticks: u64,
    /// Whether it is too low for more than the most needed labels.
    pub(super) compact: bool,
}

/// The lanes of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceBox {
    /// Baseline of the caption, where several devices need one.
    pub(super) caption: Option<i32>,
    pub(super) memory: LaneBox,
    pub(super) busy: LaneBox,
    /// What GPU time went to.
    pub(super) gpu_time: Option<LaneBox>,
    /// How much memory allocators waste.
    pub(super) allocators: Option<LaneBox>,
}

impl DeviceBox {
    /// The lane at the bottom.
    pub(super) fn last(&self) -> &LaneBox {
        self.allocators
            .as_ref()
            .or(self.gpu_time.as_ref())
            .unwrap_or(&self.busy)
    }
}

/// Lanes that a device has beside memory and busy, because something is known for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Extra {
    pub(super) gpu_time: bool,
    pub(super) allocators: bool,
}

/// Lays out the lanes of devices below `top`; answers them and where the last one's time labels end.
pub(super) fn lanes(extras: &[Extra], top: i32) -> (Vec<DeviceBox>, i32) {
    let devices = extras.len();
    let (memory, busy, stacked, headroom, value_ticks) = match devices {
        0 | 1 => (300, 54, 54, 34, 8),
        2 | 3 => (150, 36, 36, 26, 5),
        _ => (78, 18, 26, 5, 2),
    };
    let compact = devices > 3;
    let gap = if compact { 2 } else { 18 };
    let mut y = top;
    let mut boxes = Vec::with_capacity(devices);
    for extra in extras {
        let caption = (devices > 1).then(|| {
            y += CAPTION;
            y - 5
        });
        let lane = |top, height, headroom| LaneBox {
            top,
            height,
            headroom,
            value_ticks,
            compact,
        };
        let mut next = y + memory;
        let mut low = |height| {
            let top = next + gap;
            next = top + height;
            lane(top, height, 0)
        };
        let place = DeviceBox {
            caption,
            memory: lane(y, memory, headroom),
            busy: low(busy),
            gpu_time: extra.gpu_time.then(|| low(stacked)),
            allocators: extra.allocators.then(|| low(stacked)),
        };
        boxes.push(place);
        y = next + if compact { 6 } else { 10 };
    }
    (boxes, y + TIME_LABELS)
}

/// One entry of a legend with its place: the swatch's left edge and the baseline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) text: String,
}

/// A legend with its places.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Flow {
    /// Those of all groups, in order.
    pub(super) entries: Vec<Entry>,
    /// Baseline of each group's head.
    pub(super) heads: Vec<i32>,
    /// Baseline of the last row.
    pub(super) end: i32,
}

pub(super) const SWATCH: i32 = 12;
const ROW: i32 = 19;

/// Sets entries side by side behind the head of their group, in as many rows as they need; each group begins a row.
pub(super) fn flow<'t>(groups: impl Iterator<Item = (&'t str, Vec<&'t str>)> + Clone, y: i32) -> Flow {
    let widest = groups.clone().map(|(head, _)| text::width(head, 12, false)).max();
    let mut flow = Flow {
        end: y,
        ..Flow::default()
    };
    for (number, (head, texts)) in groups.enumerate() {
        if number > 0 {
            flow.end += ROW;
        }
        flow.heads.push(flow.end);
        let start = match widest.filter(|_| !head.is_empty()) {
            Some(width) => MARGIN + width + 10,
            None => MARGIN,
        };
        let mut x = start;
        for words in texts {
            let words = text::fit(words, 12, false, 300).into_owned();
            let room = SWATCH + 6 + text::width(&words, 12, false);
            if x > start && x + room > WIDTH - MARGIN {
                x = start;
                flow.end += ROW;
            }
            let y = flow.end;
            flow.entries.push(Entry { x, y, text: words });
            x += room + 18;
        }
    }
    flow
}

pub(super) const TITLE: Setting = setting(Ink::Text, 18, true);
pub(super) const VERDICT: Setting = setting(Ink::Text, 14, false);
pub(super) const FACTS: Setting = setting(Ink::Dim, 12, false);
pub(super) const LEGEND: Setting = setting(Ink::Text, 12, false);

const fn setting(ink: Ink, size: u32, bold: bool) -> Setting {
    Setting {
        ink,
        size,
        bold,
        anchor: Anchor::Start,
        halo: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_never_overlap() {
        for devices in 1..=16 {
            let extras: Vec<Extra> = (0..devices)
                .map(|device| Extra {
                    gpu_time: device % 2 == 0,
                    allocators: device % 3 == 0,
                })
                .collect();
            let (boxes, end) = lanes(&extras, 100);
            let mut floor = 100;
            for (device, extra) in boxes.iter().zip(extras) {
                assert_eq!(device.gpu_time.is_some(), extra.gpu_time);
                let low = [device.gpu_time, device.allocators].into_iter().flatten();
                for lane in [device.memory, device.busy].into_iter().chain(low) {
                    assert!(lane.top >= floor);
                    floor = lane.top + lane.height;
                }
                assert_eq!(floor, device.last().top + device.last().height);
            }
            assert!(end > floor);
        }
    }

    #[test]
    fn a_legend_wraps_before_the_edge() {
        let texts: Vec<String> = (0..20).map(|n| format!("process number {n}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let flow = flow([("", texts.clone()), ("kernels", texts)].into_iter(), 100);
        assert_eq!(flow.entries.last().map(|entry| entry.y), Some(flow.end));
        assert_eq!((flow.heads[0], flow.entries[0].x), (100, MARGIN));
        assert_eq!(flow.entries[20].y, flow.heads[1]);
        assert!(flow.heads[1] > flow.entries[19].y && flow.entries[20].x > MARGIN);
        for entry in flow.entries {
            assert!(entry.x + SWATCH + 6 + text::width(&entry.text, 12, false) <= WIDTH - MARGIN);
        }
    }
}
