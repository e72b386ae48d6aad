//! The lane below: how much of the time the device ran kernels.

use plimsoll_trace::units::show_ratio;

use super::axis::ValueAxis;
use super::backend::Paint;
use super::element::{Canvas, Fault, Figure, rectangle};
use super::ink::Ink;
use super::lane::{Scene, chart};
use super::plan::LaneBox;
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
    let ticks: &[u64] = if lane.compact { &[] } else { &[0, 1000] };
    let percent = |thousandths: &u64| format!("{} %", thousandths / 10);
    let axes = (scene.time.clone(), ValueAxis::thousandths(ticks));
    let chart = chart(canvas, lane, axes, &percent, times)?;
    let pixel = |at_ns: i64, value: u64| chart.backend_coord(&(at_ns, value));

    let readings = track
        .busy
        .iter()
        .filter(|busy| busy.at_ns >= scene.from_ns && busy.at_ns <= scene.to_ns)
        .map(|busy| (busy.at_ns, busy.thousandths()));
    let stretches = cut(readings, &track.gaps, scene.column_ns.saturating_mul(2));
    for gap in &track.gaps {
        let (left, floor) = pixel(gap.from_ns, 0);
        let (right, top) = pixel(gap.to_ns, 1000);
        let area = rectangle((left, top), (right, floor));
        canvas.draw(&Figure::of(
            None,
            Paint::fill(Ink::Grid).faint(60),
            vec![area],
            true,
        ))?;
    }
    for span in &stretches.unknown {
        let (left, floor) = pixel(span.from_ns, 0);
        let (right, top) = pixel(span.to_ns, 1000);
        let area = rectangle((left, top), (right.max(left + 1), floor));
        canvas.draw(&Figure::of(
            Some("GPU busy: unknown".to_owned()),
            scene.looks.unknown(),
            vec![area],
            true,
        ))?;
    }
    let parts: Vec<Vec<(i32, i32)>> = stretches
        .known
        .iter()
        .filter_map(|run| {
            let (first, last) = (run.first()?, run.last()?);
            let mut part = vec![pixel(first.0, 0)];
            part.extend(m4(run, scene.from_ns, scene.column_ns).into_iter().map(|index| {
                let (at_ns, value) = run[index];
                pixel(at_ns, value)
            }));
            part.push(pixel(last.0, 0));
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
