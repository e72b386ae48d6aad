//! The flame graph: boxes as wide as the time below them, the widest to the left, from the top down.

use plimsoll_trace::units::{show_duration, show_ratio};

use super::backend::{Anchor, Paint, Setting, Svg};
use super::element::rectangle;
use super::ink::{Ink, Theme};
use super::plan::{FACTS, MARGIN, TITLE, WIDTH};
use super::sheet::Sheet;
use crate::flame::{Flame, Node};
use crate::text;

const ROW: i32 = 22;
const TOP: i32 = 66;
/// Boxes below this row are not drawn.
const DEEPEST: i32 = 12;
/// A box that is narrower cannot be pointed at.
const NARROWEST: i32 = 2;

const NAME: Setting = Setting {
    ink: Ink::Text,
    size: 11,
    bold: false,
    anchor: Anchor::Start,
    halo: false,
};

/// Draws it.
pub(crate) fn flame(flame: &Flame, theme: Theme) -> String {
    let whole_ns = flame.total_ns();
    let mut body = String::new();
    let mut picture = Picture {
        out: Svg::new(&mut body, (0, 0), theme),
        whole_ns,
        rows: 0,
    };
    let name = format!("GPU time of {}", flame.name);
    let shown = text::fit(&name, 18, true, WIDTH - 2 * MARGIN);
    picture.out.text((MARGIN, 30), &shown, TITLE);
    let told = if whole_ns == 0 {
        "no kernels were recorded".to_owned()
    } else {
        let launches = flame
            .kernels
            .iter()
            .fold(0, |sum: u64, kernel| sum.saturating_add(kernel.count));
        let total = length(whole_ns);
        format!(
            "{total} of kernels in {launches} launches; a box is as wide as the time of all that is below it"
        )
    };
    picture.out.text((MARGIN, 52), &told, FACTS);
    picture.level(&flame.tree(), (MARGIN, WIDTH - MARGIN), 0, whole_ns);
    let height = TOP + picture.rows * ROW + MARGIN;
    let sheet = Sheet {
        id: format!("f{}-t", flame.run_id),
        description_id: format!("f{}-d", flame.run_id),
        name: &name,
        description: &told,
        metadata: None,
        definitions: "",
        height,
    };
    sheet.with(theme, &body)
}

struct Picture<'a> {
    out: Svg<'a>,
    whole_ns: u64,
    /// How many rows are in use.
    rows: i32,
}

impl Picture<'_> {
    /// Draws what is side by side below a box of `whole_ns`; those too narrow to be seen are one box at the end.
    fn level(&mut self, nodes: &[Node], (left, right): (i32, i32), row: i32, whole_ns: u64) {
        if row >= DEEPEST || nodes.is_empty() {
            return;
        }
        let place = |ns: u64| {
            let part = u128::from(ns) * u128::from(left.abs_diff(right)) / u128::from(whole_ns.max(1));
            left.saturating_add(i32::try_from(part).unwrap_or(i32::MAX))
                .min(right)
        };
        let mut sum: u64 = 0;
        for (index, node) in nodes.iter().enumerate() {
            let (from, to) = (place(sum), place(sum.saturating_add(node.total_ns)));
            // The others are no wider.
            if to - from < NARROWEST {
                self.rest(&nodes[index..], (from, right), row);
                return;
            }
            sum = sum.saturating_add(node.total_ns);
            self.rows = self.rows.max(row + 1);
            let title = format!(
                "{}: {}, {} of all kernels, {} launches, {} each",
                node.label,
                length(node.total_ns),
                share(node.total_ns, self.whole_ns),
                node.count,
                length(node.total_ns / node.count.max(1))
            );
            let depth = if row == 0 {
                60
            } else {
                40 - 10 * u8::from(row % 2 == 0)
            };
            let label = match row {
                0 => format!("{} {}", node.label, share(node.total_ns, self.whole_ns)),
                _ => node.label.clone(),
            };
            self.boxed(&title, &label, node.family.ink(), depth, (from, to), row);
            self.level(&node.below, (from, to), row + 1, node.total_ns);
        }
    }

    fn rest(&mut self, nodes: &[Node], (from, right): (i32, i32), row: i32) {
        let total_ns = nodes
            .iter()
            .fold(0, |sum: u64, node| sum.saturating_add(node.total_ns));
        let width =
            u128::from(total_ns) * u128::from(WIDTH.abs_diff(2 * MARGIN)) / u128::from(self.whole_ns.max(1));
        let to = from.saturating_add(i32::try_from(width).unwrap_or(0)).min(right);
        if to - from < 1 {
            return;
        }
        self.rows = self.rows.max(row + 1);
        let label = format!("{} more", nodes.len());
        let title = format!(
            "{label}: {}, {} of all kernels",
            length(total_ns),
            share(total_ns, self.whole_ns)
        );
        self.boxed(&title, &label, Ink::Neutral, 30, (from, to), row);
    }

    fn boxed(&mut self, title: &str, label: &str, ink: Ink, depth: u8, (from, to): (i32, i32), row: i32) {
        let top = TOP + row * ROW;
        self.out.open(Some(title));
        let corners = rectangle((from, top), ((to - 1).max(from + 1), top + ROW - 1));
        self.out.path(&[&corners], true, &Paint::fill(ink).faint(depth));
        let setting = Setting {
            bold: row == 0,
            ..NAME
        };
        let words = text::fit(label, NAME.size, setting.bold, to - from - 8);
        // An ellipsis alone says nothing.
        if words.chars().count() > 2 || words == label {
            self.out.text((from + 4, top + 15), &words, setting);
        }
        self.out.close();
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share for people")]
fn share(part_ns: u64, whole_ns: u64) -> String {
    show_ratio(part_ns as f64 / whole_ns.max(1) as f64)
}

#[expect(clippy::cast_precision_loss, reason = "a time for people")]
fn length(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => show_duration(std::time::Duration::from_nanos(ns)),
    }
}
