//! Readings of devices: every row is read, what a picture can show of them is kept.

use std::collections::BTreeMap;

use plimsoll_store::{Reader, Row};

use super::{Window, allocators, gpu_time, owners};
use crate::error::ReportError;
use crate::row::{rows, size};
use crate::svg::column_ns;
use crate::thin::Thin;
use crate::timeline::{Busy, DeviceTrack, Gaps, Peak, Sample};
use crate::words::Words;

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
    let mut tracks: Vec<DeviceTrack> = tracks.into_values().collect();
    read(reader, window, &mut tracks).await?;
    owners::read(reader, window, &mut tracks).await?;
    if window.run.is_some() && tracks.iter().any(owners::has_own) {
        tracks.retain(owners::has_own);
    }
    if tracks.iter().any(|track| !track.samples.is_empty()) {
        tracks.retain(|track| !track.samples.is_empty());
    }
    gpu_time::read(reader, window, &mut tracks).await?;
    allocators::read(reader, window, &mut tracks).await?;
    Ok(tracks)
}

async fn read(reader: &Reader, window: &Window, tracks: &mut [DeviceTrack]) -> Result<(), ReportError> {
    let sql = "SELECT device, at_ns, used_bytes, gpu_busy_ratio, reserved_bytes FROM device_samples \
               WHERE at_ns BETWEEN ?1 AND ?2 ORDER BY at_ns";
    let mut devices = Words::default();
    let mut series: Vec<Series> = Vec::with_capacity(tracks.len());
    for track in tracks.iter() {
        devices.number(&track.uuid);
        series.push(Series::new(window));
    }
    let take = |(devices, series): &mut (Words, Vec<Series>), row: &Row<'_>| {
        let device = row.text(0).map(|uuid| devices.number(&uuid));
        if let (Some(series), Some(at_ns)) = (device.and_then(|device| series.get_mut(device)), row.int(1)) {
            series.take(at_ns, size(row, 2), row.real(3), size(row, 4));
        }
    };
    let state = (devices, series);
    let (_, series) = reader.scan(sql, &window.bounds(), state, take).await?;
    for (track, series) in tracks.iter_mut().zip(series) {
        series.finish(track);
    }
    Ok(())
}

/// The readings of one device while they are read.
struct Series {
    samples: Thin<Sample>,
    busy: Thin<Busy>,
    /// Sum and count of the readings of the busy ratio, in thousandths.
    busy_sum: (u64, u64),
    gaps: Gaps,
    peak: Option<Peak>,
    reserved_bytes: Option<u64>,
}

impl Series {
    fn new(window: &Window) -> Self {
        let column_ns = column_ns(window.from_ns, window.to_ns);
        Self {
            samples: Thin::new(window.from_ns, column_ns),
            busy: Thin::new(window.from_ns, column_ns),
            busy_sum: (0, 0),
            gaps: Gaps::default(),
            peak: None,
            reserved_bytes: None,
        }
    }

    fn take(&mut self, at_ns: i64, used_bytes: Option<u64>, ratio: Option<f64>, reserved: Option<u64>) {
        let may_be_gap = self.gaps.push(at_ns);
        let sample = Sample { at_ns, used_bytes };
        self.samples.push(at_ns, used_bytes, sample, may_be_gap);
        if let Some(used_bytes) = used_bytes
            && self.peak.is_none_or(|peak| used_bytes > peak.used_bytes)
        {
            self.peak = Some(Peak { at_ns, used_bytes });
        }
        let busy = Busy { at_ns, ratio };
        let thousandths = busy.thousandths();
        self.busy.push(at_ns, thousandths, busy, may_be_gap);
        if let Some(thousandths) = thousandths {
            self.busy_sum.0 += thousandths;
            self.busy_sum.1 += 1;
        }
        // What the driver keeps for itself is told as it was last.
        self.reserved_bytes = reserved.or(self.reserved_bytes);
    }

    #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
    fn finish(self, track: &mut DeviceTrack) {
        let (sum, count) = self.busy_sum;
        track.mean_busy_ratio = (count > 0).then(|| sum as f64 / count as f64 / 1000.0);
        track.samples = self.samples.finish();
        track.busy = self.busy.finish();
        track.gaps = self.gaps.finish();
        track.peak = self.peak;
        track.reserved_bytes = self.reserved_bytes;
    }
}
