//! Faults that any function can have.

use std::time::{Duration, Instant};

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use plimsoll_sim_gpu::{Fault, FaultKind};

use crate::world::{cards, eventually, with_nvml};

const MEMORY: &str = "nvmlDeviceGetMemoryInfo_v2";

#[test]
fn a_code_for_one_function_and_device_after_some_calls_and_only_so_often() {
    with_nvml(&cards(), |gpu, nvml| {
        let (first, second) = (
            nvml.device_by_index(0).expect("there"),
            nvml.device_by_index(1).expect("there"),
        );
        let fault = Fault::new(MEMORY, FaultKind::Code(4));
        gpu.inject(Fault {
            device: Some(1),
            after_calls: 2,
            times: Some(2),
            ..fault
        })
        .expect("injected");
        let went: Vec<bool> = (0..6).map(|_| second.memory_info().is_ok()).collect();
        assert_eq!(went, [true, true, false, false, true, true]);
        assert!((0..6).all(|_| first.memory_info().is_ok()));
        assert_eq!(gpu.calls(MEMORY), 12);
        gpu.inject(fault).expect("injected");
        assert!(matches!(first.memory_info(), Err(NvmlError::NoPermission)));
        gpu.clear_faults();
        gpu.inject(Fault::new(MEMORY, FaultKind::Code(12_345)))
            .expect("injected");
        assert!(first.memory_info().is_err());
    });
}

#[test]
fn everything_but_memory_is_not_supported() {
    with_nvml(&cards(), |gpu, nvml| {
        let device = nvml.device_by_index(0).expect("there");
        for function in [
            "nvmlDeviceGetTemperature",
            "nvmlDeviceGetUtilizationRates",
            "nvmlDeviceGetPowerUsage",
        ] {
            gpu.inject(Fault::new(function, FaultKind::Code(3)))
                .expect("injected");
        }
        assert!(matches!(
            device.temperature(TemperatureSensor::Gpu),
            Err(NvmlError::NotSupported)
        ));
        assert!(matches!(device.utilization_rates(), Err(NvmlError::NotSupported)));
        assert!(matches!(device.power_usage(), Err(NvmlError::NotSupported)));
        device.memory_info().expect("known");
    });
}

#[test]
fn a_hanging_call_holds_up_nobody_else_and_ends_when_told() {
    with_nvml(&cards(), |gpu, nvml| {
        let fault = Fault {
            device: Some(0),
            ..Fault::new(MEMORY, FaultKind::Hang)
        };
        let hang = gpu.inject(fault).expect("injected");
        std::thread::scope(|scope| {
            let stuck = scope.spawn(|| nvml.device_by_index(0)?.memory_info());
            eventually("the call is on its way", || gpu.calls(MEMORY) == 1);
            nvml.device_by_index(1)
                .expect("there")
                .memory_info()
                .expect("known");
            nvml.device_by_index(0)
                .expect("there")
                .temperature(TemperatureSensor::Gpu)
                .expect("known");
            assert!(!stuck.is_finished());
            gpu.withdraw(hang);
            stuck.join().expect("no panic").expect("known");
        });
    });
}

#[test]
fn slow_and_busy_calls_take_their_time() {
    with_nvml(&cards(), |gpu, nvml| {
        let device = nvml.device_by_index(0).expect("there");
        let time = Duration::from_millis(30);
        for kind in [FaultKind::Delay(time), FaultKind::Busy(time)] {
            gpu.inject(Fault::new(MEMORY, kind)).expect("injected");
            let begin = Instant::now();
            device.memory_info().expect("known");
            assert!(begin.elapsed() >= time, "{kind:?}");
            gpu.clear_faults();
        }
    });
}

#[test]
fn no_value_is_all_ones() {
    with_nvml(&cards(), |gpu, nvml| {
        gpu.inject(Fault::new("*", FaultKind::AllOnes)).expect("injected");
        let device = nvml.device_by_index(0).expect("there");
        assert_eq!(device.uuid().expect("known"), "GPU-11111111-aaaa");
        let memory = device.memory_info().expect("known");
        assert_eq!((memory.total, memory.used), (u64::MAX, u64::MAX));
        assert_eq!(
            device.temperature(TemperatureSensor::Gpu).expect("known"),
            u32::MAX
        );
        assert_eq!(device.utilization_rates().expect("known").gpu, u32::MAX);
    });
}

#[test]
fn a_device_that_falls_off_the_bus_and_returns() {
    with_nvml(&cards(), |gpu, nvml| {
        let (first, second) = (
            nvml.device_by_index(0).expect("there"),
            nvml.device_by_index(1).expect("there"),
        );
        gpu.device(0).set_lost(true);
        assert!(matches!(first.memory_info(), Err(NvmlError::GpuLost)));
        assert!(matches!(nvml.device_by_index(0), Err(NvmlError::GpuLost)));
        second.memory_info().expect("the other one goes on");
        assert_eq!(nvml.device_count().expect("known"), 2);
        gpu.device(0).set_lost(false);
        first.memory_info().expect("it is back");
    });
}
