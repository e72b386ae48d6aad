//! Drivers that are missing, old, hung, reloaded or lost, seen from the whole program.

use std::fs;

use plimsoll_sim_gpu::{DriverState, Fault, FaultKind};

use crate::world::{Process, World, text, until};

#[test]
fn no_driver_then_a_driver() {
    let world = World::new();
    fs::rename(world.library(), world.path("not-yet.so")).unwrap();
    let _daemon = world.daemon(&world.base_config());
    let missing = world.event("driver_missing");
    let said = missing["message"].as_str().unwrap();
    assert!(said.contains("libnvidia-ml.so.1"), "{said}");
    let later = format!(
        "SELECT count(*) AS n FROM host_samples WHERE at_ns > {}",
        missing["at_ns"]
    );
    until("the host goes on", || {
        (world.sql(&later)[0]["n"].as_i64()? >= 2).then_some(())
    });
    assert!(
        world.sql("SELECT * FROM device_samples").is_empty(),
        "nothing is invented"
    );
    let status = text(&world.call(&["status"]).stdout);
    assert!(status.contains("no device is known"), "{status}");
    fs::rename(world.path("not-yet.so"), world.library()).unwrap();
    world.event("driver_back");
    world.row("SELECT * FROM device_samples");
}

#[test]
fn the_environment_names_the_driver() {
    let world = World::new();
    let config = world.base_config().replace("libnvidia-ml.so.1", "gone.so");
    world.write("plimsoll.toml", &config);
    let mut daemon = world.plimsoll();
    daemon
        .arg("daemon")
        .env("PLIMSOLL_NVML_LIBRARY", world.library())
        .stderr(fs::File::create(world.path("daemon.log")).unwrap());
    let _daemon = Process(daemon.spawn().unwrap());
    world.row("SELECT * FROM device_samples WHERE used_bytes IS NOT NULL");
    assert!(
        world
            .sql("SELECT * FROM events WHERE kind = 'driver_missing'")
            .is_empty()
    );
}

#[test]
fn a_driver_that_is_not_loaded_or_does_not_match() {
    for (state, word) in [
        (DriverState::NotLoaded, "not loaded"),
        (DriverState::VersionMismatch, "version"),
    ] {
        let world = World::new();
        world.gpu.set_driver(state);
        let _daemon = world.daemon(&world.base_config());
        let said = world.event("driver_missing")["message"]
            .as_str()
            .unwrap()
            .to_lowercase();
        assert!(said.contains(word), "{said}");
        world.gpu.set_driver(DriverState::Loaded);
        world.event("driver_back");
    }
}

#[test]
fn a_driver_that_is_reloaded() {
    let world = World::with_devices(2);
    let daemon = world.daemon(&world.base_config());
    world.row("SELECT * FROM device_samples");
    world.gpu.reload_driver();
    let gap = world.event("sampling_gap");
    assert!(
        gap["detail"].as_str().unwrap().contains("driver_reloaded"),
        "{gap}"
    );
    let after = "SELECT * FROM device_samples WHERE at_ns > (SELECT max(at_ns) FROM events WHERE kind = 'sampling_gap')";
    world.row(after);
    assert_eq!(
        world.row("SELECT count(*) AS n FROM devices")["n"],
        2,
        "the same devices, by UUID"
    );
    assert!(daemon.stop().success());
    assert_eq!(world.gpu.open_inits(), 0, "as many shutdowns as inits");
    assert_eq!(world.gpu.open_event_sets(), 0);
}

#[test]
fn a_device_that_is_lost_and_returns_while_the_other_goes_on() {
    let world = World::with_devices(2);
    let _daemon = world.daemon(&world.base_config());
    let (lost, other) = (world.gpu.device(0).uuid(), world.gpu.device(1).uuid());
    world.row(&format!("SELECT * FROM device_samples WHERE device = '{lost}'"));
    world.gpu.device(0).set_lost(true);
    let event = world.event("device_lost");
    assert_eq!(event["device"], lost.as_str());
    let at = event["at_ns"].as_i64().unwrap();
    let going_on =
        format!("SELECT count(*) AS n FROM device_samples WHERE device = '{other}' AND at_ns > {at}");
    until("the other goes on", || {
        (world.sql(&going_on)[0]["n"].as_i64()? >= 5).then_some(())
    });
    let values = format!(
        "SELECT * FROM device_samples WHERE device = '{lost}' AND at_ns > {at} AND used_bytes IS NOT NULL"
    );
    assert!(world.sql(&values).is_empty(), "never its last value");
    world.gpu.device(0).set_lost(false);
    world.event("device_back");
    world.row(&values);
}

#[test]
fn a_call_that_hangs_costs_one_device_only() {
    let world = World::with_devices(2);
    let daemon = world.daemon(&world.base_config());
    let (stuck, other) = (world.gpu.device(0).uuid(), world.gpu.device(1).uuid());
    world.row(&format!("SELECT * FROM device_samples WHERE device = '{stuck}'"));
    let hang = Fault {
        device: Some(0),
        ..Fault::new("nvmlDeviceGetTemperature", FaultKind::Hang)
    };
    world.gpu.inject(hang).unwrap();
    let event = world.row(&format!(
        "SELECT * FROM events WHERE device = '{stuck}' AND kind IN ('device_lost', 'sampling_gap')"
    ));
    let at = event["at_ns"].as_i64().unwrap();
    let going_on =
        format!("SELECT count(*) AS n FROM device_samples WHERE device = '{other}' AND at_ns > {at}");
    until("the other goes on", || {
        (world.sql(&going_on)[0]["n"].as_i64()? >= 5).then_some(())
    });
    assert!(
        world.call(&["status"]).status.success(),
        "the daemon answers meanwhile"
    );
    world.gpu.clear_faults();
    world.event("device_back");
    assert!(daemon.stop().success());
}

#[test]
fn an_old_driver_without_the_newer_calls() {
    let world = World::new();
    let original = world.path("full.so");
    fs::rename(world.library(), &original).unwrap();
    let lacking = [
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetGraphicsRunningProcesses_v3",
    ];
    plimsoll_sim_driver::strip_symbols(&original, &lacking, &world.library()).unwrap();
    world.gpu.device(0).set_other_used_bytes(1 << 30);
    let process = world.gpu.attach(0, std::process::id()).unwrap();
    process.resize(1 << 29).unwrap();
    let _daemon = world.daemon(&world.base_config());
    let sample = world.row("SELECT * FROM device_samples WHERE used_bytes IS NOT NULL");
    // The old call counts what the driver keeps as used, and does not say how much that is.
    assert_eq!(sample["used_bytes"], (1_u64 << 30) + (1 << 29) + (450 << 20));
    assert!(sample["reserved_bytes"].is_null());
    let own = std::process::id();
    world.row(&format!(
        "SELECT * FROM process_samples WHERE pid = {own} AND used_bytes = 536870912"
    ));
}

#[test]
fn xid_errors_are_events() {
    let world = World::new();
    let _daemon = world.daemon(&world.base_config());
    world.row("SELECT * FROM device_samples");
    world.gpu.raise_xid(0, 31);
    let event = world.event("xid");
    assert_eq!(event["device"], world.gpu.device(0).uuid().as_str());
    assert!(event["detail"].as_str().unwrap().contains("31"), "{event}");
}

#[test]
fn a_process_list_that_grows_while_it_is_read() {
    let world = World::new();
    // The driver lists 200 processes that nobody has heard of, more at each call, and one that lives.
    let phantoms: Vec<_> = (0..200)
        .map(|n| world.gpu.attach_phantom(0, 4_000_000 + n, 1 << 20).unwrap())
        .collect();
    let process = world.gpu.attach(0, std::process::id()).unwrap();
    process.resize(1 << 29).unwrap();
    world
        .gpu
        .inject(Fault::new("*", FaultKind::GrowingList(3)))
        .unwrap();
    let _daemon = world.daemon(&world.base_config());
    let own = std::process::id();
    world.row(&format!(
        "SELECT * FROM process_samples WHERE pid = {own} AND used_bytes = 536870912"
    ));
    world.row("SELECT * FROM losses WHERE source = 'nvml' AND reason LIKE '%unbelievable%'");
    assert!(
        world
            .sql("SELECT * FROM process_samples WHERE pid >= 4000000")
            .is_empty(),
        "nobody is invented"
    );
    drop(phantoms);
}

#[test]
fn one_figure_that_fails_costs_only_itself() {
    let world = World::with_devices(2);
    for function in ["nvmlDeviceGetPowerUsage", "nvmlDeviceGetUtilizationRates"] {
        let fault = Fault {
            device: Some(0),
            ..Fault::new(function, FaultKind::Code(3))
        };
        world.gpu.inject(fault).unwrap();
    }
    let _daemon = world.daemon(&world.base_config());
    let of = |index: usize| {
        let uuid = world.gpu.device(index).uuid();
        world.row(&format!("SELECT * FROM device_samples WHERE device = '{uuid}'"))
    };
    let other = of(1);
    assert!(
        other["power_watts"].is_number() && other["gpu_busy_ratio"].is_number(),
        "{other}"
    );
    let sample = of(0);
    assert!(
        sample["power_watts"].is_null() && sample["gpu_busy_ratio"].is_null(),
        "{sample}"
    );
    assert!(
        sample["used_bytes"].is_u64() && sample["temperature_celsius"].is_number(),
        "{sample}"
    );
}
