//! A device's memory: the second generation of the call, else the first.
//!
//! The two mean different things by `used` (the first includes what the driver reserves), so one device stays with one
//! of them, also when the driver is started anew. Only when the second generation is gone for good does the first take
//! over, and only a driver of another version is asked for the second one again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;
use plimsoll_trace::{DeviceId, DeviceInfo, DeviceSample, MemoryVersion};

use super::raw;
use super::refusal::Refusal;

/// A call that worked and then failed so often in a row does not come back.
const GONE_AFTER: u32 = 10;

/// The second generation is asked so often before the first is chosen for good: one passing error at the start must not
/// decide that.
const FIRST_TRIES: u32 = 3;

/// A driver's figures; those it does not know are all ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    version: MemoryVersion,
    total: Option<u64>,
    used: Option<u64>,
    free: Option<u64>,
    reserved: Option<u64>,
}

impl Memory {
    pub(super) fn write_to(self, sample: &mut DeviceSample) {
        sample.memory_version = Some(self.version);
        sample.total_bytes = self.total;
        sample.used_bytes = self.used;
        sample.free_bytes = self.free;
        sample.reserved_bytes = self.reserved;
    }
}

/// Which generation each device was read with, and by a driver of which version. It outlives driver lives and threads.
#[derive(Clone, Debug, Default)]
pub(super) struct Generations(Arc<Mutex<BTreeMap<DeviceId, Generation>>>);

#[derive(Debug)]
struct Generation {
    driver: Option<String>,
    version: MemoryVersion,
}

impl Generations {
    fn of(&self, info: &DeviceInfo) -> Option<MemoryVersion> {
        let known = self.lock();
        // A driver that does not tell its version is not known to be another.
        let of_this_driver = known
            .get(&info.device)
            .filter(|known| known.driver.is_none() || info.driver.is_none() || known.driver == info.driver);
        of_this_driver.map(|known| known.version)
    }

    fn set(&self, info: &DeviceInfo, version: MemoryVersion) {
        let generation = Generation {
            driver: info.driver.clone(),
            version,
        };
        self.lock().insert(info.device.clone(), generation);
    }

    /// Forgets a device that will not come back.
    pub(super) fn forget(&self, device: &DeviceId) {
        self.lock().remove(device);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DeviceId, Generation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which generation of the call this device answers.
#[derive(Debug, Default)]
pub(super) struct Chain {
    version: Option<MemoryVersion>,
    failures: u32,
}

impl Chain {
    pub(super) fn read(
        &mut self,
        device: &Device<'_>,
        info: &DeviceInfo,
        generations: &Generations,
    ) -> Result<Memory, NvmlError> {
        self.recall(info, generations, |chain| {
            chain.choose(|| second(device), || first(device))
        })
    }

    /// Begins with what was chosen before, and remembers what is chosen now.
    fn recall(
        &mut self,
        info: &DeviceInfo,
        generations: &Generations,
        read: impl FnOnce(&mut Self) -> Result<Memory, NvmlError>,
    ) -> Result<Memory, NvmlError> {
        if self.version.is_none() {
            self.version = generations.of(info);
        }
        let former = self.version;
        let memory = read(self)?;
        if let Some(version) = self.version.filter(|_| self.version != former) {
            generations.set(info, version);
        }
        Ok(memory)
    }

    fn choose(
        &mut self,
        second: impl Fn() -> Result<Memory, NvmlError>,
        first: impl Fn() -> Result<Memory, NvmlError>,
    ) -> Result<Memory, NvmlError> {
        let tries = match self.version {
            None => FIRST_TRIES,
            Some(MemoryVersion::V2) => 1,
            Some(MemoryVersion::V1) => 0,
        };
        for _ in 0..tries {
            match second() {
                Ok(memory) => {
                    (self.version, self.failures) = (Some(MemoryVersion::V2), 0);
                    return Ok(memory);
                }
                Err(error) if self.version.is_some() && !self.is_gone(&error) => return Err(error),
                Err(error) if Refusal::of(&error) == Refusal::Absent => break,
                Err(_) => {}
            }
        }
        let memory = first()?;
        self.version = Some(MemoryVersion::V1);
        Ok(memory)
    }

    /// Whether the second generation, which has worked, is taken for gone after this error.
    fn is_gone(&mut self, error: &NvmlError) -> bool {
        self.failures += 1;
        match Refusal::of(error) {
            Refusal::Absent | Refusal::Unsupported => true,
            Refusal::Dead | Refusal::Passing => self.failures >= GONE_AFTER,
        }
    }
}

fn second(device: &Device<'_>) -> Result<Memory, NvmlError> {
    let memory = device.memory_info()?;
    Ok(Memory {
        version: MemoryVersion::V2,
        total: known(memory.total),
        used: known(memory.used),
        free: known(memory.free),
        reserved: known(memory.reserved),
    })
}

fn first(device: &Device<'_>) -> Result<Memory, NvmlError> {
    let memory = raw::memory_v1(device)?;
    Ok(Memory {
        version: MemoryVersion::V1,
        total: known(memory.total),
        used: known(memory.used),
        free: known(memory.free),
        reserved: None,
    })
}

/// All ones is how the driver says that a figure is not available (NVML_VALUE_NOT_AVAILABLE).
pub(super) fn known(figure: u64) -> Option<u64> {
    (figure != u64::MAX).then_some(figure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(version: MemoryVersion) -> Result<Memory, NvmlError> {
        Ok(Memory {
            version,
            total: Some(10),
            used: Some(4),
            free: Some(6),
            reserved: None,
        })
    }

    fn version(answer: Result<Memory, NvmlError>) -> Option<MemoryVersion> {
        answer.ok().map(|memory| memory.version)
    }

    #[test]
    fn the_first_generation_serves_where_the_second_does_not() {
        let mut chain = Chain::default();
        let v1 = || answer(MemoryVersion::V1);
        assert_eq!(
            version(chain.choose(|| Err(NvmlError::Unknown), v1)),
            Some(MemoryVersion::V1)
        );
        // It stays, even when the second would answer now.
        let asked = || -> Result<Memory, NvmlError> { panic!("not asked again") };
        assert_eq!(version(chain.choose(asked, v1)), Some(MemoryVersion::V1));
        assert_eq!(version(chain.choose(asked, || Err(NvmlError::GpuLost))), None);
    }

    #[test]
    fn a_passing_error_never_mixes_the_two() {
        let mut chain = Chain::default();
        let (v1, v2) = (|| answer(MemoryVersion::V1), || answer(MemoryVersion::V2));
        assert_eq!(version(chain.choose(v2, v1)), Some(MemoryVersion::V2));
        for _ in 0..GONE_AFTER - 1 {
            assert_eq!(version(chain.choose(|| Err(NvmlError::Unknown), v1)), None);
        }
        assert_eq!(version(chain.choose(v2, v1)), Some(MemoryVersion::V2));
        for _ in 0..GONE_AFTER - 1 {
            assert_eq!(version(chain.choose(|| Err(NvmlError::Timeout), v1)), None);
        }
        assert_eq!(
            version(chain.choose(|| Err(NvmlError::Timeout), v1)),
            Some(MemoryVersion::V1)
        );
        assert_eq!(version(chain.choose(v2, v1)), Some(MemoryVersion::V1));
    }

    #[test]
    fn one_passing_error_at_the_start_does_not_decide() {
        let mut chain = Chain::default();
        let tries = std::cell::Cell::new(0);
        let second = || {
            tries.set(tries.get() + 1);
            if tries.get() == 1 {
                Err(NvmlError::Unknown)
            } else {
                answer(MemoryVersion::V2)
            }
        };
        assert_eq!(
            version(chain.choose(second, || answer(MemoryVersion::V1))),
            Some(MemoryVersion::V2)
        );
    }

    /// What is read in a new life of a driver of that version.
    fn in_a_new_life(
        generations: &Generations,
        driver: &str,
        second: impl Fn() -> Result<Memory, NvmlError>,
    ) -> Option<MemoryVersion> {
        let info = DeviceInfo {
            device: "GPU-0".into(),
            name: None,
            driver: Some(driver.to_owned()),
            total_bytes: None,
            parent: None,
        };
        version(Chain::default().recall(&info, generations, |chain| {
            chain.choose(second, || answer(MemoryVersion::V1))
        }))
    }

    #[test]
    fn a_new_life_stays_with_what_was_chosen_until_the_driver_is_another() {
        let fails = || Err(NvmlError::Unknown);
        let works = || answer(MemoryVersion::V2);
        let generations = Generations::default();
        assert_eq!(in_a_new_life(&generations, "570", works), Some(MemoryVersion::V2));
        assert_eq!(in_a_new_life(&generations, "570", fails), None, "not the first");
        assert_eq!(in_a_new_life(&generations, "570", works), Some(MemoryVersion::V2));
        assert_eq!(in_a_new_life(&generations, "580", fails), Some(MemoryVersion::V1));
        assert_eq!(in_a_new_life(&generations, "580", works), Some(MemoryVersion::V1));
        assert_eq!(in_a_new_life(&generations, "590", works), Some(MemoryVersion::V2));
        generations.forget(&"GPU-0".into());
        assert_eq!(in_a_new_life(&generations, "590", fails), Some(MemoryVersion::V1));
    }

    #[test]
    fn a_call_that_vanishes_is_replaced_at_once() {
        let mut chain = Chain::default();
        let (v1, v2) = (|| answer(MemoryVersion::V1), || answer(MemoryVersion::V2));
        assert_eq!(version(chain.choose(v2, v1)), Some(MemoryVersion::V2));
        assert_eq!(
            version(chain.choose(|| Err(NvmlError::NotSupported), v1)),
            Some(MemoryVersion::V1)
        );
    }

    #[test]
    fn nothing_answers_nothing_is_chosen() {
        let mut chain = Chain::default();
        let v2 = || answer(MemoryVersion::V2);
        let lost = || Err(NvmlError::GpuLost);
        assert_eq!(version(chain.choose(lost, lost)), None);
        assert_eq!(version(chain.choose(v2, lost)), Some(MemoryVersion::V2));
    }

    #[test]
    fn all_ones_is_unknown() {
        assert_eq!(known(u64::MAX), None);
        assert_eq!(known(0), Some(0));
    }
}
