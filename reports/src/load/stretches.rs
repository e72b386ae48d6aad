//! Long windows: SQL sums up every stretch of time, and the picture gets its lowest and highest reading.

use std::collections::BTreeMap;

use plimsoll_store::{Reader, Value};

use super::Window;
use super::owners::{HOLDS_NS, Key};
use crate::error::ReportError;
use crate::row::{Row, rows};
use crate::timeline::{Busy, DeviceTrack, Owner, OwnerName, Peak, Sample, Span};

/// As many as a picture has pixels across its lanes.
const STRETCHES: i64 = 760;

/// One stretch of a device.
#[derive(Clone, Copy, Debug)]
struct Reading {
    first_ns: i64,
    last_ns: i64,
    count: i64,
    known: i64,
    low: Option<u64>,
    high: Option<u64>,
}

impl Reading {
    /// Where its lowest and its highest reading are drawn. When they were within it is not known; taking turns makes
    /// the outline turn at every second stretch only.
    fn instants(&self, stretch: i64) -> (i64, i64) {
        let (first, last) = (self.first_ns, self.last_ns.max(self.first_ns.saturating_add(1)));
        if stretch % 2 == 0 {
            (first, last)
        } else {
            (last, first)
        }
    }
}

/// One stretch of a process.
#[derive(Clone, Copy, Debug)]
struct Held {
    first_ns: i64,
    low: u64,
    high: u64,
    /// What it still held at the end, and until when that is good without a further row.
    last: Option<(u64, i64)>,
}

/// Reads devices and processes in stretches.
pub(super) async fn read(
    reader: &Reader,
    window: &Window,
    tracks: &mut BTreeMap<String, DeviceTrack>,
) -> Result<(), ReportError> {
    let width_ns = (window.to_ns.saturating_sub(window.from_ns) / STRETCHES).max(1);
    for track in tracks.values_mut() {
        track.samples.clear();
        track.busy.clear();
        track.owners.clear();
    }
    // Two connections read at the same time: most of the work is SQLite's.
    let second = Reader::open(reader.path()).await?;
    let (readings, held) = tokio::try_join!(
        devices(reader, window, width_ns, tracks),
        processes(&second, window, width_ns)
    )?;
    for (device, stretches) in &readings {
        if let Some(track) = tracks.get_mut(device) {
            track.gaps = gaps(stretches);
            track.peak = peak(reader, device, stretches).await?;
        }
    }
    for (device, stretches) in &readings {
        if let Some(track) = tracks.get_mut(device) {
            attribute(track, stretches, &held);
        }
    }
    Ok(())
}

type Stretches = BTreeMap<i64, Reading>;

async fn devices(
    reader: &Reader,
    window: &Window,
    width_ns: i64,
    tracks: &mut BTreeMap<String, DeviceTrack>,
) -> Result<BTreeMap<String, Stretches>, ReportError> {
    let sql = "SELECT device, (at_ns - ?3) / ?4 AS stretch, min(at_ns), max(at_ns), count(*), count(used_bytes), \
               min(used_bytes), max(used_bytes), min(gpu_busy_ratio), max(gpu_busy_ratio) \
               FROM device_samples WHERE at_ns BETWEEN ?1 AND ?2 GROUP BY stretch, device ORDER BY stretch";
    let mut out: BTreeMap<String, Stretches> = BTreeMap::new();
    for [from, to] in pieces(window.from_ns, window.to_ns, width_ns) {
        let origin = [Value::Integer(window.from_ns), Value::Integer(width_ns)];
        let table = reader.query(sql, &[[from, to], origin].concat()).await?;
        for mut row in rows(&table) {
            device(&mut row, tracks, &mut out);
        }
    }
    Ok(out)
}

/// Reads one row of a device's stretch.
fn device(
    row: &mut Row<'_>,
    tracks: &mut BTreeMap<String, DeviceTrack>,
    out: &mut BTreeMap<String, Stretches>,
) {
    let device = row.word();
    let (Some(stretch), Some(first_ns), Some(last_ns)) = (row.int(), row.int(), row.int()) else {
        return;
    };
    let reading = Reading {
        first_ns,
        last_ns,
        count: row.int().unwrap_or(0),
        known: row.int().unwrap_or(0),
        low: row.size(),
        high: row.size(),
    };
    if let Some(track) = tracks.get_mut(&device) {
        let (low_ns, high_ns) = reading.instants(stretch);
        let sample = |at_ns, used_bytes| Sample { at_ns, used_bytes };
        let mut samples = [sample(low_ns, reading.low), sample(high_ns, reading.high)];
        samples.sort_by_key(|sample| sample.at_ns);
        track.samples.extend(samples);
        if reading.known > 0 && reading.known < reading.count {
            // Part of the stretch was unknown: it ends unknown, so that this is seen.
            track
                .samples
                .push(sample(low_ns.max(high_ns).saturating_add(1), None));
        }
        let mut busy = [low_ns, high_ns].map(|at_ns| Busy {
            at_ns,
            ratio: row.real(),
        });
        busy.sort_by_key(|busy| busy.at_ns);
        track.busy.extend(busy);
    }
    out.entry(device).or_default().insert(stretch, reading);
}

/// Cuts a window into pieces of a few stretches: SQLite groups them in memory, where a whole day would go to disk.
fn pieces(from_ns: i64, to_ns: i64, width_ns: i64) -> impl Iterator<Item = [Value; 2]> {
    let piece_ns = width_ns.saturating_mul(STRETCHES / 19);
    std::iter::successors(Some(from_ns), move |start| start.checked_add(piece_ns))
        .take_while(move |start| *start <= to_ns)
        .map(move |start| {
            let end = start.saturating_add(piece_ns - 1).min(to_ns);
            [Value::Integer(start), Value::Integer(end)]
        })
}

/// Where stretches have no readings: distances of over three times the interval that was usual before them.
fn gaps(stretches: &Stretches) -> Vec<Span> {
    let all: Vec<&Reading> = stretches.values().collect();
    all.windows(2)
        .filter_map(|pair| {
            let distance = pair[1].first_ns.saturating_sub(pair[0].last_ns);
            let interval = |reading: &Reading| {
                reading.last_ns.saturating_sub(reading.first_ns) / reading.count.saturating_sub(1).max(1)
            };
            let usual = interval(pair[0]).max(interval(pair[1])).max(1_000_000_000);
            (distance > usual.saturating_mul(3)).then_some(Span {
                from_ns: pair[0].last_ns,
                to_ns: pair[1].first_ns,
            })
        })
        .collect()
}

/// The exact instant of the highest reading, looked up in the stretch that holds it.
async fn peak(reader: &Reader, device: &str, stretches: &Stretches) -> Result<Option<Peak>, ReportError> {
    let highest = stretches
        .values()
        .filter_map(|reading| reading.high.map(|high| (high, reading)))
        .reduce(|best, next| if next.0 > best.0 { next } else { best });
    let Some((used_bytes, reading)) = highest else {
        return Ok(None);
    };
    let sql = "SELECT at_ns FROM device_samples WHERE at_ns BETWEEN ?1 AND ?2 AND device = ?3 AND used_bytes = ?4 \
               ORDER BY at_ns LIMIT 1";
    let values = [
        Value::Integer(reading.first_ns),
        Value::Integer(reading.last_ns),
        Value::from(device),
        Value::Integer(i64::try_from(used_bytes).unwrap_or(i64::MAX)),
    ];
    let table = reader.query(sql, &values).await?;
    let at_ns = rows(&table).next().and_then(|mut row| row.int());
    Ok(at_ns.map(|at_ns| Peak { at_ns, used_bytes }))
}

/// What processes held, by stretch, with the stretches of the devices.
async fn processes(
    reader: &Reader,
    window: &Window,
    width_ns: i64,
) -> Result<BTreeMap<Key, BTreeMap<i64, Held>>, ReportError> {
    let sql = "SELECT b.device, b.pid, l.run_id, l.process, b.stretch, b.low, b.high, b.total > b.known, \
                   l.used_bytes, b.first_ns, b.last_ns \
               FROM (SELECT device, pid, (at_ns - ?3) / ?4 AS stretch, min(used_bytes) AS low, max(used_bytes) AS high, \
                         count(*) AS total, count(used_bytes) AS known, min(at_ns) AS first_ns, \
                         max(at_ns) AS last_ns \
                     FROM process_samples WHERE at_ns BETWEEN ?1 AND ?2 GROUP BY stretch, device, pid) AS b \
               JOIN process_samples AS l ON l.at_ns = b.last_ns AND l.device = b.device AND l.pid = b.pid";
    // Rows from before the window still hold in it. SQL divides towards zero, so count from before the first of them.
    let earlier = HOLDS_NS / width_ns + 1;
    let origin_ns = window.from_ns.saturating_sub(earlier.saturating_mul(width_ns));
    let mut out: BTreeMap<Key, BTreeMap<i64, Held>> = BTreeMap::new();
    for [from, to] in pieces(origin_ns, window.to_ns, width_ns) {
        let origin = [Value::Integer(origin_ns), Value::Integer(width_ns)];
        let table = reader.query(sql, &[[from, to], origin].concat()).await?;
        for mut row in rows(&table) {
            let key = Key::read(&mut row, window);
            let Some(stretch) = row.int() else { continue };
            let (low, high, ended) = (row.size(), row.size(), row.int() == Some(1));
            let (last, first_ns, last_ns) = (row.size(), row.int().unwrap_or(0), row.int().unwrap_or(0));
            let held = Held {
                first_ns,
                low: low.filter(|_| !ended).unwrap_or(0),
                high: high.unwrap_or(0),
                last: last.map(|bytes| (bytes, last_ns.saturating_add(HOLDS_NS))),
            };
            out.entry(key).or_default().insert(stretch - earlier, held);
        }
    }
    Ok(out)
}

/// Gives every device reading the values its owners had then: their lowest at its lowest, and at its highest as much of
/// what they held at most as fits. An owner's own instants within a stretch are not known, so claims beyond the device's
/// use are told only where even the lowest values exceed it.
fn attribute(track: &mut DeviceTrack, stretches: &Stretches, held: &BTreeMap<Key, BTreeMap<i64, Held>>) {
    let mut owners: BTreeMap<OwnerName, Vec<Sample>> = BTreeMap::new();
    let of_device: Vec<(&Key, &BTreeMap<i64, Held>)> =
        held.iter().filter(|(key, _)| key.device == track.uuid).collect();
    for (stretch, reading) in stretches {
        let now: Vec<(&OwnerName, u64, u64)> = of_device
            .iter()
            .filter_map(|(key, series)| {
                let (low, high) = at(series, *stretch, reading.first_ns)?;
                Some((&key.name, low, high))
            })
            .collect();
        let least: u64 = now.iter().map(|(_, low, _)| low).sum();
        let range: u64 = now.iter().map(|(_, low, high)| high.saturating_sub(*low)).sum();
        let room = reading.high.unwrap_or(0).saturating_sub(least).min(range);
        let (low_ns, high_ns) = reading.instants(*stretch);
        let first_ns = low_ns.min(high_ns);
        let mut at_high: BTreeMap<&OwnerName, (u64, u64)> = BTreeMap::new();
        for (name, low, high) in now {
            let share = u128::from(high.saturating_sub(low)) * u128::from(room) / u128::from(range.max(1));
            let entry = at_high.entry(name).or_default();
            entry.0 = entry.0.saturating_add(low);
            entry.1 = entry
                .1
                .saturating_add(low)
                .saturating_add(u64::try_from(share).unwrap_or(0));
        }
        for samples in owners.values_mut() {
            samples.push(Sample {
                at_ns: first_ns,
                used_bytes: None,
            });
        }
        for (name, (low, high)) in at_high {
            let samples = owners.entry(name.clone()).or_default();
            if samples.last().is_some_and(|last| last.at_ns == first_ns) {
                samples.pop();
            }
            let mut pair = [(low_ns, low), (high_ns, high)];
            pair.sort_by_key(|(at_ns, _)| *at_ns);
            samples.extend(pair.map(|(at_ns, used)| Sample {
                at_ns,
                used_bytes: Some(used),
            }));
        }
    }
    track.owners = owners
        .into_iter()
        .map(|(name, samples)| Owner { name, samples })
        .collect();
}

/// The lowest and highest value of a process within a stretch: of its rows there, and what held until then.
fn at(series: &BTreeMap<i64, Held>, stretch: i64, first_ns: i64) -> Option<(u64, u64)> {
    let own = series.get(&stretch);
    // What held before counts while the stretch has readings of the device, but none yet of the process.
    let carried = series
        .range(..stretch)
        .next_back()
        .filter(|_| own.is_none_or(|held| held.first_ns > first_ns))
        .and_then(|(_, held)| held.last)
        .filter(|(_, until_ns)| *until_ns >= first_ns)
        .map(|(bytes, _)| (bytes, bytes));
    match (carried, own.map(|held| (held.low, held.high))) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (one, other) => one.or(other),
    }
}
