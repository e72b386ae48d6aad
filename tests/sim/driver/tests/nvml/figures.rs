//! Every figure to the byte.

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{
    Brand, Clock, PcieUtilCounter, PerformanceState, TemperatureSensor,
};
use nvml_wrapper::enums::device::DeviceArchitecture;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlMemory_t};
use plimsoll_sim_gpu::DeviceSpec;

use crate::world::{GIB, cards, with_nvml};

/// Memory as version 1 of the function says it.
pub(crate) fn memory_v1(nvml: &nvml_wrapper::Nvml, device: nvmlDevice_t) -> Result<nvmlMemory_t, u32> {
    let call = nvml.lib().nvmlDeviceGetMemoryInfo.as_ref().expect("exported");
    let mut memory = nvmlMemory_t {
        total: 0,
        free: 0,
        used: 0,
    };
    // SAFETY: the struct lives during the call; the handle is whatever the test passes, which the library allows.
    match unsafe { call(device, &mut memory) } {
        0 => Ok(memory),
        code => Err(code),
    }
}

#[test]
fn memory_to_the_byte_in_both_versions() {
    with_nvml(&cards(), |gpu, nvml| {
        let process = gpu.attach(0, std::process::id()).expect("attached");
        process.resize(5 * GIB + 12_345).expect("there is room");
        gpu.device(0).set_other_used_bytes(7);
        let device = nvml.device_by_index(0).expect("there");
        let reserved = 300 << 20;
        let used = 5 * GIB + 12_352;
        let v2 = device.memory_info().expect("known");
        assert_eq!(
            (v2.total, v2.reserved, v2.used, v2.free),
            (24 * GIB, reserved, used, 24 * GIB - reserved - used)
        );
        // SAFETY: the handle is only passed back to the library.
        let v1 = memory_v1(nvml, unsafe { device.handle() }).expect("known");
        assert_eq!((v1.total, v1.used, v1.free), (24 * GIB, used + reserved, v2.free));
        let other = nvml
            .device_by_index(1)
            .expect("there")
            .memory_info()
            .expect("known");
        assert_eq!(
            (other.total, other.reserved, other.used, other.free),
            (8 * GIB, 0, 0, 8 * GIB)
        );
        // More in use than there is: no figure wraps around.
        gpu.device(1).set_other_used_bytes(9 * GIB);
        let other = nvml
            .device_by_index(1)
            .expect("there")
            .memory_info()
            .expect("known");
        assert_eq!((other.used, other.free), (9 * GIB, 0));
    });
}

#[test]
fn the_other_version_of_a_struct_is_refused() {
    with_nvml(&cards(), |_, nvml| {
        let device = nvml.device_by_index(0).expect("there");
        let call = nvml.lib().nvmlDeviceGetMemoryInfo_v2.as_ref().expect("exported");
        let mut memory = nvml_wrapper_sys::bindings::nvmlMemory_v2_t {
            version: 40 | 3 << 24,
            total: 0,
            reserved: 0,
            free: 0,
            used: 0,
        };
        // SAFETY: the struct lives during the call.
        assert_eq!(unsafe { call(device.handle(), &mut memory) }, 25);
    });
}

#[test]
fn what_a_device_is() {
    with_nvml(&cards(), |gpu, nvml| {
        gpu.set_driver_version("535.54.03");
        assert_eq!(nvml.sys_driver_version().expect("known"), "535.54.03");
        assert_eq!(nvml.sys_nvml_version().expect("known"), "13.535.54.03");
        assert_eq!(nvml.sys_cuda_driver_version().expect("known"), 13_000);
        assert_eq!(nvml.device_count().expect("known"), 2);
        let device = nvml.device_by_index(1).expect("there");
        assert_eq!(device.uuid().expect("known"), "GPU-22222222-bbbb");
        assert_eq!(device.name().expect("known"), "Simulated 8 GiB");
        assert_eq!(
            (
                device.index().expect("known"),
                device.minor_number().expect("known")
            ),
            (1, 1)
        );
        assert_eq!(device.brand().expect("known"), Brand::Nvidia);
        assert_eq!(device.architecture().expect("known"), DeviceArchitecture::Hopper);
        let pci = device.pci_info().expect("known");
        assert_eq!((pci.bus_id.as_str(), pci.bus), ("00000000:1C:00.0", 0x1C));
        for id in ["00000000:1C:00.0", "0000:1c:00.0", "1C:00.0"] {
            assert_eq!(
                nvml.device_by_pci_bus_id(id).expect(id).index().expect("known"),
                1
            );
        }
        for id in ["00000000:99:00.0", "0001:1C:00.0"] {
            assert!(
                matches!(nvml.device_by_pci_bus_id(id), Err(NvmlError::NotFound)),
                "{id}"
            );
        }
        assert!(matches!(
            nvml.device_by_pci_bus_id("rubbish"),
            Err(NvmlError::InvalidArg)
        ));
        assert_eq!(
            nvml.device_by_uuid("GPU-11111111-aaaa")
                .expect("there")
                .index()
                .expect("known"),
            0
        );
        assert!(matches!(nvml.device_by_uuid("GPU-3"), Err(NvmlError::NotFound)));
        assert!(matches!(nvml.device_by_index(2), Err(NvmlError::InvalidArg)));
    });
}

#[test]
fn what_a_device_does() {
    with_nvml(&cards(), |gpu, nvml| {
        let (state, device) = (gpu.device(0), nvml.device_by_index(0).expect("there"));
        state.set_gpu_busy_percent(93);
        state.set_memory_busy_percent(41);
        state.set_temperature_celsius(77);
        state.set_power_milliwatts(611_500);
        state.set_power_limit_milliwatts(650_000);
        state.set_sm_clock_mhz(1_755);
        state.set_memory_clock_mhz(2_601);
        state.set_performance_state(2);
        state.set_throttle_reasons(ThrottleReasons::SW_POWER_CAP.bits());
        state.set_pcie_sent_kb_per_sec(12_000);
        state.set_pcie_received_kb_per_sec(34_000);
        state.set_bar1_used_bytes(5);
        let busy = device.utilization_rates().expect("known");
        assert_eq!((busy.gpu, busy.memory), (93, 41));
        assert_eq!(device.temperature(TemperatureSensor::Gpu).expect("known"), 77);
        assert_eq!(
            (
                device.power_usage().expect("known"),
                device.enforced_power_limit().expect("known")
            ),
            (611_500, 650_000)
        );
        let clocks =
            [Clock::SM, Clock::Graphics, Clock::Memory].map(|kind| device.clock_info(kind).expect("known"));
        assert_eq!(clocks, [1_755, 1_755, 2_601]);
        assert_eq!(device.max_clock_info(Clock::SM).expect("known"), 1_980);
        assert_eq!(device.performance_state().expect("known"), PerformanceState::Two);
        assert_eq!(
            device.current_throttle_reasons().expect("known"),
            ThrottleReasons::SW_POWER_CAP
        );
        assert_eq!(
            device.pcie_throughput(PcieUtilCounter::Send).expect("known"),
            12_000
        );
        assert_eq!(
            device.pcie_throughput(PcieUtilCounter::Receive).expect("known"),
            34_000
        );
        let bar1 = device.bar1_memory_info().expect("known");
        assert_eq!((bar1.total, bar1.used, bar1.free), (32 * GIB, 5, 32 * GIB - 5));
    });
}

#[test]
fn values_that_nobody_knows_pass_through() {
    with_nvml(&cards(), |gpu, nvml| {
        let (state, device) = (gpu.device(0), nvml.device_by_index(0).expect("there"));
        state.set_performance_state(99);
        state.set_brand(77);
        state.set_architecture(42);
        state.set_throttle_reasons(u64::MAX);
        state.set_gpu_busy_percent(250);
        assert!(matches!(
            device.performance_state(),
            Err(NvmlError::UnexpectedVariant(99))
        ));
        assert!(matches!(device.brand(), Err(NvmlError::UnexpectedVariant(77))));
        assert!(matches!(
            device.architecture(),
            Err(NvmlError::UnexpectedVariant(42))
        ));
        assert!(device.current_throttle_reasons_strict().is_err());
        assert_eq!(device.utilization_rates().expect("known").gpu, 250);
    });
}

#[test]
fn null_pointers_and_rubbish_are_invalid_arguments() {
    with_nvml(&cards(), |_, nvml| {
        let device = nvml.device_by_index(0).expect("there");
        let lib = nvml.lib();
        let null: nvmlDevice_t = std::ptr::null_mut();
        // SAFETY: null is what the library must refuse, and a handle is never followed as an address.
        unsafe {
            let handle = device.handle();
            assert_eq!(lib.nvmlDeviceGetCount_v2(std::ptr::null_mut()), 2);
            assert_eq!(lib.nvmlDeviceGetMemoryInfo(handle, std::ptr::null_mut()), 2);
            assert_eq!(lib.nvmlDeviceGetMemoryInfo_v2(handle, std::ptr::null_mut()), 2);
            assert_eq!(lib.nvmlDeviceGetName(handle, std::ptr::null_mut(), 96), 2);
            assert_eq!(
                lib.nvmlDeviceGetHandleByUUID(std::ptr::null(), std::ptr::null_mut()),
                2
            );
            assert_eq!(
                lib.nvmlDeviceGetComputeRunningProcesses_v3(
                    handle,
                    std::ptr::null_mut(),
                    std::ptr::null_mut()
                ),
                2
            );
            let mut value = 0;
            for rubbish in [
                null,
                null.wrapping_byte_add(0x7FFF_1234_5678),
                null.wrapping_byte_sub(1),
            ] {
                assert_eq!(lib.nvmlDeviceGetPowerUsage(rubbish, &mut value), 2);
            }
            let mut short = [1; 8];
            assert_eq!(lib.nvmlDeviceGetName(handle, short.as_mut_ptr(), 8), 7);
            assert_eq!(short, [1; 8]);
            assert_eq!(lib.nvmlEventSetFree(std::ptr::null_mut()), 2);
        }
    });
}

#[test]
fn a_device_that_leaves_the_list_moves_the_others_up() {
    with_nvml(&cards(), |gpu, nvml| {
        gpu.device(0).set_present(false);
        assert_eq!(nvml.device_count().expect("known"), 1);
        let device = nvml.device_by_index(0).expect("there");
        assert_eq!(device.uuid().expect("known"), "GPU-22222222-bbbb");
        assert_eq!(
            (
                device.index().expect("known"),
                device.minor_number().expect("known")
            ),
            (0, 1)
        );
        assert!(matches!(
            nvml.device_by_uuid("GPU-11111111-aaaa"),
            Err(NvmlError::NotFound)
        ));
    });
}

#[test]
fn no_device_at_all() {
    crate::world::with_state(&[] as &[DeviceSpec], |_| {
        let library = crate::world::library();
        let none = crate::world::init(&library).expect_err("refused");
        assert!(matches!(none, NvmlError::UnexpectedVariant(28)), "{none:?}");
        let flags = nvml_wrapper::bitmasks::InitFlags::NO_GPUS;
        let nvml = nvml_wrapper::Nvml::builder()
            .lib_path(library.as_os_str())
            .flags(flags)
            .init()
            .expect("initialised");
        assert_eq!(nvml.device_count().expect("known"), 0);
    });
}
