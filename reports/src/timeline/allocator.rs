//! How much of what an allocator took from the device it does not use.

/// One allocator's view of memory on one device; of several processes, of all together.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Allocator {
    /// Whose view it is, as in `allocator_samples.level`. Fragmentation without its level means nothing.
    pub level: String,
    /// Who said so.
    pub source: String,
    /// The share that is not in use; each reading holds until the next one, and `None` ends it.
    pub slack: Vec<Share>,
    /// The share that is free and cannot be given back, likewise.
    pub stuck: Vec<Share>,
}

/// A share at an instant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// When, ns since the Unix epoch.
    pub at_ns: i64,
    /// 0..1; `None` when it is not known.
    pub ratio: Option<f64>,
}

impl Share {
    /// The share in thousandths, as it is drawn.
    pub(crate) fn thousandths(&self) -> Option<u64> {
        super::thousandths(self.ratio)
    }
}
