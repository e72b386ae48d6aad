//! What allocators hold and do not use. They tell when something changed and once a minute, each process for itself.

use std::collections::BTreeMap;

use plimsoll_store::{Reader, Row, Value};

use super::Window;
use crate::error::ReportError;
use crate::row::size;
use crate::svg::column_ns;
use crate::thin::Thin;
use crate::timeline::{Allocator, DeviceTrack, Share};
use crate::words::Words;

/// How long a row holds, ns: a minute, and a second for being told. Agents that flush less often than each second leave
/// what lies between unknown: a process that is gone would else be drawn for another minute.
const HOLDS_NS: i64 = 62_000_000_000;

// The driver's level has no such figure. The addresses of a virtual memory range that hold nothing cost nothing.
const SQL: &str = "SELECT device, level, source, pid, at_ns, allocated_bytes, inactive_split_bytes, reserved_bytes \
                   FROM allocator_samples WHERE at_ns BETWEEN ?1 AND ?2 AND level NOT IN ('driver', 'vmm') \
                   AND (?3 IS NULL OR run_id = ?3) ORDER BY at_ns";

/// Reads the allocators on the devices; for a run, its own.
pub(super) async fn read(
    reader: &Reader,
    window: &Window,
    tracks: &mut [DeviceTrack],
) -> Result<(), ReportError> {
    let mut levels = Levels {
        window: *window,
        devices: Words::default(),
        all: BTreeMap::new(),
    };
    for track in tracks.iter() {
        levels.devices.number(&track.uuid);
    }
    // What was told before the window still holds in it.
    let values = [
        Value::Integer(window.from_ns.saturating_sub(HOLDS_NS)),
        Value::Integer(window.to_ns),
        window.run.map_or(Value::Null, Value::Integer),
    ];
    let levels = reader.scan(SQL, &values, levels, Levels::take).await?;
    for ((device, level, source), series) in levels.all {
        let allocator = series.finish(window, level, source);
        // An allocator that never said anything that can be drawn has no lane.
        let known = |shares: &[Share]| shares.iter().any(|share| share.ratio.is_some());
        if let Some(track) = tracks.get_mut(device)
            && (known(&allocator.slack) || known(&allocator.stuck))
        {
            track.allocators.push(allocator);
        }
    }
    Ok(())
}

struct Levels {
    window: Window,
    devices: Words,
    /// By device, level and source.
    all: BTreeMap<(usize, String, String), Series>,
}

impl Levels {
    fn take(&mut self, row: &Row<'_>) {
        let device = row.text(0).map(|uuid| self.devices.number(&uuid));
        let (Some(device), Some(level), Some(source), Some(at_ns)) =
            (device, row.text(1), row.text(2), row.int(4))
        else {
            return;
        };
        let key = (device, level.into_owned(), source.into_owned());
        let window = &self.window;
        let series = self.all.entry(key).or_insert_with(|| Series::new(window));
        let told = Told {
            until_ns: at_ns.saturating_add(HOLDS_NS),
            allocated: size(row, 5),
            stuck: size(row, 6),
            reserved: size(row, 7),
        };
        series.take(at_ns, row.int(3).unwrap_or(0), told);
    }
}

/// What one process said last.
#[derive(Clone, Copy)]
struct Told {
    until_ns: i64,
    allocated: Option<u64>,
    stuck: Option<u64>,
    reserved: Option<u64>,
}

/// The readings of one allocator while they are read.
struct Series {
    from_ns: i64,
    now_ns: Option<i64>,
    processes: BTreeMap<i64, Told>,
    slack: Thin<Share>,
    stuck: Thin<Share>,
}

impl Series {
    fn new(window: &Window) -> Self {
        let column_ns = column_ns(window.from_ns, window.to_ns);
        Self {
            from_ns: window.from_ns,
            now_ns: None,
            processes: BTreeMap::new(),
            slack: Thin::new(window.from_ns, column_ns),
            stuck: Thin::new(window.from_ns, column_ns),
        }
    }

    fn take(&mut self, at_ns: i64, pid: i64, told: Told) {
        self.until(at_ns);
        self.processes.insert(pid, told);
        self.now_ns = Some(at_ns);
    }

    /// The instant before is complete; what nobody confirmed since has ended.
    fn until(&mut self, at_ns: i64) {
        if self.now_ns.is_none_or(|now_ns| now_ns >= at_ns) {
            return;
        }
        self.tell(self.now_ns.unwrap_or(at_ns));
        while let Some(end_ns) = self.processes.values().map(|told| told.until_ns).min()
            && end_ns < at_ns
        {
            self.processes.retain(|_, told| told.until_ns > end_ns);
            self.tell(end_ns);
        }
    }

    /// Adds the shares of all processes together.
    fn tell(&mut self, at_ns: i64) {
        let sum = |of: &dyn Fn(&Told) -> Option<u64>| -> Option<u64> {
            let mut figures = self.processes.values().map(of);
            // What one process does not know, nobody knows of all.
            figures.try_fold(0_u64, |sum, figure| Some(sum.saturating_add(figure?)))
        };
        let reserved = sum(&|told| told.reserved);
        let slack = reserved.and_then(|all| all.checked_sub(sum(&|told| told.allocated)?));
        let at_ns = at_ns.max(self.from_ns);
        let slack = Share {
            at_ns,
            ratio: ratio(slack, reserved),
        };
        let stuck = Share {
            at_ns,
            ratio: ratio(sum(&|told| told.stuck), reserved),
        };
        self.slack.push(at_ns, slack.thousandths(), slack, false);
        self.stuck.push(at_ns, stuck.thousandths(), stuck, false);
    }

    fn finish(mut self, window: &Window, level: String, source: String) -> Allocator {
        self.until(window.to_ns.max(self.now_ns.unwrap_or(0)).saturating_add(1));
        Allocator {
            level,
            source,
            slack: self.slack.finish(),
            stuck: self.stuck.finish(),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "bytes of device memory, far below 2^52"
)]
fn ratio(part: Option<u64>, whole: Option<u64>) -> Option<f64> {
    let (part, whole) = (part?, whole.filter(|whole| *whole > 0)?);
    (part <= whole).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    /// Tells rows (second, pid, allocated, stuck, reserved) and answers slack and stuck in thousandths.
    fn told(rows: &[(i64, i64, u64, Option<u64>, u64)], seconds: i64) -> [Vec<(i64, Option<u64>)>; 2] {
        let window = Window {
            run: None,
            from_ns: 0,
            to_ns: seconds * SECOND,
        };
        let mut series = Series::new(&window);
        for (second, pid, allocated, stuck, reserved) in rows {
            let told = Told {
                until_ns: second * SECOND + HOLDS_NS,
                allocated: Some(*allocated),
                stuck: *stuck,
                reserved: Some(*reserved),
            };
            series.take(second * SECOND, *pid, told);
        }
        let allocator = series.finish(&window, "pytorch".to_owned(), "pytorch".to_owned());
        let shown = |share: &Share| (share.at_ns / SECOND, share.thousandths());
        [
            allocator.slack.iter().map(shown).collect(),
            allocator.stuck.iter().map(shown).collect(),
        ]
    }

    #[test]
    fn processes_count_together_and_what_is_not_confirmed_ends() {
        let rows = [
            (-5, 1, 50, Some(10), 100),
            (10, 1, 50, Some(20), 100),
            (10, 2, 100, Some(0), 100),
            (40, 2, 100, None, 100),
        ];
        let [slack, stuck] = told(&rows, 200);
        let thousandths = |all: &[(i64, u64)]| -> Vec<(i64, Option<u64>)> {
            all.iter()
                .map(|(second, value)| (*second, Some(*value)))
                .collect()
        };
        let mut wanted = thousandths(&[(0, 500), (10, 250), (40, 250), (72, 0)]);
        wanted.push((102, None));
        assert_eq!(slack, wanted);
        assert_eq!(
            stuck,
            [
                (0, Some(100)),
                (10, Some(100)),
                (40, None),
                (72, None),
                (102, None)
            ]
        );
    }

    #[test]
    fn no_memory_has_no_share() {
        let [slack, stuck] = told(&[(1, 1, 0, Some(0), 0), (2, 1, 9, Some(9), 8)], 5);
        let unknown = [(1, None), (2, None)];
        assert_eq!((slack.as_slice(), stuck.as_slice()), (&unknown[..], &unknown[..]));
    }
}
