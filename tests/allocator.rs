//! What an allocator says of itself, from end to end: the real helper, in a Python program with a stand-in for torch.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::world::{Process, World, text, until};

/// Answers as torch does, for as long as whoever started it lives. One segment has free blocks of 5 and 3 MiB.
const PROGRAM: &str = r#"
import os, sys, time, types
parent = os.getppid()
sys.path.insert(0, HELPER)
import plimsoll_pytorch

MIB = 1 << 20
stats = {
    "reserved_bytes.all.current": 100 * MIB, "allocated_bytes.all.current": 70 * MIB,
    "active_bytes.all.current": 80 * MIB, "inactive_split_bytes.all.current": 8 * MIB,
    "requested_bytes.all.current": 60 * MIB, "segment.all.current": 4,
}
blocks = [{"state": "inactive", "size": 5 * MIB}, {"state": "inactive", "size": 3 * MIB}, {"state": "active_allocated", "size": 9}]
def memory_snapshot():
    if SILENT:
        raise RuntimeError("not now")
    return [{"device": 0, "blocks": blocks}]
cuda = types.SimpleNamespace(
    is_initialized=lambda: True,
    device_count=lambda: 1,
    memory_stats=lambda index: stats,
    get_device_properties=lambda index: types.SimpleNamespace(uuid="00000000-0000-4000-8000-000000000000"),
    memory_snapshot=memory_snapshot,
)
sys.modules["torch"] = types.SimpleNamespace(cuda=cuda)
plimsoll_pytorch.INTERVAL_SECS = 0.1
assert plimsoll_pytorch.start()
while os.getppid() == parent:
    time.sleep(0.1)
"#;

/// The program under `plimsoll run`; nothing where there is no Python.
fn engine(world: &World, is_silent: bool) -> Option<Process> {
    let python = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let helper = concat!(env!("CARGO_MANIFEST_DIR"), "/../collectors/pytorch");
    let program = PROGRAM
        .replace("HELPER", &format!("{helper:?}"))
        .replace("SILENT", if is_silent { "True" } else { "False" });
    world.write("engine.py", &program);
    let mut run = world.plimsoll();
    run.args(["run", "--name", "job", "--trace", "memory", "--"])
        .arg(text(&python.stdout).trim())
        .arg(world.path("engine.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdout(Stdio::null());
    Some(Process(run.spawn().unwrap()))
}

fn shown(world: &World) -> Value {
    let output = world.call(&["show", "job", "--allocator", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

const MIB: u64 = 1 << 20;

#[test]
fn the_largest_free_block_is_measured_when_somebody_asks() {
    let world = World::new();
    let daemon = world.daemon(&world.base_config());
    let Some(engine) = engine(&world, false) else {
        return;
    };
    let usual = world.row("SELECT * FROM allocator_samples WHERE level = 'pytorch' AND run_id = 1");
    assert_eq!(
        usual["largest_free_bytes"],
        Value::Null,
        "nobody asked yet: {usual}"
    );
    assert_eq!(
        (
            usual["rounding_bytes"].as_u64(),
            usual["reclaimable_bytes"].as_u64()
        ),
        (Some(10 * MIB), Some(12 * MIB))
    );
    world.row("SELECT * FROM device_samples WHERE free_bytes IS NOT NULL");

    // On a busy machine the helper may answer too late; then it stays unknown, and one asks again.
    let shown = until("the blocks are measured", || {
        let shown = shown(&world);
        (!shown["allocators"][0]["free"].is_null()).then_some(shown)
    });
    let told = &shown["allocators"][0];
    assert_eq!(
        (told["level"].as_str(), told["source"].as_str()),
        (Some("pytorch"), Some("pytorch"))
    );
    let free = &told["free"];
    assert_eq!(
        (
            free["largest_free_bytes"].as_u64(),
            free["free_blocks_bytes"].as_u64()
        ),
        (Some(5 * MIB), Some(8 * MIB)),
        "{shown}"
    );
    assert_eq!(free["external_fragmentation_ratio"].as_f64(), Some(0.375));
    // The device has more in one piece than the allocator.
    let card = &world.sql("SELECT max(free_bytes) AS free FROM device_samples")[0]["free"];
    assert_eq!(&free["largest_new_block_bytes"], card);
    let people = world.call(&["show", "last", "--allocator"]);
    let said = text(&people.stdout);
    assert!(
        said.contains("largest free block: 5.0 MiB of 8.0 MiB free"),
        "{said}"
    );

    // What was measured stays what was told last when nobody answers any more.
    assert!(daemon.stop().success());
    let output = world.call(&["show", "job", "--allocator"]);
    assert!(
        text(&output.stdout).contains("largest free block: 5.0 MiB"),
        "{}",
        text(&output.stdout)
    );
    assert!(
        text(&output.stderr).contains("not measured now"),
        "{}",
        text(&output.stderr)
    );
    drop(engine);
}

#[test]
fn a_helper_that_cannot_measure_leaves_it_unknown() {
    let world = World::new();
    let daemon = world.daemon(&world.base_config());
    let Some(engine) = engine(&world, true) else {
        return;
    };
    until("the helper reports", || {
        let rows = world.sql("SELECT 1 FROM allocator_samples WHERE run_id = 1");
        (!rows.is_empty()).then_some(())
    });
    let output = world.call(&["show", "job", "--allocator"]);
    assert!(
        text(&output.stderr).contains("1 of 1 allocators did not tell"),
        "{}",
        text(&output.stderr)
    );
    assert!(
        text(&output.stdout).contains("largest free block: unknown; it was not measured"),
        "{}",
        text(&output.stdout)
    );
    drop(engine);
    assert!(daemon.stop().success());
}
