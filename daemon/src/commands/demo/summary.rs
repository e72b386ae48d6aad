//! The summary at the end: what the database says happened, and what the same load does without the tuner.

use std::fmt::Write;

use anyhow::Context;
use plimsoll_sim::demo::Demo;
use plimsoll_store::{Reader, Value};
use plimsoll_trace::units;

use super::world::World;

pub(super) struct Summary {
    pub(super) text: String,
    /// Whether both rules were applied and kept, in order, with an effect that was seen and every comment intact.
    pub(super) complete: bool,
}

pub(super) async fn make(
    reader: &Reader,
    world: &World,
    demo: &Demo,
    restarts: u32,
) -> anyhow::Result<Summary> {
    let mut text = String::new();
    let decisions = "SELECT d.rule, d.verdict, d.outcome, d.value, d.threshold, \
         json_extract(d.detail, '$.effect.freed_bytes'), json_extract(d.detail, '$.file.reload'), \
         json_extract(d.detail, '$.ready.after_secs'), json_extract(d.detail, '$.ready.read_back'), \
         (d.at_ns - (SELECT min(started_ns) FROM runs)) / 1000000 \
         FROM decisions d ORDER BY d.id";
    let table = reader
        .query(decisions, &[])
        .await
        .context("the decisions cannot be read")?;
    let mut kept = Vec::new();
    for row in &table.rows {
        let [
            Value::Text(rule),
            Value::Text(verdict),
            Value::Text(outcome),
            value,
            threshold,
            freed,
            reload,
            ready_secs,
            read_back,
            at_ms,
        ] = row.as_slice()
        else {
            continue;
        };
        let percent = |value: &Value| {
            value
                .as_f64()
                .map_or_else(|| "unknown".to_owned(), units::show_ratio)
        };
        let effect = freed.as_f64().map_or_else(
            || "effect unknown".to_owned(),
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "printed")]
            |bytes| format!("{} freed", units::show_bytes(bytes.max(0.0) as u64)),
        );
        let at = at_ms
            .as_f64()
            .map_or_else(String::new, |ms| format!("at {:.1} s ", ms / 1000.0));
        writeln!(
            text,
            "  {at}rule {rule} ({verdict}): {outcome}; memory at {}, line at {}, {effect}",
            percent(value),
            percent(threshold)
        )?;
        if let Some(secs) = ready_secs.as_f64() {
            writeln!(text, "    {}", reloaded(reload, secs, read_back))?;
        }
        if outcome == "kept" && verdict == "apply" {
            kept.push((rule.clone(), freed.as_f64().is_some()));
        }
    }
    let place = |name: &str| kept.iter().position(|(rule, seen)| rule == name && *seen);
    let in_order =
        matches!((place("checkpointing"), place("quantize")), (Some(first), Some(then)) if first < then);
    let counts = "SELECT (SELECT count(*) FROM events WHERE kind = 'out_of_memory'), max(used_bytes), \
         max(total_bytes - coalesce(reserved_bytes, 0)), count(*) FROM device_samples";
    let table = reader
        .query(counts, &[])
        .await
        .context("the samples cannot be read")?;
    let number = |index: usize| {
        table
            .rows
            .first()
            .and_then(|row| row.get(index))
            .and_then(Value::as_u64)
    };
    let size = |index: usize| number(index).map_or_else(|| "unknown".to_owned(), units::show_bytes);
    let after = std::fs::read_to_string(&world.files.engine).context("the engine's file cannot be read")?;
    let comments = |text: &str| {
        text.lines()
            .filter_map(|line| line.split_once('#'))
            .map(|(_, comment)| comment.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let intact = comments(&world.engine_text) == comments(&after);
    let changed = world
        .engine_text
        .lines()
        .zip(after.lines())
        .filter(|(before, after)| before != after)
        .count();
    let alone = demo
        .without_tuner(&world.engine_text)
        .context("the load without the tuner")?;
    let folder = world
        .files
        .store
        .parent()
        .map(|folder| folder.display().to_string())
        .unwrap_or_default();

    let mut head = String::from("\nWhat happened\n");
    head += &text;
    if kept.is_empty() {
        head += "  no rule was applied\n";
    }
    write!(
        head,
        "  peak {} of {}; out of memory: {}; restarts of the engine: {restarts}\n\
         \n\
         The engine's file\n  \
         {changed} lines differ, comments {}; compare engine.before.yaml with engine.yaml\n\
         \n\
         The same load without the tuner (the engine's model in accelerated time, not a recording)\n  \
         out of memory: {}; {:.0} s of {:.0} simulated seconds down; {} requests lost\n\
         \n\
         Left in {folder}\n  \
         timeline.svg   the picture\n  \
         report.html    the picture, the decisions, the changes\n  \
         plimsoll.db    ask it: plimsoll sql --db {folder}/plimsoll.db 'SELECT * FROM decisions'\n  \
         {:<14} why: plimsoll why --db {folder}/plimsoll.db\n",
        size(1),
        size(2),
        number(0).map_or_else(|| "unknown".to_owned(), |count| count.to_string()),
        if intact { "intact" } else { "NOT intact" },
        alone.out_of_memory,
        alone.down_secs(),
        plimsoll_sim::demo::SIMULATED_SECS,
        alone.lost,
        "",
    )?;
    Ok(Summary {
        text: head,
        complete: in_order && intact,
    })
}

/// How the engine took a change over, in the words of the decision's row.
fn reloaded(reload: &Value, ready_secs: f64, read_back: &Value) -> String {
    let by = match reload {
        Value::Text(by) => by
            .strip_prefix("signal ")
            .map_or_else(|| by.clone(), |signal| format!("SIG{signal}")),
        _ => "a way that is unknown".to_owned(),
    };
    let shown = match read_back {
        Value::Text(word) if word == "equal" => "new values shown",
        _ => "values not shown",
    };
    format!("reloaded by {by}, served again after {ready_secs:.1} s, {shown}")
}
