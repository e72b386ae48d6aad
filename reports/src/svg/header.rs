//! The words above the lanes and between them: whose picture it is, and what is known about who, where and when.

use jiff::tz::TimeZone;
use plimsoll_trace::units::{show_bytes, show_duration};

use super::backend::{Anchor, Setting};
use super::element::{Canvas, Fault, write};
use super::ink::Ink;
use super::lane::QUIET;
use super::plan::{FACTS, LANE_WIDTH, LEFT, MARGIN, TITLE, VERDICT, WIDTH};
use crate::instant::{Clock, format_in, full};
use crate::text;
use crate::timeline::{DeviceTrack, Timeline};

pub(super) fn heading(timeline: &Timeline) -> String {
    format!("GPU memory of {}", timeline.title.name)
}

pub(super) fn header(
    canvas: &Canvas<'_>,
    timeline: &Timeline,
    verdict: &str,
    facts: &[String],
) -> Result<(), Fault> {
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
pub(super) fn facts(timeline: &Timeline, zone: &TimeZone) -> Vec<String> {
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

/// The line above a lane when there are several devices.
pub(super) fn caption(
    canvas: &Canvas<'_>,
    name: &str,
    track: &DeviceTrack,
    y: i32,
    clock: &Clock,
) -> Result<(), Fault> {
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

/// What the times below the lanes are.
pub(super) fn time_caption(timeline: &Timeline, clock: &Clock) -> String {
    match clock.zero_ns {
        Some(zero) => format!("minutes:seconds since {}", full(zero, &clock.zone)),
        None => format!(
            "local time from {}",
            format_in(timeline.from_ns, &clock.zone, "%Y-%m-%d, UTC%:z")
        ),
    }
}
