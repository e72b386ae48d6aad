//! Calls that do not return.

use std::time::Duration;

use plimsoll_sim_gpu::{Fault, FaultKind};
use plimsoll_trace::EventKind;

use crate::world::{Look, World, card};

/// Far longer than any healthy call takes, even on a busy machine.
const WATCHDOG: Duration = Duration::from_millis(700);

fn world(devices: usize) -> World {
    let cards: Vec<_> = (0..devices).map(card).collect();
    let mut world = World::new(&cards);
    world.options.watchdog = WATCHDOG;
    world.start();
    for device in 0..devices {
        world.sample(&format!("GPU-{device}"));
    }
    world
}

fn hang(world: &World, function: &str, device: usize) {
    let fault = Fault {
        device: Some(device),
        ..Fault::new(function, FaultKind::Hang)
    };
    world.gpu.inject(fault).expect("fault");
}

#[test]
fn a_call_that_hangs_costs_its_device_only() {
    let mut world = world(3);
    hang(&world, "nvmlDeviceGetTemperature", 1);
    let event = world.event(EventKind::DeviceLost);
    assert_eq!(
        (event.device.as_deref(), &event.detail["reason"]),
        (Some("GPU-1"), &"hung".into())
    );
    for _ in 0..50 {
        let batch = world.batch_with("GPU-2");
        assert!(batch.device("GPU-0").is_some() && batch.device("GPU-1").is_none());
    }
    assert!(world.lost("device_hung") > 0 && world.lost("busy") > 0);
    assert_eq!(
        world.gpu.open_inits(),
        2,
        "the thread that hangs and the one that samples"
    );

    world.gpu.clear_faults();
    assert_eq!(
        world.event(EventKind::DeviceBack).device.as_deref(),
        Some("GPU-1")
    );
    world.sample("GPU-1");
    world.until_so("the end of the thread that hung", |gpu| gpu.open_inits() == 1);
    assert_eq!(world.told(), ["device_lost GPU-1 hung", "device_back GPU-1"]);
}

#[test]
fn what_was_read_before_the_hang_is_not_lost() {
    let mut world = world(2);
    world.gpu.device(0).set_temperature_celsius(99);
    hang(&world, "nvmlDeviceGetTemperature", 1);
    world.event(EventKind::DeviceLost);
    let hot = world.seen.iter().find(|batch| {
        batch
            .device("GPU-0")
            .is_some_and(|sample| sample.temperature_celsius == Some(99.0))
    });
    assert!(
        hot.is_some_and(|batch| batch.device("GPU-1").is_none()),
        "the half tick in which it hung"
    );
}

#[test]
fn a_device_that_is_slow_for_ever_does_not_come_back_to_delay_the_others() {
    let mut world = world(2);
    let delay = FaultKind::Delay(WATCHDOG * 2);
    let fault = Fault {
        device: Some(0),
        ..Fault::new("nvmlDeviceGetPowerUsage", delay)
    };
    world.gpu.inject(fault).expect("fault");
    world.event(EventKind::DeviceLost);
    // The slow call has returned at least once more since then.
    let calls = world.gpu.calls("nvmlDeviceGetPowerUsage");
    let asked = move |gpu: &plimsoll_sim_gpu::Gpu| gpu.calls("nvmlDeviceGetPowerUsage") > calls + 100;
    world.until_so("a hundred samples of the other", asked);
    assert_eq!(world.told(), ["device_lost GPU-0 hung"]);
    world.gpu.clear_faults();
    world.event(EventKind::DeviceBack);
    world.sample("GPU-0");
}

#[test]
fn threads_that_hang_are_bounded() {
    let mut world = world(6);
    for device in 0..6 {
        hang(&world, "nvmlDeviceGetTemperature", device);
        let id = format!("GPU-{device}");
        world.until("its loss", |batch| {
            batch
                .events(EventKind::DeviceLost)
                .any(|event| event.device.as_deref() == Some(&id))
                .then_some(())
        });
        if device == 4 {
            break;
        }
    }
    assert_eq!(
        world.gpu.open_inits(),
        5,
        "four that hang, and one that nobody takes over from"
    );
    world.gpu.clear_faults();
    for device in 0..6 {
        world.sample(&format!("GPU-{device}"));
    }
    world.until_so("the end of the threads that hung", |gpu| gpu.open_inits() == 1);
    let told = world.told();
    assert_eq!(
        told.iter().filter(|told| told.starts_with("device_lost")).count(),
        5,
        "{told:?}"
    );
    assert_eq!(
        told.iter().filter(|told| told.starts_with("device_back")).count(),
        5,
        "{told:?}"
    );
}

#[test]
fn a_start_that_hangs_is_told_and_awaited() {
    let mut world = World::new(&[card(0)]);
    world.options.watchdog = WATCHDOG;
    let hang = world
        .gpu
        .inject(Fault::new("nvmlInit_v2", FaultKind::Hang))
        .expect("fault");
    world.start();
    assert_eq!(
        world.event(EventKind::DriverMissing).detail["reason"],
        "driver_hangs"
    );
    for _ in 0..20 {
        world.tick();
    }
    assert_eq!(world.gpu.calls("nvmlInit_v2"), 1, "nobody else runs into it");
    world.gpu.withdraw(hang);
    world.sample("GPU-0");
    assert_eq!(world.told(), ["driver_missing driver_hangs", "driver_back"]);
    assert!(world.lost("busy") > 0);
}

#[test]
fn a_question_about_the_whole_driver_that_hangs_is_told_and_awaited() {
    let mut world = world(1);
    let hang = world
        .gpu
        .inject(Fault::new("nvmlDeviceGetCount_v2", FaultKind::Hang))
        .expect("fault");
    assert_eq!(
        world.event(EventKind::DriverMissing).detail["reason"],
        "driver_hangs"
    );
    world.gpu.withdraw(hang);
    world.sample("GPU-0");
    assert_eq!(world.told(), ["driver_missing driver_hangs", "driver_back"]);
}

#[test]
fn a_device_that_hangs_when_it_is_asked_who_it_is_is_left_out() {
    let mut world = World::new(&[card(0), card(1)]);
    world.options.watchdog = WATCHDOG;
    hang(&world, "nvmlDeviceGetUUID", 0);
    world.start();
    let batch = world.batch_with("GPU-1");
    assert!(batch.device("GPU-0").is_none());
    assert_eq!(world.told(), ["device_lost hung"]);
    world.gpu.clear_faults();
    world.sample("GPU-0");
}

#[test]
fn a_device_that_hangs_is_avoided_by_its_uuid_whatever_its_index() {
    let mut world = world(4);
    hang(&world, "nvmlDeviceGetTemperature", 2);
    world.event(EventKind::DeviceLost);
    world.sample("GPU-3");
    // All move up by one: another device now has the index at which the thread hangs.
    world.gpu.device(0).set_present(false);
    world.event(EventKind::DeviceLost);
    let batch = world.batch_with("GPU-3");
    assert!(batch.device("GPU-1").is_some() && batch.device("GPU-2").is_none());
    // The one that hangs and the one that goes on; the latter may be between two lives just now.
    let inits = world.gpu.open_inits();
    assert!(inits <= 2, "nobody runs into the one that hangs again: {inits}");
    world.gpu.clear_faults();
    assert_eq!(
        world.event(EventKind::DeviceBack).device.as_deref(),
        Some("GPU-2")
    );
    let batch = world.batch_with("GPU-2");
    assert!(batch.device("GPU-1").is_some() && batch.device("GPU-3").is_some());
    assert_eq!(
        world.told(),
        [
            "device_lost GPU-2 hung",
            "device_lost GPU-0 not_listed",
            "device_back GPU-2"
        ]
    );
}

#[test]
fn a_device_that_hangs_is_not_asked_who_it_is_while_nothing_has_moved() {
    let mut world = world(3);
    hang(&world, "*", 1);
    world.event(EventKind::DeviceLost);
    world.sample("GPU-2");
    // A new start, with the others where they were.
    world.gpu.device(2).set_present(false);
    world.event(EventKind::DeviceLost);
    world.gpu.device(2).set_present(true);
    world.event(EventKind::DeviceBack);
    world.batch_with("GPU-2");
    assert_eq!(
        world.told(),
        [
            "device_lost GPU-1 hung",
            "device_lost GPU-2 not_listed",
            "device_back GPU-2"
        ]
    );
    assert_eq!(
        world.gpu.open_inits(),
        2,
        "nobody runs into the one that hangs again"
    );
    world.gpu.clear_faults();
    world.sample("GPU-1");
}

#[test]
fn an_instance_s_gpu_is_what_hangs() {
    let mut instance = plimsoll_sim_gpu::DeviceSpec::new("MIG-0", "Simulated MIG 1g.5gb", 5 << 30);
    instance.mig_parent = Some(0);
    let mut world = World::new(&[card(0), instance, card(1)]);
    world.options.watchdog = WATCHDOG;
    world.gpu.device(0).set_mig_mode(true);
    world.start();
    world.batch_with("MIG-0");
    hang(&world, "nvmlDeviceGetMemoryInfo_v2", 1);
    let event = world.event(EventKind::DeviceLost);
    assert_eq!(event.device.as_deref(), Some("GPU-0"));
    world.sample("GPU-1");
    world.gpu.clear_faults();
    world.sample("MIG-0");
    assert_eq!(world.told(), ["device_lost GPU-0 hung", "device_back GPU-0"]);
}

#[test]
fn the_end_of_a_driver_life_may_hang_too() {
    let mut world = world(1);
    let hang = world
        .gpu
        .inject(Fault::new("nvmlEventSetFree", FaultKind::Hang))
        .expect("fault");
    world.gpu.reload_driver();
    assert_eq!(
        world.event(EventKind::DriverMissing).detail["reason"],
        "driver_hangs"
    );
    world.gpu.withdraw(hang);
    world.sample("GPU-0");
}

#[test]
fn the_slow_lane_may_hang_too() {
    let mut world = World::new(&[card(0), card(1)]);
    world.options.watchdog = WATCHDOG;
    world.options.slow_lane = Duration::from_secs(30);
    hang(&world, "nvmlDeviceGetPcieThroughput", 0);
    world.start();
    assert_eq!(
        world.event(EventKind::DeviceLost).device.as_deref(),
        Some("GPU-0")
    );
    world.sample("GPU-1");
    world.gpu.clear_faults();
    world.sample("GPU-0");
}

#[test]
fn the_collector_ends_in_time_while_a_call_hangs() {
    let mut world = world(1);
    hang(&world, "nvmlDeviceGetTemperature", 0);
    world.event(EventKind::DeviceLost);
    let began = std::time::Instant::now();
    world.stop_without_waiting();
    assert!(
        began.elapsed() < WATCHDOG * 20,
        "not as long as the call hangs, which is for ever"
    );
    world.gpu.clear_faults();
    world.until_left();
}
