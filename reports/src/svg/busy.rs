//! The lane below: how much of the time the device ran kernels.

use plimsoll_trace::units::show_ratio;

use super::backend::Paint;
use super::element::{Canvas, Fault, Figure};
use super::ink::Ink;
use super::lane::Scene;
use super::plan::LaneBox;
use super::share::{self, ShareLane};
use super::stretch::cut;
use crate::downsample::m4;
use crate::instant::Clock;
use crate::timeline::DeviceTrack;

/// Draws one device's busy ratio; what is unknown is hatched, and a gap stays empty.
pub(super) fn draw(
    canvas: &Canvas<'_>,
    lane: &LaneBox,
    track: &DeviceTrack,
    scene: &Scene<'_>,
    times: Option<&Clock>,
) -> Result<(), Fault> {
    let chart = ShareLane::open(canvas, lane, 1000, scene, times)?;
    let readings = track
        .busy
        .iter()
        .filter(|busy| busy.at_ns >= scene.from_ns && busy.at_ns <= scene.to_ns)
        .map(|busy| (busy.at_ns, busy.thousandths()));
    let stretches = cut(readings, &track.gaps, scene.column_ns.saturating_mul(2));
    for gap in &track.gaps {
        chart.fill(gap, Paint::fill(Ink::Grid).faint(60), None)?;
    }
    for span in &stretches.unknown {
        chart.fill(span, scene.looks.unknown(), Some("GPU busy: unknown"))?;
    }
    let parts: Vec<Vec<(i32, i32)>> = stretches
        .known
        .iter()
        .filter_map(|run| {
            let (first, last) = (run.first()?, run.last()?);
            let mut part = vec![chart.pixel(first.0, 0)];
            part.extend(m4(run, scene.from_ns, scene.column_ns).into_iter().map(|index| {
                let (at_ns, value) = run[index];
                chart.pixel(at_ns, value)
            }));
            part.push(chart.pixel(last.0, 0));
            Some(part)
        })
        .collect();
    let Some(mean) = mean(&stretches.known).map(|drawn| track.mean_busy_ratio.unwrap_or(drawn)) else {
        return Ok(());
    };
    let title = format!(
        "GPU busy: share of time in which a kernel ran; mean {}",
        show_ratio(mean)
    );
    canvas.draw(&Figure::of(
        Some(title),
        Paint::fill(Ink::Busy).outlined(Ink::Busy, 1, ""),
        parts,
        true,
    ))
}

/// The name of the lane.
pub(super) fn label(canvas: &Canvas<'_>, lane: &LaneBox) -> Result<(), Fault> {
    share::label(canvas, lane, "GPU busy", "busy")
}

#[expect(clippy::cast_precision_loss, reason = "a mean for people")]
fn mean(runs: &[Vec<(i64, u64)>]) -> Option<f64> {
    let (sum, count) = runs
        .iter()
        .flatten()
        .fold((0_u64, 0_u64), |(sum, count), (_, value)| {
            (sum + value, count + 1)
        });
    (count > 0).then(|| sum as f64 / count as f64 / 1000.0)
}
