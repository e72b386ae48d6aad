//! The releases of CUPTI and how long their records are.

/// Kinds of records (`CUpti_ActivityKind`).
pub(crate) mod kind {
    pub(crate) const MEMCPY: u32 = 1;
    pub(crate) const MEMSET: u32 = 2;
    pub(crate) const KERNEL: u32 = 3;
    pub(crate) const CONCURRENT_KERNEL: u32 = 10;
    pub(crate) const OVERHEAD: u32 = 17;
    pub(crate) const MEMCPY2: u32 = 22;
    pub(crate) const SYNCHRONIZATION: u32 = 38;
    pub(crate) const MEMORY2: u32 = 49;
    pub(crate) const MEMORY_POOL: u32 = 50;
    pub(crate) const GRAPH_TRACE: u32 = 51;
    /// In no release: what a client meets in one that is newer than itself.
    pub(crate) const UNHEARD_OF: u32 = 60;
    /// Kinds are below this; [`Sizes`] has a place for each.
    pub(crate) const ALL: u32 = 64;
}

/// A release of CUPTI: 1108 is 11.8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release(u32);

/// A release that does not exist yet: every record is longer, and there are kinds that nobody knows.
pub(crate) const FUTURE: Release = Release(9900);
const DEFAULT: Release = Release(1300);
/// How much longer each record is in [`FUTURE`], bytes.
const UNHEARD_OF_BYTES: u16 = 40;

/// How long each record is from which release on, bytes.
const GROWTH: [(u32, &[(u32, u16)]); 11] = [
    (kind::KERNEL, KERNEL_GROWTH),
    (kind::CONCURRENT_KERNEL, KERNEL_GROWTH),
    (kind::MEMCPY, &[(0, 88), (1208, 96), (1304, 112)]),
    (kind::MEMCPY2, &[(0, 96)]),
    (kind::MEMSET, &[(0, 88), (1304, 104)]),
    (kind::MEMORY2, &[(0, 120), (1206, 128)]),
    (kind::MEMORY_POOL, &[(0, 72), (1300, 80)]),
    (kind::OVERHEAD, &[(0, 40), (1203, 48), (1204, 56)]),
    (kind::SYNCHRONIZATION, &[(0, 40), (1208, 56)]),
    (kind::GRAPH_TRACE, &[(0, 48), (1203, 56)]),
    (kind::UNHEARD_OF, &[(9900, 24)]),
];
const KERNEL_GROWTH: &[(u32, u16)] = &[
    (0, 176),
    (1108, 200),
    (1200, 208),
    (1300, 216),
    (1301, 224),
    (1303, 232),
    (1304, 248),
];

/// What `cuptiGetVersion` says. It is no key to the layout: several releases say 18.
const API_VERSIONS: [(u32, u32); 11] = [
    (0, 17),
    (1108, 18),
    (1202, 20),
    (1203, 21),
    (1204, 22),
    (1205, 23),
    (1206, 24),
    (1208, 26),
    (1209, 27),
    (1300, 0),
    (9900, 9_900_000),
];

impl Release {
    /// Reads `12.4` or `future`. Nothing, and what cannot be read, is 13.0.
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let numbers = |text: &str| {
            let (major, minor) = text.split_once('.')?;
            Some(Self(
                major.parse::<u32>().ok()?.checked_mul(100)? + minor.parse::<u32>().ok()?,
            ))
        };
        match text {
            Some("future") => FUTURE,
            Some(text) => numbers(text.trim()).unwrap_or(DEFAULT),
            None => DEFAULT,
        }
    }

    pub(crate) fn api_version(self) -> u32 {
        match since(&API_VERSIONS, self) {
            Some(0) => 130_000 + 100 * (self.0 % 100),
            version => version.unwrap_or(0),
        }
    }

    /// Whether each thread has its own buffers when nobody asks otherwise; `None` where this cannot be chosen.
    pub(crate) fn buffers_per_thread(self) -> Option<bool> {
        (self >= Self(1203)).then_some(self >= Self(1300))
    }
}

fn since<T: Copy>(steps: &[(u32, T)], release: Release) -> Option<T> {
    let step = steps.iter().rev().find(|(from, _)| *from <= release.0);
    step.map(|(_, value)| *value)
}

/// How long the records of one release are, by kind; 0 for kinds that it does not know.
#[derive(Debug)]
pub(crate) struct Sizes([u16; kind::ALL as usize]);

impl Sizes {
    pub(crate) fn of(release: Release) -> Self {
        let mut sizes = [0; kind::ALL as usize];
        let longer = if release == FUTURE { UNHEARD_OF_BYTES } else { 0 };
        for (kind, steps) in GROWTH {
            if let (Some(size), Some(place)) = (since(steps, release), sizes.get_mut(kind as usize)) {
                *place = size + longer;
            }
        }
        Self(sizes)
    }

    /// Bytes of a record of this kind; 0 if there is none.
    pub(crate) fn get(&self, kind: u32) -> usize {
        self.0.get(kind as usize).map_or(0, |&size| usize::from(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_and_what_is_no_release_is_the_default() {
        assert_eq!(Release::parse(Some("11.8")), Release(1108));
        assert_eq!(Release::parse(Some("12.0")), Release(1200));
        assert_eq!(Release::parse(Some("future")), FUTURE);
        for text in [None, Some(""), Some("new"), Some("13"), Some("99999999999.1")] {
            assert_eq!(Release::parse(text), DEFAULT);
        }
    }

    #[test]
    fn the_api_version_is_no_key_to_the_layout() {
        let version = |text| Release::parse(Some(text)).api_version();
        assert_eq!([version("11.8"), version("12.0"), version("12.1")], [18; 3]);
        assert_eq!(
            (version("12.4"), version("13.0"), version("13.3")),
            (22, 130_000, 130_300)
        );
    }
}
