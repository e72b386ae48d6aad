//! From readings to layers: who held how much at the instants that are drawn.

use std::collections::BTreeMap;

use super::stretch::cut;
use crate::downsample::m4;
use crate::timeline::{DeviceTrack, Owner, OwnerName, Sample, Span};

/// Owners with a layer of their own; the rest are summed in one more.
const MOST_LAYERS: usize = 6;

/// Layers over the instants of one device, lowest first.
pub(super) struct Stack<'a> {
    pub(super) layers: Vec<Layer<'a>>,
    /// Stretches of known readings; nothing is drawn between them.
    pub(super) segments: Vec<Vec<Instant>>,
    /// Stretches in which there were readings without a value.
    pub(super) unknown: Vec<Span>,
}

/// One owner, or the smaller ones together.
pub(super) struct Layer<'a> {
    pub(super) owners: Vec<&'a Owner>,
}

/// One drawn instant.
pub(super) struct Instant {
    pub(super) at_ns: i64,
    /// What the device had in use.
    pub(super) used: u64,
    /// What the owners up to each layer held together.
    pub(super) tops: Vec<u64>,
}

impl Instant {
    /// What all known owners held.
    pub(super) fn attributed(&self) -> u64 {
        self.tops.last().copied().unwrap_or(0)
    }
}

impl Stack<'_> {
    /// Every drawn instant.
    pub(super) fn instants(&self) -> impl Iterator<Item = &Instant> {
        self.segments.iter().flatten()
    }

    /// Whether processes claim more than the device has in use anywhere.
    pub(super) fn is_over(&self) -> bool {
        self.instants().any(|instant| instant.attributed() > instant.used)
    }
}

impl Layer<'_> {
    /// The most that the layer's owner held, and when; for several owners that of the largest.
    pub(super) fn peak(&self) -> Option<(i64, u64)> {
        self.owners.first().and_then(|owner| peak(owner))
    }

    /// Its owner, unless there are several.
    pub(super) fn name(&self) -> Option<&OwnerName> {
        match self.owners.as_slice() {
            [owner] => Some(&owner.name),
            _ => None,
        }
    }
}

/// Chooses instants in columns of `column_ns` and adds up the owners there.
pub(super) fn build(track: &DeviceTrack, from_ns: i64, to_ns: i64, column_ns: i64) -> Stack<'_> {
    let layers = layers(&track.owners);
    let readings = track
        .samples
        .iter()
        .filter(|sample| sample.at_ns >= from_ns && sample.at_ns <= to_ns)
        .map(|sample| (sample.at_ns, sample.used_bytes));
    let stretches = cut(readings, &track.gaps, column_ns.saturating_mul(2));
    let segments = stretches
        .known
        .into_iter()
        .map(|run| {
            let chosen = m4(&run, from_ns, column_ns).into_iter();
            chosen.map(|index| instant(&layers, run[index])).collect()
        })
        .collect();
    Stack {
        layers,
        segments,
        unknown: stretches.unknown,
    }
}

fn instant(layers: &[Layer<'_>], (at_ns, used): (i64, u64)) -> Instant {
    let mut sum = 0_u64;
    let tops = layers
        .iter()
        .map(|layer| {
            for owner in &layer.owners {
                sum = sum.saturating_add(held(&owner.samples, at_ns).unwrap_or(0));
            }
            sum
        })
        .collect();
    Instant { at_ns, used, tops }
}

/// What an owner held: its last reading holds until the next one.
fn held(samples: &[Sample], at_ns: i64) -> Option<u64> {
    let next = samples.partition_point(|sample| sample.at_ns <= at_ns);
    samples.get(next.checked_sub(1)?)?.used_bytes
}

fn peak(owner: &Owner) -> Option<(i64, u64)> {
    crate::timeline::find_peak(&owner.samples).map(|peak| (peak.at_ns, peak.used_bytes))
}

/// The largest owners lowest; other processes above them, then what has no room of its own.
fn layers(owners: &[Owner]) -> Vec<Layer<'_>> {
    let mut sorted: Vec<&Owner> = owners
        .iter()
        .filter(|owner| peak(owner).is_some_and(|(_, most)| most > 0))
        .collect();
    sorted.sort_by_key(|owner| {
        let most = peak(owner).map_or(0, |(_, most)| most);
        (
            owner.name == OwnerName::OtherProcesses,
            std::cmp::Reverse(most),
            owner.name.clone(),
        )
    });
    let mut layers: Vec<Layer<'_>> = Vec::new();
    let own = if sorted.len() > MOST_LAYERS {
        MOST_LAYERS - 1
    } else {
        MOST_LAYERS
    };
    for (index, owner) in sorted.into_iter().enumerate() {
        match layers.last_mut() {
            Some(rest) if index > own => rest.owners.push(owner),
            _ => layers.push(Layer { owners: vec![owner] }),
        }
    }
    layers
}

/// Process names over all devices, those that held the most first.
pub(super) fn names(tracks: &[DeviceTrack]) -> Vec<String> {
    let mut most: BTreeMap<String, u64> = BTreeMap::new();
    for owner in tracks.iter().flat_map(|track| &track.owners) {
        if let (OwnerName::Process { name, .. }, Some((_, bytes))) = (&owner.name, peak(owner)) {
            let entry = most.entry(name.clone().unwrap_or_default()).or_default();
            *entry = (*entry).max(bytes);
        }
    }
    let mut names: Vec<(String, u64)> = most.into_iter().filter(|(_, bytes)| *bytes > 0).collect();
    names.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    names.into_iter().map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ns: i64, used: impl Into<Option<u64>>) -> Sample {
        Sample {
            at_ns,
            used_bytes: used.into(),
        }
    }

    fn owner(pid: u32, samples: Vec<Sample>) -> Owner {
        Owner {
            name: OwnerName::Process {
                name: Some(format!("p{pid}")),
                pid,
            },
            samples,
        }
    }

    #[test]
    fn owners_hold_until_their_next_reading_and_are_never_scaled() {
        let track = DeviceTrack {
            samples: vec![sample(0, 10), sample(10, 12), sample(20, 14), sample(30, 14)],
            owners: vec![
                owner(1, vec![sample(-5, 6), sample(20, 9)]),
                owner(2, vec![sample(10, 4), sample(20, 8), sample(30, None)]),
            ],
            ..DeviceTrack::default()
        };
        let stack = build(&track, 0, 30, 1);
        let tops: Vec<&[u64]> = stack.segments[0]
            .iter()
            .map(|instant| instant.tops.as_slice())
            .collect();
        assert_eq!(tops, [[6, 6], [6, 10], [9, 17], [9, 9]]);
        // More claimed than the device has in use: both stay as they are.
        assert_eq!(
            (stack.segments[0][2].used, stack.segments[0][2].attributed()),
            (14, 17)
        );
    }

    #[test]
    fn small_owners_share_the_last_layer() {
        let owners = (1..=9)
            .map(|pid| owner(pid, vec![sample(0, u64::from(100 - pid))]))
            .chain([owner(99, vec![sample(0, None)])])
            .collect();
        let track = DeviceTrack {
            samples: vec![sample(0, 1000)],
            owners,
            ..DeviceTrack::default()
        };
        let stack = build(&track, 0, 10, 1);
        assert_eq!(stack.layers.len(), MOST_LAYERS);
        assert_eq!(stack.layers[MOST_LAYERS - 1].owners.len(), 4);
        assert_eq!(stack.segments[0][0].attributed(), (91..=99).sum::<u64>());
    }
}
