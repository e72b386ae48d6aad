//! Devices that fall off the bus, come, go and move, MIG instances, and what devices report by themselves.

use plimsoll_sim_gpu::{DeviceSpec, Fault, FaultKind};
use plimsoll_trace::EventKind;

use crate::world::{GIB, Look, World, card};

#[test]
fn a_lost_device_is_told_once_and_the_others_keep_their_rhythm() {
    let mut world = World::new(&[card(0), card(1), card(2)]);
    world.start();
    world.sample("GPU-1");
    world.gpu.device(1).set_lost(true);
    let event = world.event(EventKind::DeviceLost);
    assert_eq!(event.device.as_deref(), Some("GPU-1"));
    assert!(
        event.message.contains("Simulated 24 GiB GPU-1"),
        "{}",
        event.message
    );
    for _ in 0..40 {
        let batch = world.batch_with("GPU-0");
        assert!(batch.device("GPU-2").is_some(), "the others are there");
        assert!(batch.device("GPU-1").is_none(), "no row for a lost device");
    }
    assert!(world.lost("device_lost") > 0);
    world.gpu.device(1).set_lost(false);
    let back = world.event(EventKind::DeviceBack);
    assert_eq!(back.device.as_deref(), Some("GPU-1"));
    world.sample("GPU-1");
    assert_eq!(world.told(), ["device_lost GPU-1 lost", "device_back GPU-1"]);
}

#[test]
fn a_lost_device_does_not_cost_the_others_a_single_tick() {
    let mut world = World::new(&[card(0), card(1)]);
    world.start();
    world.sample("GPU-1");
    world.gpu.device(1).set_lost(true);
    world.event(EventKind::DeviceLost);
    let starts = world.gpu.calls("nvmlInit_v2");
    for _ in 0..200 {
        let batch = world.answer();
        assert!(
            batch.device("GPU-0").is_some(),
            "whatever is tried for the other one"
        );
    }
    let starts = world.gpu.calls("nvmlInit_v2") - starts;
    assert!(
        (1..=20).contains(&starts),
        "started anew, and ever more rarely: {starts}"
    );
}

#[test]
fn the_only_device_may_be_lost_and_return() {
    let mut world = World::new(&[card(0)]);
    world.start();
    world.sample("GPU-0");
    world.gpu.device(0).set_lost(true);
    world.event(EventKind::DeviceLost);
    for _ in 0..20 {
        world.tick();
    }
    world.gpu.device(0).set_lost(false);
    world.sample("GPU-0");
    assert_eq!(
        world.told(),
        ["device_lost GPU-0 not_listed", "device_back GPU-0"]
    );
}

#[test]
fn a_device_that_is_lost_before_the_first_look_is_found_later() {
    let mut world = World::new(&[card(0), card(1)]);
    world.gpu.device(0).set_lost(true);
    world.start();
    let batch = world.batch_with("GPU-1");
    assert!(batch.device("GPU-0").is_none());
    let lost = world.told();
    world.gpu.device(0).set_lost(false);
    world.sample("GPU-0");
    assert_eq!(lost, ["device_lost no_answer"]);
    assert_eq!(world.told(), lost);
}

#[test]
fn devices_are_their_uuids_whatever_their_number_and_order() {
    let sized = |number: usize| {
        let mut spec = card(number);
        spec.total_bytes = (8 + number as u64) * GIB;
        spec
    };
    let mut world = World::new(&[sized(0), sized(1), sized(2), sized(3)]);
    let total = |number: u64| Some((8 + number) * GIB);
    world.gpu.device(3).set_present(false);
    world.start();
    assert_eq!(world.sample("GPU-2").total_bytes, total(2));
    // All others move up by one.
    world.gpu.device(0).set_present(false);
    let event = world.event(EventKind::DeviceLost);
    assert_eq!(event.device.as_deref(), Some("GPU-0"));
    assert_eq!(
        (
            world.sample("GPU-1").total_bytes,
            world.sample("GPU-2").total_bytes
        ),
        (total(1), total(2))
    );
    world.gpu.device(3).set_present(true);
    assert_eq!(world.sample("GPU-3").total_bytes, total(3));
    assert_eq!(world.sample("GPU-1").total_bytes, total(1));
    world.gpu.device(0).set_present(true);
    assert_eq!(
        world.event(EventKind::DeviceBack).device.as_deref(),
        Some("GPU-0")
    );
    for number in 0..4 {
        assert_eq!(world.sample(&format!("GPU-{number}")).total_bytes, total(number));
    }
    assert_eq!(
        world.told(),
        ["device_lost GPU-0 not_listed", "device_back GPU-0"]
    );
}

#[test]
fn an_xid_is_an_event_on_its_device() {
    let mut world = World::new(&[card(0), card(1)]);
    world.start();
    world.sample("GPU-0");
    world.gpu.raise_xid(1, 79);
    let event = world.event(EventKind::Xid);
    assert_eq!(
        (event.device.as_deref(), &event.detail["xid"]),
        (Some("GPU-1"), &79.into())
    );
    assert!(event.message.contains("Xid 79"), "{}", event.message);
}

#[test]
fn an_xid_of_a_device_that_falls_off_the_bus_still_has_its_device() {
    let mut world = World::new(&[card(0), card(1)]);
    world.start();
    world.sample("GPU-0");
    world.gpu.raise_xid(1, 79);
    world.gpu.device(1).set_lost(true);
    let event = world.event(EventKind::Xid);
    assert_eq!(
        (event.device.as_deref(), &event.detail["xid"]),
        (Some("GPU-1"), &79.into())
    );
}

#[test]
fn a_storm_of_xids_is_counted_and_does_not_stop_sampling() {
    let mut world = World::new(&[card(0)]);
    world.start();
    world.sample("GPU-0");
    for _ in 0..30 {
        world.gpu.raise_xid(0, 31);
    }
    world.gpu.raise_xid(0, 43);
    let mut counts = [0, 0];
    while counts != [30, 1] {
        let batch = world.batch_with("GPU-0");
        for event in batch.events(EventKind::Xid) {
            let place = usize::from(event.detail["xid"] == 43);
            counts[place] += event
                .detail
                .get("count")
                .map_or(1, |count| count.as_u64().expect("a number"));
        }
        assert!(counts[0] <= 30 && counts[1] <= 1, "{counts:?}");
    }
}

#[test]
fn without_events_there_is_no_word_about_them() {
    for function in [
        "nvmlEventSetCreate",
        "nvmlDeviceRegisterEvents",
        "nvmlEventSetWait_v2",
    ] {
        let mut world = World::new(&[card(0)]);
        world
            .gpu
            .inject(Fault::new(function, FaultKind::Code(3)))
            .expect("fault");
        world.start();
        for _ in 0..5 {
            world.sample("GPU-0");
        }
        assert_eq!(
            (world.told().len(), world.lost("xid_failed")),
            (0, 0),
            "{function}"
        );
    }
}

fn instance(number: usize) -> DeviceSpec {
    let mut spec = DeviceSpec::new(&format!("MIG-{number}"), "Simulated MIG 1g.5gb", 5 * GIB);
    spec.mig_parent = Some(0);
    spec
}

#[test]
fn mig_instances_are_devices_of_their_own() {
    let mut world = World::new(&[card(0), instance(0), instance(1)]);
    let (device, own) = (world.gpu.device(0), std::process::id());
    device.set_mig_mode(true);
    device.set_gpu_busy_percent(50);
    let process = world.gpu.attach(2, own).expect("attach");
    process.resize(3 * GIB).expect("memory");
    world.start();
    let batch = world.batch_with("MIG-1");
    let sample = batch.device("MIG-1").expect("sample");
    assert_eq!(
        (sample.total_bytes, sample.used_bytes, sample.gpu_busy_ratio),
        (Some(5 * GIB), Some(3 * GIB), None)
    );
    assert_eq!(
        batch.device("MIG-0").and_then(|sample| sample.used_bytes),
        Some(0)
    );
    let whole = batch.device("GPU-0").expect("the whole");
    assert_eq!((whole.used_bytes, whole.gpu_busy_ratio), (Some(3 * GIB), None));
    assert!(whole.power_watts.is_some());
    let info = batch.info("MIG-1").expect("described");
    assert_eq!(
        (info.parent.as_deref(), info.total_bytes),
        (Some("GPU-0"), Some(5 * GIB))
    );
    let rows = batch.processes("MIG-1");
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0].pid, rows[0].used_bytes, rows[0].sm_busy_ratio),
        (own, Some(3 * GIB), None)
    );
    assert!(batch.processes("GPU-0").is_empty(), "counted once");
}

#[test]
fn mig_may_be_switched_while_the_driver_runs() {
    let mut world = World::new(&[card(0), instance(0)]);
    let device = world.gpu.device(0);
    device.set_mig_mode(false);
    device.set_gpu_busy_percent(50);
    world.start();
    let batch = world.batch_with("GPU-0");
    assert!(batch.device("MIG-0").is_none());
    assert_eq!(
        batch.device("GPU-0").and_then(|sample| sample.gpu_busy_ratio),
        Some(0.5)
    );
    device.set_mig_mode(true);
    let batch = world.batch_with("MIG-0");
    assert_eq!(
        batch.device("GPU-0").and_then(|sample| sample.gpu_busy_ratio),
        None
    );
    device.set_mig_mode(false);
    let batch = world.until("the whole device", |batch| {
        batch
            .device("GPU-0")
            .filter(|sample| sample.gpu_busy_ratio == Some(0.5))
            .map(|_| batch.clone())
    });
    assert!(batch.device("MIG-0").is_none());
    assert_eq!(world.told(), <[&str; 0]>::default());
}

#[test]
fn a_new_start_of_the_driver_loses_no_instance() {
    let mut world = World::new(&[card(0), instance(0), card(1)]);
    world.gpu.device(0).set_mig_mode(true);
    world.start();
    world.batch_with("MIG-0");
    world.gpu.reload_driver();
    world.event(EventKind::SamplingGap);
    world.batch_with("MIG-0");
    // One device more is a new start too.
    world.gpu.device(2).set_present(false);
    world.event(EventKind::DeviceLost);
    world.gpu.device(2).set_present(true);
    world.event(EventKind::DeviceBack);
    world.batch_with("MIG-0");
    assert_eq!(
        world.told(),
        [
            "sampling_gap driver_reloaded",
            "device_lost GPU-1 not_listed",
            "device_back GPU-1"
        ]
    );
}

#[test]
fn an_instance_that_is_destroyed_is_no_loss_and_costs_no_new_start() {
    let mut world = World::new(&[card(0), instance(0), instance(1)]);
    world.gpu.device(0).set_mig_mode(true);
    world.start();
    world.batch_with("MIG-1");
    world.gpu.device(1).set_present(false);
    world.until("the end of the instance", |batch| {
        (batch.device("MIG-1").is_some() && batch.device("MIG-0").is_none()).then_some(())
    });
    // A new start does not find it missing either.
    world.gpu.reload_driver();
    world.event(EventKind::SamplingGap);
    let starts = world.gpu.calls("nvmlInit_v2");
    for _ in 0..100 {
        let batch = world.answer();
        assert!(batch.device("GPU-0").is_some());
    }
    assert_eq!(world.told(), ["sampling_gap driver_reloaded"]);
    assert_eq!(world.lost("device_lost"), 0);
    assert_eq!(world.gpu.calls("nvmlInit_v2"), starts);
    // It may be made again.
    world.gpu.device(1).set_present(true);
    let batch = world.batch_with("MIG-0");
    assert!(batch.info("MIG-0").is_some(), "described anew");
}
