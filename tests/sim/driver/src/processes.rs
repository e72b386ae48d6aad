//! Lists of processes and what each of them keeps busy.

use std::ffi::{c_char, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as nvml;
use plimsoll_sim_gpu::{Context, DeviceState, ProcessView};
use rustix::time::{ClockId, clock_gettime};

use crate::abi::{Answer, Out, OutMany};
use crate::call::Call;

/// A process as all versions of the records know it.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pid: u32,
    used_bytes: u64,
    gpu_instance: u32,
    compute_instance: u32,
}

impl From<Row> for nvml::nvmlProcessInfo_v1_t {
    fn from(row: Row) -> Self {
        nvml::nvmlProcessInfo_v1_t {
            pid: row.pid,
            usedGpuMemory: row.used_bytes,
        }
    }
}

impl From<Row> for nvml::nvmlProcessInfo_v2_t {
    fn from(row: Row) -> Self {
        nvml::nvmlProcessInfo_v2_t {
            pid: row.pid,
            usedGpuMemory: row.used_bytes,
            gpuInstanceId: row.gpu_instance,
            computeInstanceId: row.compute_instance,
        }
    }
}

impl Row {
    /// The record of drivers 535.43 to 535.86: the usual 24 bytes and 8 of protected memory, which is 0.
    fn long_record(self) -> [u8; 32] {
        let mut record = [0; 32];
        record[0..4].copy_from_slice(&self.pid.to_ne_bytes());
        record[8..16].copy_from_slice(&self.used_bytes.to_ne_bytes());
        record[16..20].copy_from_slice(&self.gpu_instance.to_ne_bytes());
        record[20..24].copy_from_slice(&self.compute_instance.to_ne_bytes());
        record
    }
}

/// NVML's "not available" for the memory of a process.
const UNKNOWN_BYTES: u64 = u64::MAX;
/// NVML's "no MIG instance".
const NO_INSTANCE: u32 = u32::MAX;
/// Linux has no pid from here on.
const MADE_UP_PIDS: u32 = 1 << 22;

/// Answers the list of one context's processes in any version of the records.
pub(crate) fn list<R: From<Row>>(
    call: &Call,
    device: &DeviceState,
    context: Context,
    count: Out<c_uint>,
    records: OutMany<R>,
) -> Answer {
    let rows = rows(call, device, context);
    let room = if records.is_null() {
        0
    } else {
        count.get()? as usize
    };
    count.put(to_count(rows.len()))?;
    if call.fired.long_records {
        // The real ones go on past the end of the caller's buffer when it is nearly full; this one stops there.
        let bytes: Vec<u8> = rows.iter().flat_map(|row| row.long_record()).collect();
        records.put_bytes(&bytes, room);
    } else if rows.len() <= room {
        records.put(rows.iter().map(|&row| R::from(row)), room);
    }
    enough(call, rows.len(), room, records.is_null())
}

/// SUCCESS when all found room, else INSUFFICIENT_SIZE: the caller has the count and asks again.
fn enough(call: &Call, length: usize, room: usize, counts_only: bool) -> Answer {
    if length <= room || (counts_only && call.fired.count_is_success) {
        return Ok(());
    }
    Err(nvml::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE)
}

/// One row per process and, on a card in MIG mode, instance.
fn rows(call: &Call, device: &DeviceState, context: Context) -> Vec<Row> {
    let instance_ids = |device: &DeviceState| match device.mig_parent() {
        Some(_) => (device.gpu_instance(), device.compute_instance()),
        None => (NO_INSTANCE, NO_INSTANCE),
    };
    let mut rows: Vec<Row> = Vec::new();
    for place in std::iter::once(device.clone()).chain(device.instances()) {
        let (gpu_instance, compute_instance) = instance_ids(&place);
        for process in call
            .gpu()
            .processes(place.index())
            .filter(|process| process.has(context))
        {
            let ProcessView { pid, used_bytes, .. } = process;
            let row = Row {
                pid,
                used_bytes,
                gpu_instance,
                compute_instance,
            };
            let same = |known: &&mut Row| (known.pid, known.gpu_instance) == (row.pid, row.gpu_instance);
            match rows.iter_mut().find(same) {
                Some(known) => known.used_bytes = known.used_bytes.saturating_add(used_bytes),
                None => rows.push(row),
            }
        }
    }
    rows.extend((0..call.fired.grown).map(|n| Row {
        pid: MADE_UP_PIDS.saturating_add(n),
        used_bytes: 0,
        gpu_instance: NO_INSTANCE,
        compute_instance: NO_INSTANCE,
    }));
    if call.fired.unknown_process_memory {
        rows.iter_mut().for_each(|row| row.used_bytes = UNKNOWN_BYTES);
    }
    rows
}

/// The driver takes a sample of each busy process so often.
const SAMPLE_PERIOD_MICROS: u64 = 100_000;
const HOUR_MICROS: u64 = 3_600_000_000;

/// Answers what the processes kept busy since the caller looked last. Each process is sampled at a moment of its own.
pub(crate) fn utilization(
    call: &Call,
    device: &DeviceState,
    samples: OutMany<nvml::nvmlProcessUtilizationSample_t>,
    count: Out<c_uint>,
    last_seen_micros: c_ulonglong,
) -> Answer {
    if device.mig_mode() || device.mig_parent().is_some() {
        return Err(nvml::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
    }
    let now = now_micros();
    let mut news: Vec<nvml::nvmlProcessUtilizationSample_t> = Vec::new();
    for process in call.gpu().processes(device.index()) {
        let busy = process.sm_busy_percent > 0 || process.memory_busy_percent > 0;
        let stamp = sampled_at(now, process.pid);
        if busy && (call.fired.stale_stamps || stamp > last_seen_micros) {
            news.push(nvml::nvmlProcessUtilizationSample_t {
                pid: process.pid,
                timeStamp: if call.fired.stale_stamps {
                    now.saturating_sub(HOUR_MICROS)
                } else {
                    stamp
                },
                smUtil: process.sm_busy_percent,
                memUtil: process.memory_busy_percent,
                encUtil: 0,
                decUtil: 0,
            });
        }
    }
    let room = if samples.is_null() {
        0
    } else {
        count.get()? as usize
    };
    count.put(to_count(news.len()))?;
    if news.is_empty() && !call.fired.count_is_success {
        return Err(nvml::nvmlReturn_enum_NVML_ERROR_NOT_FOUND);
    }
    if news.len() <= room {
        samples.put(news.iter().copied(), room);
    }
    enough(call, news.len(), room, samples.is_null())
}

/// When a process was sampled last, in microseconds since the Unix epoch.
fn sampled_at(now_micros: u64, pid: u32) -> u64 {
    let shift = u64::from(pid).wrapping_mul(7_919) % SAMPLE_PERIOD_MICROS;
    let since = now_micros.saturating_sub(shift) % SAMPLE_PERIOD_MICROS;
    now_micros.saturating_sub(since)
}

fn now_micros() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    let (secs, nanos) = (
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u64::try_from(now.tv_nsec).unwrap_or_default(),
    );
    secs * 1_000_000 + nanos / 1_000
}

/// The command of a process, cut to the caller's buffer as the real driver does.
pub(crate) fn name(pid: c_uint, out: OutMany<c_char>, length: c_uint) -> Answer {
    let Ok(command) = std::fs::read(format!("/proc/{pid}/cmdline")) else {
        return Err(nvml::nvmlReturn_enum_NVML_ERROR_NOT_FOUND);
    };
    let first = command.split(|&byte| byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(first);
    let mut end = text.len().min((length as usize).saturating_sub(1));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.put_text(text.get(..end).unwrap_or_default(), length)
}

fn to_count(length: usize) -> c_uint {
    c_uint::try_from(length).unwrap_or(c_uint::MAX)
}
