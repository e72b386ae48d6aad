//! Events of a trace in Chrome's JSON format, one a line.
//!
//! Times are µs since the window began, with three decimals: as µs since 1970 they would be more than a double holds.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::Sink;

/// The events of a trace while they are written.
pub(super) struct Events {
    from_ns: i64,
    /// Counters that were ever other than 0, with their processes.
    used: HashSet<(usize, String)>,
    is_first: bool,
}

impl Events {
    pub(super) fn new(from_ns: i64) -> Self {
        Self {
            from_ns,
            used: HashSet::new(),
            is_first: true,
        }
    }

    /// Names a process, and says that it stands in the order of the numbers.
    pub(super) fn process(&mut self, sink: &mut Sink, number: usize, name: &str) {
        self.name(sink, "process_name", number, 0, name);
        let order = json!({"ph": "M", "name": "process_sort_index", "pid": number, "tid": 0, "args": {"sort_index": number}});
        self.put(sink, &order);
    }

    fn put(&mut self, sink: &mut Sink, event: &Value) {
        let comma = if std::mem::take(&mut self.is_first) {
            "\n"
        } else {
            ",\n"
        };
        sink.put(&format!("{comma}{event}"));
    }

    pub(super) fn name(&mut self, sink: &mut Sink, what: &str, process: usize, thread: usize, name: &str) {
        let event = json!({"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}});
        self.put(sink, &event);
    }

    /// An event at an instant; the time is written as it is, because JSON numbers are doubles.
    pub(super) fn at(&mut self, sink: &mut Sink, mut event: Value, at_ns: i64, length_ns: Option<i64>) {
        if let Some(object) = event.as_object_mut() {
            object.insert("ts".to_owned(), micros(at_ns.saturating_sub(self.from_ns)));
            if let Some(length_ns) = length_ns {
                object.insert("dur".to_owned(), micros(length_ns.max(0)));
            }
        }
        self.put(sink, &event);
    }

    pub(super) fn counter(
        &mut self,
        sink: &mut Sink,
        process: usize,
        name: &str,
        unit: &str,
        at_ns: i64,
        value: &Value,
    ) {
        if !value.is_null() {
            let event = json!({"ph": "C", "pid": process, "name": name, "args": {unit: value}});
            self.at(sink, event, at_ns, None);
        }
    }

    /// A counter that is left out as long as it is 0: allocators that are not used would be half of the picture.
    pub(super) fn counter_in_use(
        &mut self,
        sink: &mut Sink,
        process: usize,
        (name, unit): (String, &str),
        at_ns: i64,
        value: &Value,
    ) {
        let is_zero = value.as_f64().is_none_or(|value| value == 0.0);
        if is_zero && !self.used.contains(&(process, name.clone())) {
            return;
        }
        self.counter(sink, process, &name, unit, at_ns, value);
        self.used.insert((process, name));
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
