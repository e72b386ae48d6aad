//! What processes hold at the instants that are drawn. Their rows are stored when something changed and once a minute,
//! so each holds for a while; only what was held at an instant of the device's own samples is kept, and the most.

use std::collections::HashMap;

use super::Window;
use crate::timeline::{DeviceTrack, Owner, OwnerName, Sample};
use crate::words::Words;

/// How long a row of `process_samples` holds, ns.
pub(super) const HOLDS_NS: i64 = 61_000_000_000;

/// Which life of a process id a row is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) run: Option<i64>,
    /// The number of its name.
    pub(super) name: Option<usize>,
}

/// Takes rows in the order of time.
pub(super) struct Holdings {
    run: Option<i64>,
    from_ns: i64,
    to_ns: i64,
    /// When the rows were read that came last.
    now_ns: i64,
    /// No process holds anything that ends before this.
    ends_ns: i64,
    devices: Vec<Device>,
    processes: Vec<Process>,
    owners: Vec<Holder>,
    numbers: HashMap<OwnerKey, usize>,
    /// Owners of the rows that came last.
    changed: Vec<usize>,
}

/// A device, and a process on it unless it is one of the others.
type OwnerKey = (usize, Option<(u32, Option<usize>)>);

struct Device {
    /// When it is drawn; ascending.
    instants: Vec<i64>,
    next: usize,
    owners: Vec<usize>,
}

struct Process {
    device: usize,
    pid: u32,
    identity: Option<Identity>,
    owner: usize,
    used_bytes: Option<u64>,
    until_ns: i64,
}

/// One owner: what its processes hold now, and what they held.
struct Holder {
    key: OwnerKey,
    /// How many of its processes hold something that is known, and how much together.
    known: usize,
    total: u128,
    samples: Vec<Sample>,
    /// The most it held, and how many samples were before that.
    peak: Option<(usize, Sample)>,
    /// Whether the next sample must be kept even if it is as the one before.
    is_after_peak: bool,
}

impl Holdings {
    pub(super) fn new(window: &Window, tracks: &[DeviceTrack]) -> Self {
        let devices = tracks.iter().map(|track| {
            let mut instants: Vec<i64> = track.samples.iter().map(|sample| sample.at_ns).collect();
            if instants.first() != Some(&window.from_ns) {
                instants.insert(0, window.from_ns);
            }
            Device {
                instants,
                next: 0,
                owners: Vec::new(),
            }
        });
        Self {
            run: window.run,
            from_ns: window.from_ns,
            to_ns: window.to_ns,
            now_ns: i64::MIN,
            ends_ns: i64::MAX,
            devices: devices.collect(),
            processes: Vec::new(),
            owners: Vec::new(),
            numbers: HashMap::new(),
            changed: Vec::new(),
        }
    }

    /// A process id on a device. Answers its number: they are counted from 0.
    pub(super) fn add_process(&mut self, (device, pid): (usize, u32)) -> usize {
        self.processes.push(Process {
            device,
            pid,
            identity: None,
            owner: usize::MAX,
            used_bytes: None,
            until_ns: i64::MAX,
        });
        self.processes.len() - 1
    }

    pub(super) fn take(&mut self, at_ns: i64, process: usize, identity: Identity, used_bytes: Option<u64>) {
        self.advance(at_ns);
        let (device, pid) = (self.processes[process].device, self.processes[process].pid);
        if self.processes[process].identity != Some(identity) {
            // A process that became known as another is not held twice.
            self.hold(process, None);
            let is_own = self.run.is_none() || self.run == identity.run;
            let owner = self.owner((device, is_own.then_some((pid, identity.name))));
            self.processes[process].identity = Some(identity);
            self.processes[process].owner = owner;
        }
        self.hold(process, used_bytes);
        let until_ns = at_ns.saturating_add(HOLDS_NS);
        self.processes[process].until_ns = until_ns;
        if used_bytes.is_some() {
            self.ends_ns = self.ends_ns.min(until_ns);
        }
        self.changed.push(self.processes[process].owner);
    }

    fn owner(&mut self, key: OwnerKey) -> usize {
        *self.numbers.entry(key).or_insert_with(|| {
            let number = self.owners.len();
            self.owners.push(Holder::new(key));
            if let Some(device) = self.devices.get_mut(key.0) {
                device.owners.push(number);
            }
            number
        })
    }

    fn hold(&mut self, process: usize, used_bytes: Option<u64>) {
        let process = &mut self.processes[process];
        let before = std::mem::replace(&mut process.used_bytes, used_bytes);
        let Some(owner) = self.owners.get_mut(process.owner) else {
            return;
        };
        if let Some(before) = before {
            owner.known -= 1;
            owner.total -= u128::from(before);
        }
        if let Some(used_bytes) = used_bytes {
            owner.known += 1;
            owner.total += u128::from(used_bytes);
        }
    }

    /// Ends what was not confirmed in time, and keeps what is held at the instants before `to_ns`.
    fn advance(&mut self, to_ns: i64) {
        if to_ns == self.now_ns {
            return;
        }
        for owner in std::mem::take(&mut self.changed) {
            if self.now_ns >= self.from_ns {
                self.owners[owner].see_peak(self.now_ns);
            }
        }
        while self.ends_ns < to_ns {
            self.record(self.ends_ns);
            let ends_ns = self.ends_ns;
            self.ends_ns = i64::MAX;
            for process in 0..self.processes.len() {
                let (used_bytes, until_ns) = (
                    self.processes[process].used_bytes,
                    self.processes[process].until_ns,
                );
                if used_bytes.is_some() && until_ns <= ends_ns {
                    self.hold(process, None);
                } else if used_bytes.is_some() {
                    self.ends_ns = self.ends_ns.min(until_ns);
                }
            }
        }
        self.record(to_ns);
        self.now_ns = to_ns;
    }

    /// Keeps what is held at the instants before `to_ns`.
    fn record(&mut self, to_ns: i64) {
        for device in &mut self.devices {
            while let Some(at_ns) = device.instants.get(device.next).filter(|at_ns| **at_ns < to_ns) {
                for owner in &device.owners {
                    self.owners[*owner].keep(*at_ns);
                }
                device.next += 1;
            }
        }
    }

    /// Gives each device its owners, by name.
    pub(super) fn finish(mut self, names: &Words, tracks: &mut [DeviceTrack]) {
        self.advance(self.to_ns.saturating_add(1));
        for owner in self.owners {
            let Some(track) = tracks.get_mut(owner.key.0) else {
                continue;
            };
            let name = match owner.key.1 {
                Some((pid, name)) => OwnerName::Process {
                    name: name.map(|name| names.text(name).to_owned()),
                    pid,
                },
                None => OwnerName::OtherProcesses,
            };
            let samples = owner.finish();
            track.owners.push(Owner { name, samples });
        }
        for track in tracks {
            track.owners.sort_by(|a, b| a.name.cmp(&b.name));
        }
    }
}

impl Holder {
    fn new(key: OwnerKey) -> Self {
        Self {
            key,
            known: 0,
            total: 0,
            samples: Vec::new(),
            peak: None,
            is_after_peak: false,
        }
    }

    fn held(&self) -> Option<u64> {
        (self.known > 0).then(|| u64::try_from(self.total).unwrap_or(u64::MAX))
    }

    /// Looks whether it holds more than ever before, when all rows of the instant have come.
    fn see_peak(&mut self, at_ns: i64) {
        let used_bytes = self.held();
        let most = self.peak.and_then(|(_, peak)| peak.used_bytes);
        if used_bytes > most {
            self.peak = Some((self.samples.len(), Sample { at_ns, used_bytes }));
            self.is_after_peak = true;
        }
    }

    fn keep(&mut self, at_ns: i64) {
        let used_bytes = self.held();
        let before = self.samples.last().and_then(|sample| sample.used_bytes);
        if used_bytes != before || self.is_after_peak {
            self.samples.push(Sample { at_ns, used_bytes });
            self.is_after_peak = false;
        }
    }

    /// The samples, with the peak among them if it was between two instants.
    fn finish(self) -> Vec<Sample> {
        let mut samples = self.samples;
        if let Some((place, peak)) = self.peak
            && samples.get(place).is_none_or(|sample| sample.at_ns != peak.at_ns)
        {
            samples.insert(place, peak);
        }
        samples
    }
}
