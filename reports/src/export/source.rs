//! What an export is made of: views, their columns, and whose rows are wanted.

use super::{Format, Subject};

/// Whose rows of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The run's own.
    Run,
    /// Those of the devices that it held memory on.
    Devices,
    /// The host's.
    Host,
}

/// What a view's rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Device,
    Process,
    Host,
    Engine,
    Allocator,
    /// Kernels by period.
    Kernels,
    /// Copies by period.
    Copies,
    Allocation,
    Span,
    Event,
    Decision,
}

/// A view.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) kind: Kind,
    pub(super) whose: Whose,
    pub(super) view: &'static str,
    /// Its columns; the first one is the time.
    pub(super) columns: &'static [&'static str],
}

pub(super) const SOURCES: [Source; 11] = [
    Source {
        kind: Kind::Event,
        whose: Whose::Run,
        view: "events",
        columns: &["at_ns", "device", "kind", "message", "detail", "id"],
    },
    Source {
        kind: Kind::Decision,
        whose: Whose::Run,
        view: "decisions",
        columns: &[
            "at_ns",
            "rule",
            "verdict",
            "outcome",
            "explanation",
            "engine",
            "mode",
            "signal",
            "value",
            "threshold",
            "detail",
            "id",
        ],
    },
    Source {
        kind: Kind::Device,
        whose: Whose::Devices,
        view: "device_samples",
        columns: &[
            "at_ns",
            "device",
            "used_bytes",
            "free_bytes",
            "reserved_bytes",
            "total_bytes",
            "gpu_busy_ratio",
            "memory_busy_ratio",
            "temperature_celsius",
            "power_watts",
            "sm_clock_mhz",
            "memory_clock_mhz",
        ],
    },
    Source {
        kind: Kind::Process,
        whose: Whose::Run,
        view: "process_samples",
        columns: &["at_ns", "device", "pid", "process", "used_bytes", "sm_busy_ratio"],
    },
    Source {
        kind: Kind::Allocator,
        whose: Whose::Run,
        view: "allocator_samples",
        columns: &[
            "at_ns",
            "device",
            "pid",
            "level",
            "source",
            "allocated_bytes",
            "active_bytes",
            "reserved_bytes",
            "inactive_split_bytes",
            "slack_ratio",
            "stuck_ratio",
            "requested_bytes",
            "segments",
            "rounding_bytes",
            "reclaimable_bytes",
            "largest_free_bytes",
            "free_blocks_bytes",
            "external_fragmentation_ratio",
            "largest_new_block_bytes",
        ],
    },
    Source {
        kind: Kind::Engine,
        whose: Whose::Run,
        view: "engine_samples",
        columns: &["at_ns", "signal", "value"],
    },
    Source {
        kind: Kind::Host,
        whose: Whose::Host,
        view: "host_samples",
        columns: &[
            "at_ns",
            "cpu_busy_ratio",
            "memory_available_bytes",
            "memory_total_bytes",
            "swap_used_bytes",
        ],
    },
    Source {
        kind: Kind::Kernels,
        whose: Whose::Run,
        view: "kernel_windows",
        columns: &[
            "start_ns", "end_ns", "device", "pid", "name", "count", "total_ns", "min_ns", "max_ns",
        ],
    },
    Source {
        kind: Kind::Copies,
        whose: Whose::Run,
        view: "copy_windows",
        columns: &[
            "start_ns",
            "end_ns",
            "device",
            "pid",
            "direction",
            "count",
            "bytes",
            "total_ns",
        ],
    },
    Source {
        kind: Kind::Allocation,
        whose: Whose::Run,
        view: "allocations",
        columns: &["at_ns", "device", "pid", "operation", "kind", "address", "bytes"],
    },
    Source {
        kind: Kind::Span,
        whose: Whose::Run,
        view: "kernel_spans",
        columns: &["start_ns", "end_ns", "device", "pid", "stream", "name"],
    },
];

impl Source {
    pub(super) fn is_in(&self, format: Format) -> bool {
        match format {
            Format::Ndjson => true,
            Format::Perfetto => !matches!(self.kind, Kind::Allocation | Kind::Host),
            // Values at instants, which have a name.
            Format::Csv => matches!(
                self.kind,
                Kind::Device | Kind::Process | Kind::Host | Kind::Engine | Kind::Allocator
            ),
        }
    }

    /// The query for the rows between `?1` and `?2`, of the run `?3`.
    pub(super) fn sql(&self, subject: &Subject) -> String {
        let (view, columns) = (self.view, self.columns.join(", "));
        let time = self.columns.first().copied().unwrap_or("at_ns");
        let whose = match self.whose {
            // What happened on the host meanwhile belongs to the run's story.
            Whose::Run if self.kind == Kind::Event => " AND (run_id IS NULL OR run_id = ?3)".to_owned(),
            Whose::Run => " AND run_id = ?3".to_owned(),
            Whose::Host => String::new(),
            Whose::Devices => {
                let quoted = subject.devices.iter();
                let quoted: Vec<String> = quoted
                    .map(|device| format!("'{}'", device.uuid.replace('\'', "''")))
                    .collect();
                format!(" AND device IN ({})", quoted.join(", "))
            }
        };
        format!("SELECT {columns} FROM {view} WHERE {time} BETWEEN ?1 AND ?2{whose} ORDER BY {time}")
    }

    /// The place of a column.
    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| *column == name)
    }
}
