//! Rules over the recording of a day: 24 h at one reading a second.

use std::path::Path;

use plimsoll_trace::{Batch, Record};

use crate::drawing::{DEVICES, reading, record_a_day, timed};
use crate::table::{Line, Section};
use crate::world::{World, number};

const GOAL_SECS: f64 = 2.0;

/// Three rungs, one of which looks at a window.
const RULES: &str = r#"
[[rule]]
name = "cap"
engine = "chat"
mode = "act"
when = { signal = "vram.used_ratio", enter = "90%", exit = "60%" }
set = { max_batch_size = 32 }
cost = "hot"
saves = "2GiB"

[[rule]]
name = "checkpointing"
engine = "chat"
mode = "act"
when = { signal = "run.vram_bytes", stat = "mean", window = "60s", enter = "62GiB", exit = "50GiB" }
set = { gradient_checkpointing = true }
cost = "reload"
saves = "4GiB"

[[rule]]
name = "quantize"
engine = "chat"
mode = "act"
when = { signal = "vram.used_ratio", enter = "98%", exit = "75%" }
set = { "model.quantization" = "int8" }
cost = "restart"
saves = "20GiB"
"#;

pub(crate) fn measure() -> anyhow::Result<Section> {
    let mut lines = Vec::new();
    for (devices, one) in [(1, true), (DEVICES, false)] {
        let world = World::new(1)?;
        let database = world.database();
        record_a_day(&database, devices, if one { of_one } else { reading })?;
        std::fs::write(world.path("rules.toml"), RULES)?;
        lines.extend(replay(&world, &database, devices)?);
    }
    Ok(Section {
        title: "Replay: three rules over 24 h at one reading a second".to_owned(),
        lines,
        notes: Vec::new(),
    })
}

fn replay(world: &World, database: &Path, devices: u32) -> anyhow::Result<Vec<Line>> {
    let command = || {
        let mut command = world.plimsoll();
        command
            .args(["rules", "replay", "last", "--rules"])
            .arg(world.path("rules.toml"));
        command
    };
    let took = timed(command, database)?;
    let rows = number(database, "SELECT count(*) FROM device_samples")?;
    let line = Line::new(
        format!("`plimsoll rules replay`, {devices} device(s), median of 5"),
        secs(took.wall_secs),
    );
    // The goal is said of one device.
    let line = if devices == 1 {
        line.at_most(took.wall_secs, GOAL_SECS, "< 2 s")
    } else {
        line
    };
    Ok(vec![
        line,
        Line::new("– its processor time", secs(took.cpu_secs)),
        Line::new("– rows of devices", format!("{rows}")),
    ])
}

/// The same second with its first device only.
fn of_one(second: i64) -> Batch {
    let mut batch = reading(second);
    let first = batch.records.iter().find_map(|record| match record {
        Record::Device(sample) => Some(sample.device.clone()),
        _ => None,
    });
    batch.records.retain(|record| match record {
        Record::Device(sample) => Some(&sample.device) == first.as_ref(),
        Record::Process(sample) => Some(&sample.device) == first.as_ref(),
        _ => true,
    });
    batch
}

fn secs(value: f64) -> String {
    format!("{value:.2} s")
}
