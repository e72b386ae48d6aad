//! A lane for what allocators took and do not use: fragmentation, each figure with its level and its source.

use super::backend::Paint;
use super::element::{Canvas, Fault, Figure};
use super::ink::Ink;
use super::lane::Scene;
use super::plan::LaneBox;
use super::share::{self, ShareLane, percent};
use crate::downsample::m4;
use crate::instant::Clock;
use crate::timeline::{Allocator, DeviceTrack, Share, Span};

/// Where the axis may end, in thousandths.
const TOPS: [u64; 4] = [100, 250, 500, 1000];

/// Which figure of an allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figures {
    Slack,
    Stuck,
}

/// A figure of one allocator, as it is drawn.
struct Curve<'a> {
    allocator: &'a Allocator,
    figure: Figures,
    shares: &'a [Share],
}

/// Where a figure is known: readings, of which each holds until the next one, and where the last one ends.
struct Stretch {
    readings: Vec<(i64, u64)>,
    to_ns: i64,
}

impl Curve<'_> {
    /// The figures of PyTorch's allocator are areas, as what is stuck is part of the slack; those of others are lines.
    fn is_area(&self) -> bool {
        self.allocator.level == "pytorch"
    }

    fn ink(&self) -> Ink {
        match (self.is_area(), self.figure) {
            (true, Figures::Stuck) => Ink::Stuck,
            (true, Figures::Slack) => Ink::Slack,
            (false, _) => Ink::Neutral,
        }
    }

    fn paint(&self) -> Paint {
        if self.is_area() {
            return Paint::fill(self.ink());
        }
        Paint::line(
            self.ink(),
            1,
            if self.figure == Figures::Stuck { "" } else { "4 2" },
        )
    }

    fn name(&self) -> String {
        let Allocator { level, source, .. } = self.allocator;
        let figure = match self.figure {
            Figures::Slack => "slack",
            Figures::Stuck => "stuck",
        };
        if level == source {
            format!("{level} {figure}")
        } else {
            format!("{level} {figure} (from {source})")
        }
    }

    fn most(&self) -> Option<(u64, i64)> {
        let known = self
            .shares
            .iter()
            .filter_map(|share| Some((share.thousandths()?, share.at_ns)));
        known.reduce(|best, next| if next.0 > best.0 { next } else { best })
    }

    fn title(&self, clock: &Clock) -> String {
        let Allocator { level, source, .. } = self.allocator;
        let meaning = match self.figure {
            Figures::Slack => "slack: taken from the level below and not in use",
            Figures::Stuck => "stuck: free, but in blocks that cannot be given back",
        };
        let most = self.most().map_or_else(String::new, |(most, at_ns)| {
            format!("; at most {} at {}", percent(most), clock.title(at_ns))
        });
        format!("{meaning}; level {level}, told by {source}{most}")
    }

    fn stretches(&self, from_ns: i64, to_ns: i64) -> Vec<Stretch> {
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut open = false;
        let inside = |share: &&Share| share.at_ns >= from_ns && share.at_ns <= to_ns;
        for share in self.shares.iter().filter(inside) {
            match (share.thousandths(), stretches.last_mut().filter(|_| open)) {
                (Some(value), Some(stretch)) => stretch.readings.push((share.at_ns, value)),
                (Some(value), None) => stretches.push(Stretch {
                    readings: vec![(share.at_ns, value)],
                    to_ns,
                }),
                (None, Some(stretch)) => stretch.to_ns = share.at_ns,
                (None, None) => {}
            }
            open = share.thousandths().is_some();
        }
        stretches
    }
}

/// All figures of a device, in the order in which they are drawn: what matters most on top.
fn curves(track: &DeviceTrack) -> Vec<Curve<'_>> {
    let of = |figure: Figures| {
        track.allocators.iter().filter_map(move |allocator| {
            let shares = match figure {
                Figures::Slack => &allocator.slack,
                Figures::Stuck => &allocator.stuck,
            };
            shares.iter().any(|share| share.ratio.is_some()).then_some(Curve {
                allocator,
                figure,
                shares,
            })
        })
    };
    let mut curves: Vec<Curve<'_>> = of(Figures::Slack).chain(of(Figures::Stuck)).collect();
    curves.sort_by_key(|curve| !curve.is_area());
    curves
}

/// Where the axes of all devices end: at the same share, so that they can be compared.
pub(super) fn top(tracks: &[DeviceTrack]) -> u64 {
    let most = tracks.iter().flat_map(curves).filter_map(|curve| curve.most());
    let most = most.map(|(most, _)| most).max().unwrap_or(0);
    TOPS.into_iter().find(|top| most <= *top).unwrap_or(1000)
}

/// Draws one device's lane, up to a share of `top` thousandths.
pub(super) fn draw(
    canvas: &Canvas<'_>,
    lane: &LaneBox,
    track: &DeviceTrack,
    scene: &Scene<'_>,
    top: u64,
    times: Option<&Clock>,
) -> Result<(), Fault> {
    let chart = ShareLane::open(canvas, lane, top, scene, times)?;
    let pixel = |at_ns: i64, value: u64| chart.pixel(at_ns, value);
    let curves = curves(track);
    for span in unknown(&curves, scene) {
        let title = "the allocators' figures are unknown";
        chart.fill(&span, scene.looks.unknown(), Some(title))?;
    }
    for curve in &curves {
        let stretches = curve.stretches(scene.from_ns, scene.to_ns);
        let parts = stretches.iter().map(|stretch| {
            let chosen = m4(&stretch.readings, scene.from_ns, scene.column_ns).into_iter();
            let mut readings = chosen.map(|index| stretch.readings[index]).peekable();
            let mut part = Vec::new();
            if let Some((from_ns, _)) = readings.peek().filter(|_| curve.is_area()) {
                part.push(pixel(*from_ns, 0));
            }
            while let Some((at_ns, value)) = readings.next() {
                part.push(pixel(at_ns, value));
                let to_ns = readings.peek().map_or(stretch.to_ns, |(next_ns, _)| *next_ns);
                part.push(pixel(to_ns, value));
            }
            if curve.is_area() {
                part.push(pixel(stretch.to_ns, 0));
            }
            part
        });
        let parts: Vec<Vec<(i32, i32)>> = parts.collect();
        let title = Some(curve.title(scene.clock));
        canvas.draw(&Figure::of(title, curve.paint(), parts, curve.is_area()))?;
    }
    Ok(())
}

/// Where the figure that matters most is not known, whatever others are: otherwise its absence would look like zero.
fn unknown(curves: &[Curve<'_>], scene: &Scene<'_>) -> Vec<Span> {
    let first = curves.iter().find(|curve| curve.figure == Figures::Stuck);
    let Some(curve) = first.or(curves.first()) else {
        return Vec::new();
    };
    let mut spans = Vec::new();
    let mut until_ns = scene.from_ns;
    for stretch in curve.stretches(scene.from_ns, scene.to_ns) {
        let from_ns = stretch.readings.first().map_or(until_ns, |(at_ns, _)| *at_ns);
        spans.push(Span {
            from_ns: until_ns,
            to_ns: from_ns,
        });
        until_ns = stretch.to_ns;
    }
    spans.push(Span {
        from_ns: until_ns,
        to_ns: scene.to_ns,
    });
    spans.retain(|span| span.from_ns < span.to_ns);
    spans
}

/// The name of the lane.
pub(super) fn label(canvas: &Canvas<'_>, lane: &LaneBox) -> Result<(), Fault> {
    let name = "allocators: memory that they took and do not use";
    share::label(canvas, lane, name, "allocator")
}

/// A swatch for each figure, of a single device with the most that it reached.
pub(super) fn legend(tracks: &[DeviceTrack]) -> Vec<(Paint, String)> {
    let mut entries: Vec<(Paint, String)> = Vec::new();
    for curve in tracks.iter().flat_map(curves) {
        let most = curve.most().filter(|_| tracks.len() == 1);
        let most = most.map_or_else(String::new, |(most, _)| format!(", at most {}", percent(most)));
        let text = format!("{}{most}", curve.name());
        if entries.iter().all(|(_, other)| *other != text) {
            entries.push((curve.paint(), text));
        }
    }
    entries
}
