//! How each owner looks, and the patterns for what is not an owner.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::backend::Paint;
use super::ink::{Ink, OWNERS, Theme};
use super::stack::{self, Layer};
use crate::timeline::{DeviceTrack, OwnerName, Timeline};

/// Textures over a colour; the first is none.
const TEXTURES: [&str; 4] = ["", "M-2 2L2-2M0 8L8 0M6 10L10 6", "M0 4H8", "M4 0V8"];

/// A colour and a texture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Look {
    hue: usize,
    texture: usize,
}

/// The looks of all owners of one picture.
pub(super) struct Looks {
    hues: BTreeMap<String, usize>,
    /// Ids are unique to the picture, because several may stand on one page.
    id: String,
}

impl Looks {
    /// A name has its own colour everywhere, unless a larger owner in the picture has it already.
    pub(super) fn of(timeline: &Timeline) -> Self {
        let mut taken = [false; OWNERS.len()];
        let mut hues = BTreeMap::new();
        for name in stack::names(&timeline.devices) {
            let first = usize::try_from(fingerprint(name.as_bytes()) % 7).unwrap_or(0);
            let hue = (0..OWNERS.len())
                .map(|step| (first + step) % OWNERS.len())
                .find(|hue| !taken[*hue])
                .unwrap_or(first);
            taken[hue] = true;
            hues.insert(name, hue);
        }
        let key = format!(
            "{:?} {} {} {}",
            timeline.title.run_id, timeline.title.name, timeline.from_ns, timeline.to_ns
        );
        Self {
            hues,
            id: format!("p{:x}", fingerprint(key.as_bytes())),
        }
    }

    /// What to fill a layer with.
    pub(super) fn paint(&self, layer: &Layer<'_>, track: &DeviceTrack) -> Paint {
        match layer.name() {
            Some(OwnerName::OtherProcesses) => Paint::fill(Ink::OtherProcesses),
            Some(OwnerName::Process { name, pid }) => self.fill(self.look(name.as_deref(), *pid, track)),
            None => Paint::fill(Ink::Neutral),
        }
    }

    /// The colour of a layer's owner.
    pub(super) fn ink(&self, layer: &Layer<'_>) -> Ink {
        match layer.name() {
            Some(OwnerName::OtherProcesses) => Ink::OtherProcesses,
            Some(OwnerName::Process { name, .. }) => OWNERS[self.hue(name.as_deref().unwrap_or_default())],
            None => Ink::Neutral,
        }
    }

    fn hue(&self, name: &str) -> usize {
        self.hues.get(name).copied().unwrap_or(0)
    }

    /// What stands for a process name in the legend.
    pub(super) fn paint_of_name(&self, name: &str) -> Paint {
        self.fill(Look {
            hue: self.hue(name),
            texture: 0,
        })
    }

    /// Processes of one name on one device share a colour and differ in texture, by process id.
    fn look(&self, name: Option<&str>, pid: u32, track: &DeviceTrack) -> Look {
        let name = name.unwrap_or_default();
        let twins = track.owners.iter().filter(|owner| match &owner.name {
            OwnerName::Process { name: other, pid: id } => {
                other.as_deref().unwrap_or_default() == name && *id < pid
            }
            OwnerName::OtherProcesses => false,
        });
        Look {
            hue: self.hue(name),
            texture: twins.count() % TEXTURES.len(),
        }
    }

    fn fill(&self, look: Look) -> Paint {
        if look.texture == 0 {
            return Paint::fill(OWNERS[look.hue]);
        }
        Paint::pattern(&self.owner_id(look))
    }

    fn owner_id(&self, look: Look) -> String {
        format!("{}-{}{}", self.id, OWNERS[look.hue].code(), look.texture)
    }

    pub(super) fn unattributed(&self) -> Paint {
        Paint::pattern(&format!("{}-ua", self.id))
    }

    pub(super) fn over(&self) -> Paint {
        Paint::pattern(&format!("{}-ov", self.id))
    }

    pub(super) fn unknown(&self) -> Paint {
        Paint::pattern(&format!("{}-uk", self.id))
    }

    /// The id of the picture's title, description or patterns.
    pub(super) fn id(&self, what: &str) -> String {
        format!("{}-{what}", self.id)
    }

    /// The definitions of all patterns that [`Looks::paint`] can answer for these devices.
    pub(super) fn definitions(&self, timeline: &Timeline, theme: Theme) -> String {
        let mut out = String::from("<defs>\n");
        let line = |ink: Ink, width: &str, path: &str| {
            format!(
                "<path class=\"s-{}\" stroke=\"{}\" stroke-width=\"{width}\" fill=\"none\" d=\"{path}\"/>",
                ink.code(),
                ink.fallback(theme)
            )
        };
        let ground = |ink: Ink| {
            format!(
                "<path class=\"f-{}\" fill=\"{}\" d=\"M0 0h8v8H0z\"/>",
                ink.code(),
                ink.fallback(theme)
            )
        };
        let mut pattern = |id: String, content: String| {
            // A write into a string cannot fail.
            let _infallible = writeln!(
                out,
                "<pattern id=\"{id}\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\">{content}</pattern>"
            );
        };
        pattern(
            self.id("ua"),
            ground(Ink::Unattributed) + &line(Ink::UnattributedDots, "1", "M1 2h1M5 6h1"),
        );
        pattern(
            self.id("ov"),
            ground(Ink::Background) + &line(Ink::Over, "2", TEXTURES[1]),
        );
        pattern(
            self.id("uk"),
            line(Ink::Unknown, "1", "M-2 6L2 10M0 0L8 8M6-2L10 2"),
        );
        let mut looks: Vec<Look> = timeline
            .devices
            .iter()
            .flat_map(|track| track.owners.iter().map(move |owner| (track, owner)))
            .filter_map(|(track, owner)| match &owner.name {
                OwnerName::Process { name, pid } => Some(self.look(name.as_deref(), *pid, track)),
                OwnerName::OtherProcesses => None,
            })
            .filter(|look| look.texture > 0)
            .collect();
        looks.sort_unstable();
        looks.dedup();
        for look in looks {
            let ink = OWNERS[look.hue];
            pattern(
                self.owner_id(look),
                ground(ink) + &line(Ink::Background, "1.5", TEXTURES[look.texture]),
            );
        }
        out.push_str("</defs>\n");
        out
    }
}

/// FNV-1a: the same on every machine and in every version, which std's hasher does not promise.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
