//! Chrome's JSON trace format, as Perfetto and chrome://tracing read it: what happened and what was decided, then a group
//! for each device with slices of kernels by stream and counters of memory and of kernel time. Counters are sorted by
//! their names and cut to about thirty characters, so a name begins with what it belongs to and is short.
//!
//! A counter cannot be unknown: it stays at its last value, and ends at 0 for a process that is no longer listed.

use std::collections::HashMap;

use plimsoll_store::Row;
use serde_json::{Value, json};

use super::events::Events;
use super::lines::any;
use super::periods::{Periods, Share, Whose};
use super::source::{Kind, Source};
use super::{Form, Sink, Subject};
use crate::family::Family;
use crate::instant::full;
use crate::text::told_apart;
use crate::timeline::SHORT_UUID;
use crate::words::Words;

/// Numbers of processes in the trace: here they are the run and its devices.
const STORY: usize = 1;
const FIRST_DEVICE: usize = 2;
/// Numbers of tracks. One with the number of a process would be shown as its main thread.
const EVENTS: usize = 1_001;
const DECISIONS: usize = 1_002;
const FIRST_STREAM: usize = 1_003;

/// A trace while it is written.
pub(super) struct Trace {
    events: Events,
    devices: HashMap<String, usize>,
    /// Processes and streams on a device, with the number of the track.
    streams: HashMap<(usize, i64, i64), usize>,
    kernels: Periods,
    names: Words,
    /// By the number of the name.
    families: Vec<Family>,
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
            events: Events::new(subject.from_ns),
            devices: HashMap::new(),
            streams: HashMap::new(),
            kernels: Periods::default(),
            names: Words::default(),
            families: Vec::new(),
        };
        trace
            .events
            .process(sink, STORY, &format!("run {}: {}", run.id, run.name));
        trace.events.name(sink, "thread_name", STORY, EVENTS, "events");
        trace
            .events
            .name(sink, "thread_name", STORY, DECISIONS, "decisions");
        let uuids: Vec<&str> = subject
            .devices
            .iter()
            .map(|device| device.uuid.as_str())
            .collect();
        let short = told_apart(&uuids, SHORT_UUID);
        for ((device, short), number) in subject.devices.iter().zip(short).zip(FIRST_DEVICE..) {
            trace.devices.insert(device.uuid.clone(), number);
            let name = device.name.as_deref().unwrap_or("unnamed device");
            trace.events.process(sink, number, &format!("{short} {name}"));
        }
        trace
    }

    /// The family of a kernel by its name.
    fn family(&mut self, name: &str) -> Family {
        let number = self.names.number(name);
        while self.families.len() <= number {
            let name = self.names.text(self.families.len());
            self.families.push(Family::of(name));
        }
        self.families.get(number).copied().unwrap_or(Family::Other)
    }

    fn kernels(&mut self, sink: &mut Sink, (device, pid): Whose, shares: &[Share]) {
        for share in shares {
            let name = format!("kernels {pid} {}", share.family.label());
            self.events
                .counter(sink, device, &name, "ratio", share.at_ns, &share.ratio.into());
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate, for a picture")]
    fn copies(&mut self, sink: &mut Sink, source: &Source, row: &Row<'_>, (device, pid): Whose) {
        let int = |name: &str| source.column(name).and_then(|column| row.int(column));
        let direction = source.column("direction").and_then(|column| row.text(column));
        let (Some(direction), Some(start_ns), Some(end_ns), Some(bytes)) =
            (direction, int("start_ns"), int("end_ns"), int("bytes"))
        else {
            return;
        };
        let name = format!("copies {pid} {direction}");
        let rate = bytes as f64 / (end_ns.saturating_sub(start_ns).max(1) as f64 / 1e9);
        self.events
            .counter(sink, device, &name, "bytes/s", start_ns, &rate.round().into());
        self.events
            .counter(sink, device, &name, "bytes/s", end_ns, &0.into());
    }

    fn span(&mut self, sink: &mut Sink, source: &Source, row: &Row<'_>, device: usize) {
        let int = |name: &str| source.column(name).and_then(|column| row.int(column));
        let (Some(start_ns), Some(end_ns)) = (int("start_ns"), int("end_ns")) else {
            return;
        };
        let (pid, stream) = (int("pid").unwrap_or(0), int("stream").unwrap_or(0));
        let next = FIRST_STREAM + self.streams.len();
        let known = self.streams.get(&(device, pid, stream)).copied();
        let track = known.unwrap_or(next);
        if known.is_none() {
            self.streams.insert((device, pid, stream), track);
            self.events.name(
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
        let family = self.family(&name).label();
        let event = json!({"ph": "X", "pid": device, "tid": track, "name": name, "cat": family});
        self.events
            .at(sink, event, start_ns, Some(end_ns.saturating_sub(start_ns)));
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
        self.events.at(sink, event, at_ns, None);
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
        let Some(at_ns) = row.int(0) else { return };
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
                let signal = text("signal");
                // The unit ends a signal's name, and a counter's unit is told behind its name.
                let (name, unit) = match signal.rsplit_once('_') {
                    Some((name, unit @ ("bytes" | "ratio" | "secs"))) => (name, unit),
                    _ => (&*signal, "value"),
                };
                return self
                    .events
                    .counter(sink, STORY, name, unit, at_ns, &value("value"));
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
                    ("used_bytes", "memory used", "bytes"),
                    ("free_bytes", "memory free", "bytes"),
                    ("gpu_busy_ratio", "busy", "ratio"),
                    ("power_watts", "power", "watts"),
                    ("temperature_celsius", "temperature", "celsius"),
                ] {
                    self.events
                        .counter(sink, device, name, unit, at_ns, &value(column));
                }
            }
            Kind::Process => {
                let held = match value("used_bytes") {
                    Value::Null => 0.into(),
                    known => known,
                };
                let name = format!("memory {pid} {}", text("process"));
                self.events.counter(sink, device, &name, "bytes", at_ns, &held);
            }
            Kind::Allocator => {
                let level = text("level");
                for (column, unit) in [
                    ("allocated_bytes", "bytes"),
                    ("reserved_bytes", "bytes"),
                    ("inactive_split_bytes", "bytes"),
                    ("stuck_ratio", "ratio"),
                ] {
                    let (figure, _) = column.rsplit_once('_').unwrap_or((column, ""));
                    let name = format!("{level} {pid} {}", figure.replace('_', " "));
                    self.events
                        .counter_in_use(sink, device, (name, unit), at_ns, &value(column));
                }
            }
            Kind::Kernels => {
                let int = |name: &str| source.column(name).and_then(|column| row.int(column));
                if let (Some(pid), Some(end_ns), Some(total_ns)) =
                    (int("pid"), int("end_ns"), int("total_ns"))
                {
                    let family = self.family(&text("name"));
                    let shares = self
                        .kernels
                        .take((device, pid), (at_ns, end_ns), family, total_ns);
                    self.kernels(sink, (device, pid), &shares);
                }
            }
            Kind::Copies => {
                let pid = pid.as_i64().unwrap_or(0);
                self.copies(sink, source, row, (device, pid));
            }
            Kind::Span => self.span(sink, source, row, device),
            _ => {}
        }
    }

    fn end(&mut self, sink: &mut Sink) {
        for (whose, shares) in self.kernels.finish() {
            self.kernels(sink, whose, &shares);
        }
        sink.put("\n]}\n");
    }
}
