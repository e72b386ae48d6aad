//! The memory timeline as one self-contained SVG: no script, no font, no address; the same bytes for the same data.

mod allocators;
mod axis;
mod backend;
mod busy;
mod element;
mod flame;
mod glyph;
mod gpu_time;
mod header;
mod ink;
mod lane;
mod legend;
mod look;
mod marks;
mod metadata;
mod plan;
mod rules;
mod share;
mod sheet;
mod stack;
mod stretch;

use jiff::tz::TimeZone;
use plotters::coord::ranged1d::Ranged as _;
use plotters::drawing::IntoDrawingArea as _;
use thiserror::Error;

pub(crate) use flame::flame;
pub use ink::Theme;
pub(crate) use plan::column_ns;

use crate::instant::Clock;
use crate::timeline::{DeviceTrack, Timeline, device_names};
use axis::TimeAxis;
use backend::{Anchor, Setting, Svg};
use element::{Fault, write};
use header::{caption, facts, header, heading, time_caption};
use lane::{QUIET, Scene};
use legend::Legend;
use look::Looks;
use plan::{Extra, LANE_WIDTH, LEFT, LaneBox, MARGIN, RIGHT, STRIP, WIDTH};
use sheet::Sheet;
use stack::Stack;

/// A picture larger than this is drawn again in wider columns.
const BUDGET_BYTES: usize = 145_000;

/// A picture that could not be drawn. The text fits after "failed to draw the timeline:".
#[derive(Debug, Error)]
#[error("the drawing library refused")]
pub struct DrawError(#[source] Fault);

/// Draws a timeline, with times in `zone`.
///
/// Every pixel column keeps its lowest and highest reading. Where that would make the picture larger than 145 kB,
/// columns become two, four or eight pixels wide.
///
/// # Errors
/// [`DrawError`] when the drawing library refuses the layout, which no data is known to cause.
pub fn svg(timeline: &Timeline, theme: Theme, zone: &TimeZone) -> Result<String, DrawError> {
    let mut picture = String::new();
    for pixels in [1, 2, 4, 8] {
        picture = render(timeline, theme, zone, pixels).map_err(DrawError)?;
        if picture.len() <= BUDGET_BYTES {
            break;
        }
    }
    Ok(picture)
}

fn render(timeline: &Timeline, theme: Theme, zone: &TimeZone, column_pixels: i64) -> Result<String, Fault> {
    let (from_ns, to_ns) = (
        timeline.from_ns,
        timeline.to_ns.max(timeline.from_ns.saturating_add(1)),
    );
    let clock = Clock::of(timeline, zone);
    let looks = Looks::of(timeline);
    let marks = marks::sorted(&timeline.marks, from_ns, to_ns);
    let time = TimeAxis::new(from_ns, to_ns, &clock, 10);
    let scene = Scene {
        clock: &clock,
        looks: &looks,
        time: &time,
        from_ns,
        to_ns,
        column_ns: column_ns(from_ns, to_ns).saturating_mul(column_pixels),
    };
    let verdict = timeline.verdict(zone);

    let stacks: Vec<Stack<'_>> = timeline
        .devices
        .iter()
        .map(|track| stack::build(track, from_ns, to_ns, scene.column_ns))
        .collect();
    let facts = facts(timeline, zone);
    let legend_top = 80 + 18 * i32::try_from(facts.len()).unwrap_or(0);
    let legend = Legend::new(timeline, &stacks, &looks, legend_top);
    let strip = if marks.is_empty() { 14 } else { STRIP + 8 };
    let top = legend.end() + strip;
    let extras: Vec<Extra> = timeline.devices.iter().map(extra).collect();
    let (boxes, lanes_end) = plan::lanes(&extras, top);
    let key_top = lanes_end + 20;
    let height = key_top + marks::key_height(&marks) + 30;

    let mut body = String::new();
    {
        let size = (
            u32::try_from(WIDTH).unwrap_or(0),
            u32::try_from(height).unwrap_or(0),
        );
        let canvas = Svg::new(&mut body, size, theme).into_drawing_area();
        header(&canvas, timeline, &verdict, &facts)?;
        legend.draw(&canvas)?;
        let allocators_top = allocators::top(&timeline.devices);
        let mut peaks = Vec::new();
        for (index, track) in timeline.devices.iter().enumerate() {
            let (Some(stack), Some(place)) = (stacks.get(index), boxes.get(index)) else {
                continue;
            };
            peaks.extend(lane::draw(&canvas, &place.memory, track, stack, &scene)?);
            // The times stand below the last lane.
            let times = |lane: &LaneBox| (index + 1 == boxes.len() && lane == place.last()).then_some(&clock);
            busy::draw(&canvas, &place.busy, track, &scene, times(&place.busy))?;
            if let Some(lane) = &place.gpu_time {
                gpu_time::draw(&canvas, lane, track, &scene, times(lane))?;
            }
            if let Some(lane) = &place.allocators {
                allocators::draw(&canvas, lane, track, &scene, allocators_top, times(lane))?;
            }
        }
        if let (Some(first), Some(last)) = (boxes.first(), boxes.last()) {
            let column = |at_ns: i64| time.map(&at_ns, (LEFT, WIDTH - RIGHT - 1));
            let upper = first.caption.map_or(first.memory.top, |y| y - 12);
            let rows = (upper, last.last().top + last.last().height);
            marks::strip(&canvas, &marks, &clock, &column, rows)?;
        }
        // What the markers' lines must not run through is written last.
        for peak in &peaks {
            canvas.draw(peak)?;
        }
        let names = device_names(&timeline.devices);
        for ((track, place), name) in timeline.devices.iter().zip(&boxes).zip(names) {
            if let Some(y) = place.caption {
                caption(&canvas, name, track, y, &clock)?;
            }
            busy::label(&canvas, &place.busy)?;
            if let Some(lane) = &place.gpu_time {
                gpu_time::label(&canvas, lane)?;
            }
            if let Some(lane) = &place.allocators {
                allocators::label(&canvas, lane)?;
            }
        }
        let setting = Setting {
            anchor: Anchor::Middle,
            ..QUIET
        };
        write(
            &canvas,
            (LEFT + LANE_WIDTH / 2, lanes_end + 4),
            &time_caption(timeline, &clock),
            setting,
        )?;
        marks::key(&canvas, &marks, &clock, key_top)?;
        let notes = "1 GiB = 1024 MiB = 1,073,741,824 bytes. Hatched: not known. Grey: no samples.";
        write(&canvas, (MARGIN, height - 12), notes, QUIET)?;
    }
    Ok(document(
        timeline,
        theme,
        &looks,
        height,
        &verdict,
        &metadata::json(timeline, &marks, &verdict),
        &body,
    ))
}

fn document(
    timeline: &Timeline,
    theme: Theme,
    looks: &Looks,
    height: i32,
    verdict: &str,
    metadata: &str,
    body: &str,
) -> String {
    let sheet = Sheet {
        id: looks.id("t"),
        description_id: looks.id("d"),
        name: &heading(timeline),
        description: verdict,
        metadata: Some(metadata),
        definitions: &looks.definitions(timeline, theme),
        height,
    };
    sheet.with(theme, body)
}

/// Which lanes a device has beside the usual ones.
fn extra(track: &DeviceTrack) -> Extra {
    Extra {
        gpu_time: !track.gpu_time.is_empty(),
        allocators: !track.allocators.is_empty(),
    }
}
