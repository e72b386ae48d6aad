//! A card that is split into instances.

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use plimsoll_sim_gpu::DeviceSpec;

use crate::world::{GIB, with_nvml};

fn split_card() -> Vec<DeviceSpec> {
    let instance = |uuid| DeviceSpec {
        mig_parent: Some(0),
        ..DeviceSpec::new(uuid, "MIG 1g.10gb", 10 * GIB)
    };
    vec![
        DeviceSpec::new("GPU-a", "Simulated 80 GiB", 80 * GIB),
        instance("MIG-1"),
        instance("MIG-2"),
    ]
}

#[test]
fn instances_have_memory_of_their_own_and_no_utilisation() {
    with_nvml(&split_card(), |gpu, nvml| {
        assert_eq!(nvml.device_count().expect("known"), 1);
        let card = nvml.device_by_index(0).expect("there");
        assert!(card.mig_mode().expect("known").current != 0);
        assert_eq!(card.mig_device_count().expect("known"), 7);
        let second = card.mig_device_by_index(1).expect("there");
        assert_eq!(second.uuid().expect("known"), "MIG-2");
        assert!(second.mig_is_mig_device_handle().expect("known"));
        assert_eq!(
            second.mig_parent_device().expect("known").uuid().expect("known"),
            "GPU-a"
        );
        assert!(matches!(card.mig_device_by_index(2), Err(NvmlError::NotFound)));
        assert!(matches!(card.mig_parent_device(), Err(NvmlError::InvalidArg)));
        let process = gpu.attach(2, std::process::id()).expect("attached");
        process.resize(4 * GIB).expect("there is room");
        process.set_sm_busy_percent(50);
        assert_eq!(second.memory_info().expect("known").used, 4 * GIB);
        assert_eq!(
            card.mig_device_by_index(0)
                .expect("there")
                .memory_info()
                .expect("known")
                .used,
            0
        );
        assert_eq!(card.memory_info().expect("known").used, 4 * GIB);
        let list = card.running_compute_processes().expect("listed");
        assert_eq!(
            (list.len(), list[0].gpu_instance_id, list[0].compute_instance_id),
            (1, Some(1), Some(0))
        );
        assert_eq!(list[0].used_gpu_memory, UsedGpuMemory::Used(4 * GIB));
        assert_eq!(second.running_compute_processes().expect("listed").len(), 1);
        for device in [&card, &second] {
            assert!(matches!(device.utilization_rates(), Err(NvmlError::NotSupported)));
            assert!(matches!(
                device.process_utilization_stats(None),
                Err(NvmlError::NotSupported)
            ));
        }
        assert_eq!(card.temperature(TemperatureSensor::Gpu).expect("known"), 34);
        assert!(matches!(
            second.temperature(TemperatureSensor::Gpu),
            Err(NvmlError::NotSupported)
        ));
    });
}

#[test]
fn instance_ids() {
    with_nvml(&split_card(), |gpu, nvml| {
        gpu.device(1).set_compute_instance(3);
        let card = nvml.device_by_index(0).expect("there");
        let instance = nvml.device_by_uuid("MIG-1").expect("there");
        let mut id = 99;
        // SAFETY: the number lives during the calls.
        unsafe {
            assert_eq!(
                nvml.lib().nvmlDeviceGetGpuInstanceId(instance.handle(), &mut id),
                0
            );
            assert_eq!(id, 0);
            assert_eq!(
                nvml.lib()
                    .nvmlDeviceGetComputeInstanceId(instance.handle(), &mut id),
                0
            );
            assert_eq!(id, 3);
            assert_eq!(
                nvml.lib().nvmlDeviceGetComputeInstanceId(card.handle(), &mut id),
                3
            );
        }
    });
}

#[test]
fn switching_the_mode_off_ends_the_instances() {
    with_nvml(&split_card(), |gpu, nvml| {
        let card = nvml.device_by_index(0).expect("there");
        let instance = card.mig_device_by_index(0).expect("there");
        gpu.device(0).set_mig_mode(false);
        assert!(matches!(instance.memory_info(), Err(NvmlError::InvalidArg)));
        assert!(matches!(card.mig_device_by_index(0), Err(NvmlError::NotFound)));
        card.utilization_rates().expect("a whole card has it");
    });
}
