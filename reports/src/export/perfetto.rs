//! Chrome's JSON trace format, as Perfetto and chrome://tracing read it: a track for each device, below it counters of
//! memory and slices of kernels by stream; what happened and what was decided beside them.
//!
//! Times are µs since the window began, with three decimals: as µs since 1970 they would be more than a double holds.
//! A counter cannot be unknown: it stays at its last value, and ends at 0 for a process that is no longer listed.

use std::collections::HashMap;

use plimsoll_store::Row;
use serde_json::{Value, json};

use super::lines::any;
use super::source::{Kind, Source};
use super::{Form, Sink, Subject};
use crate::family::Family;
use crate::instant::full;

/// Numbers of processes in the trace: here they are devices.
const FIRST_DEVICE: usize = 1_001;
/// The track of what happened.
const STORY: usize = 1_000;
const EVENTS: usize = 1;
const DECISIONS: usize = 2;

/// A trace while it is written.
pub(super) struct Trace {
    from_ns: i64,
    devices: HashMap<String, usize>,
    /// Processes and streams on a device, with the number of the track.
    streams: HashMap<(usize, i64, i64), usize>,
    is_first: bool,
}

impl Trace {
    pub(super) fn begin(subject: &Subject, sink: &mut Sink) -> Self {
        let run = &subject.run;
        let about = json!({
            "tool": "plimsoll",
            "run_id": run.id,
            "run": run.name,
            "host": run.host,
            "start_unix_ns": subject.from_ns,
            "start": full(subject.from_ns, &jiff::tz::TimeZone::UTC),
        });
        sink.put(&format!(
            "{{\"displayTimeUnit\":\"ms\",\"otherData\":{about},\"traceEvents\":["
        ));
        let mut trace = Self {
            from_ns: subject.from_ns,
            devices: HashMap::new(),
            streams: HashMap::new(),
            is_first: true,
        };
        trace.name(
            sink,
            "process_name",
            STORY,
            0,
            &format!("run {}: {}", run.id, run.name),
        );
        trace.name(sink, "thread_name", STORY, EVENTS, "events");
        trace.name(sink, "thread_name", STORY, DECISIONS, "decisions");
        for (index, device) in subject.devices.iter().enumerate() {
            let number = FIRST_DEVICE + index;
            let name = device.name.as_deref().unwrap_or("unnamed device");
            trace.devices.insert(device.uuid.clone(), number);
            trace.name(
                sink,
                "process_name",
                number,
                0,
                &format!("GPU {index}: {name} {}", device.uuid),
            );
        }
        trace
    }

    fn put(&mut self, sink: &mut Sink, event: &Value) {
        let comma = if std::mem::take(&mut self.is_first) {
            "\n"
        } else {
            ",\n"
        };
        sink.put(&format!("{comma}{event}"));
    }

    fn name(&mut self, sink: &mut Sink, what: &str, process: usize, thread: usize, name: &str) {
        let event = json!({"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}});
        self.put(sink, &event);
    }

    /// An event at an instant; the time is written as it is, because JSON numbers are doubles.
    fn at(&mut self, sink: &mut Sink, mut event: Value, at_ns: i64, length_ns: Option<i64>) {
        if let Some(object) = event.as_object_mut() {
            object.insert("ts".to_owned(), micros(at_ns.saturating_sub(self.from_ns)));
            if let Some(length_ns) = length_ns {
                object.insert("dur".to_owned(), micros(length_ns.max(0)));
            }
        }
        self.put(sink, &event);
    }

    fn counter(&mut self, sink: &mut Sink, device: usize, name: &str, unit: &str, at_ns: i64, value: &Value) {
        if !value.is_null() {
            let event = json!({"ph": "C", "pid": device, "name": name, "args": {unit: value}});
            self.at(sink, event, at_ns, None);
        }
    }

    fn span(&mut self, sink: &mut Sink, source: &Source, row: &Row<'_>, device: usize) {
        let int = |name: &str| source.column(name).and_then(|column| row.int(column));
        let (Some(start_ns), Some(end_ns)) = (int("start_ns"), int("end_ns")) else {
            return;
        };
        let (pid, stream) = (int("pid").unwrap_or(0), int("stream").unwrap_or(0));
        let next = self.streams.len() + 1;
        let known = self.streams.get(&(device, pid, stream)).copied();
        let track = known.unwrap_or(next);
        if known.is_none() {
            self.streams.insert((device, pid, stream), track);
            self.name(
                sink,
                "thread_name",
                device,
                track,
                &format!("stream {stream} of process {pid}"),
            );
        }
        let name = source
            .column("name")
            .and_then(|column| row.text(column))
            .unwrap_or_default();
        let event =
            json!({"ph": "X", "pid": device, "tid": track, "name": name, "cat": Family::of(&name).label()});
        self.at(sink, event, start_ns, Some(end_ns.saturating_sub(start_ns)));
    }

    fn instant(&mut self, sink: &mut Sink, source: &Source, row: &Row<'_>, thread: usize, name: String) {
        let Some(at_ns) = row.int(0) else { return };
        let told = source
            .columns
            .iter()
            .enumerate()
            .skip(1)
            .filter(|(_, column)| **column != "detail");
        let told: serde_json::Map<String, Value> = told
            .map(|(index, column)| ((*column).to_owned(), any(row, index)))
            .filter(|(_, value)| !value.is_null())
            .collect();
        let event = json!({"ph": "i", "s": "t", "pid": STORY, "tid": thread, "name": name, "args": told});
        self.at(sink, event, at_ns, None);
    }
}

impl Form for Trace {
    fn row(&mut self, source: &'static Source, row: &Row<'_>, sink: &mut Sink) {
        let text = |name: &str| {
            source
                .column(name)
                .and_then(|column| row.text(column))
                .unwrap_or_default()
        };
        let value = |name: &str| source.column(name).map_or(Value::Null, |column| any(row, column));
        let at_ns = row.int(0).unwrap_or(self.from_ns);
        match source.kind {
            Kind::Event => {
                return self.instant(
                    sink,
                    source,
                    row,
                    EVENTS,
                    format!("{}: {}", text("kind"), text("message")),
                );
            }
            Kind::Decision => {
                let name = format!("{} {}: {}", text("verdict"), text("rule"), text("outcome"));
                return self.instant(sink, source, row, DECISIONS, name);
            }
            Kind::Engine => {
                return self.counter(sink, STORY, &text("signal"), "value", at_ns, &value("value"));
            }
            _ => {}
        }
        let Some(device) = self.devices.get(&*text("device")).copied() else {
            return;
        };
        let pid = value("pid");
        match source.kind {
            Kind::Device => {
                for (column, name, unit) in [
                    ("used_bytes", "memory in use", "bytes"),
                    ("free_bytes", "memory free", "bytes"),
                    ("gpu_busy_ratio", "busy", "ratio"),
                    ("power_watts", "power", "watts"),
                    ("temperature_celsius", "temperature", "celsius"),
                ] {
                    self.counter(sink, device, name, unit, at_ns, &value(column));
                }
            }
            Kind::Process => {
                let held = match value("used_bytes") {
                    Value::Null => 0.into(),
                    known => known,
                };
                let name = format!("memory of {} (pid {pid})", text("process"));
                self.counter(sink, device, &name, "bytes", at_ns, &held);
            }
            Kind::Allocator => {
                let level = text("level");
                for (column, unit) in [
                    ("allocated_bytes", "bytes"),
                    ("reserved_bytes", "bytes"),
                    ("inactive_split_bytes", "bytes"),
                    ("stuck_ratio", "ratio"),
                ] {
                    let name = format!(
                        "{level} {} (pid {pid})",
                        column.replace("_bytes", "").replace('_', " ")
                    );
                    self.counter(sink, device, &name, unit, at_ns, &value(column));
                }
            }
            Kind::Span => self.span(sink, source, row, device),
            _ => {}
        }
    }

    fn end(&mut self, sink: &mut Sink) {
        sink.put("\n]}\n");
    }
}

/// ns as µs.
#[expect(
    clippy::cast_precision_loss,
    reason = "since the window began: exact to the ns for a month"
)]
fn micros(ns: i64) -> Value {
    (ns as f64 / 1000.0).into()
}
