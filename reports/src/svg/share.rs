//! What the low lanes have in common: an axis of shares, stretches without a value, a name.

use super::axis::ValueAxis;
use super::backend::{Anchor, Paint, Setting};
use super::element::{Canvas, Fault, Figure, rectangle, write};
use super::lane::{Chart, QUIET, Scene};
use super::plan::{LEFT, LaneBox};
use crate::instant::Clock;
use crate::timeline::Span;
use plimsoll_trace::units::show_ratio;

/// A chart of shares from 0 to `top`, in thousandths.
pub(super) struct ShareLane<'a, 'c> {
    canvas: &'c Canvas<'a>,
    chart: Chart<'a>,
    top: u64,
}

impl<'a, 'c> ShareLane<'a, 'c> {
    pub(super) fn open(
        canvas: &'c Canvas<'a>,
        lane: &LaneBox,
        top: u64,
        scene: &Scene<'_>,
        times: Option<&Clock>,
    ) -> Result<Self, Fault> {
        let ticks: &[u64] = if lane.compact { &[] } else { &[0, top] };
        let axes = (scene.time.clone(), ValueAxis::share(top, ticks));
        let chart = super::lane::chart(canvas, lane, axes, &|value| percent(*value), times)?;
        Ok(Self { canvas, chart, top })
    }

    pub(super) fn pixel(&self, at_ns: i64, thousandths: u64) -> (i32, i32) {
        self.chart.backend_coord(&(at_ns, thousandths))
    }

    /// Fills a stretch of time over the whole height.
    pub(super) fn fill(&self, span: &Span, paint: Paint, title: Option<&str>) -> Result<(), Fault> {
        let (left, floor) = self.pixel(span.from_ns, 0);
        let (right, top) = self.pixel(span.to_ns, self.top);
        let area = rectangle((left, top), (right.max(left + 1), floor));
        self.canvas
            .draw(&Figure::of(title.map(str::to_owned), paint, vec![area], true))
    }
}

/// Writes the name of a lane above it or, where there is no room, a short one beside it.
pub(super) fn label(canvas: &Canvas<'_>, lane: &LaneBox, name: &str, short: &str) -> Result<(), Fault> {
    let setting = Setting { halo: true, ..QUIET };
    if !lane.compact {
        return write(canvas, (LEFT, lane.top - 5), name, setting);
    }
    let at_end = Setting {
        anchor: Anchor::End,
        ..setting
    };
    write(canvas, (LEFT - 6, lane.top + lane.height / 2 + 4), short, at_end)
}

#[expect(clippy::cast_precision_loss, reason = "at most 1000")]
pub(super) fn percent(thousandths: u64) -> String {
    show_ratio(thousandths as f64 / 1000.0)
}
