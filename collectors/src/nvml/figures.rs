//! The figures of a device but its memory. Each is asked for apart and fails apart: what one driver or device does not
//! know, or answers with a value that cannot be, costs that one figure.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use plimsoll_trace::DeviceSample;

use super::memory::known;
use super::raw;
use super::refusal::Refusal;
use super::tally::Tally;

/// What a handle stands for, and so what can be asked about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// A GPU.
    Whole,
    /// A GPU in MIG mode: busy ratios are not defined for it.
    Partitioned,
    /// A MIG instance: it has memory and processes, all else belongs to the GPU.
    Instance,
}

/// How the questions of one sample went.
#[derive(Debug)]
pub(super) struct Answers<'a> {
    absent: &'a mut Vec<&'static str>,
    given: u32,
    failed: Vec<&'static str>,
    dead: Option<NvmlError>,
}

impl<'a> Answers<'a> {
    /// `absent` remembers across samples what the driver has no function for.
    pub(super) fn new(absent: &'a mut Vec<&'static str>) -> Self {
        Self {
            absent,
            given: 0,
            failed: Vec::new(),
            dead: None,
        }
    }

    /// Asks one question. `word` is the reason under which a failure is counted.
    pub(super) fn ask<T>(
        &mut self,
        word: &'static str,
        question: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Option<T> {
        if self.absent.contains(&word) {
            return None;
        }
        let error = match question() {
            Ok(answer) => {
                self.given += 1;
                return Some(answer);
            }
            Err(error) => error,
        };
        match Refusal::of(&error) {
            Refusal::Absent => self.absent.push(word),
            Refusal::Unsupported => {}
            Refusal::Passing => self.failed.push(word),
            Refusal::Dead => {
                self.failed.push(word);
                self.dead.get_or_insert(error);
            }
        }
        None
    }

    /// Asks for a share in percent; a ratio, or nothing if it is above 100 %.
    fn ratio(&mut self, percent: u32) -> Option<f64> {
        if percent > 100 {
            self.failed.push("implausible_utilization");
            return None;
        }
        Some(f64::from(percent) / 100.0)
    }

    /// Counts what failed.
    ///
    /// # Errors
    /// Nothing was answered, and the device or the driver is gone by its own words, which are returned.
    pub(super) fn finish(self, tally: &mut Tally) -> Result<(), String> {
        match self.dead {
            Some(error) if self.given == 0 => Err(error.to_string()),
            _ => {
                for word in self.failed {
                    tally.add(word, 1);
                }
                Ok(())
            }
        }
    }
}

/// Asks for everything that `scope` can answer.
pub(super) fn read(device: &Device<'_>, scope: Scope, answers: &mut Answers<'_>, sample: &mut DeviceSample) {
    if scope == Scope::Instance {
        return;
    }
    if scope == Scope::Whole
        && let Some(busy) = answers.ask("utilization_failed", || device.utilization_rates())
    {
        sample.gpu_busy_ratio = answers.ratio(busy.gpu);
        sample.memory_busy_ratio = answers.ratio(busy.memory);
    }
    sample.temperature_celsius = answers
        .ask("temperature_failed", || {
            device.temperature(TemperatureSensor::Gpu)
        })
        .and_then(known_u32)
        .map(f64::from);
    sample.power_watts = answers
        .ask("power_failed", || device.power_usage())
        .and_then(known_u32)
        .map(|milliwatts| f64::from(milliwatts) / 1000.0);
    sample.sm_clock_mhz = answers
        .ask("sm_clock_failed", || device.clock_info(Clock::SM))
        .and_then(known_u32);
    sample.memory_clock_mhz = answers
        .ask("memory_clock_failed", || device.clock_info(Clock::Memory))
        .and_then(known_u32);
    sample.throttle_reasons = answers
        .ask("throttle_failed", || raw::throttle_reasons(device))
        .and_then(known);
    sample.bar1_used_bytes = answers
        .ask("bar1_failed", || device.bar1_memory_info())
        .and_then(|bar1| known(bar1.used));
}

/// All ones is how the driver says that a figure is not available.
fn known_u32(figure: u32) -> Option<u32> {
    (figure != u32::MAX).then_some(figure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(tally: &mut Tally) -> usize {
        let mut records = Vec::new();
        tally.report(plimsoll_trace::Stamp::at_secs(1), &mut records);
        records.len()
    }

    #[test]
    fn one_answer_keeps_a_device_alive() {
        let (mut absent, mut tally) = (Vec::new(), Tally::default());
        let mut answers = Answers::new(&mut absent);
        assert_eq!(answers.ask("a", || Err::<u32, _>(NvmlError::GpuLost)), None);
        assert_eq!(answers.ask("b", || Ok(1)), Some(1));
        assert_eq!(answers.finish(&mut tally), Ok(()));
        assert_eq!(losses(&mut tally), 1);
    }

    #[test]
    fn no_answer_and_a_word_of_death_is_death() {
        let (mut absent, mut tally) = (Vec::new(), Tally::default());
        let mut answers = Answers::new(&mut absent);
        answers.ask("a", || Err::<u32, _>(NvmlError::NotSupported));
        answers.ask("b", || Err::<u32, _>(NvmlError::GpuLost));
        assert_eq!(answers.finish(&mut tally), Err(NvmlError::GpuLost.to_string()));
        assert_eq!(losses(&mut tally), 0);

        let mut answers = Answers::new(&mut absent);
        answers.ask("a", || Err::<u32, _>(NvmlError::NotSupported));
        answers.ask("b", || Err::<u32, _>(NvmlError::Timeout));
        assert_eq!(answers.finish(&mut tally), Ok(()));
        assert_eq!(losses(&mut tally), 1);
    }

    #[test]
    fn what_the_library_lacks_is_not_asked_again() {
        let mut absent = Vec::new();
        let missing = || Err::<u32, _>(NvmlError::FailedToLoadSymbol("x".into()));
        assert_eq!(Answers::new(&mut absent).ask("a", missing), None);
        let again = || -> Result<u32, NvmlError> { panic!("asked again") };
        assert_eq!(Answers::new(&mut absent).ask("a", again), None);
    }

    #[test]
    fn shares_above_one_and_sentinels_are_unknown() {
        let mut absent = Vec::new();
        let mut answers = Answers::new(&mut absent);
        assert_eq!(
            (answers.ratio(100), answers.ratio(0), answers.ratio(101)),
            (Some(1.0), Some(0.0), None)
        );
        assert_eq!((known_u32(u32::MAX), known_u32(7)), (None, Some(7)));
    }
}
