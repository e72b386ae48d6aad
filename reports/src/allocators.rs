//! What a run's allocators hold and what of it is free, each level by its own account.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_store::{Reader, Value};
use plimsoll_trace::units::{show_bytes, show_duration, show_ratio};
use serde::Serialize;

use crate::error::ReportError;
use crate::plain::{Column, UNKNOWN, table, wrapped};
use crate::row::{Row, rows};
use crate::runs::{self, Run};
use crate::versioned;

/// Levels are told when they change, and again after a minute and a flush, which may last a minute too; what is older than
/// this holds no longer.
const HOLDS_NS: i64 = 122_000_000_000;

/// The allocators of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Allocators {
    /// The run.
    pub run: Run,
    /// By device, process and level.
    pub allocators: Vec<Allocator>,
}

/// The last word of one level in one process on one device. What is not known is `None`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Allocator {
    /// The device's UUID.
    pub device: Option<String>,
    /// The process.
    pub pid: Option<i64>,
    /// Whose view it is: `driver`, `pools`, `vmm`, `pytorch`.
    pub level: String,
    /// Who says so.
    pub source: String,
    /// When, ns since the Unix epoch.
    pub at_ns: i64,
    /// In use, bytes.
    pub allocated_bytes: Option<u64>,
    /// Taken from the level below, bytes.
    pub reserved_bytes: Option<u64>,
    /// Taken from the level below, pieces.
    pub segments: Option<u64>,
    /// The share of what was taken that is not in use.
    pub slack_ratio: Option<f64>,
    /// The share of what was taken that is free and cannot be given back.
    pub stuck_ratio: Option<f64>,
    /// What rounding costs, bytes.
    pub rounding_bytes: Option<u64>,
    /// What could be given back now, bytes.
    pub reclaimable_bytes: Option<u64>,
    /// Its free blocks, when they were last measured.
    pub free: Option<FreeBlocks>,
}

/// Free blocks, as they are measured on demand.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FreeBlocks {
    /// When, ns since the Unix epoch.
    pub at_ns: i64,
    /// The largest, bytes.
    pub largest_free_bytes: u64,
    /// All together, bytes.
    pub free_blocks_bytes: Option<u64>,
    /// How much of what is free cannot be had in one piece.
    pub external_fragmentation_ratio: Option<f64>,
    /// The largest block that can be had in one piece, from here or from the device, bytes.
    pub largest_new_block_bytes: Option<u64>,
}

const SQL: &str = "SELECT device, pid, level, source, at_ns, allocated_bytes, reserved_bytes, segments, slack_ratio, \
                   stuck_ratio, rounding_bytes, reclaimable_bytes, largest_free_bytes, free_blocks_bytes, \
                   external_fragmentation_ratio, largest_new_block_bytes \
                   FROM allocator_samples WHERE at_ns BETWEEN ? AND ? AND run_id = ? ORDER BY at_ns";

/// Reads what the allocators of a run said last: up to `now_ns`, or up to its end.
///
/// # Errors
/// [`ReportError::UnknownRun`], or that the store cannot be read.
pub async fn load(reader: &Reader, number: i64, now_ns: i64) -> Result<Allocators, ReportError> {
    let run = runs::one(reader, number).await?;
    let to_ns = run.ended_ns.unwrap_or(now_ns);
    let values = [to_ns.saturating_sub(HOLDS_NS), to_ns, run.id].map(Value::Integer);
    let found = reader.query(SQL, &values).await?;
    let mut latest: BTreeMap<(Option<String>, Option<i64>, String), Allocator> = BTreeMap::new();
    for mut row in rows(&found) {
        let Some(mut told) = Allocator::read(&mut row) else {
            continue;
        };
        let key = (told.device.clone(), told.pid, told.level.clone());
        // Measuring is rarer than telling: an older measurement stands until there is a newer one.
        let before = latest.remove(&key).and_then(|before| before.free);
        told.free = told.free.or(before);
        latest.insert(key, told);
    }
    Ok(Allocators {
        run,
        allocators: latest.into_values().collect(),
    })
}

impl Allocator {
    fn read(row: &mut Row<'_>) -> Option<Self> {
        let mut allocator = Self {
            device: row.text(),
            pid: row.int(),
            level: row.word(),
            source: row.word(),
            at_ns: row.int()?,
            allocated_bytes: row.size(),
            reserved_bytes: row.size(),
            segments: row.size(),
            slack_ratio: row.real(),
            stuck_ratio: row.real(),
            rounding_bytes: row.size(),
            reclaimable_bytes: row.size(),
            free: None,
        };
        allocator.free = row.size().map(|largest_free_bytes| FreeBlocks {
            at_ns: allocator.at_ns,
            largest_free_bytes,
            free_blocks_bytes: row.size(),
            external_fragmentation_ratio: row.real(),
            largest_new_block_bytes: row.size(),
        });
        Some(allocator)
    }
}

/// The allocators for programs: `{"version": 1, "run": {...}, "allocators": [...]}`.
#[must_use]
pub fn json(allocators: &Allocators) -> String {
    versioned(allocators)
}

/// The allocators for people.
#[must_use]
pub fn text(allocators: &Allocators, now_ns: i64) -> String {
    let run = &allocators.run;
    if allocators.allocators.is_empty() {
        let when = if run.ended_ns.is_some() {
            "at its end"
        } else {
            "now"
        };
        let text = format!(
            "Nothing is known of the allocators of run {} ({}) {when}: the agent tells of the driver's (plimsoll run \
             --trace memory), the helper plimsoll_pytorch of PyTorch's.",
            run.id, run.name
        );
        return wrapped(&text, 0);
    }
    let mut out = String::new();
    let all = &allocators.allocators;
    let processes = all.chunk_by(|a, b| (&a.device, a.pid) == (&b.device, b.pid));
    for (place, levels) in processes.enumerate() {
        if place > 0 {
            out.push('\n');
        }
        let first = &levels[0];
        let pid = first
            .pid
            .map_or_else(|| UNKNOWN.to_owned(), |pid| pid.to_string());
        let device = first.device.as_deref().unwrap_or("an unknown device");
        out += &wrapped(&format!("process {pid} on {device}"), 0);
        out += &levels_text(levels);
        out += &free_text(levels, now_ns);
    }
    out
}

fn levels_text(levels: &[Allocator]) -> String {
    let columns = [
        Column::Text("LEVEL"),
        Column::Number("IN USE"),
        Column::Number("HELD"),
        Column::Number("SLACK"),
        Column::Number("STUCK"),
        Column::Number("ROUNDING"),
        Column::Number("PIECES"),
        Column::Text("SOURCE"),
    ];
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), show_bytes);
    let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), show_ratio);
    let line = |level: &Allocator| {
        // The driver's bound is one; what PyTorch counted is so.
        let most = if level.level == "driver" { "<= " } else { "" };
        vec![
            level.level.clone(),
            bytes(level.allocated_bytes),
            bytes(level.reserved_bytes),
            ratio(level.slack_ratio),
            ratio(level.stuck_ratio),
            level
                .rounding_bytes
                .map_or_else(|| "-".to_owned(), |bytes| format!("{most}{}", show_bytes(bytes))),
            level
                .segments
                .map_or_else(|| "-".to_owned(), |count| count.to_string()),
            level.source.clone(),
        ]
    };
    table(&columns, levels.iter().map(line).collect(), 2)
}

/// What is free in one piece, in a sentence: only PyTorch's allocator has blocks that somebody can be asked for.
fn free_text(levels: &[Allocator], now_ns: i64) -> String {
    let Some(pytorch) = levels.iter().find(|level| level.level == "pytorch") else {
        let text =
            "largest free block: unknown; the helper plimsoll_pytorch does not report from this process";
        return wrapped(text, 2);
    };
    let Some(free) = &pytorch.free else {
        return wrapped("largest free block: unknown; it was not measured", 2);
    };
    let mut text = format!("largest free block: {}", show_bytes(free.largest_free_bytes));
    if let Some(all) = free.free_blocks_bytes {
        text += &format!(" of {} free", show_bytes(all));
    }
    if let Some(ratio) = free.external_fragmentation_ratio {
        text += &format!(", so {} of it cannot be had in one piece", show_ratio(ratio));
    }
    let age = Duration::from_nanos(u64::try_from(now_ns.saturating_sub(free.at_ns)).unwrap_or(0));
    text += &format!(" (measured {} ago)", show_duration(age));
    let largest = free.largest_new_block_bytes.map_or_else(
        || "unknown, because it is not known what is free on the device".to_owned(),
        |bytes| {
            let from = if bytes > free.largest_free_bytes {
                "from what is free on the device"
            } else {
                "from the allocator's own"
            };
            format!("{}, {from}", show_bytes(bytes))
        },
    );
    wrapped(&text, 2) + &wrapped(&format!("largest new block: {largest}"), 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocator(level: &str) -> Allocator {
        Allocator {
            device: Some("GPU-1".to_owned()),
            pid: Some(7),
            level: level.to_owned(),
            source: "cupti".to_owned(),
            at_ns: 0,
            allocated_bytes: Some(3 << 20),
            reserved_bytes: None,
            segments: Some(2),
            slack_ratio: None,
            stuck_ratio: None,
            rounding_bytes: Some(1 << 20),
            reclaimable_bytes: None,
            free: None,
        }
    }

    fn told(allocators: Vec<Allocator>) -> String {
        let run = Run {
            id: 3,
            name: "job".to_owned(),
            engine: None,
            host: "host".to_owned(),
            pid: Some(7),
            command: None,
            started_ns: 0,
            ended_ns: None,
            exit_code: None,
            outcome: "running".to_owned(),
            peak_used_bytes: None,
            trace_tier: "memory".to_owned(),
        };
        text(&Allocators { run, allocators }, 2_000_000_000)
    }

    #[test]
    fn each_level_speaks_for_itself_and_unknown_is_said() {
        assert!(told(Vec::new()).starts_with("Nothing is known of the allocators of run 3 (job) now"));
        let driver = told(vec![allocator("driver")]);
        assert!(
            driver.contains("<= 1.0 MiB") && driver.contains("largest free block: unknown; the helper"),
            "{driver}"
        );
        let mut pytorch = allocator("pytorch");
        assert!(told(vec![pytorch.clone()]).contains("it was not measured"));
        pytorch.free = Some(FreeBlocks {
            at_ns: 1_000_000_000,
            largest_free_bytes: 10 << 20,
            free_blocks_bytes: Some(40 << 20),
            external_fragmentation_ratio: Some(0.75),
            largest_new_block_bytes: Some(10 << 20),
        });
        let text = told(vec![allocator("driver"), pytorch.clone()]);
        let on_one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            on_one_line.contains("10.0 MiB of 40.0 MiB free, so 75 % of it cannot be had in one piece"),
            "{text}"
        );
        assert!(
            on_one_line.contains("largest new block: 10.0 MiB, from the allocator's own"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        if let Some(free) = &mut pytorch.free {
            free.largest_new_block_bytes = None;
        }
        assert!(told(vec![pytorch]).contains("largest new block: unknown"));
    }
}
