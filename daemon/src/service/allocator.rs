//! What a process says about its own allocator, over the control socket: as the PyTorch helper does once a second.

use std::collections::HashMap;
use std::time::Duration;

use plimsoll_collectors::{Peer, lineage};
use plimsoll_trace::{AllocatorSample, Batch, DeviceId, Level, Record, RunId, Stamp, Traced, Work};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::control;
use super::pipeline::Pipeline;

/// Bytes and counts as the process counts them. What it does not say is unknown; what it says beyond this is a newer
/// helper's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Allocator {
    device: Option<String>,
    allocated_bytes: Option<u64>,
    active_bytes: Option<u64>,
    reserved_bytes: Option<u64>,
    inactive_split_bytes: Option<u64>,
    requested_bytes: Option<u64>,
    segments: Option<u64>,
    largest_free_bytes: Option<u64>,
    free_blocks_bytes: Option<u64>,
    alloc_retries: Option<u64>,
    out_of_memory_errors: Option<u64>,
}

/// No device has more, and no process counts further.
const MOST: u64 = 1 << 50;
/// A helper reports once a second; what comes much faster is not stored.
const OFTEN: Duration = Duration::from_millis(100);
/// So many allocators are told apart.
const MOST_ALLOCATORS: usize = 4_096;

/// The allocator of one process on one device.
pub(super) type Key = (u32, Option<DeviceId>);

/// When each allocator was last heard of.
pub(super) type Heard = HashMap<Key, Stamp>;

impl Allocator {
    /// The figures, if all of them can be meant.
    fn read(&self) -> Result<(Option<DeviceId>, AllocatorSample), String> {
        let device = match self.device.as_deref() {
            Some(device) if is_uuid(device) => Some(DeviceId::from(device)),
            Some(_) => {
                return Err("device: not a UUID such as GPU-01234567-89ab-cdef-0123-456789abcdef".to_owned());
            }
            None => None,
        };
        for (name, value) in [
            ("allocated_bytes", self.allocated_bytes),
            ("active_bytes", self.active_bytes),
            ("reserved_bytes", self.reserved_bytes),
            ("inactive_split_bytes", self.inactive_split_bytes),
            ("requested_bytes", self.requested_bytes),
            ("segments", self.segments),
            ("largest_free_bytes", self.largest_free_bytes),
            ("free_blocks_bytes", self.free_blocks_bytes),
            ("alloc_retries", self.alloc_retries),
            ("out_of_memory_errors", self.out_of_memory_errors),
        ] {
            if value.is_some_and(|value| value > MOST) {
                return Err(format!("{name}: no device has so much"));
            }
        }
        let most = self.reserved_bytes.unwrap_or(MOST);
        if self.allocated_bytes > Some(most) || self.inactive_split_bytes > Some(most) {
            return Err("more is allocated or split than is reserved".to_owned());
        }
        if self.largest_free_bytes > Some(self.free_blocks_bytes.unwrap_or(MOST)) {
            return Err("the largest free block is larger than all of them together".to_owned());
        }
        let sample = AllocatorSample {
            allocated_bytes: self.allocated_bytes,
            active_bytes: self.active_bytes,
            reserved_bytes: self.reserved_bytes,
            inactive_split_bytes: self.inactive_split_bytes,
            requested_bytes: self.requested_bytes,
            segments: self.segments,
            largest_free_bytes: self.largest_free_bytes,
            free_blocks_bytes: self.free_blocks_bytes,
            ..AllocatorSample::unknown(Level::PyTorch, "pytorch")
        };
        Ok((device, sample))
    }

    /// Counters that are stored as signals.
    fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counters = [
            ("allocator.alloc_retries", self.alloc_retries),
            ("allocator.out_of_memory_errors", self.out_of_memory_errors),
        ];
        counters
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
    }
}

/// As the driver prints them: GPU-... or MIG-..., hexadecimal digits and dashes.
fn is_uuid(text: &str) -> bool {
    let rest = text.strip_prefix("GPU-").or_else(|| text.strip_prefix("MIG-"));
    rest.is_some_and(|rest| {
        (1..=64).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
    })
}

impl Pipeline {
    /// Stores what a process says about itself. Whose it is the socket says, not the process.
    pub(super) fn take_allocator(&mut self, told: &Allocator, peer: Peer) -> Value {
        let (device, sample) = match told.read() {
            Ok(read) => read,
            Err(problem) => return control::error(&problem),
        };
        let device = device.map(|device| self.status.device_named(&device).unwrap_or(device));
        let (pid, at) = (peer.pid.unwrap_or(0), Stamp::now());
        let key = (pid, device.clone());
        let is_wanted = self.snapshots.wants(&key);
        let is_answer = is_wanted && sample.largest_free_bytes.is_some();
        if !is_answer && self.heard.get(&key).is_some_and(|last| at.since(*last) < OFTEN) {
            return json!({ "stored": false, "snapshot": is_wanted });
        }
        if self.heard.len() >= MOST_ALLOCATORS {
            self.heard.clear();
        }
        self.heard.insert(key.clone(), at);
        let run = self.run_of_process(pid);
        let record = |device, work| {
            Record::Traced(Traced {
                pid,
                run,
                device,
                work,
            })
        };
        let mut batch = Batch::new(at);
        #[expect(clippy::cast_precision_loss, reason = "checked to be below 2^52")]
        if run.is_some() {
            batch.records.extend(told.counters().map(|(name, value)| {
                let (signal, value) = (name.into(), value as f64);
                record(None, Work::Signal { signal, value })
            }));
        }
        batch.records.push(record(device, Work::Allocator(sample)));
        self.take_batch(batch);
        if is_answer {
            self.allocator_measured(&key);
        }
        json!({ "stored": true, "snapshot": is_wanted && !is_answer })
    }

    pub(super) fn run_of_process(&self, pid: u32) -> Option<RunId> {
        self.runs
            .of_pid(pid)
            .or_else(|| self.runs.of_lineage(&lineage(pid)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Request;

    fn read(json: &str) -> Result<(Option<DeviceId>, AllocatorSample), String> {
        match serde_json::from_str(json) {
            Ok(Request::Allocator(told)) => told.read(),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn what_the_helper_says_is_read() {
        let (device, sample) = read(
            r#"{"request": "allocator", "pid": 5, "device": "GPU-ab-1", "allocated_bytes": 75, "reserved_bytes": 100,
                "segments": 3, "alloc_retries": 0, "of_a_newer_helper": [1]}"#,
        )
        .unwrap();
        assert_eq!(device.as_deref(), Some("GPU-ab-1"));
        assert_eq!(sample.slack_ratio(), Some(0.25));
        assert_eq!((sample.segments, sample.active_bytes), (Some(3), None));
        assert_eq!(
            read(r#"{"request": "allocator", "device": null}"#).map(|(device, _)| device),
            Ok(None)
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for json in [
            r#"{"request": "allocator", "device": "0"}"#,
            r#"{"request": "allocator", "device": "GPU-'; DROP TABLE"}"#,
            r#"{"request": "allocator", "device": "GPU-"}"#,
            r#"{"request": "allocator", "reserved_bytes": -1}"#,
            r#"{"request": "allocator", "reserved_bytes": 1e300}"#,
            r#"{"request": "allocator", "segments": 18446744073709551615}"#,
            r#"{"request": "allocator", "reserved_bytes": 1, "allocated_bytes": 2}"#,
            r#"{"request": "allocator", "reserved_bytes": "many"}"#,
            r#"{"request": "allocator", "largest_free_bytes": 2, "free_blocks_bytes": 1}"#,
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}
