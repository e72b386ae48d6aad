//! One device: what it is, and one sample of it.

use std::sync::Arc;

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;
use plimsoll_trace::{DeviceId, DeviceInfo, DeviceSample, ProcessSample, Stamp};

use super::figures::{self, Answers};
use super::identities::{Identities, Who};
use super::memory;
use super::mig::Mig;
use super::processes::{Buffers, Lists, Outcome};
use super::slow::Throughput;
use super::tally::{PROCESSES_FAILED, Tally};
use super::utilization::{self, Utilization};

/// What all devices share, and what outlives a driver life.
#[derive(Debug, Default)]
pub(super) struct Caches {
    pub(super) identities: Identities,
    pub(super) buffers: Buffers,
    pub(super) utilization: utilization::Buffer,
    pub(super) tally: Tally,
    pub(super) generations: memory::Generations,
}

/// One device of one driver life: a whole GPU, or a MIG instance.
#[derive(Debug)]
pub(super) struct Gpu<'n> {
    device: Device<'n>,
    index: u32,
    info: Arc<DeviceInfo>,
    memory: memory::Chain,
    lists: Lists,
    utilization: Utilization,
    mig: Mig<'n>,
    throughput: Option<Throughput>,
    /// Figures that this driver has no function for.
    absent: Vec<&'static str>,
}

/// One reading of one device.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) info: Arc<DeviceInfo>,
    pub(super) sample: DeviceSample,
    pub(super) processes: Vec<ProcessSample>,
}

/// A device of which nothing answered, and the first thing it said.
#[derive(Debug)]
pub(super) struct Dead(pub(super) String);

impl<'n> Gpu<'n> {
    /// Asks a device who it is. `parent` is given for a MIG instance.
    pub(super) fn open(
        device: Device<'n>,
        index: u32,
        driver: Option<&str>,
        parent: Option<DeviceId>,
    ) -> Result<Self, NvmlError> {
        let info = DeviceInfo {
            device: Arc::from(device.uuid()?),
            name: device.name().ok(),
            driver: driver.map(str::to_owned),
            total_bytes: None,
            parent,
        };
        Ok(Self {
            device,
            index,
            info: Arc::new(info),
            memory: memory::Chain::default(),
            lists: Lists::new(driver),
            utilization: Utilization::default(),
            mig: Mig::default(),
            throughput: None,
            absent: Vec::new(),
        })
    }

    pub(super) fn id(&self) -> &DeviceId {
        &self.info.device
    }

    /// The driver's index of the device, or of the GPU that the instance is a part of.
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    pub(super) fn device(&self) -> &Device<'n> {
        &self.device
    }

    /// Takes a new handle of the same device.
    pub(super) fn renew(&mut self, device: Device<'n>) {
        self.device = device;
    }

    /// What the slow lane read goes into the next sample.
    pub(super) fn keep(&mut self, throughput: Throughput) {
        self.throughput = Some(throughput);
    }

    /// Reads the device and, in MIG mode, each of its instances.
    ///
    /// # Errors
    /// Nothing answered, and something said that the device is gone.
    pub(super) fn read(
        &mut self,
        at: Stamp,
        caches: &mut Caches,
        readings: &mut Vec<Reading>,
    ) -> Result<(), Dead> {
        if self.mig.refresh(&self.device, self.index, &self.info, at) {
            // What was refused in the other mode may be answered in this one.
            self.lists = Lists::new(self.info.driver.as_deref());
            self.utilization = Utilization::default();
        }
        let whole = if self.mig.is_on() {
            figures::Scope::Partitioned
        } else {
            figures::Scope::Whole
        };
        let reading = self.read_itself(whole, at, caches)?;
        readings.push(reading);
        for instance in self.mig.instances() {
            // An instance may be destroyed at any moment; the device itself has answered.
            if let Ok(reading) = instance.read_itself(figures::Scope::Instance, at, caches) {
                readings.push(reading);
            }
        }
        Ok(())
    }

    fn read_itself(
        &mut self,
        scope: figures::Scope,
        at: Stamp,
        caches: &mut Caches,
    ) -> Result<Reading, Dead> {
        let mut sample = DeviceSample::unknown(self.info.device.clone());
        let mut answers = Answers::new(&mut self.absent);
        if let Some(memory) = answers.ask("memory_failed", || {
            self.memory.read(&self.device, &self.info, &caches.generations)
        }) {
            memory.write_to(&mut sample);
        }
        figures::read(&self.device, scope, &mut answers, &mut sample);
        answers.finish(&mut caches.tally).map_err(Dead)?;
        if let Some(throughput) = self.throughput.take() {
            throughput.write_to(&mut sample, at);
        }
        if sample.total_bytes.is_some() && sample.total_bytes != self.info.total_bytes {
            Arc::make_mut(&mut self.info).total_bytes = sample.total_bytes;
        }
        Ok(Reading {
            info: self.info.clone(),
            sample,
            // In MIG mode every process belongs to an instance, and is listed there.
            processes: if scope == figures::Scope::Partitioned {
                Vec::new()
            } else {
                self.processes(scope, at, caches)
            },
        })
    }

    fn processes(&mut self, scope: figures::Scope, at: Stamp, caches: &mut Caches) -> Vec<ProcessSample> {
        let Caches {
            identities,
            buffers,
            utilization,
            tally,
            generations: _,
        } = caches;
        let mut believable = |pid| identities.believable(pid, at);
        match self.lists.read(&self.device, at, &mut believable, buffers) {
            Outcome::Complete => {}
            Outcome::Failed => {
                tally.add(PROCESSES_FAILED, 1);
                return Vec::new();
            }
            Outcome::Unsupported => {
                tally.add("processes_unsupported", 1);
                return Vec::new();
            }
        }
        if scope == figures::Scope::Whole {
            self.utilization
                .read(&self.device, &buffers.rows, at, utilization, tally);
        }
        let mut samples = Vec::with_capacity(buffers.rows.len());
        for row in &buffers.rows {
            match identities.of(row.pid, at) {
                Who::Known(identity) => samples.push(ProcessSample {
                    device: self.info.device.clone(),
                    pid: row.pid,
                    run: None,
                    used_bytes: row.used_bytes,
                    sm_busy_ratio: self.utilization.of(row.pid, at),
                    process: identity.name.clone(),
                    container: identity.container.clone(),
                }),
                Who::Gone => {}
                Who::Nobody => tally.add("unbelievable_process", 1),
            }
        }
        samples
    }
}
