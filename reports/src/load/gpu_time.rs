//! What devices' time went to: the periods in which traced kernels and copies are counted, spread over columns.
//!
//! A period without kernels is not told by an agent, and neither is one in which its budget let it rest. What tells them
//! apart is the share of time in which it recorded, `agent.duty_ratio`.

use std::collections::BTreeMap;

use plimsoll_store::{Reader, Row, Value};

use super::Window;
use super::kept::{Kept, MINUTE_NS};
use crate::error::ReportError;
use crate::family::Family;
use crate::svg::column_ns;
use crate::timeline::{DeviceTrack, GpuTime};
use crate::words::Words;

/// Pixels that share a stretch: agents tell of a second, which is more than a pixel of a short picture.
const PIXELS: i64 = 4;
/// Periods last about a second, on a busy machine a few.
const LONGEST_NS: i64 = 10_000_000_000;
/// What one value of the duty ratio is about, where the one before is not near, ns.
const PERIOD_NS: i64 = 1_000_000_000;
const NEAR_NS: i64 = 5_000_000_000;

const KERNELS: &str = "SELECT device, run_id, start_ns, end_ns, total_ns, name FROM kernel_windows \
                       WHERE start_ns BETWEEN ?1 AND ?2 AND (?3 IS NULL OR run_id = ?3) ORDER BY start_ns";
const MINUTES: &str = "SELECT device, run_id, first_ns, end_ns, total_ns, name FROM kernel_minutes \
                       WHERE start_ns BETWEEN ?1 AND ?2 AND (?3 IS NULL OR run_id = ?3) \
                       ORDER BY start_ns, first_ns";
const COPIES: &str = "SELECT device, run_id, start_ns, end_ns, total_ns FROM copy_windows \
                      WHERE start_ns BETWEEN ?1 AND ?2 AND (?3 IS NULL OR run_id = ?3) ORDER BY start_ns";
const DUTY: &str = "SELECT run_id, at_ns, value FROM engine_samples \
                    WHERE at_ns BETWEEN ?1 AND ?2 AND signal = 'agent.duty_ratio' AND (?3 IS NULL OR run_id = ?3) \
                    ORDER BY at_ns";

/// Reads what the devices' time went to; of a run, what it went to on the run's behalf.
pub(super) async fn read(
    reader: &Reader,
    window: &Window,
    tracks: &mut [DeviceTrack],
) -> Result<(), ReportError> {
    let between = |from_ns: i64, to_ns: i64| {
        [
            Value::Integer(from_ns),
            Value::Integer(to_ns),
            window.run.map_or(Value::Null, Value::Integer),
        ]
    };
    let (from_ns, to_ns) = (window.from_ns.saturating_sub(LONGEST_NS), window.to_ns);
    let columns = Columns::new(window);
    let kept = Kept::read(reader, window).await?;
    // Where a stretch is longer than a minute, kernels are read by the minute: a day has millions of periods.
    let windows_from_ns = if columns.width_ns < MINUTE_NS {
        kept.windows_from_ns
    } else {
        i64::MAX
    };
    let mut devices = Words::default();
    for track in tracks.iter() {
        devices.number(&track.uuid);
    }
    let mut work = Work {
        columns,
        devices,
        names: Words::default(),
        families: Vec::new(),
        found: vec![None; tracks.len()],
    };
    // Minutes are kept for longer than the periods that they are made of.
    let minutes_from_ns = from_ns.saturating_sub(MINUTE_NS);
    if minutes_from_ns < windows_from_ns {
        let values = between(minutes_from_ns, to_ns.min(windows_from_ns.saturating_sub(1)));
        work = reader.scan(MINUTES, &values, work, Work::kernels).await?;
    }
    if windows_from_ns <= to_ns {
        let values = between(from_ns.max(windows_from_ns), to_ns);
        work = reader.scan(KERNELS, &values, work, Work::kernels).await?;
    }
    let values = between(from_ns, to_ns);
    let work = reader.scan(COPIES, &values, work, Work::copies).await?;
    if work.found.iter().all(Option::is_none) {
        return Ok(());
    }
    let duties = Duties {
        columns,
        from_ns: kept.from_ns,
        runs: BTreeMap::new(),
    };
    let duties = reader.scan(DUTY, &values, duties, Duties::take).await?;
    for (track, device) in tracks.iter_mut().zip(work.found) {
        track.gpu_time = device.map_or_else(Vec::new, |device| device.finish(&columns, &duties));
    }
    Ok(())
}

/// Equal stretches of the window.
#[derive(Clone, Copy, Debug)]
struct Columns {
    from_ns: i64,
    to_ns: i64,
    width_ns: i64,
    count: usize,
}

impl Columns {
    fn new(window: &Window) -> Self {
        let (from_ns, to_ns) = (window.from_ns, window.to_ns);
        let width_ns = column_ns(from_ns, to_ns).saturating_mul(PIXELS);
        let count = to_ns.saturating_sub(from_ns).max(1).div_euclid(width_ns) + 1;
        Self {
            from_ns,
            to_ns,
            width_ns,
            count: usize::try_from(count).unwrap_or(1),
        }
    }

    /// The bounds of a column; the last one ends with the window.
    fn bounds(&self, column: usize) -> (i64, i64) {
        let column = i64::try_from(column).unwrap_or(i64::MAX);
        let start = self.from_ns.saturating_add(column.saturating_mul(self.width_ns));
        (start, start.saturating_add(self.width_ns).min(self.to_ns))
    }

    /// The columns that a period touches, and how much of it is in each, ns.
    fn touched(&self, from_ns: i64, to_ns: i64) -> impl Iterator<Item = (usize, u64)> {
        let (from_ns, to_ns) = (from_ns.max(self.from_ns), to_ns.min(self.to_ns));
        let column =
            |at_ns: i64| usize::try_from(at_ns.saturating_sub(self.from_ns) / self.width_ns).unwrap_or(0);
        let all = if from_ns < to_ns {
            column(from_ns)..(column(to_ns) + 1).min(self.count)
        } else {
            0..0
        };
        all.filter_map(move |index| {
            let (start, end) = self.bounds(index);
            let part = end.min(to_ns).saturating_sub(start.max(from_ns));
            u64::try_from(part)
                .ok()
                .filter(|ns| *ns > 0)
                .map(|ns| (index, ns))
        })
    }
}

/// Kernels and copies while they are read.
struct Work {
    columns: Columns,
    devices: Words,
    names: Words,
    /// By the number of the name.
    families: Vec<Family>,
    found: Vec<Option<Device>>,
}

#[derive(Clone)]
struct Device {
    times: Vec<[u64; Family::ALL.len()]>,
    /// Time inside periods with kernels, ns.
    told_ns: Vec<u64>,
    told_until_ns: i64,
    runs: Vec<i64>,
}

impl Work {
    fn kernels(&mut self, row: &Row<'_>) {
        let Some(name) = row.text(5).map(|name| self.names.number(&name)) else {
            return;
        };
        while self.families.len() <= name {
            self.families
                .push(Family::of(self.names.text(self.families.len())));
        }
        self.take(row, self.families[name], true);
    }

    fn copies(&mut self, row: &Row<'_>) {
        self.take(row, Family::Copy, false);
    }

    fn take(&mut self, row: &Row<'_>, family: Family, tells: bool) {
        let device = row.text(0).map(|uuid| self.devices.number(&uuid));
        let place = device.and_then(|device| self.found.get_mut(device));
        let (Some(place), Some(run), Some(start_ns), Some(end_ns), Some(total_ns)) =
            (place, row.int(1), row.int(2), row.int(3), row.int(4))
        else {
            return;
        };
        if end_ns <= self.columns.from_ns || start_ns >= self.columns.to_ns {
            return;
        }
        let device = place.get_or_insert_with(|| Device {
            times: vec![[0; Family::ALL.len()]; self.columns.count],
            told_ns: vec![0; self.columns.count],
            told_until_ns: i64::MIN,
            runs: Vec::new(),
        });
        if !device.runs.contains(&run) {
            device.runs.push(run);
        }
        // What has no length happened all the same.
        let end_ns = end_ns.max(start_ns.saturating_add(1));
        let length = u128::from(end_ns.abs_diff(start_ns));
        let total = u128::from(total_ns.max(0).unsigned_abs());
        for (column, part) in self.columns.touched(start_ns, end_ns) {
            let ns = u64::try_from(total * u128::from(part) / length).unwrap_or(u64::MAX);
            let sum = &mut device.times[column][family as usize];
            *sum = sum.saturating_add(ns);
        }
        if tells {
            let new_from_ns = start_ns.max(device.told_until_ns);
            for (column, part) in self.columns.touched(new_from_ns, end_ns) {
                device.told_ns[column] += part;
            }
            device.told_until_ns = device.told_until_ns.max(end_ns);
        }
    }
}

impl Device {
    fn finish(self, columns: &Columns, duties: &Duties) -> Vec<GpuTime> {
        let times = self.times.iter().zip(&self.told_ns).enumerate();
        let times = times.filter_map(|(column, (family_ns, told_ns))| {
            let (from_ns, to_ns) = columns.bounds(column);
            let whole_ns = u64::try_from(to_ns.saturating_sub(from_ns)).unwrap_or(0);
            let (known_ns, traced_ns) = duties.of(&self.runs, column);
            // Where the agent does not say how much it recorded, a period that it tells of was recorded whole.
            let recorded_ns = traced_ns.saturating_add(told_ns.saturating_sub(known_ns));
            let mut time = GpuTime {
                recorded_ns,
                family_ns: *family_ns,
                ..GpuTime::unknown(from_ns, to_ns)
            };
            // What ran was recorded, whatever is said about the rest.
            time.recorded_ns = recorded_ns.max(time.sum_ns()).min(whole_ns);
            (time.recorded_ns > 0).then_some(time)
        });
        times.collect()
    }
}

/// For how much of each column it is known how much was recorded, and how much that was, ns; by run.
struct Duties {
    columns: Columns,
    /// What ran before this is not known any more, whatever was recorded then.
    from_ns: i64,
    runs: BTreeMap<i64, Duty>,
}

struct Duty {
    last_ns: Option<i64>,
    known_and_traced_ns: Vec<(u64, u64)>,
}

impl Duties {
    fn take(&mut self, row: &Row<'_>) {
        if let (Some(run), Some(at_ns), Some(ratio)) = (row.int(0), row.int(1), row.real(2)) {
            self.add(run, at_ns, ratio);
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share, 0..1, of a column"
    )]
    fn add(&mut self, run: i64, at_ns: i64, ratio: f64) {
        let duty = self.runs.entry(run).or_insert_with(|| Duty {
            last_ns: None,
            known_and_traced_ns: vec![(0, 0); self.columns.count],
        });
        let near = |last: &i64| at_ns.saturating_sub(*last) <= NEAR_NS;
        let from_ns = duty.last_ns.filter(near);
        let from_ns = from_ns.unwrap_or(at_ns.saturating_sub(PERIOD_NS));
        duty.last_ns = Some(at_ns);
        for (column, ns) in self.columns.touched(from_ns.max(self.from_ns), at_ns) {
            let (known, traced) = &mut duty.known_and_traced_ns[column];
            *known += ns;
            *traced += (ns as f64 * ratio.clamp(0.0, 1.0)).round() as u64;
        }
    }

    /// Of several runs on one device the one that recorded the most speaks.
    fn of(&self, runs: &[i64], column: usize) -> (u64, u64) {
        let of_runs = runs.iter().filter_map(|run| self.runs.get(run));
        of_runs.fold((0, 0), |(known, traced), duty| {
            let (one, other) = duty.known_and_traced_ns[column];
            (known.max(one), traced.max(other))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn columns() -> Columns {
        Columns {
            from_ns: 0,
            to_ns: 10 * SECOND,
            width_ns: 4 * SECOND,
            count: 3,
        }
    }

    fn device(told_secs: [u64; 3], gemm_secs: [u64; 3]) -> Device {
        let mut times = vec![[0; Family::ALL.len()]; 3];
        for (time, secs) in times.iter_mut().zip(gemm_secs) {
            time[Family::Gemm as usize] = secs * 1_000_000_000;
        }
        Device {
            times,
            told_ns: told_secs.map(|secs| secs * 1_000_000_000).to_vec(),
            told_until_ns: 0,
            runs: vec![7],
        }
    }

    fn recorded(device: Device, samples: &[(i64, i64, f64)]) -> Vec<(i64, u64)> {
        let mut duties = Duties {
            columns: columns(),
            from_ns: i64::MIN,
            runs: BTreeMap::new(),
        };
        for (run, second, ratio) in samples {
            duties.add(*run, second * SECOND, *ratio);
        }
        let times = device.finish(&columns(), &duties);
        let told = |time: &GpuTime| (time.from_ns / SECOND, time.recorded_ns / 1_000_000_000);
        times.iter().map(told).collect()
    }

    #[test]
    fn a_period_is_spread_over_the_columns_that_it_touches() {
        let touched = |from: i64, to: i64| -> Vec<(usize, u64)> {
            let parts = columns();
            let parts: Vec<(usize, u64)> = parts.touched(from * SECOND, to * SECOND).collect();
            parts
                .into_iter()
                .map(|(column, ns)| (column, ns / 1_000_000_000))
                .collect()
        };
        assert_eq!(touched(3, 9), [(0, 1), (1, 4), (2, 1)]);
        assert_eq!(touched(-5, 1), [(0, 1)]);
        assert_eq!(touched(9, 99), [(2, 1)]);
        assert_eq!(touched(-5, 0), []);
        assert_eq!(touched(10, 11), []);
        assert_eq!(touched(5, 5), []);
    }

    #[test]
    fn without_a_duty_ratio_what_is_told_of_was_recorded() {
        assert_eq!(recorded(device([4, 1, 0], [1, 1, 0]), &[]), [(0, 4), (4, 1)]);
        // Copies tell nothing of the kernels beside them.
        assert_eq!(recorded(device([0, 0, 0], [0, 1, 0]), &[]), [(4, 1)]);
    }

    #[test]
    fn an_agent_that_rests_is_unknown_and_one_that_sees_nothing_is_idle() {
        let second_by_second = |ratios: [f64; 10]| -> Vec<(i64, i64, f64)> {
            (1..)
                .zip(ratios)
                .map(|(second, ratio)| (7, second, ratio))
                .collect()
        };
        let idle = second_by_second([1.0; 10]);
        assert_eq!(
            recorded(device([1, 0, 0], [1, 0, 0]), &idle),
            [(0, 4), (4, 4), (8, 2)]
        );
        let rests = second_by_second([1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5]);
        assert_eq!(recorded(device([4, 0, 2], [1, 0, 0]), &rests), [(0, 4), (8, 1)]);
        let another = [(8, 4, 1.0)];
        assert_eq!(recorded(device([0, 0, 0], [0, 0, 0]), &another), []);
    }
}
