//! The memory timeline as one self-contained SVG: no script, no font, no address; the same bytes for the same data.

mod allocators;
mod axis;
mod backend;
mod busy;
mod element;
mod flame;
mod glyph;
mod gpu_time;
mod ink;
mod lane;
mod look;
mod marks;
mod metadata;
mod plan;
mod rules;
mod share;
mod stack;
mod stretch;

use jiff::tz::TimeZone;
use plimsoll_trace::units::{show_bytes, show_duration};
use plotters::coord::ranged1d::Ranged as _;
use plotters::drawing::IntoDrawingArea as _;
use thiserror::Error;

pub(crate) use flame::flame;
pub use ink::Theme;
pub(crate) use plan::column_ns;

use crate::instant::{Clock, format_in, full};
use crate::text;
use crate::timeline::{DeviceTrack, OwnerName, Timeline, device_names};
use axis::TimeAxis;
use backend::{Anchor, Paint, Setting, Svg};
use element::{Canvas, Fault, Figure, draw, rectangle, write};
use ink::Ink;
use lane::{QUIET, Scene};
use look::Looks;
use plan::{
    Extra, FACTS, LANE_WIDTH, LEFT, LEGEND, LaneBox, MARGIN, RIGHT, STRIP, SWATCH, TITLE, VERDICT, WIDTH,
};
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
    let legend = legend(timeline, &stacks, &looks);
    let legend_top = 80 + 18 * i32::try_from(facts.len()).unwrap_or(0);
    let flow = plan::flow(legend.iter().map(Group::words), legend_top);
    let strip = if marks.is_empty() { 14 } else { STRIP + 8 };
    let top = flow.end + strip;
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
        let heads = legend.iter().zip(&flow.heads);
        for (group, y) in heads.filter(|(group, _)| !group.head.is_empty()) {
            write(&canvas, (MARGIN, *y), group.head, FACTS)?;
        }
        let paints = legend.iter().flat_map(|group| &group.entries);
        for (entry, (paint, _)) in flow.entries.iter().zip(paints) {
            swatch(&canvas, paint, (entry.x, entry.y - SWATCH + 2))?;
            write(&canvas, (entry.x + SWATCH + 6, entry.y), &entry.text, LEGEND)?;
        }
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

/// What is around a picture.
struct Sheet<'a> {
    id: String,
    description_id: String,
    name: &'a str,
    description: &'a str,
    metadata: Option<&'a str>,
    definitions: &'a str,
    height: i32,
}

impl Sheet<'_> {
    /// The whole document.
    fn with(&self, theme: Theme, body: &str) -> String {
        let (title_id, description_id, height) = (&self.id, &self.description_id, self.height);
        let name = text::escape(self.name);
        let metadata = self.metadata.map_or_else(String::new, |metadata| {
            format!("<metadata>{}</metadata>\n", text::escape(metadata))
        });
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plimsoll\" role=\"img\" \
             aria-labelledby=\"{title_id} {description_id}\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',\
             'DejaVu Sans',sans-serif\">\n<title id=\"{title_id}\">{name}</title>\n\
             <desc id=\"{description_id}\">{}</desc>\n{metadata}<style>\n",
            text::escape(self.description),
        );
        out.push_str(&ink::style_sheet(theme));
        out.push_str("</style>\n");
        out.push_str(self.definitions);
        let mut ground = Svg::new(&mut out, (0, 0), theme);
        let all = rectangle((0, 0), (WIDTH, height));
        ground.path(&[&all], true, &Paint::fill(Ink::Background));
        out.push_str(body);
        out.push_str("</svg>\n");
        out
    }
}

fn heading(timeline: &Timeline) -> String {
    format!("GPU memory of {}", timeline.title.name)
}

fn header(canvas: &Canvas<'_>, timeline: &Timeline, verdict: &str, facts: &[String]) -> Result<(), Fault> {
    let title = &timeline.title;
    let run = [title.run_id.map(|id| format!("run {id}")), title.outcome.clone()];
    let run: Vec<String> = run.into_iter().flatten().collect();
    let run = run.join(" · ");
    let room = WIDTH - 2 * MARGIN - text::width(&run, 12, false) - 20;
    write(
        canvas,
        (MARGIN, 30),
        &text::fit(&heading(timeline), 18, true, room),
        TITLE,
    )?;
    let at_end = Setting {
        anchor: Anchor::End,
        ..FACTS
    };
    write(canvas, (WIDTH - MARGIN, 30), &run, at_end)?;
    write(
        canvas,
        (MARGIN, 52),
        &text::fit(verdict, 14, false, WIDTH - 2 * MARGIN),
        VERDICT,
    )?;
    for (fact, row) in facts.iter().zip(0..) {
        write(
            canvas,
            (MARGIN, 72 + 18 * row),
            &text::fit(fact, 12, false, WIDTH - 2 * MARGIN),
            FACTS,
        )?;
    }
    Ok(())
}

/// What is known about who, where and when, one line each.
fn facts(timeline: &Timeline, zone: &TimeZone) -> Vec<String> {
    let title = &timeline.title;
    let mut who: Vec<String> = Vec::new();
    // A run of an engine has its name, which the heading tells.
    let engine = title.engine.as_ref().filter(|engine| **engine != title.name);
    who.extend(engine.map(|engine| format!("engine {engine}")));
    who.extend(title.model.clone());
    if let [only] = timeline.devices.as_slice() {
        who.push(match &only.name {
            Some(name) => format!("{name} ({})", only.uuid),
            None => only.uuid.clone(),
        });
    }
    let mut drivers: Vec<&String> = timeline
        .devices
        .iter()
        .filter_map(|device| device.driver.as_ref())
        .collect();
    drivers.dedup();
    if let [driver] = drivers.as_slice() {
        who.push(format!("driver {driver}"));
    }
    who.extend(title.host.as_ref().map(|host| format!("host {host}")));
    let length = u64::try_from(timeline.to_ns.saturating_sub(timeline.from_ns)).unwrap_or(0);
    let when = format!(
        "{} to {} · {}",
        full(timeline.from_ns, zone),
        full(timeline.to_ns, zone),
        show_duration(std::time::Duration::from_nanos(length))
    );
    let who = who.join(" · ");
    if who.is_empty() {
        vec![when]
    } else {
        vec![who, when]
    }
}

/// What is drawn in some of the lanes, with what it is drawn as.
struct Group {
    head: &'static str,
    entries: Vec<(Paint, String)>,
}

impl Group {
    fn words(&self) -> (&str, Vec<&str>) {
        let texts = self.entries.iter().map(|(_, text)| text.as_str());
        (self.head, texts.collect())
    }
}

/// A square of what is filled, a piece of what is a line.
fn swatch(canvas: &Canvas<'_>, paint: &Paint, (x, y): (i32, i32)) -> Result<(), Fault> {
    if paint.fill.is_none() {
        let line = vec![(x, y + SWATCH / 2), (x + SWATCH, y + SWATCH / 2)];
        return draw(canvas, &Figure::of(None, paint.clone(), vec![line], false));
    }
    let square = rectangle((x, y), (x + SWATCH, y + SWATCH));
    let paint = paint.clone().outlined(Ink::Edge, 1, "");
    draw(canvas, &Figure::of(None, paint, vec![square], true))
}

/// The legend, lane by lane.
fn legend(timeline: &Timeline, stacks: &[Stack<'_>], looks: &Looks) -> Vec<Group> {
    let group = |head, entries| Group { head, entries };
    let mut groups = vec![
        group("", usual(timeline, stacks, looks)),
        group("GPU time", gpu_time::legend(&timeline.devices, looks)),
        group("allocators", allocators::legend(&timeline.devices)),
    ];
    groups.retain(|group| !group.entries.is_empty());
    groups
}

/// Swatches of the upper lanes: each process of a single device, or each process name where there are several devices.
fn usual(timeline: &Timeline, stacks: &[Stack<'_>], looks: &Looks) -> Vec<(Paint, String)> {
    let mut entries: Vec<(Paint, String)> = Vec::new();
    if let ([track], [stack]) = (timeline.devices.as_slice(), stacks) {
        entries.extend(stack.layers.iter().map(|layer| {
            let most = match (layer.peak(), layer.name()) {
                (Some((_, most)), Some(_)) => format!(", at most {}", show_bytes(most)),
                _ => String::new(),
            };
            (
                looks.paint(layer, track),
                format!("{}{most}", lane::layer_name(layer)),
            )
        }));
    } else {
        let names = stack::names(&timeline.devices);
        entries.extend(names.into_iter().map(|name| {
            let shown = if name.is_empty() {
                "unnamed process".to_owned()
            } else {
                name.clone()
            };
            (looks.paint_of_name(&name), shown)
        }));
        let owners = timeline.devices.iter().flat_map(|track| &track.owners);
        if owners
            .into_iter()
            .any(|owner| owner.name == OwnerName::OtherProcesses)
        {
            entries.push((Paint::fill(Ink::OtherProcesses), "other processes".to_owned()));
        }
    }
    if stacks.iter().any(|stack| stack.instants().next().is_some()) {
        entries.push((looks.unattributed(), "unattributed".to_owned()));
    }
    if stacks.iter().any(Stack::is_over) {
        entries.push((looks.over(), "claimed beyond the device's use".to_owned()));
    }
    if stacks.iter().any(|stack| !stack.unknown.is_empty()) {
        entries.push((looks.unknown(), "unknown".to_owned()));
    }
    if timeline.devices.iter().any(|track| !track.busy.is_empty()) {
        entries.push((Paint::fill(Ink::Busy), "GPU busy".to_owned()));
    }
    entries
}

/// Which lanes a device has beside the usual ones.
fn extra(track: &DeviceTrack) -> Extra {
    Extra {
        gpu_time: !track.gpu_time.is_empty(),
        allocators: !track.allocators.is_empty(),
    }
}

/// The line above a lane when there are several devices.
fn caption(canvas: &Canvas<'_>, name: &str, track: &DeviceTrack, y: i32, clock: &Clock) -> Result<(), Fault> {
    let peak = match (track.peak, track.usable_bytes()) {
        (Some(peak), Some(usable)) => format!(
            "peak {} of {} at {}",
            show_bytes(peak.used_bytes),
            show_bytes(usable),
            clock.label(peak.at_ns)
        ),
        (Some(peak), None) => format!(
            "peak {} at {}",
            show_bytes(peak.used_bytes),
            clock.label(peak.at_ns)
        ),
        (None, _) => "unknown".to_owned(),
    };
    let quiet = Setting { halo: true, ..QUIET };
    let strong = Setting {
        ink: Ink::Text,
        bold: true,
        ..quiet
    };
    let right = LEFT + LANE_WIDTH;
    let name = text::fit(name, 11, true, LANE_WIDTH / 2);
    write(canvas, (LEFT, y), &name, strong)?;
    let at_end = Setting {
        anchor: Anchor::End,
        ..strong
    };
    write(canvas, (right, y), &peak, at_end)?;
    let start = LEFT + text::width(&name, 11, true) + 8;
    let room = right - text::width(&peak, 11, true) - 16 - start;
    let product = track.name.as_deref().unwrap_or("unnamed device");
    write(canvas, (start, y), &text::fit(product, 11, false, room), quiet)
}

fn time_caption(timeline: &Timeline, clock: &Clock) -> String {
    match clock.zero_ns {
        Some(zero) => format!("minutes:seconds since {}", full(zero, &clock.zone)),
        None => format!(
            "local time from {}",
            format_in(timeline.from_ns, &clock.zone, "%Y-%m-%d, UTC%:z")
        ),
    }
}
