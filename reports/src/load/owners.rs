//! Readings of processes: which process they are of, and to whom it belongs.

use std::collections::{HashMap, VecDeque};

use plimsoll_store::{Reader, Row, Value};

use super::Window;
use super::holdings::{HOLDS_NS, Holdings, Identity};
use crate::error::ReportError;
use crate::row::size;
use crate::timeline::{DeviceTrack, OwnerName};
use crate::words::Words;

/// Processes are looked for once a second; this allows for a busy machine, ns.
const CLAIMED_NS: i64 = 5_000_000_000;

/// Whether a process of the run itself held memory here.
pub(super) fn has_own(track: &DeviceTrack) -> bool {
    track
        .owners
        .iter()
        .any(|owner| owner.name != OwnerName::OtherProcesses)
}

/// Reads who held memory on the devices, at the instants of their samples.
pub(super) async fn read(
    reader: &Reader,
    window: &Window,
    tracks: &mut [DeviceTrack],
) -> Result<(), ReportError> {
    let sql = "SELECT device, pid, run_id, process, at_ns, used_bytes FROM process_samples \
               WHERE at_ns BETWEEN ?1 AND ?2 ORDER BY at_ns";
    let mut devices = Words::default();
    for track in tracks.iter() {
        devices.number(&track.uuid);
    }
    let rows = Rows {
        devices,
        names: Words::default(),
        claims: Claims::new(window.run, Holdings::new(window, tracks)),
    };
    // What was read before the window still holds in it.
    let from = Value::Integer(window.from_ns.saturating_sub(HOLDS_NS));
    let values = [from, Value::Integer(window.to_ns)];
    let rows = reader.scan(sql, &values, rows, Rows::take).await?;
    rows.claims.finish().finish(&rows.names, tracks);
    Ok(())
}

struct Rows {
    devices: Words,
    names: Words,
    claims: Claims,
}

impl Rows {
    fn take(&mut self, row: &Row<'_>) {
        let device = row.text(0).map(|uuid| self.devices.number(&uuid));
        let (Some(device), Some(at_ns)) = (device, row.int(4)) else {
            return;
        };
        let pid = row.int(1).and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        let identity = Identity {
            run: row.int(2),
            name: row.text(3).map(|name| self.names.number(&name)),
        };
        self.claims.take(at_ns, (device, pid), identity, size(row, 5));
    }
}

/// A row of the view, with numbers for its texts.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at_ns: i64,
    process: usize,
    identity: Identity,
    used_bytes: Option<u64>,
}

/// The driver names a process before anybody has seen to which run it belongs: its first rows, which belong to no run,
/// are the run's if the run claims the process within [`CLAIMED_NS`]. So rows wait for so long.
struct Claims {
    run: Option<i64>,
    /// Devices and process ids, and as what each was read last.
    processes: HashMap<(usize, u32), usize>,
    latest: Vec<Identity>,
    waiting: VecDeque<Reading>,
    holdings: Holdings,
}

impl Claims {
    fn new(run: Option<i64>, holdings: Holdings) -> Self {
        Self {
            run,
            processes: HashMap::new(),
            latest: Vec::new(),
            waiting: VecDeque::new(),
            holdings,
        }
    }

    fn take(&mut self, at_ns: i64, key: (usize, u32), identity: Identity, used_bytes: Option<u64>) {
        let process = *self.processes.entry(key).or_insert_with(|| {
            self.latest.push(identity);
            self.holdings.add_process(key)
        });
        if std::mem::replace(&mut self.latest[process], identity) != identity && identity.run == self.run {
            let of_process = self.waiting.iter_mut().rev();
            for earlier in of_process.filter(|earlier| earlier.process == process) {
                if earlier.identity.run.is_some() || at_ns.saturating_sub(earlier.at_ns) > CLAIMED_NS {
                    break;
                }
                earlier.identity = identity;
            }
        }
        self.waiting.push_back(Reading {
            at_ns,
            process,
            identity,
            used_bytes,
        });
        let settled_ns = at_ns.saturating_sub(CLAIMED_NS);
        while let Some(reading) = self.waiting.pop_front_if(|reading| reading.at_ns < settled_ns) {
            self.pass_on(reading);
        }
    }

    fn finish(mut self) -> Holdings {
        while let Some(reading) = self.waiting.pop_front() {
            self.pass_on(reading);
        }
        self.holdings
    }

    fn pass_on(&mut self, reading: Reading) {
        let Reading {
            at_ns,
            process,
            identity,
            used_bytes,
        } = reading;
        self.holdings.take(at_ns, process, identity, used_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::Sample;

    const SECOND: i64 = 1_000_000_000;

    /// Seconds, and what was held from then on.
    type Held = Vec<(i64, Option<u64>)>;

    /// Reads rows (second, pid, run, bytes) with a sample of one device at each second.
    fn owners(
        run: Option<i64>,
        seconds: i64,
        rows: &[(i64, u32, Option<i64>, Option<u64>)],
    ) -> Vec<(OwnerName, Held)> {
        let window = Window {
            run,
            from_ns: 0,
            to_ns: seconds * SECOND,
        };
        let samples = (0..=seconds).map(|second| Sample {
            at_ns: second * SECOND,
            used_bytes: Some(100),
        });
        let mut tracks = [DeviceTrack {
            samples: samples.collect(),
            ..DeviceTrack::default()
        }];
        let mut claims = Claims::new(run, Holdings::new(&window, &tracks));
        for (second, pid, run, used_bytes) in rows {
            let identity = Identity {
                run: *run,
                name: None,
            };
            claims.take(second * SECOND, (0, *pid), identity, *used_bytes);
        }
        claims.finish().finish(&Words::default(), &mut tracks);
        let [track] = tracks;
        let told = |sample: &Sample| (sample.at_ns / SECOND, sample.used_bytes);
        track
            .owners
            .into_iter()
            .map(|owner| (owner.name, owner.samples.iter().map(told).collect()))
            .collect()
    }

    fn process(pid: u32) -> OwnerName {
        OwnerName::Process { name: None, pid }
    }

    #[test]
    fn the_first_rows_of_a_process_are_its_run_s() {
        let rows = [
            (0, 9, None, Some(1)),
            (100, 9, None, Some(2)),
            (101, 9, None, Some(3)),
            (102, 9, Some(7), Some(4)),
        ];
        let told = owners(Some(7), 110, &rows);
        let own = vec![(100, Some(2)), (101, Some(3)), (102, Some(4))];
        let other = vec![(0, Some(1)), (61, None)];
        assert_eq!(
            told,
            [(process(9), own), (OwnerName::OtherProcesses, other)],
            "an earlier life of the pid stays another's"
        );
    }

    #[test]
    fn another_run_claims_nothing() {
        let rows = [
            (0, 9, None, Some(1)),
            (1, 9, Some(3), Some(1)),
            (2, 9, Some(7), Some(1)),
        ];
        let told = owners(Some(7), 5, &rows);
        let wanted = [
            (process(9), vec![(2, Some(1))]),
            (OwnerName::OtherProcesses, vec![(0, Some(1)), (2, None)]),
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn a_value_that_is_not_confirmed_ends() {
        let rows = [
            (0, 9, None, Some(1)),
            (60, 9, None, Some(2)),
            (200, 9, None, Some(3)),
            (210, 9, None, None),
        ];
        let wanted = vec![
            (0, Some(1)),
            (60, Some(2)),
            (121, None),
            (200, Some(3)),
            (210, None),
        ];
        assert_eq!(owners(None, 300, &rows), [(process(9), wanted)]);
    }

    #[test]
    fn what_was_before_the_window_holds_in_it() {
        let rows = [
            (-30, 9, None, Some(9)),
            (-20, 9, None, Some(5)),
            (10, 9, None, Some(1)),
        ];
        let wanted = vec![(0, Some(5)), (10, Some(1))];
        assert_eq!(owners(None, 50, &rows), [(process(9), wanted)]);
        assert_eq!(owners(None, 50, &[]), []);
    }

    #[test]
    fn other_processes_are_added_up() {
        let rows = [
            (0, 1, None, Some(1)),
            (10, 1, None, Some(5)),
            (10, 2, Some(3), Some(2)),
            (30, 1, None, None),
            (40, 2, Some(3), None),
        ];
        let wanted = vec![(0, Some(1)), (10, Some(7)), (30, Some(2)), (40, None)];
        assert_eq!(owners(Some(7), 50, &rows), [(OwnerName::OtherProcesses, wanted)]);
    }

    #[test]
    fn sizes_that_nobody_has_do_not_overflow() {
        let most = u64::try_from(i64::MAX).expect("positive");
        let rows: Vec<(i64, u32, Option<i64>, Option<u64>)> =
            (0..9).map(|pid| (1, pid, None, Some(most))).collect();
        let wanted = vec![(1, Some(u64::MAX)), (62, None)];
        assert_eq!(owners(Some(7), 70, &rows), [(OwnerName::OtherProcesses, wanted)]);
    }
}
