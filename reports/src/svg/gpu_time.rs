//! A lane for what the device's time went to, by family of kernels. What was not recorded is hatched, not idle.

use plimsoll_trace::units::show_ratio;

use super::backend::Paint;
use super::element::{Canvas, Fault, Figure};
use super::ink::Ink;
use super::lane::Scene;
use super::look::Looks;
use super::plan::LaneBox;
use super::share::{self, ShareLane};
use crate::family::Family;
use crate::instant::Clock;
use crate::timeline::{DeviceTrack, GpuTime};

const FAMILIES: usize = Family::ALL.len();

/// One step of the lane: how far up each layer reaches, in thousandths; last the time that was recorded at all.
struct Step {
    from_ns: i64,
    to_ns: i64,
    tops: [u64; FAMILIES + 1],
}

impl Family {
    pub(super) const fn ink(self) -> Ink {
        match self {
            Self::Attention => Ink::Attention,
            Self::Gemm => Ink::Gemm,
            Self::Communication => Ink::Communication,
            Self::Copy => Ink::Copy,
            Self::Graph => Ink::Graph,
            Self::Other => Ink::OtherKernels,
        }
    }
}

/// Draws one device's lane.
pub(super) fn draw(
    canvas: &Canvas<'_>,
    lane: &LaneBox,
    track: &DeviceTrack,
    scene: &Scene<'_>,
    times: Option<&Clock>,
) -> Result<(), Fault> {
    let chart = ShareLane::open(canvas, lane, 1000, scene, times)?;
    let pixel = |at_ns: i64, value: u64| chart.pixel(at_ns, value);
    let steps = steps(track, scene);
    // Between two edges, each a step function of time.
    let area = |lower: &dyn Fn(&Step) -> u64, upper: &dyn Fn(&Step) -> u64| -> Vec<(i32, i32)> {
        let edge = |value: &dyn Fn(&Step) -> u64| -> Vec<(i32, i32)> {
            let ends = |step: &Step| [pixel(step.from_ns, value(step)), pixel(step.to_ns, value(step))];
            steps.iter().flat_map(ends).collect()
        };
        edge(lower)
            .into_iter()
            .chain(edge(upper).into_iter().rev())
            .collect()
    };
    let titles = Titles::of(track, scene);
    let known = area(&|_| 0, &|step| step.tops[FAMILIES]);
    canvas.draw(&Figure::of(
        Some(titles.idle),
        Paint::fill(Ink::Background),
        vec![known],
        true,
    ))?;
    let unknown = area(&|step| step.tops[FAMILIES], &|_| 1000);
    canvas.draw(&Figure::of(
        Some(titles.unknown),
        scene.looks.unknown(),
        vec![unknown],
        true,
    ))?;
    for (index, (family, title)) in Family::ALL.iter().zip(titles.families).enumerate().rev() {
        if let Some(title) = title {
            let band = area(&|_| 0, &|step| step.tops[index]);
            canvas.draw(&Figure::of(
                Some(title),
                Paint::fill(family.ink()),
                vec![band],
                true,
            ))?;
        }
    }
    Ok(())
}

/// The name of the lane.
pub(super) fn label(canvas: &Canvas<'_>, lane: &LaneBox) -> Result<(), Fault> {
    share::label(canvas, lane, "GPU time by kind of kernel", "kernels")
}

/// Swatches of the families in the picture, of a single device with their shares.
pub(super) fn legend(tracks: &[DeviceTrack], looks: &Looks) -> Vec<(Paint, String)> {
    let sums: Vec<GpuTime> = tracks.iter().filter_map(sum).collect();
    let Some(all) = sums.iter().copied().reduce(|sum, next| sum.with(&next)) else {
        return Vec::new();
    };
    let recorded = sums.len() == 1;
    let entry = |paint: Paint, name: &str, share: Option<f64>| match share.filter(|_| recorded) {
        Some(share) => (paint, format!("{name} {}", show_ratio(share))),
        None => (paint, name.to_owned()),
    };
    let mut entries = Vec::new();
    for (family, ns) in Family::ALL.into_iter().zip(all.family_ns) {
        if ns > 0 {
            let share = share_of_recorded(&all, |shares| shares.families[family as usize]);
            entries.push(entry(Paint::fill(family.ink()), family.label(), share));
        }
    }
    let idle = share_of_recorded(&all, |shares| shares.idle);
    entries.push(entry(Paint::fill(Ink::Background), "idle", idle));
    if tracks
        .iter()
        .filter(|track| !track.gpu_time.is_empty())
        .any(has_unknown)
    {
        entries.push((looks.unknown(), "not recorded".to_owned()));
    }
    entries
}

/// Whether there is time between the first and the last stretch that was not recorded.
fn has_unknown(track: &DeviceTrack) -> bool {
    let is_short = |time: &GpuTime| time.shares().unknown > 0.01;
    let is_apart = |pair: &[GpuTime]| pair[0].to_ns < pair[1].from_ns;
    track.gpu_time.iter().any(is_short) || track.gpu_time.windows(2).any(is_apart)
}

fn sum(track: &DeviceTrack) -> Option<GpuTime> {
    track.gpu_time.iter().copied().reduce(|sum, next| sum.with(&next))
}

fn share_of_recorded(time: &GpuTime, part: impl Fn(&crate::timeline::Shares) -> f64) -> Option<f64> {
    let shares = time.shares();
    let recorded = 1.0 - shares.unknown;
    (recorded > 0.0).then(|| part(&shares) / recorded)
}

/// What a viewer shows on hovering.
struct Titles {
    families: Vec<Option<String>>,
    idle: String,
    unknown: String,
}

impl Titles {
    fn of(track: &DeviceTrack, scene: &Scene<'_>) -> Self {
        let time = sum(track).unwrap_or(GpuTime::unknown(scene.from_ns, scene.to_ns));
        let recorded = |part: &dyn Fn(&crate::timeline::Shares) -> f64| {
            let share = share_of_recorded(&time, part);
            share.map_or_else(|| "an unknown share".to_owned(), show_ratio)
        };
        let families = Family::ALL.into_iter().zip(time.family_ns);
        let families = families.map(|(family, ns)| {
            let share = recorded(&|shares| shares.families[family as usize]);
            let length = plimsoll_trace::units::show_duration(std::time::Duration::from_nanos(ns));
            (ns > 0).then(|| {
                format!(
                    "{}: {share} of the recorded time, {length} of kernels",
                    family.label()
                )
            })
        });
        let whole = u64::try_from(scene.to_ns.saturating_sub(scene.from_ns)).unwrap_or(0);
        let whole = GpuTime {
            recorded_ns: time.recorded_ns,
            ..GpuTime::unknown(0, i64::try_from(whole).unwrap_or(i64::MAX))
        };
        Self {
            families: families.collect(),
            idle: format!(
                "idle: {} of the recorded time; no kernel of a traced process ran",
                recorded(&|shares| shares.idle)
            ),
            unknown: format!(
                "kernels not recorded: {} of the time",
                show_ratio(whole.shares().unknown)
            ),
        }
    }
}

/// The stretches, as many together as the picture's columns are wide, and what is missing between them.
fn steps(track: &DeviceTrack, scene: &Scene<'_>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut until_ns = scene.from_ns;
    let column = |time: &GpuTime| time.from_ns.saturating_sub(scene.from_ns) / scene.column_ns.max(1);
    let inside = |time: &&GpuTime| time.from_ns >= scene.from_ns && time.to_ns <= scene.to_ns;
    let times: Vec<GpuTime> = track.gpu_time.iter().filter(inside).copied().collect();
    for times in times.chunk_by(|a, b| column(a) == column(b)) {
        let Some(time) = times.iter().copied().reduce(|sum, next| sum.with(&next)) else {
            continue;
        };
        if time.from_ns > until_ns {
            steps.push(missing(until_ns, time.from_ns));
        }
        until_ns = time.to_ns;
        steps.push(step(&time));
    }
    if until_ns < scene.to_ns {
        steps.push(missing(until_ns, scene.to_ns));
    }
    steps
}

const fn missing(from_ns: i64, to_ns: i64) -> Step {
    Step {
        from_ns,
        to_ns,
        tops: [0; FAMILIES + 1],
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=1000"
)]
fn step(time: &GpuTime) -> Step {
    let shares = time.shares();
    let thousandths = |share: f64| (share * 1000.0).round().clamp(0.0, 1000.0) as u64;
    let mut tops = [0; FAMILIES + 1];
    let mut sum = 0.0;
    for (top, share) in tops.iter_mut().zip(shares.families) {
        sum += share;
        *top = thousandths(sum);
    }
    tops[FAMILIES] = thousandths(1.0 - shares.unknown);
    Step {
        from_ns: time.from_ns,
        to_ns: time.to_ns,
        tops,
    }
}
