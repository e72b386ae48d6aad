//! Numbered markers above the lanes, a line through the lanes for each, and the key below.

use super::backend::{Anchor, Paint, Setting};
use super::element::{Canvas, Fault, Figure, Words, draw, write};
use super::glyph;
use super::ink::Ink;
use super::metadata::MOST_MARKS;
use super::plan::{LEFT, MARGIN, STRIP, WIDTH};
use crate::instant::Clock;
use crate::text;
use crate::timeline::{Mark, MarkKind};

/// Rows of the key; what does not fit is in the metadata, see [`left_out`].
const MOST_ROWS: usize = 18;
/// Lines of a cluster's tooltip.
const MOST_LINES: usize = 20;
const ROW: i32 = 20;

/// The marks of a window, in order, so that a mark's number is its place plus one.
pub(super) fn sorted(marks: &[Mark], from_ns: i64, to_ns: i64) -> Vec<&Mark> {
    let mut sorted: Vec<&Mark> = marks
        .iter()
        .filter(|mark| mark.at_ns >= from_ns && mark.at_ns <= to_ns)
        .collect();
    sorted
        .sort_by(|a, b| (a.at_ns, a.kind, &a.label, &a.detail).cmp(&(b.at_ns, b.kind, &b.label, &b.detail)));
    sorted
}

/// Marks so near to each other that they share a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cluster {
    first: usize,
    last: usize,
    /// Middle of the marker.
    x: i32,
}

impl Cluster {
    fn label(self) -> String {
        if self.first == self.last {
            (self.first + 1).to_string()
        } else {
            format!("{}–{}", self.first + 1, self.last + 1)
        }
    }

    /// Half of the room that the marker and its number need.
    fn half(self) -> i32 {
        text::width(&self.label(), 10, true) / 2 + 3
    }
}

/// Joins neighbours until no two overlap; `xs` ascends.
fn clusters(xs: &[i32]) -> Vec<Cluster> {
    let mut out: Vec<Cluster> = Vec::new();
    for (index, x) in xs.iter().enumerate() {
        let mut next = Cluster {
            first: index,
            last: index,
            x: *x,
        };
        while let Some(before) = out.last().copied() {
            if before.x + before.half().max(8) <= next.x - next.half().max(8) {
                break;
            }
            out.pop();
            next = Cluster {
                first: before.first,
                last: next.last,
                x: (xs[before.first] + xs[next.last]) / 2,
            };
        }
        out.push(next);
    }
    out
}

/// Draws the strip with its lower edge at `top`, and lines from there down to `floor`.
pub(super) fn strip(
    canvas: &Canvas<'_>,
    marks: &[&Mark],
    clock: &Clock,
    column_of: &dyn Fn(i64) -> i32,
    (top, floor): (i32, i32),
) -> Result<(), Fault> {
    let xs: Vec<i32> = marks.iter().map(|mark| column_of(mark.at_ns)).collect();
    for cluster in clusters(&xs) {
        let members = &marks[cluster.first..=cluster.last];
        let title = tooltip(members, cluster.first, clock);
        let worst = members
            .iter()
            .map(|mark| glyph::ink(mark.kind))
            .max_by_key(|ink| severity(*ink));
        let ink = worst.unwrap_or(Ink::Neutral);
        let mut columns = xs[cluster.first..=cluster.last].to_vec();
        columns.dedup();
        let lines: Vec<_> = columns
            .into_iter()
            .map(|x| vec![(x, top - 4), (x, floor)])
            .collect();
        let pale = Paint::line(Ink::Background, 3, "").faint(45);
        let figure = Figure::of(Some(title.clone()), pale, lines.clone(), false);
        draw(canvas, &figure.with(Paint::line(ink, 1, "2 3"), lines, false))?;
        let kind = members[0].kind;
        let at = (cluster.x, top - 11);
        let mut figure = if members.iter().all(|mark| mark.kind == kind) {
            glyph::of_kind(kind, at)
        } else {
            glyph::of_several(ink, at)
        };
        figure.title = Some(title);
        draw(canvas, &figure)?;
        let setting = Setting {
            ink: Ink::Text,
            size: 10,
            bold: true,
            anchor: Anchor::Middle,
            halo: false,
        };
        write(canvas, (cluster.x, top - STRIP + 12), &cluster.label(), setting)?;
    }
    Ok(())
}

const fn severity(ink: Ink) -> u8 {
    match ink {
        Ink::Bad => 3,
        Ink::Warn => 2,
        Ink::Good => 1,
        _ => 0,
    }
}

fn tooltip(members: &[&Mark], first: usize, clock: &Clock) -> String {
    let mut lines: Vec<String> = members
        .iter()
        .take(MOST_LINES)
        .enumerate()
        .map(|(index, mark)| {
            let line = format!(
                "{}. {} {}",
                first + index + 1,
                clock.title(mark.at_ns),
                mark.label
            );
            if mark.detail.is_empty() {
                line
            } else {
                format!("{line}: {}", mark.detail)
            }
        })
        .collect();
    if members.len() > MOST_LINES {
        lines.push(format!("and {} more", members.len() - MOST_LINES));
    }
    if members.len() > 1 {
        lines.insert(0, format!("{} events", members.len()));
    }
    lines.join(" · ")
}

/// Which marks the key tells: all, or the weightier ones when there are too many.
fn told(marks: &[&Mark]) -> Vec<usize> {
    let weight = |mark: &Mark| match mark.kind {
        MarkKind::Note | MarkKind::ProcessStart | MarkKind::ProcessExit => 1_u8,
        _ => 0,
    };
    let mut chosen: Vec<usize> = (0..marks.len()).collect();
    chosen.sort_by_key(|index| (weight(marks[*index]), *index));
    chosen.truncate(MOST_ROWS);
    chosen.sort_unstable();
    chosen
}

/// How high the key will be.
pub(super) fn key_height(marks: &[&Mark]) -> i32 {
    if marks.is_empty() {
        return 0;
    }
    let rows = marks.len().min(MOST_ROWS) + usize::from(marks.len() > MOST_ROWS);
    i32::try_from(rows).unwrap_or(0) * ROW + 10
}

/// Draws the key: number, shape, time, what happened.
pub(super) fn key(canvas: &Canvas<'_>, marks: &[&Mark], clock: &Clock, top: i32) -> Result<(), Fault> {
    let told = told(marks);
    let times: Vec<String> = told
        .iter()
        .map(|index| clock.label(marks[*index].at_ns))
        .collect();
    let time_room = times
        .iter()
        .map(|time| text::width(time, 12, false))
        .max()
        .unwrap_or(0);
    let plain = Setting {
        ink: Ink::Text,
        size: 12,
        bold: false,
        anchor: Anchor::Start,
        halo: false,
    };
    let mut y = top;
    for (index, time) in told.iter().zip(&times) {
        let mark = marks[*index];
        y += ROW;
        let number = Setting {
            bold: true,
            anchor: Anchor::End,
            ..plain
        };
        write(canvas, (MARGIN + 24, y), &(index + 1).to_string(), number)?;
        draw(canvas, &glyph::of_kind(mark.kind, (MARGIN + 38, y - 4)))?;
        let dim = Setting {
            ink: Ink::Dim,
            ..plain
        };
        write(canvas, (MARGIN + 52, y), time, dim)?;
        let x = (MARGIN + 52 + time_room + 14).max(LEFT + 40);
        let title = tooltip(&[mark], *index, clock);
        let label = text::fit(&mark.label, 12, true, WIDTH - MARGIN - x);
        let strong = Setting { bold: true, ..plain };
        let end = x + text::width(&label, 12, true) + 10;
        canvas.draw(&Words {
            at: (x, y),
            text: label.into_owned(),
            setting: strong,
            title: Some(title.clone()),
        })?;
        let detail = text::fit(&mark.detail, 12, false, WIDTH - MARGIN - end);
        if detail.chars().count() > 1 {
            canvas.draw(&Words {
                at: (end, y),
                text: detail.into_owned(),
                setting: dim,
                title: Some(title),
            })?;
        }
    }
    if marks.len() > told.len() {
        let more = left_out(marks.len(), told.len());
        write(
            canvas,
            (MARGIN + 52, y + ROW),
            &more,
            Setting {
                ink: Ink::Dim,
                ..plain
            },
        )?;
    }
    Ok(())
}

/// Where those are that the key does not tell.
fn left_out(all: usize, told: usize) -> String {
    let more = all - told;
    if all <= MOST_MARKS {
        format!("and {more} more, in this file's metadata")
    } else {
        format!(
            "and {more} more: the first {MOST_MARKS} of all are in this file's metadata, all in the views events and \
             decisions"
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn near_markers_become_one() {
        let found = clusters(&[10, 12, 100, 400, 409]);
        let labels: Vec<String> = found.iter().map(|cluster| cluster.label()).collect();
        assert_eq!(labels, ["1–2", "3", "4–5"]);
    }

    #[test]
    fn what_the_key_leaves_out_is_where_it_says() {
        assert_eq!(left_out(200, 18), "and 182 more, in this file's metadata");
        assert_eq!(
            left_out(201, 18),
            "and 183 more: the first 200 of all are in this file's metadata, all in the views events and decisions"
        );
    }

    proptest! {
        #[test]
        fn clusters_hold_every_mark_once_and_never_overlap(mut xs in prop::collection::vec(0_i32..800, 0..120)) {
            xs.sort_unstable();
            let found = clusters(&xs);
            prop_assert_eq!(found.iter().map(|c| c.last - c.first + 1).sum::<usize>(), xs.len());
            for pair in found.windows(2) {
                prop_assert_eq!(pair[0].last + 1, pair[1].first);
                prop_assert!(pair[0].x + pair[0].half() <= pair[1].x - pair[1].half());
            }
        }
    }
}
