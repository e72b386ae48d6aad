//! What is drawn as what, lane by lane.

use plimsoll_trace::units::show_bytes;

use super::backend::Paint;
use super::element::{Canvas, Fault, Figure, draw, rectangle, write};
use super::ink::Ink;
use super::look::Looks;
use super::plan::{FACTS, Flow, LEGEND, MARGIN, SWATCH, flow};
use super::stack::{self, Stack};
use super::{allocators, gpu_time, lane};
use crate::timeline::{OwnerName, Timeline};

/// A legend with its places.
pub(super) struct Legend {
    groups: Vec<Group>,
    flow: Flow,
}

impl Legend {
    /// Lays out the legend of a picture from a row with its baseline at `top`.
    pub(super) fn new(timeline: &Timeline, stacks: &[Stack<'_>], looks: &Looks, top: i32) -> Self {
        let groups = groups(timeline, stacks, looks);
        let flow = flow(groups.iter().map(Group::words), top);
        Self { groups, flow }
    }

    /// Baseline of its last row.
    pub(super) const fn end(&self) -> i32 {
        self.flow.end
    }

    pub(super) fn draw(&self, canvas: &Canvas<'_>) -> Result<(), Fault> {
        let heads = self.groups.iter().zip(&self.flow.heads);
        for (group, y) in heads.filter(|(group, _)| !group.head.is_empty()) {
            write(canvas, (MARGIN, *y), group.head, FACTS)?;
        }
        let paints = self.groups.iter().flat_map(|group| &group.entries);
        for (entry, (paint, _)) in self.flow.entries.iter().zip(paints) {
            swatch(canvas, paint, (entry.x, entry.y - SWATCH + 2))?;
            write(canvas, (entry.x + SWATCH + 6, entry.y), &entry.text, LEGEND)?;
        }
        Ok(())
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

fn groups(timeline: &Timeline, stacks: &[Stack<'_>], looks: &Looks) -> Vec<Group> {
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
