//! Faults on request: `PLIMSOLL_SIM_CUPTI_FAULT` is a list of them with commas between.
//!
//! | word | what happens |
//! |---|---|
//! | `missing-symbol:NAME` | looking up NAME in this library fails |
//! | `enable-fails:KIND:CODE` | `cuptiActivityEnable(KIND)` answers CODE |
//! | `subscribe-busy` | `cuptiSubscribe` answers 39 |
//! | `not-initialized`, `fails:CODE` | every function of CUPTI answers 15, or CODE |
//! | `too-new:NAME` | every function of CUPTI in a library file of this name answers 999, as one newer than the driver |
//! | `crash-on-version` | `cuptiGetVersion` is a segmentation fault |
//! | `zero-timestamps:N` | the first N kernels have neither start nor end |
//! | `inverted:N` | the next N kernels end before they start |
//! | `endless:N` | the N kernels after those end decades later |
//! | `drops:N` | the N kernels before those leave no record and are counted as dropped |
//! | `huge-names` | kernel names are filled up to 64 kB |
//! | `non-utf8-names` | kernel names have a byte that is no UTF-8 |
//! | `displaced:N` | with the N-th flush (default 1) another client registers its callbacks |
//! | `bad-record-length` | the last record of each buffer ends behind what is said to be valid |
//! | `garbage-record` | the last record of each buffer is of a kind that CUPTI itself does not know |
//! | `refusal-crashes` | a client that hands out no buffer causes a segmentation fault |
//! | `clock-step:N:MS` | with the N-th flush CUPTI's clock goes MS ahead, or back if MS is below 0 |
//! | `slow-flush:MS` | each flush takes MS longer (default 2000) |

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::beside;

/// What goes wrong.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) missing: Vec<String>,
    pub(crate) enable_fails: Vec<(u32, u32)>,
    pub(crate) subscribe_busy: bool,
    pub(crate) fails: Option<u32>,
    pub(crate) crash_on_version: bool,
    pub(crate) huge_names: bool,
    pub(crate) non_utf8_names: bool,
    pub(crate) displaced_after: Option<u64>,
    pub(crate) bad_record_length: bool,
    pub(crate) garbage_record: bool,
    pub(crate) refusal_crashes: bool,
    /// At which flush, and by how many ns.
    pub(crate) clock_step: Option<(u64, i64)>,
    pub(crate) slow_flush: Duration,
    /// How many kernels each of these still meets; looked at only if one of them was asked for.
    pub(crate) of_kernels: Option<KernelFaults>,
}

/// Faults that meet the first kernels of a process, one after the other.
#[derive(Debug, Default)]
pub(crate) struct KernelFaults {
    drops: AtomicU64,
    zero_timestamps: AtomicU64,
    inverted: AtomicU64,
    endless: AtomicU64,
}

/// What goes wrong with one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KernelFault {
    Dropped,
    ZeroTimestamps,
    Inverted,
    Endless,
}

impl KernelFaults {
    pub(crate) fn next(&self) -> Option<KernelFault> {
        let take = |left: &AtomicU64| {
            left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
                .is_ok()
        };
        if take(&self.drops) {
            Some(KernelFault::Dropped)
        } else if take(&self.zero_timestamps) {
            Some(KernelFault::ZeroTimestamps)
        } else if take(&self.inverted) {
            Some(KernelFault::Inverted)
        } else {
            take(&self.endless).then_some(KernelFault::Endless)
        }
    }
}

const NOT_INITIALIZED: u32 = 15;
const UNKNOWN: u32 = 999;

impl Faults {
    /// Reads the list.
    ///
    /// # Errors
    /// The first word that is no fault: a test that misspells one would test nothing.
    pub(crate) fn parse(list: &str) -> Result<Self, String> {
        let mut faults = Self::default();
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            faults.add(word).ok_or_else(|| word.to_owned())?;
        }
        Ok(faults)
    }

    fn add(&mut self, word: &str) -> Option<()> {
        let mut parts = word.split(':');
        let (name, first, second) = (parts.next()?, parts.next(), parts.next());
        let number = |text: Option<&str>| text?.parse::<u64>().ok();
        let code = |text: Option<&str>| text?.parse::<u32>().ok();
        match name {
            "missing-symbol" => self.missing.push(first?.to_owned()),
            "enable-fails" => self.enable_fails.push((code(first)?, code(second)?)),
            "subscribe-busy" => self.subscribe_busy = true,
            "not-initialized" => self.fails = Some(NOT_INITIALIZED),
            "fails" => self.fails = Some(code(first)?),
            "too-new" => {
                if beside::is_named(first?) {
                    self.fails = Some(UNKNOWN);
                }
            }
            "crash-on-version" => self.crash_on_version = true,
            "huge-names" => self.huge_names = true,
            "non-utf8-names" => self.non_utf8_names = true,
            "displaced" => self.displaced_after = Some(number(first.or(Some("1")))?),
            "bad-record-length" => self.bad_record_length = true,
            "garbage-record" => self.garbage_record = true,
            "refusal-crashes" => self.refusal_crashes = true,
            "clock-step" => {
                let by_ms = second?.parse::<i64>().ok()?;
                self.clock_step = Some((number(first)?, by_ms.checked_mul(1_000_000)?));
            }
            "slow-flush" => self.slow_flush = Duration::from_millis(number(first.or(Some("2000")))?),
            "drops" | "zero-timestamps" | "inverted" | "endless" => {
                let kernels = self.of_kernels.get_or_insert_default();
                let left = match name {
                    "drops" => &kernels.drops,
                    "inverted" => &kernels.inverted,
                    "endless" => &kernels.endless,
                    _ => &kernels.zero_timestamps,
                };
                left.store(number(first)?, Relaxed);
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read() {
        let faults =
            Faults::parse("missing-symbol:cuptiFinalize, enable-fails:51:21,displaced,slow-flush:5").unwrap();
        assert_eq!(faults.missing, ["cuptiFinalize"]);
        assert_eq!(faults.enable_fails, [(51, 21)]);
        assert_eq!(faults.displaced_after, Some(1));
        assert_eq!(faults.slow_flush, Duration::from_millis(5));
        assert!(faults.of_kernels.is_none());
        assert!(Faults::parse("").is_ok());
        for wrong in [
            "typo",
            "drops",
            "drops:many",
            "enable-fails:1",
            "missing-symbol",
            "clock-step:1",
        ] {
            assert_eq!(Faults::parse(wrong).unwrap_err(), wrong);
        }
    }

    #[test]
    fn kernels_meet_one_fault_after_the_other() {
        let faults = Faults::parse("inverted:1,endless:1,zero-timestamps:1,drops:2").unwrap();
        let kernels = faults.of_kernels.unwrap();
        let met: Vec<_> = std::iter::from_fn(|| kernels.next()).collect();
        use KernelFault::{Dropped, Endless, Inverted, ZeroTimestamps};
        assert_eq!(met, [Dropped, Dropped, ZeroTimestamps, Inverted, Endless]);
    }
}
