//! The main lane: who held the device's memory, and the lines it is held against.

use plimsoll_trace::units::{show_bytes, show_duration};
use plotters::chart::{ChartBuilder, ChartContext, LabelAreaPosition};
use plotters::coord::cartesian::Cartesian2d;
use plotters::style::{Color as _, IntoFont as _, TextStyle};
use plotters_backend::BackendCoord;

use super::axis::{TimeAxis, ValueAxis, size_label, time_label};
use super::backend::{Anchor, Paint, Setting, Svg};
use super::element::{Canvas, Fault, Figure, Words, rectangle, write};
use super::ink::Ink;
use super::look::Looks;
use super::plan::{LaneBox, RIGHT, WIDTH};
use super::stack::{self, Layer, Stack};
use crate::instant::Clock;
use crate::text;
use crate::timeline::{DeviceTrack, OwnerName, Span};

pub(super) type Chart<'a> = ChartContext<'a, Svg<'a>, Cartesian2d<TimeAxis, ValueAxis>>;

/// What all lanes of a picture share.
pub(super) struct Scene<'s> {
    pub(super) clock: &'s Clock,
    pub(super) looks: &'s Looks,
    pub(super) time: &'s TimeAxis,
    pub(super) from_ns: i64,
    pub(super) to_ns: i64,
    /// How much time one drawn column takes.
    pub(super) column_ns: i64,
}

/// Small text in a quiet colour.
pub(super) const QUIET: Setting = Setting {
    ink: Ink::Dim,
    size: 11,
    bold: false,
    anchor: Anchor::Start,
    halo: false,
};

/// Opens a chart over a lane, with its mesh and its labels on the left.
pub(super) fn chart<'a>(
    canvas: &Canvas<'a>,
    lane: &LaneBox,
    axes: (TimeAxis, ValueAxis),
    show_values: &dyn Fn(&u64) -> String,
    times: Option<&Clock>,
) -> Result<Chart<'a>, Fault> {
    let below = if times.is_some() { 22 } else { 0 };
    let area = canvas
        .clone()
        .shrink((0, lane.top), (WIDTH - RIGHT, lane.height + below));
    let mut chart = ChartBuilder::on(&area)
        .set_label_area_size(LabelAreaPosition::Left, super::plan::LEFT)
        .set_label_area_size(LabelAreaPosition::Bottom, below)
        .build_cartesian_2d(axes.0, axes.1)?;
    let dim = Ink::Dim.rgb();
    let label = TextStyle::from(("sans-serif", 11).into_font()).color(&dim);
    let show_time = |at_ns: &i64| times.map_or_else(String::new, |clock| time_label(*at_ns, clock));
    chart
        .configure_mesh()
        .bold_line_style(Ink::Grid.rgb().stroke_width(1))
        .light_line_style(Ink::Grid.rgb().mix(0.0))
        .axis_style(Ink::Axis.rgb().stroke_width(1))
        .label_style(label)
        .set_all_tick_mark_size(3)
        .x_label_formatter(&show_time)
        .y_label_formatter(show_values)
        .draw()?;
    Ok(chart)
}

/// Draws one device's memory. Answers the words about its peak, to be written when all lines are drawn.
pub(super) fn draw(
    canvas: &Canvas<'_>,
    lane: &LaneBox,
    track: &DeviceTrack,
    stack: &Stack<'_>,
    scene: &Scene<'_>,
) -> Result<Option<Words>, Fault> {
    let axis = memory_axis(track, stack, lane);
    let chart = chart(
        canvas,
        lane,
        (scene.time.clone(), axis),
        &|bytes| size_label(*bytes),
        None,
    )?;
    let (columns, rows) = chart.plotting_area().get_pixel_range();
    let (left, right, floor) = (columns.start, columns.end, rows.end);
    let pixel = |at_ns: i64, bytes: u64| chart.backend_coord(&(at_ns, bytes));

    for line in &track.lines {
        let Some(exit) = line.exit_bytes else { continue };
        // What is more than the device has is above the lane.
        let [enter, exit] = [line.enter_bytes, exit].map(|bytes| pixel(0, bytes).1.max(rows.start));
        if enter == exit {
            continue;
        }
        let band = rectangle((left, enter.min(exit)), (right, enter.max(exit)));
        canvas.draw(&Figure::of(
            Some(format!("between the two lines {} stays as it is", line.rule)),
            Paint::fill(Ink::Rule).faint(9),
            vec![band],
            true,
        ))?;
    }
    let place = |span: &Span| (pixel(span.from_ns, 0).0, pixel(span.to_ns, 0).0);
    for gap in &track.gaps {
        let paint = Paint::fill(Ink::Grid).faint(60);
        stretch(
            canvas,
            place(gap),
            (rows.start, floor),
            &paint,
            "no samples",
            gap,
            scene,
        )?;
    }
    layers(canvas, lane, stack, track, scene, &pixel)?;
    for span in &stack.unknown {
        let paint = scene.looks.unknown();
        stretch(
            canvas,
            place(span),
            (rows.start, floor),
            &paint,
            "unknown",
            span,
            scene,
        )?;
    }
    if track.samples.is_empty() {
        let at = ((left + right) / 2, (rows.start + floor) / 2 + 4);
        let setting = Setting {
            anchor: Anchor::Middle,
            ..QUIET
        };
        write(canvas, at, "no samples in this window", setting)?;
    }
    super::rules::draw(
        canvas,
        track,
        lane,
        (left, right),
        (rows.start, floor),
        &|bytes| pixel(0, bytes).1,
    )?;
    peak(canvas, lane, track, scene, (left, right), &pixel)
}

/// Room above the capacity line is where the peak is told, so that nothing else is there.
fn memory_axis(track: &DeviceTrack, stack: &Stack<'_>, lane: &LaneBox) -> ValueAxis {
    let drawn = stack
        .instants()
        .map(|instant| instant.used.max(instant.attributed()))
        .max()
        .unwrap_or(0);
    let lines = track.lines.iter().map(|line| line.enter_bytes).max().unwrap_or(0);
    let most = drawn
        .max(track.capacity_bytes.unwrap_or(0))
        .max(if track.capacity_bytes.is_none() { lines } else { 0 });
    let head = u64::try_from(lane.headroom.max(1)).unwrap_or(1);
    let height = u64::try_from(lane.height).unwrap_or(1).max(head + 1);
    let top = u128::from(most) * u128::from(height) / u128::from(height - head);
    ValueAxis::bytes(u64::try_from(top).unwrap_or(u64::MAX), most, lane.value_ticks)
}

/// More instants than this and an outline in another colour would hide what it surrounds.
const DENSE: usize = 700;

/// Layers are painted from the highest down to the lowest, each from the floor up to its top: half the path of a band.
fn layers(
    canvas: &Canvas<'_>,
    lane: &LaneBox,
    stack: &Stack<'_>,
    track: &DeviceTrack,
    scene: &Scene<'_>,
    pixel: &dyn Fn(i64, u64) -> BackendCoord,
) -> Result<(), Fault> {
    let area = |top: &dyn Fn(&stack::Instant) -> u64| -> Vec<Vec<BackendCoord>> {
        stack
            .segments
            .iter()
            .filter_map(|segment| {
                let (first, last) = (segment.first()?, segment.last()?);
                let mut part = vec![pixel(first.at_ns, 0)];
                part.extend(segment.iter().map(|instant| pixel(instant.at_ns, top(instant))));
                part.push(pixel(last.at_ns, 0));
                Some(part)
            })
            .collect()
    };
    let Some(most) = stack
        .instants()
        .map(|i| i.used.saturating_sub(i.attributed()))
        .max()
    else {
        return Ok(());
    };
    let dense = lane.compact || stack.instants().count() > DENSE;
    let title = format!(
        "unattributed: in use on the device, but held by no known process; at most {}",
        show_bytes(most)
    );
    let paint = if dense {
        Paint::fill(Ink::Unattributed).outlined(Ink::UnattributedDots, 1, "")
    } else {
        scene.looks.unattributed().outlined(Ink::Edge, 1, "")
    };
    canvas.draw(&Figure::of(
        Some(title),
        paint,
        area(&|instant| instant.used),
        true,
    ))?;
    for (index, layer) in stack.layers.iter().enumerate().rev() {
        let top = |instant: &stack::Instant| instant.tops.get(index).copied().unwrap_or(0);
        // An outline of its own colour keeps a spike of one reading visible.
        let outline = if dense {
            scene.looks.ink(layer)
        } else {
            Ink::Background
        };
        let paint = scene.looks.paint(layer, track).outlined(outline, 1, "");
        canvas.draw(&Figure::of(
            Some(layer_title(layer, scene.clock)),
            paint,
            area(&top),
            true,
        ))?;
    }
    if stack.is_over() {
        let title = "processes claim this much more than the device has in use";
        let paint = scene.looks.over().outlined(Ink::Over, 1, "");
        canvas.draw(&Figure::of(
            Some(title.to_owned()),
            paint,
            over(stack, pixel),
            true,
        ))?;
    }
    Ok(())
}

/// The bands between what the device has in use and what its processes claim, where that is more.
fn over(stack: &Stack<'_>, pixel: &dyn Fn(i64, u64) -> BackendCoord) -> Vec<Vec<BackendCoord>> {
    stack
        .segments
        .iter()
        .flat_map(|segment| segment.chunk_by(|a, b| (a.attributed() > a.used) == (b.attributed() > b.used)))
        .filter(|band| {
            band.first()
                .is_some_and(|instant| instant.attributed() > instant.used)
        })
        .map(|band| {
            let upper = band
                .iter()
                .map(|instant| pixel(instant.at_ns, instant.attributed()));
            let lower = band
                .iter()
                .rev()
                .map(|instant| pixel(instant.at_ns, instant.used));
            upper.chain(lower).collect()
        })
        .collect()
}

/// "llama-server (pid 4242)", "other processes", "5 more processes".
pub(super) fn layer_name(layer: &Layer<'_>) -> String {
    match layer.name() {
        Some(OwnerName::Process { name, pid }) => {
            format!("{} (pid {pid})", name.as_deref().unwrap_or("unnamed process"))
        }
        Some(OwnerName::OtherProcesses) => "other processes".to_owned(),
        None => format!("{} more processes", layer.owners.len()),
    }
}

fn layer_title(layer: &Layer<'_>, clock: &Clock) -> String {
    let name = layer_name(layer);
    match layer.peak() {
        Some((at_ns, most)) if layer.name().is_some() => {
            format!(
                "{name}: at most {} ({most} bytes) at {}",
                show_bytes(most),
                clock.title(at_ns)
            )
        }
        _ => name,
    }
}

/// A stretch of time without a value, with its name in it where that fits.
fn stretch(
    canvas: &Canvas<'_>,
    (left, right): (i32, i32),
    (top, floor): (i32, i32),
    paint: &Paint,
    word: &str,
    span: &Span,
    scene: &Scene<'_>,
) -> Result<(), Fault> {
    let length = u64::try_from(span.to_ns.saturating_sub(span.from_ns)).unwrap_or(0);
    let title = format!(
        "{word} from {} to {} ({})",
        scene.clock.title(span.from_ns),
        scene.clock.title(span.to_ns),
        show_duration(std::time::Duration::from_nanos(length))
    );
    let area = rectangle((left, top), (right.max(left + 1), floor));
    canvas.draw(&Figure::of(Some(title), paint.clone(), vec![area], true))?;
    let room = right - left;
    if text::width(word, 11, false) + 8 <= room {
        let setting = Setting {
            anchor: Anchor::Middle,
            halo: true,
            ..QUIET
        };
        write(canvas, ((left + right) / 2, (top + floor) / 2 + 4), word, setting)?;
    }
    Ok(())
}

/// The highest reading: a dot on it and, where there is room, its value and time above the capacity line.
fn peak(
    canvas: &Canvas<'_>,
    lane: &LaneBox,
    track: &DeviceTrack,
    scene: &Scene<'_>,
    (left, right): (i32, i32),
    pixel: &dyn Fn(i64, u64) -> BackendCoord,
) -> Result<Option<Words>, Fault> {
    let inside = scene.from_ns..=scene.to_ns;
    let Some(peak) = track.peak.filter(|peak| inside.contains(&peak.at_ns)) else {
        return Ok(None);
    };
    let (x, y) = pixel(peak.at_ns, peak.used_bytes);
    let text = format!(
        "peak {} at {}",
        show_bytes(peak.used_bytes),
        scene.clock.label(peak.at_ns)
    );
    let title = format!(
        "peak {} ({} bytes) at {}",
        show_bytes(peak.used_bytes),
        peak.used_bytes,
        scene.clock.title(peak.at_ns)
    );
    let dot = vec![(x - 3, y), (x, y - 3), (x + 3, y), (x, y + 3)];
    let paint = Paint::fill(Ink::Peak).outlined(Ink::Background, 1, "");
    let mut figure = Figure::new(Some(title.clone()));
    let labelled = lane.headroom > 14;
    if labelled {
        let leader = vec![(x, lane.top + 16), (x, y - 4)];
        figure = figure.with(Paint::line(Ink::Peak, 1, ""), vec![leader], false);
    }
    canvas.draw(&figure.with(paint, vec![dot], true))?;
    let half = text::width(&text, 12, true) / 2 + 2;
    let setting = Setting {
        ink: Ink::Peak,
        size: 12,
        bold: true,
        anchor: Anchor::Middle,
        halo: true,
    };
    Ok(labelled.then(|| Words {
        at: (
            x.clamp(left + half, (right - half).max(left + half)),
            lane.top + 12,
        ),
        text,
        setting,
        title: Some(title),
    }))
}
