//! What the driver says is what is stored, to the byte, and anyone can read it.

use std::process::Command;

use plimsoll_sim_gpu::{Fault, FaultKind};
use serde_json::json;

use crate::world::{GIB, World, until};

#[test]
fn what_another_library_says_to_the_byte() {
    let world = World::with_devices(2);
    let device = world.gpu.device(1);
    device.set_other_used_bytes(5 * GIB + 123_456_789);
    device.set_gpu_busy_percent(37);
    device.set_memory_busy_percent(11);
    device.set_temperature_celsius(66);
    device.set_power_milliwatts(251_500);
    let _process = world.gpu.attach_phantom(1, 4_000_123, 987_654_321).unwrap();
    let _daemon = world.daemon(&world.base_config());
    let device = device.uuid();
    let sample = world.row(&format!(
        "SELECT * FROM device_samples WHERE device = '{device}' ORDER BY at_ns DESC"
    ));
    let used = 5 * GIB + 123_456_789 + 987_654_321;
    assert_eq!(sample["used_bytes"], json!(used));
    assert_eq!(sample["total_bytes"], json!(24 * GIB));
    assert_eq!(sample["reserved_bytes"], json!(450 << 20));
    assert_eq!(sample["free_bytes"], json!(24 * GIB - (450 << 20) - used));
    assert_eq!(sample["gpu_busy_ratio"], json!(0.37));
    assert_eq!(sample["memory_busy_ratio"], json!(0.11));
    assert_eq!(sample["temperature_celsius"], json!(66.0));
    assert_eq!(sample["power_watts"], json!(251.5));
    assert_eq!(world.row("SELECT count(*) AS n FROM devices")["n"], 2);
    let host = world.row("SELECT * FROM host_samples WHERE cpu_busy_ratio IS NOT NULL");
    assert!(host["memory_total_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn the_driver_s_word_about_each_process() {
    let world = World::new();
    let child = crate::world::Process(Command::new("sleep").arg("600").spawn().unwrap());
    let process = world.gpu.attach(0, child.pid()).unwrap();
    process.resize(3 * GIB).unwrap();
    let _daemon = world.daemon(&world.base_config());
    let pid = child.pid();
    let sample = world.row(&format!("SELECT * FROM process_samples WHERE pid = {pid}"));
    assert_eq!(sample["used_bytes"], json!(3 * GIB));
    assert_eq!(sample["process"], "sleep");
    assert_eq!(sample["run_id"], json!(null), "it belongs to no run");
    // A change is stored with the next tick.
    process.resize(4 * GIB).unwrap();
    world.row(&format!(
        "SELECT * FROM process_samples WHERE pid = {pid} AND used_bytes = {}",
        4 * GIB
    ));
    // What the driver will not tell is unknown.
    world
        .gpu
        .inject(Fault::new("*", FaultKind::UnknownProcessMemory))
        .unwrap();
    world.row(&format!(
        "SELECT * FROM process_samples WHERE pid = {pid} AND used_bytes IS NULL"
    ));
}

#[test]
fn the_stock_client_reads_along() {
    if Command::new("sqlite3").arg("--version").output().is_err() {
        eprintln!("skipped: no sqlite3 client on this machine");
        return;
    }
    let world = World::new();
    let _daemon = world.daemon(&world.base_config());
    for view in [
        "runs",
        "devices",
        "device_samples",
        "process_samples",
        "host_samples",
        "events",
        "decisions",
        "config_changes",
        "losses",
        "columns",
    ] {
        let output = Command::new("sqlite3")
            .arg("-readonly")
            .arg(world.path("plimsoll.db"))
            .arg(format!("SELECT count(*) FROM {view}"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{view}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn every_tick_has_a_row_for_every_device() {
    let world = World::with_devices(3);
    let _daemon = world.daemon(&world.base_config());
    let ticks = "SELECT min(n) AS fewest, max(n) AS most, count(*) AS devices FROM (SELECT count(*) AS n FROM device_samples GROUP BY device)";
    let row = until("ten ticks", || {
        let row = world.sql(ticks).remove(0);
        (row["fewest"].as_i64()? >= 10).then_some(row)
    });
    assert_eq!(row["fewest"], row["most"], "also when nothing changed: {row}");
    assert_eq!(row["devices"], 3);
}

#[test]
fn what_fills_is_told_before_it_is_full() {
    let world = World::new();
    let _daemon = world.daemon(&world.base_config());
    let device = |status: serde_json::Value| status["devices"][0].clone();
    let status = || {
        let output = world.call(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).map(device).ok()
    };
    let at_rest = until("enough samples", || {
        status().filter(|device| device["full_in_secs"].is_number())
    });
    assert_eq!(at_rest["full_in_secs"], json!(86_400.0), "{at_rest}");
    assert_eq!(at_rest["full_in_range_secs"], json!(null));

    let mut used = 0;
    let filling = until("the rise", || {
        used += 32 << 20;
        world.gpu.device(0).set_other_used_bytes(used);
        status().filter(|device| device["full_in_secs"].as_f64().is_some_and(|secs| secs < 3_600.0))
    });
    let [first, earliest, latest] = [
        &filling["full_in_secs"],
        &filling["full_in_range_secs"][0],
        &filling["full_in_range_secs"][1],
    ]
    .map(|secs| secs.as_f64().unwrap());
    assert!(earliest <= first && first <= latest, "{filling}");
}

#[test]
fn samples_come_faster_while_a_line_is_near_and_fall_back() {
    let world = World::new();
    let rule = "[[rule]]\nname = \"watch\"\nengine = \"chat\"\nset = { a = 1 }\n\
                when = { signal = \"vram.used_ratio\", enter = \"90%\", exit = \"10%\" }\n";
    let config = world
        .config(rule)
        .replace("interval = \"100ms\"", "interval = \"1s\"");
    let _engine = world.engine(&[]);
    let _daemon = world.daemon(&config);
    let gaps = "SELECT at_ns - lag(at_ns) OVER (ORDER BY at_ns) AS gap, at_ns FROM device_samples";
    // 58 % are the engine's; so the line is 7.5 GiB away, and memory comes and goes by 6.
    let mut high = false;
    until("two samples less than 300 ms apart", || {
        high = !high;
        world
            .gpu
            .device(0)
            .set_other_used_bytes(if high { 6 * GIB } else { 0 });
        let near = world.sql(&format!("SELECT * FROM ({gaps}) WHERE gap < 300000000"));
        (!near.is_empty()).then_some(())
    });
    let burst = world.sql("SELECT max(at_ns) AS at FROM device_samples")[0]["at"].clone();
    world.gpu.device(0).set_other_used_bytes(0);
    // What was seen is forgotten after a minute; the line is far away before that.
    until("two samples a second apart", || {
        let calm = world.sql(&format!(
            "SELECT * FROM ({gaps}) WHERE gap > 900000000 AND at_ns > {burst}"
        ));
        (!calm.is_empty()).then_some(())
    });
    assert!(world.sql("SELECT * FROM decisions").is_empty());
}
