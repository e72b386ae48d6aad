//! Readings of devices: row by row when there are few, else summed up in SQL.

use std::collections::BTreeMap;

use plimsoll_store::{Reader, Value};

use super::{Window, owners, stretches};
use crate::error::ReportError;
use crate::row::rows;
use crate::timeline::{Busy, DeviceTrack, Sample, find_gaps, find_peak};

/// More rows than this are summed up in SQL. At 1.6 µs a row this many take a tenth of a second.
pub(super) const MOST_ROWS: i64 = 60_000;

/// The devices of the window, by UUID, with their readings and owners; for a run, only those it held memory on.
pub(super) async fn tracks(reader: &Reader, window: &Window) -> Result<Vec<DeviceTrack>, ReportError> {
    let mut tracks = BTreeMap::new();
    let known = reader
        .query("SELECT device, name, driver, total_bytes FROM devices", &[])
        .await?;
    for mut row in rows(&known) {
        let track = DeviceTrack {
            uuid: row.word(),
            name: row.text(),
            driver: row.text(),
            capacity_bytes: row.size(),
            ..DeviceTrack::default()
        };
        tracks.insert(track.uuid.clone(), track);
    }
    let few = expected_rows(reader, window).await? <= MOST_ROWS;
    if !few || !read(reader, window, &mut tracks).await? || !owners::read(reader, window, &mut tracks).await?
    {
        stretches::read(reader, window, &mut tracks).await?;
    }
    for (uuid, track) in &mut tracks {
        track.reserved_bytes = reserved(reader, window, uuid).await?;
    }
    let mut tracks: Vec<DeviceTrack> = tracks.into_values().collect();
    if window.run.is_some() && tracks.iter().any(owners::has_own) {
        tracks.retain(owners::has_own);
    }
    if tracks.iter().any(|track| !track.samples.is_empty()) {
        tracks.retain(|track| !track.samples.is_empty());
    }
    Ok(tracks)
}

/// About how many rows the window has, from the number in three thin slices of it.
async fn expected_rows(reader: &Reader, window: &Window) -> Result<i64, ReportError> {
    const SLICES: i64 = 3;
    const THINNESS: i64 = 200;
    let sql = "SELECT (SELECT count(*) FROM device_samples WHERE at_ns BETWEEN ?1 AND ?2) \
                    + (SELECT count(*) FROM process_samples WHERE at_ns BETWEEN ?1 AND ?2)";
    let span = window.to_ns.saturating_sub(window.from_ns);
    let mut found = 0_i64;
    for slice in 0..SLICES {
        let from = window
            .from_ns
            .saturating_add(span / (2 * SLICES) * (2 * slice + 1));
        let bounds = [
            Value::Integer(from),
            Value::Integer(from.saturating_add(span / THINNESS)),
        ];
        let table = reader.query(sql, &bounds).await?;
        found += rows(&table).next().and_then(|mut row| row.int()).unwrap_or(0);
    }
    Ok(found.saturating_mul(THINNESS) / SLICES)
}

/// Reads every row; answers false, with nothing read, when there are too many.
async fn read(
    reader: &Reader,
    window: &Window,
    tracks: &mut BTreeMap<String, DeviceTrack>,
) -> Result<bool, ReportError> {
    let sql = format!(
        "SELECT device, at_ns, used_bytes, gpu_busy_ratio FROM device_samples \
         WHERE at_ns BETWEEN ?1 AND ?2 ORDER BY at_ns LIMIT {}",
        MOST_ROWS + 1
    );
    let table = reader.query(&sql, &window.bounds()).await?;
    if i64::try_from(table.rows.len()).is_ok_and(|rows| rows > MOST_ROWS) {
        return Ok(false);
    }
    for mut row in rows(&table) {
        let (Some(track), Some(at_ns)) = (tracks.get_mut(&row.word()), row.int()) else {
            continue;
        };
        track.samples.push(Sample {
            at_ns,
            used_bytes: row.size(),
        });
        track.busy.push(Busy {
            at_ns,
            ratio: row.real(),
        });
    }
    for track in tracks.values_mut() {
        track.gaps = find_gaps(&track.samples);
        track.peak = find_peak(&track.samples);
    }
    Ok(true)
}

/// What the driver kept for itself at the newest reading that says so.
async fn reserved(reader: &Reader, window: &Window, uuid: &str) -> Result<Option<u64>, ReportError> {
    let sql = "SELECT reserved_bytes FROM device_samples \
               WHERE at_ns BETWEEN ?1 AND ?2 AND device = ?3 AND reserved_bytes IS NOT NULL \
               ORDER BY at_ns DESC LIMIT 1";
    let [from, to] = window.bounds();
    let table = reader.query(sql, &[from, to, Value::from(uuid)]).await?;
    Ok(rows(&table).next().and_then(|mut row| row.size()))
}
