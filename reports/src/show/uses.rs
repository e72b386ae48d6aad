//! What devices had in use and processes held while a run lived: every row is read once.

use std::collections::HashMap;

use plimsoll_store::{Reader, Row, Value};

use super::{DeviceUse, ProcessUse};
use crate::error::ReportError;
use crate::row::{rows, size};
use crate::words::Words;

/// Reads the devices, by UUID, and the run's processes, largest first. `window` is a start, an end and a run.
pub(super) async fn read(
    reader: &Reader,
    window: &[Value; 3],
) -> Result<(Vec<DeviceUse>, Vec<ProcessUse>), ReportError> {
    // Two connections read at the same time: the work is SQLite's.
    let second = Reader::open(reader.path()).await?;
    tokio::try_join!(devices(reader, &window[..2]), processes(&second, window))
}

/// The readings of one device.
#[derive(Default)]
struct Readings {
    count: i64,
    /// Memory in use, as far as it is known.
    used_bytes: Vec<u64>,
    total_bytes: Option<u64>,
    peak: Option<(u64, i64)>,
    busy_sum: f64,
    busy_count: u32,
}

impl Readings {
    fn take(&mut self, row: &Row<'_>) {
        self.count += 1;
        let used_bytes = size(row, 2);
        self.used_bytes.extend(used_bytes);
        if let (Some(used_bytes), Some(at_ns)) = (used_bytes, row.int(1))
            && self.peak.is_none_or(|(most, _)| used_bytes > most)
        {
            self.peak = Some((used_bytes, at_ns));
        }
        self.total_bytes = self.total_bytes.max(size(row, 3));
        if let Some(ratio) = row.real(4) {
            self.busy_sum += ratio;
            self.busy_count += 1;
        }
    }

    fn told(mut self, device: String, name: Option<String>) -> DeviceUse {
        let known = self.used_bytes.len();
        let sum: u128 = self.used_bytes.iter().copied().map(u128::from).sum();
        let mean = sum
            .checked_div(known as u128)
            .and_then(|mean| u64::try_from(mean).ok());
        // The nearest rank, counted from 1.
        let rank = (known * 95).div_ceil(100);
        let p95 = rank
            .checked_sub(1)
            .map(|index| *self.used_bytes.select_nth_unstable(index).1);
        DeviceUse {
            device,
            name,
            total_bytes: self.total_bytes,
            samples: self.count,
            known_samples: i64::try_from(known).unwrap_or(i64::MAX),
            peak_used_bytes: self.peak.map(|(most, _)| most),
            peak_at_ns: self.peak.map(|(_, at_ns)| at_ns),
            mean_used_bytes: mean,
            p95_used_bytes: p95,
            mean_gpu_busy_ratio: (self.busy_count > 0).then(|| self.busy_sum / f64::from(self.busy_count)),
        }
    }
}

async fn devices(reader: &Reader, bounds: &[Value]) -> Result<Vec<DeviceUse>, ReportError> {
    let sql = "SELECT device, at_ns, used_bytes, total_bytes, gpu_busy_ratio FROM device_samples \
               WHERE at_ns BETWEEN ?1 AND ?2 ORDER BY at_ns";
    let take = |(devices, readings): &mut (Words, Vec<Readings>), row: &Row<'_>| {
        let Some(device) = row.text(0).map(|uuid| devices.number(&uuid)) else {
            return;
        };
        if device == readings.len() {
            readings.push(Readings::default());
        }
        readings[device].take(row);
    };
    let (devices, readings) = reader
        .scan(sql, bounds, (Words::default(), Vec::new()), take)
        .await?;
    let found = reader.query("SELECT device, name FROM devices", &[]).await?;
    let mut names: HashMap<String, Option<String>> =
        rows(&found).map(|mut row| (row.word(), row.text())).collect();
    let mut uses: Vec<DeviceUse> = readings
        .into_iter()
        .enumerate()
        .map(|(number, readings)| {
            let device = devices.text(number).to_owned();
            let name = names.remove(&device).flatten();
            readings.told(device, name)
        })
        .collect();
    uses.sort_by(|a, b| a.device.cmp(&b.device));
    Ok(uses)
}

/// A device, a process id and a name, with numbers for texts.
type ProcessKey = (usize, Option<i64>, Option<usize>);

async fn processes(reader: &Reader, window: &[Value]) -> Result<Vec<ProcessUse>, ReportError> {
    let sql = "SELECT device, pid, process, used_bytes FROM process_samples \
               WHERE run_id = ?3 AND at_ns BETWEEN ?1 AND ?2";
    let take = |(words, most): &mut (Words, HashMap<ProcessKey, Option<u64>>), row: &Row<'_>| {
        let Some(device) = row.text(0).map(|uuid| words.number(&uuid)) else {
            return;
        };
        let process = row.text(2).map(|name| words.number(&name));
        let entry = most.entry((device, row.int(1), process)).or_default();
        *entry = (*entry).max(size(row, 3));
    };
    let state = (Words::default(), HashMap::new());
    let (words, most) = reader.scan(sql, window, state, take).await?;
    let mut uses: Vec<ProcessUse> = most
        .into_iter()
        .map(|((device, pid, process), peak_used_bytes)| ProcessUse {
            device: words.text(device).to_owned(),
            pid,
            process: process.map(|process| words.text(process).to_owned()),
            peak_used_bytes,
        })
        .collect();
    uses.sort_by(|a, b| {
        (b.peak_used_bytes.cmp(&a.peak_used_bytes))
            .then_with(|| a.device.cmp(&b.device))
            .then(a.pid.cmp(&b.pid))
            .then_with(|| a.process.cmp(&b.process))
    });
    Ok(uses)
}
