//! The driver as a whole: missing, broken, reloaded, upgraded.

use plimsoll_sim_gpu::{DriverState, Fault, FaultKind};
use plimsoll_trace::EventKind;

use crate::world::{Look, World, card};

/// Lets many ticks go by.
fn idle(world: &mut World) {
    for _ in 0..20 {
        world.tick();
    }
}

#[test]
fn a_library_that_is_not_there_is_told_once_and_found_when_it_comes() {
    let mut world = World::new(&[card(0)]);
    let (library, aside) = (world.library(), world.folder.path().join("aside"));
    std::fs::rename(&library, &aside).expect("rename");
    world.start();
    let event = world.event(EventKind::DriverMissing);
    assert!(
        event.message.contains(&library.display().to_string()),
        "{}",
        event.message
    );
    assert!(event.message.contains("No such file"), "{}", event.message);
    assert_eq!(event.detail["reason"], "library_missing");
    idle(&mut world);
    assert_eq!(world.told().len(), 1);
    assert!(
        world.seen.iter().all(|batch| batch.device("GPU-0").is_none()),
        "no invented values"
    );

    std::fs::rename(&aside, &library).expect("rename");
    world.sample("GPU-0");
    assert_eq!(world.told(), ["driver_missing library_missing", "driver_back"]);
}

#[test]
fn three_causes_have_three_messages_each_told_once() {
    let mut world = World::new(&[card(0)]);
    world.gpu.set_driver(DriverState::NotLoaded);
    world.start();
    let not_loaded = world.event(EventKind::DriverMissing);
    idle(&mut world);
    world.gpu.set_driver(DriverState::VersionMismatch);
    let mismatch = world.event(EventKind::DriverMissing);
    idle(&mut world);
    world.gpu.set_driver(DriverState::Loaded);
    world.sample("GPU-0");
    assert_ne!(not_loaded.message, mismatch.message);
    assert_eq!(
        world.told(),
        [
            "driver_missing driver_not_loaded",
            "driver_missing version_mismatch",
            "driver_back"
        ]
    );
}

#[test]
fn a_library_without_the_functions_to_start_with_is_too_old() {
    let mut world = World::without(&["nvmlInit_v2"], &[card(0)]);
    world.start();
    assert_eq!(
        world.event(EventKind::DriverMissing).detail["reason"],
        "library_too_old"
    );
}

#[test]
fn a_start_that_fails_a_few_times_is_tried_until_it_works() {
    let mut world = World::new(&[card(0)]);
    let fault = Fault {
        times: Some(3),
        ..Fault::new("nvmlInit_v2", FaultKind::Code(999))
    };
    world.gpu.inject(fault).expect("fault");
    world.start();
    world.sample("GPU-0");
    assert_eq!(world.gpu.calls("nvmlInit_v2"), 4);
    idle(&mut world);
    assert_eq!(world.gpu.calls("nvmlInit_v2"), 4, "and then not again");
}

#[test]
fn a_host_without_devices_is_said_to_be_one_until_a_device_comes() {
    let mut world = World::new(&[card(0)]);
    world.gpu.device(0).set_present(false);
    world.start();
    assert_eq!(
        world.event(EventKind::DriverMissing).detail["reason"],
        "no_device"
    );
    idle(&mut world);
    world.gpu.device(0).set_present(true);
    world.sample("GPU-0");
    assert_eq!(world.told(), ["driver_missing no_device", "driver_back"]);
}

#[test]
fn the_last_device_may_go_and_come_back() {
    let mut world = World::new(&[card(0)]);
    world.start();
    world.sample("GPU-0");
    world.gpu.device(0).set_present(false);
    world.event(EventKind::DriverMissing);
    let before = world.seen.len();
    idle(&mut world);
    assert!(
        world.seen[before..]
            .iter()
            .all(|batch| batch.device("GPU-0").is_none()),
        "no invented values"
    );
    world.gpu.device(0).set_present(true);
    world.sample("GPU-0");
    assert_eq!(world.told(), ["driver_missing no_device", "driver_back"]);
}

#[test]
fn a_reload_is_one_gap_and_one_event() {
    let mut world = World::new(&[card(0), card(1)]);
    world.start();
    world.batch_with("GPU-1");
    world.gpu.reload_driver();
    let event = world.event(EventKind::SamplingGap);
    assert_eq!(event.detail["reason"], "driver_reloaded");
    let batch = world.batch_with("GPU-0");
    assert!(batch.device("GPU-1").is_some());
    assert_eq!(world.told(), ["sampling_gap driver_reloaded"]);
    assert_eq!(world.gpu.calls("nvmlInit_v2"), 2);
    assert_eq!(world.gpu.open_inits(), 1);
}

#[test]
fn reloads_in_a_row_are_survived() {
    let mut world = World::new(&[card(0)]);
    world.start();
    for _ in 0..20 {
        world.sample("GPU-0");
        world.gpu.reload_driver();
    }
    world.sample("GPU-0");
    assert!(
        world
            .told()
            .iter()
            .all(|told| told == "sampling_gap driver_reloaded"),
        "{:?}",
        world.told()
    );
}

#[test]
fn an_upgrade_in_place_is_a_mismatch_and_then_another_driver() {
    let mut world = World::new(&[card(0)]);
    world.gpu.set_driver_version("575.51.03");
    world.start();
    let driver = |batch: &plimsoll_trace::Batch| batch.info("GPU-0").and_then(|info| info.driver.clone());
    assert_eq!(world.until("the device's description", driver), "575.51.03");
    world.gpu.set_driver(DriverState::NotLoaded);
    world.gpu.set_driver(DriverState::VersionMismatch);
    world.until("the mismatch", |batch| {
        batch
            .events(EventKind::DriverMissing)
            .find(|event| event.detail["reason"] == "version_mismatch")
            .cloned()
    });
    world.gpu.set_driver_version("580.95.05");
    world.gpu.set_driver(DriverState::Loaded);
    assert_eq!(world.until("the device's description", driver), "580.95.05");
    idle(&mut world);
    let described = world
        .seen
        .iter()
        .filter(|batch| batch.info("GPU-0").is_some())
        .count();
    assert_eq!(described, 2, "once per driver");
}

#[test]
fn a_driver_that_is_missing_costs_few_attempts() {
    let mut world = World::new(&[card(0)]);
    world.options.retry = std::time::Duration::from_secs(50);
    world.options.retry_max = world.options.retry;
    world.gpu.set_driver(DriverState::NotLoaded);
    world.start();
    world.event(EventKind::DriverMissing);
    idle(&mut world);
    assert_eq!(world.gpu.calls("nvmlInit_v2"), 1);
    assert_eq!(world.told().len(), 1);
}
