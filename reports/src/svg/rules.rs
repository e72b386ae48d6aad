//! Capacity, usable memory and the lines of rules, with their names in the right margin.

use plimsoll_trace::units::{show_bytes, show_ratio};

use super::backend::{Anchor, Paint, Setting};
use super::element::{Canvas, Fault, Figure, Words};
use super::ink::Ink;
use super::plan::{LaneBox, RIGHT};
use crate::text;
use crate::timeline::{DeviceTrack, Line};

const LABEL_HEIGHT: i32 = 14;
/// Between the end of a leader and the picture's edge.
const LABEL_WIDTH: i32 = RIGHT - 16;

struct Label {
    y: i32,
    text: String,
    title: String,
    ink: Ink,
    bold: bool,
    /// Lower goes first when there is no room for all.
    rank: u8,
}

/// Draws all lines of a device across its lane.
pub(super) fn draw(
    canvas: &Canvas<'_>,
    track: &DeviceTrack,
    lane: &LaneBox,
    (left, right): (i32, i32),
    (top, floor): (i32, i32),
    height_of: &dyn Fn(u64) -> i32,
) -> Result<(), Fault> {
    let mut labels = Vec::new();
    let across = |y: i32| vec![vec![(left, y), (right, y)]];
    if let Some(capacity) = track.capacity_bytes {
        let y = height_of(capacity);
        let title = format!("capacity {} ({capacity} bytes)", show_bytes(capacity));
        canvas.draw(&Figure::of(
            Some(title.clone()),
            Paint::line(Ink::Capacity, 2, ""),
            across(y),
            false,
        ))?;
        labels.push(Label {
            y,
            text: format!("capacity {}", show_bytes(capacity)),
            title,
            ink: Ink::Capacity,
            bold: false,
            rank: 2,
        });
    }
    if let (Some(usable), Some(reserved)) = (
        track.usable_bytes(),
        track.reserved_bytes.filter(|bytes| *bytes > 0),
    ) {
        let y = height_of(usable);
        let title = format!(
            "usable {} ({usable} bytes): capacity less the {} that the driver keeps",
            show_bytes(usable),
            show_bytes(reserved)
        );
        canvas.draw(&Figure::of(
            Some(title.clone()),
            Paint::line(Ink::Usable, 1, "9 3"),
            across(y),
            false,
        ))?;
        labels.push(Label {
            y,
            text: format!("usable {}", show_bytes(usable)),
            title,
            ink: Ink::Usable,
            bold: false,
            rank: 3,
        });
    }
    for line in &track.lines {
        let height_of = |bytes: u64| Some(height_of(bytes)).filter(|y| *y >= top);
        labels.extend(rule(canvas, line, (lane.compact, top), &across, &height_of)?);
    }
    if lane.compact {
        labels.retain(|label| label.rank < 3);
    }
    write(canvas, labels, right, (top, floor))
}

/// Dashed where the rule enters, dotted where it leaves; both over a pale line, so that they show on any layer. A line
/// that the device is too small for has no height: only its label is there, at the top of the lane.
fn rule(
    canvas: &Canvas<'_>,
    line: &Line,
    (compact, top): (bool, i32),
    across: &dyn Fn(i32) -> Vec<Vec<(i32, i32)>>,
    height_of: &dyn Fn(u64) -> Option<i32>,
) -> Result<Vec<Label>, Fault> {
    let amount = |bytes: u64, ratio: Option<f64>| ratio.map_or_else(|| show_bytes(bytes), show_ratio);
    let drawn = |y: i32, title: &str, dashes: &'static str| {
        let pale = Paint::line(Ink::Background, 3, "").faint(55);
        let figure = Figure::of(Some(title.to_owned()), pale, across(y), false);
        canvas.draw(&figure.with(Paint::line(Ink::Rule, 1, dashes), across(y), false))
    };
    let enter = amount(line.enter_bytes, line.enter_ratio);
    let y = height_of(line.enter_bytes);
    let beyond = if y.is_some() {
        ""
    } else {
        ", more than this device has"
    };
    let title = format!(
        "rule {} takes effect at {enter} ({} bytes in use{beyond})",
        line.rule, line.enter_bytes
    );
    if let Some(y) = y {
        drawn(y, &title, "6 4")?;
    }
    let up = if y.is_some() { "" } else { " ↑" };
    let mut labels = vec![Label {
        y: y.unwrap_or(top),
        text: named(&line.rule, &format!(" {enter}{up}"), true),
        title,
        ink: Ink::Rule,
        bold: true,
        rank: 1,
    }];
    // In a low lane the band's edge says it.
    let exit = line.exit_bytes.filter(|_| !compact);
    if let Some((exit_bytes, y)) = exit.and_then(|bytes| Some((bytes, height_of(bytes)?))) {
        let exit = amount(exit_bytes, line.exit_ratio);
        let title = format!(
            "rule {} may be taken back below {exit} ({exit_bytes} bytes in use)",
            line.rule
        );
        drawn(y, &title, "1 4")?;
        labels.push(Label {
            y,
            text: named(&line.rule, &format!(" back {exit}"), false),
            title,
            ink: Ink::Rule,
            bold: false,
            rank: 4,
        });
    }
    Ok(labels)
}

/// A rule's name and an amount, the name shortened until both fit.
fn named(rule: &str, amount: &str, bold: bool) -> String {
    let room = LABEL_WIDTH - text::width(amount, 11, bold);
    format!("{}{amount}", text::fit(rule, 11, bold, room))
}

/// Writes the labels beside their lines, moved apart where they would overlap, with a leader to the line.
fn write(
    canvas: &Canvas<'_>,
    mut labels: Vec<Label>,
    right: i32,
    (top, floor): (i32, i32),
) -> Result<(), Fault> {
    let room = usize::try_from((floor - top + LABEL_HEIGHT) / LABEL_HEIGHT).unwrap_or(0);
    labels.sort_by_key(|label| label.rank);
    labels.truncate(room);
    labels.sort_by_key(|label| (label.y, label.rank));
    let ys: Vec<i32> = labels.iter().map(|label| label.y).collect();
    for (label, y) in labels.into_iter().zip(spread(&ys, top, floor)) {
        let leader = vec![(right, label.y), (right + 5, label.y), (right + 10, y)];
        canvas.draw(&Figure::of(
            None,
            Paint::line(label.ink, 1, ""),
            vec![leader],
            false,
        ))?;
        let setting = Setting {
            ink: label.ink,
            size: 11,
            bold: label.bold,
            anchor: Anchor::Start,
            halo: false,
        };
        canvas.draw(&Words {
            at: (right + 13, y + 4),
            text: label.text,
            setting,
            title: Some(label.title),
        })?;
    }
    Ok(())
}

/// Heights at least one label apart, as near to the wished ones as they go, between two limits.
fn spread(wished: &[i32], top: i32, floor: i32) -> Vec<i32> {
    let mut ys: Vec<i32> = Vec::with_capacity(wished.len());
    for wish in wished {
        let least = ys.last().map_or(top, |y| y + LABEL_HEIGHT);
        ys.push((*wish).max(least));
    }
    let mut most = floor;
    for y in ys.iter_mut().rev() {
        *y = (*y).min(most);
        most = *y - LABEL_HEIGHT;
    }
    ys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_never_overlap() {
        assert_eq!(spread(&[10, 12, 14, 90], 0, 100), [10, 24, 38, 90]);
        assert_eq!(spread(&[95, 96, 97], 0, 100), [72, 86, 100]);
        assert_eq!(spread(&[], 0, 100), [0_i32; 0]);
    }
}
