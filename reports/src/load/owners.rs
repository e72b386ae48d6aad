//! Readings of processes. They are stored when something changed and once a minute, so a row holds for a while.

use std::collections::BTreeMap;

use plimsoll_store::{Reader, Value};

use super::Window;
use super::samples::MOST_ROWS;
use crate::error::ReportError;
use crate::row::{Row, rows};
use crate::timeline::{DeviceTrack, Owner, OwnerName, Sample};

/// How long a row of `process_samples` holds, ns.
pub(super) const HOLDS_NS: i64 = 61_000_000_000;

/// Processes are looked for once a second; this allows for a busy machine, ns.
const CLAIMED_NS: i64 = 5_000_000_000;

/// A process on a device; several lives of one pid are told apart by run and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) device: String,
    pub(super) name: OwnerName,
    run: Option<i64>,
    pid: u32,
}

impl Key {
    /// Reads the columns device, pid, run_id and process. Processes of no run or of another one count as others.
    pub(super) fn read(row: &mut Row<'_>, window: &Window) -> Self {
        let device = row.word();
        let pid = row.int().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        let run = row.int();
        let process = row.text();
        let name = if window.run.is_none() || window.run == run {
            OwnerName::Process { name: process, pid }
        } else {
            OwnerName::OtherProcesses
        };
        Self {
            device,
            name,
            run,
            pid,
        }
    }
}

/// Whether a process of the run itself held memory here.
pub(super) fn has_own(track: &DeviceTrack) -> bool {
    track
        .owners
        .iter()
        .any(|owner| owner.name != OwnerName::OtherProcesses)
}

/// Reads every row; answers false, with no owner read, when there are too many.
pub(super) async fn read(
    reader: &Reader,
    window: &Window,
    tracks: &mut BTreeMap<String, DeviceTrack>,
) -> Result<bool, ReportError> {
    let sql = format!(
        "SELECT device, pid, run_id, process, at_ns, used_bytes FROM process_samples \
         WHERE at_ns BETWEEN ?1 AND ?2 ORDER BY at_ns LIMIT {}",
        MOST_ROWS + 1
    );
    let from = Value::Integer(window.from_ns.saturating_sub(HOLDS_NS));
    let table = reader.query(&sql, &[from, Value::Integer(window.to_ns)]).await?;
    if i64::try_from(table.rows.len()).is_ok_and(|rows| rows > MOST_ROWS) {
        return Ok(false);
    }
    let mut read: Vec<(Key, Sample)> = rows(&table)
        .filter_map(|mut row| {
            let key = Key::read(&mut row, window);
            let (at_ns, used_bytes) = (row.int()?, row.size());
            Some((key, Sample { at_ns, used_bytes }))
        })
        .collect();
    claim(&mut read, window);
    let mut series: BTreeMap<Key, Vec<Sample>> = BTreeMap::new();
    let mut latest: BTreeMap<(String, u32), Key> = BTreeMap::new();
    for (key, Sample { at_ns, used_bytes }) in read {
        // A process that became known as another (its run was not known yet at first) is not held twice.
        let former = latest.insert((key.device.clone(), key.pid), key.clone());
        if let Some(former) = former.filter(|former| *former != key) {
            let ended = Sample {
                at_ns,
                used_bytes: None,
            };
            series.entry(former).or_default().push(ended);
        }
        series.entry(key).or_default().push(Sample { at_ns, used_bytes });
    }
    let mut others: BTreeMap<String, Vec<Vec<Sample>>> = BTreeMap::new();
    for (key, samples) in series {
        let samples = begin(expire(samples), window.from_ns);
        if key.name == OwnerName::OtherProcesses {
            others.entry(key.device).or_default().push(samples);
        } else if let Some(track) = tracks.get_mut(&key.device) {
            track.owners.push(Owner {
                name: key.name,
                samples,
            });
        }
    }
    for (device, series) in others {
        if let Some(track) = tracks.get_mut(&device) {
            track.owners.push(Owner {
                name: OwnerName::OtherProcesses,
                samples: sum(&series),
            });
        }
    }
    Ok(true)
}

/// The driver names a process before anybody has seen to which run it belongs: its first rows, which belong to no run,
/// are the run's if the run claims the process within [`CLAIMED_NS`].
fn claim(read: &mut [(Key, Sample)], window: &Window) {
    let mut next: BTreeMap<(String, u32), (Key, i64)> = BTreeMap::new();
    for (key, sample) in read.iter_mut().rev() {
        let process = (key.device.clone(), key.pid);
        if key.run.is_none()
            && let Some((claimed, at_ns)) = next.get(&process)
            && claimed.run == window.run
            && at_ns.saturating_sub(sample.at_ns) <= CLAIMED_NS
        {
            *key = claimed.clone();
        }
        next.insert(process, (key.clone(), sample.at_ns));
    }
}

/// Ends a value that was not confirmed in time.
fn expire(samples: Vec<Sample>) -> Vec<Sample> {
    let mut out: Vec<Sample> = Vec::with_capacity(samples.len() + 1);
    let next = samples
        .iter()
        .skip(1)
        .map(|sample| sample.at_ns)
        .chain([i64::MAX]);
    for (sample, next_ns) in samples.iter().zip(next) {
        out.push(*sample);
        let until = sample.at_ns.saturating_add(HOLDS_NS);
        if sample.used_bytes.is_some() && next_ns > until {
            out.push(Sample {
                at_ns: until,
                used_bytes: None,
            });
        }
    }
    out
}

/// Leaves out what was before the window; what still held at its start begins there.
fn begin(mut samples: Vec<Sample>, from_ns: i64) -> Vec<Sample> {
    let inside = samples.partition_point(|sample| sample.at_ns <= from_ns);
    let mut kept = samples.split_off(inside.saturating_sub(1));
    if let Some(first) = kept.first_mut() {
        first.at_ns = first.at_ns.max(from_ns);
    }
    kept
}

/// Adds up series that hold their values; the sum is unknown where none of them is known.
fn sum(series: &[Vec<Sample>]) -> Vec<Sample> {
    let mut changes: Vec<(i64, usize, Option<u64>)> = series
        .iter()
        .enumerate()
        .flat_map(|(index, samples)| {
            samples
                .iter()
                .map(move |sample| (sample.at_ns, index, sample.used_bytes))
        })
        .collect();
    changes.sort_unstable();
    let mut now: Vec<Option<u64>> = vec![None; series.len()];
    let mut out: Vec<Sample> = Vec::new();
    for (at_ns, index, used_bytes) in changes {
        now[index] = used_bytes;
        let total = now.iter().flatten().copied().reduce(u64::saturating_add);
        match out.last_mut() {
            Some(last) if last.at_ns == at_ns => last.used_bytes = total,
            _ => out.push(Sample {
                at_ns,
                used_bytes: total,
            }),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[(i64, Option<u64>)]) -> Vec<Sample> {
        values
            .iter()
            .map(|(secs, used_bytes)| Sample {
                at_ns: secs * 1_000_000_000,
                used_bytes: *used_bytes,
            })
            .collect()
    }

    #[test]
    fn the_first_rows_of_a_process_are_its_run_s() {
        let window = Window {
            run: Some(7),
            from_ns: 0,
            to_ns: i64::MAX,
        };
        let row = |run: Option<i64>, secs: i64| {
            let name = match run {
                Some(_) => OwnerName::Process {
                    name: Some("serve".to_owned()),
                    pid: 9,
                },
                None => OwnerName::OtherProcesses,
            };
            let sample = Sample {
                at_ns: secs * 1_000_000_000,
                used_bytes: Some(1),
            };
            (
                Key {
                    device: "GPU-1".to_owned(),
                    name,
                    run,
                    pid: 9,
                },
                sample,
            )
        };
        let mut rows = [row(None, 0), row(None, 100), row(None, 101), row(Some(7), 102)];
        claim(&mut rows, &window);
        let runs: Vec<Option<i64>> = rows.iter().map(|(key, _)| key.run).collect();
        assert_eq!(
            runs,
            [None, Some(7), Some(7), Some(7)],
            "an earlier life of the pid stays another's"
        );
    }

    #[test]
    fn a_value_that_is_not_confirmed_ends() {
        let read = expire(samples(&[
            (0, Some(1)),
            (60, Some(2)),
            (200, Some(3)),
            (210, None),
        ]));
        let wanted = [
            (0, Some(1)),
            (60, Some(2)),
            (121, None),
            (200, Some(3)),
            (210, None),
        ];
        assert_eq!(read, samples(&wanted));
    }

    #[test]
    fn what_was_before_the_window_is_left_out() {
        let read = begin(
            samples(&[(0, Some(9)), (10, Some(5)), (30, Some(1))]),
            20_000_000_000,
        );
        assert_eq!(read, samples(&[(20, Some(5)), (30, Some(1))]));
        assert_eq!(begin(Vec::new(), 0), []);
    }

    #[test]
    fn other_processes_are_added_up() {
        let a = samples(&[(0, Some(1)), (10, Some(5)), (30, None)]);
        let b = samples(&[(10, Some(2)), (40, None)]);
        let wanted = [(0, Some(1)), (10, Some(7)), (30, Some(2)), (40, None)];
        assert_eq!(sum(&[a, b]), samples(&wanted));
    }
}
