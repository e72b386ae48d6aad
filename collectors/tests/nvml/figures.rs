//! The figures of a device: exact, and each failing alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plimsoll_sim_gpu::{DeviceState, Fault, FaultKind};
use plimsoll_trace::{DeviceSample, EventKind, MemoryVersion};

use crate::world::{GIB, Look, World, card};

fn set_scene(device: &DeviceState) {
    device.set_other_used_bytes(5 * GIB + 12_345);
    device.set_bar1_used_bytes(777);
    device.set_gpu_busy_percent(37);
    device.set_memory_busy_percent(11);
    device.set_temperature_celsius(64);
    device.set_power_milliwatts(301_250);
    device.set_sm_clock_mhz(1_755);
    device.set_memory_clock_mhz(2_619);
    device.set_throttle_reasons(0x1 | 1 << 40);
}

fn expected() -> DeviceSample {
    DeviceSample {
        memory_version: Some(MemoryVersion::V2),
        used_bytes: Some(5 * GIB + 12_345),
        free_bytes: Some(24 * GIB - GIB / 2 - 5 * GIB - 12_345),
        reserved_bytes: Some(GIB / 2),
        total_bytes: Some(24 * GIB),
        bar1_used_bytes: Some(777),
        gpu_busy_ratio: Some(0.37),
        memory_busy_ratio: Some(0.11),
        temperature_celsius: Some(64.0),
        power_watts: Some(301.25),
        sm_clock_mhz: Some(1_755),
        memory_clock_mhz: Some(2_619),
        throttle_reasons: Some(0x1 | 1 << 40),
        ..DeviceSample::unknown("GPU-0".into())
    }
}

/// Makes some figures of a sample unknown.
type Forget = fn(&mut DeviceSample);

/// The functions, and which figures each of them answers.
const FIGURES: [(&str, Forget); 7] = [
    ("nvmlDeviceGetUtilizationRates", |sample| {
        (sample.gpu_busy_ratio, sample.memory_busy_ratio) = (None, None);
    }),
    ("nvmlDeviceGetTemperature", |sample| {
        sample.temperature_celsius = None
    }),
    ("nvmlDeviceGetPowerUsage", |sample| sample.power_watts = None),
    ("nvmlDeviceGetClockInfo", |sample| {
        (sample.sm_clock_mhz, sample.memory_clock_mhz) = (None, None)
    }),
    ("nvmlDeviceGetCurrentClocksThrottleReasons", |sample| {
        sample.throttle_reasons = None
    }),
    ("nvmlDeviceGetBAR1MemoryInfo", |sample| {
        sample.bar1_used_bytes = None
    }),
    ("nvmlDeviceGetMemoryInfo_v2", |sample| {
        (
            sample.total_bytes,
            sample.used_bytes,
            sample.free_bytes,
            sample.reserved_bytes,
        ) = (None, None, None, None);
        sample.memory_version = None;
    }),
];

#[test]
fn every_figure_is_what_the_driver_said() {
    let mut world = World::new(&[card(0)]);
    set_scene(&world.gpu.device(0));
    world.start();
    let batch = world.batch_with("GPU-0");
    assert_eq!(batch.device("GPU-0"), Some(&expected()));
    let info = batch.info("GPU-0").expect("described at first sight");
    assert_eq!(info.name.as_deref(), Some("Simulated 24 GiB"));
    assert_eq!(info.driver, Some(world.gpu.driver_version()));
    assert_eq!((info.total_bytes, &info.parent), (Some(24 * GIB), &None));
    assert_eq!(world.batch_with("GPU-0").info("GPU-0"), None, "and not again");
    assert_eq!(world.told(), <[&str; 0]>::default());
}

#[test]
fn every_figure_fails_alone() {
    let mut world = World::new(&[card(0)]);
    set_scene(&world.gpu.device(0));
    world.start();
    assert_eq!(world.sample("GPU-0"), expected());
    // Unknown error, not supported, no permission, timeout, lost (by one function only), and one of the future.
    for code in [999, 3, 4, 10, 15, 12_345] {
        for (function, forget) in FIGURES {
            // Memory that is not supported any more is asked for the old way; that has a test of its own.
            if function == "nvmlDeviceGetMemoryInfo_v2" && matches!(code, 3 | 4) {
                continue;
            }
            let mut expected = expected();
            forget(&mut expected);
            let fault = world
                .gpu
                .inject(Fault::new(function, FaultKind::Code(code)))
                .expect("fault");
            assert_eq!(world.sample("GPU-0"), expected, "{function} answers {code}");
            world.gpu.withdraw(fault);
        }
        assert_eq!(world.sample("GPU-0"), self::expected(), "after {code}");
    }
    assert_eq!(world.told(), <[&str; 0]>::default());
    assert!(world.lost("power_failed") > 0, "an unexpected failure is counted");
}

#[test]
fn all_ones_is_unknown_in_every_figure() {
    let mut world = World::new(&[card(0)]);
    set_scene(&world.gpu.device(0));
    world.start();
    for (function, forget) in FIGURES {
        let mut expected = expected();
        forget(&mut expected);
        if function == "nvmlDeviceGetMemoryInfo_v2" {
            expected.memory_version = Some(MemoryVersion::V2);
        }
        let fault = world
            .gpu
            .inject(Fault::new(function, FaultKind::AllOnes))
            .expect("fault");
        assert_eq!(world.sample("GPU-0"), expected, "{function}");
        world.gpu.withdraw(fault);
    }
}

#[test]
fn a_library_that_lacks_a_function_costs_that_figure_only() {
    let mut world = World::without(&["nvmlDeviceGetPowerUsage", "nvmlDeviceGetMigMode"], &[card(0)]);
    set_scene(&world.gpu.device(0));
    world.start();
    let expected = DeviceSample {
        power_watts: None,
        ..expected()
    };
    assert_eq!(world.sample("GPU-0"), expected);
    assert_eq!(world.lost("power_failed"), 0, "that is no loss");
}

#[test]
fn the_throttle_reasons_have_two_names() {
    for missing in [
        "nvmlDeviceGetCurrentClocksThrottleReasons",
        "nvmlDeviceGetCurrentClocksEventReasons",
    ] {
        let mut world = World::without(&[missing], &[card(0)]);
        set_scene(&world.gpu.device(0));
        world.start();
        assert_eq!(world.sample("GPU-0"), expected(), "without {missing}");
    }
}

/// What the first generation of the memory call answers: used includes reserved.
fn expected_of_v1() -> DeviceSample {
    DeviceSample {
        memory_version: Some(MemoryVersion::V1),
        used_bytes: Some(5 * GIB + 12_345 + GIB / 2),
        reserved_bytes: None,
        ..expected()
    }
}

#[test]
fn an_old_library_answers_memory_the_old_way() {
    let mut world = World::without(&["nvmlDeviceGetMemoryInfo_v2"], &[card(0)]);
    set_scene(&world.gpu.device(0));
    world.start();
    assert_eq!(world.sample("GPU-0"), expected_of_v1());
}

#[test]
fn a_new_memory_call_that_fails_from_the_start_is_replaced_for_good() {
    let mut world = World::new(&[card(0)]);
    set_scene(&world.gpu.device(0));
    world
        .gpu
        .inject(Fault::new("nvmlDeviceGetMemoryInfo_v2", FaultKind::Code(999)))
        .expect("fault");
    world.start();
    assert_eq!(world.sample("GPU-0"), expected_of_v1());
    world.gpu.clear_faults();
    assert_eq!(world.sample("GPU-0"), expected_of_v1(), "the two never mix");
    assert_eq!(world.lost("memory_failed"), 0);
}

#[test]
fn a_new_memory_call_that_fails_in_passing_is_a_gap() {
    let mut world = World::new(&[card(0)]);
    set_scene(&world.gpu.device(0));
    let fault = Fault {
        after_calls: 3,
        times: Some(4),
        ..Fault::new("nvmlDeviceGetMemoryInfo_v2", FaultKind::Code(999))
    };
    world.gpu.inject(fault).expect("fault");
    world.start();
    let versions: Vec<_> = (0..9).map(|_| world.sample("GPU-0").memory_version).collect();
    let known = Some(MemoryVersion::V2);
    assert_eq!(
        versions,
        [known, known, known, None, None, None, None, known, known]
    );
    assert!(world.lost("memory_failed") > 0);
}

#[test]
fn a_new_start_of_the_driver_does_not_choose_the_memory_call_again() {
    let mut world = World::new(&[card(0)]);
    world.start();
    assert_eq!(world.sample("GPU-0").memory_version, Some(MemoryVersion::V2));
    // As long as the choice of another one would take.
    let fault = Fault {
        times: Some(3),
        ..Fault::new("nvmlDeviceGetMemoryInfo_v2", FaultKind::Code(999))
    };
    world.gpu.reload_driver();
    world.gpu.inject(fault).expect("fault");
    world.event(EventKind::SamplingGap);
    for _ in 0..9 {
        world.sample("GPU-0");
    }
    let mut samples = world.seen.iter().filter_map(|batch| batch.device("GPU-0"));
    assert!(samples.all(|sample| sample.memory_version != Some(MemoryVersion::V1)));
    assert_eq!(world.sample("GPU-0").memory_version, Some(MemoryVersion::V2));
}

#[test]
fn a_new_memory_call_that_vanishes_is_replaced() {
    let mut world = World::new(&[card(0)]);
    set_scene(&world.gpu.device(0));
    world.start();
    assert_eq!(world.sample("GPU-0"), expected());
    world
        .gpu
        .inject(Fault::new("nvmlDeviceGetMemoryInfo_v2", FaultKind::Code(3)))
        .expect("fault");
    assert_eq!(world.sample("GPU-0"), expected_of_v1());
}

#[test]
fn what_cannot_be_is_unknown_and_what_disagrees_is_passed_on() {
    let mut world = World::new(&[card(0)]);
    let device = world.gpu.device(0);
    device.set_gpu_busy_percent(101);
    device.set_memory_busy_percent(100);
    device.set_other_used_bytes(30 * GIB);
    world.start();
    let sample = world.sample("GPU-0");
    assert_eq!(
        (sample.gpu_busy_ratio, sample.memory_busy_ratio),
        (None, Some(1.0))
    );
    assert_eq!(
        (sample.used_bytes, sample.free_bytes),
        (Some(30 * GIB), Some(0)),
        "more than there is"
    );
    assert!(world.lost("implausible_utilization") > 0);
}

#[test]
fn calls_that_fail_now_and_then_cost_their_figures_and_nothing_else() {
    let mut world = World::new(&[card(0), card(1)]);
    world.start();
    world.sample("GPU-0");
    let fault = Fault {
        every: 5,
        ..Fault::new("*", FaultKind::Code(999))
    };
    world.gpu.inject(fault).expect("fault");
    for _ in 0..200 {
        world.tick();
    }
    world.gpu.clear_faults();
    let batch = world.batch_with("GPU-0");
    assert!(
        batch
            .device("GPU-0")
            .is_some_and(|sample| sample.power_watts.is_some())
    );
    assert!(world.lost("power_failed") + world.lost("temperature_failed") > 0);
    assert_eq!(
        world.told(),
        <[&str; 0]>::default(),
        "no device and no driver is given up for that"
    );
    assert_eq!(world.gpu.calls("nvmlInit_v2"), 1);
}

#[test]
fn figures_that_change_between_any_two_calls_are_passed_on_as_they_come() {
    let mut world = World::new(&[card(0)]);
    let (device, process) = (
        world.gpu.device(0),
        world.gpu.attach(0, std::process::id()).expect("attach"),
    );
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                device.set_other_used_bytes(round % 40 * GIB);
                process.resize(round % 3 * GIB).unwrap_or_default();
                device.set_mig_mode(round % 100 == 50);
            }
        });
        world.start();
        for _ in 0..300 {
            let sample = world.sample("GPU-0");
            assert!(sample.used_bytes.is_some() && sample.total_bytes == Some(24 * GIB));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(world.told(), <[&str; 0]>::default());
}

#[test]
fn a_sample_takes_a_fixed_number_of_calls() {
    let mut world = World::new(&[card(0), card(1), card(2)]);
    let _process = world.gpu.attach(0, std::process::id()).expect("attach");
    world.start();
    world.answer();
    let count = |world: &World| FUNCTIONS_OF_A_SAMPLE.map(|(function, _)| world.gpu.calls(function));
    let (before, samples) = (count(&world), 50);
    for _ in 0..samples {
        world.answer();
    }
    let (after, devices) = (count(&world), 3);
    for ((function, per_device), (before, after)) in FUNCTIONS_OF_A_SAMPLE
        .into_iter()
        .zip(before.into_iter().zip(after))
    {
        assert!(
            after - before <= per_device * devices * samples,
            "{function}: {} calls",
            after - before
        );
    }
    assert_eq!(world.gpu.calls("nvmlInit_v2"), 1);
    assert_eq!(world.gpu.calls("nvmlDeviceGetName"), devices, "asked once");
}

/// How often each function may be asked per device and sample.
const FUNCTIONS_OF_A_SAMPLE: [(&str, u64); 12] = [
    ("nvmlDeviceGetMemoryInfo_v2", 1),
    ("nvmlDeviceGetMemoryInfo", 0),
    ("nvmlDeviceGetUtilizationRates", 1),
    ("nvmlDeviceGetTemperature", 1),
    ("nvmlDeviceGetClockInfo", 2),
    ("nvmlDeviceGetComputeRunningProcesses_v3", 1),
    ("nvmlDeviceGetComputeRunningProcesses_v2", 0),
    ("nvmlDeviceGetGraphicsRunningProcesses_v3", 1),
    ("nvmlDeviceGetProcessUtilization", 1),
    ("nvmlDeviceGetPcieThroughput", 0),
    ("nvmlDeviceGetHandleByIndex_v2", 0),
    ("nvmlDeviceGetUUID", 0),
];

#[test]
fn throttling_is_told_when_it_begins() {
    let mut world = World::new(&[card(0)]);
    world.start();
    world.sample("GPU-0");
    world.gpu.device(0).set_throttle_reasons(0x4);
    world.sample("GPU-0");
    world.gpu.device(0).set_throttle_reasons(0x40);
    let event = world.event(EventKind::Throttle);
    assert_eq!(event.detail["reasons"][0], "hardware thermal slowdown");
    assert_eq!(event.device.as_deref(), Some("GPU-0"));
    for _ in 0..20 {
        world.sample("GPU-0");
    }
    assert_eq!(world.told(), ["throttle GPU-0"]);
}

#[test]
fn throughput_is_read_on_the_slow_lane_and_shown_once() {
    let mut world = World::new(&[card(0), card(1)]);
    for device in world.gpu.devices() {
        device.set_pcie_sent_kb_per_sec(1_000);
        device.set_pcie_received_kb_per_sec(2_000);
    }
    world.options.slow_lane = Duration::from_secs(3_600);
    world.start();
    assert_eq!(
        world.sample("GPU-0").pcie_tx_bytes_per_sec,
        None,
        "not with the first sample"
    );
    for device in ["GPU-0", "GPU-1"] {
        let sample = world.until("throughput", |batch| {
            batch
                .device(device)
                .filter(|sample| sample.pcie_rx_bytes_per_sec.is_some())
                .cloned()
        });
        assert_eq!(sample.pcie_tx_bytes_per_sec, Some(1_000_000));
        assert_eq!(sample.pcie_rx_bytes_per_sec, Some(2_000_000));
    }
    assert_eq!(
        world.gpu.calls("nvmlDeviceGetPcieThroughput"),
        4,
        "two directions of two devices, once in an hour"
    );
    assert_eq!(world.sample("GPU-1").pcie_rx_bytes_per_sec, None, "shown once");
}

#[test]
fn no_slow_lane_no_throughput() {
    let mut world = World::new(&[card(0)]);
    world.start();
    for _ in 0..50 {
        world.sample("GPU-0");
    }
    assert_eq!(world.gpu.calls("nvmlDeviceGetPcieThroughput"), 0);
}
