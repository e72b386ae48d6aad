//! Xids as events.

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::event::EventData;
use plimsoll_sim_gpu::{Fault, FaultKind};

use crate::world::{cards, with_nvml};

fn told(event: EventData<'_>) -> (String, Option<XidError>) {
    assert_eq!(event.event_type, EventTypes::CRITICAL_XID_ERROR);
    (event.device.uuid().expect("known"), event.event_data)
}

#[test]
fn an_xid_reaches_the_sets_that_listen_for_its_device() {
    with_nvml(&cards(), |gpu, nvml| {
        gpu.raise_xid(0, 13);
        let (first, second) = (
            nvml.device_by_index(0).expect("there"),
            nvml.device_by_index(1).expect("there"),
        );
        assert!(
            first
                .supported_event_types()
                .expect("known")
                .contains(EventTypes::CRITICAL_XID_ERROR)
        );
        let both = nvml.create_event_set().expect("made");
        let both = first
            .register_events(EventTypes::CRITICAL_XID_ERROR, both)
            .map_err(|e| e.error)
            .expect("listening");
        let both = second
            .register_events(EventTypes::CRITICAL_XID_ERROR, both)
            .map_err(|e| e.error)
            .expect("listening");
        let one = nvml.create_event_set().expect("made");
        let one = second
            .register_events(EventTypes::CRITICAL_XID_ERROR, one)
            .map_err(|e| e.error)
            .expect("listening");
        assert_eq!(gpu.open_event_sets(), 2);
        assert!(matches!(both.wait(0), Err(NvmlError::Timeout)));
        gpu.raise_xid(0, 48);
        gpu.raise_xid(1, 79);
        assert_eq!(
            told(both.wait(0).expect("an event")),
            ("GPU-11111111-aaaa".to_owned(), Some(XidError::Value(48)))
        );
        assert_eq!(
            told(both.wait(0).expect("an event")),
            ("GPU-22222222-bbbb".to_owned(), Some(XidError::Value(79)))
        );
        assert!(matches!(both.wait(0), Err(NvmlError::Timeout)));
        assert_eq!(told(one.wait(0).expect("an event")).1, Some(XidError::Value(79)));
        assert!(matches!(one.wait(0), Err(NvmlError::Timeout)));
        one.release_events().expect("released");
        assert_eq!(gpu.open_event_sets(), 1);
    });
}

#[test]
fn a_waiting_set_wakes_up() {
    with_nvml(&cards(), |gpu, nvml| {
        let device = nvml.device_by_index(0).expect("there");
        let set = nvml.create_event_set().expect("made");
        let set = device
            .register_events(EventTypes::CRITICAL_XID_ERROR, set)
            .map_err(|e| e.error)
            .expect("listening");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(move || set.wait(60_000).map(told));
            crate::world::eventually("it waits", || gpu.calls("nvmlEventSetWait_v2") == 1);
            gpu.raise_xid(0, 31);
            let event = waiting.join().expect("no panic").expect("an event");
            assert_eq!(event.1, Some(XidError::Value(31)));
        });
    });
}

#[test]
fn a_lost_device_is_told_after_its_last_event_and_a_reload_at_once() {
    with_nvml(&cards(), |gpu, nvml| {
        let device = nvml.device_by_index(0).expect("there");
        let set = nvml.create_event_set().expect("made");
        let set = device
            .register_events(EventTypes::CRITICAL_XID_ERROR, set)
            .map_err(|e| e.error)
            .expect("listening");
        gpu.raise_xid(0, 79);
        gpu.device(0).set_lost(true);
        let event = set.wait(60_000).expect("an event");
        assert_eq!(event.event_data, Some(XidError::Value(79)));
        assert!(matches!(set.wait(60_000), Err(NvmlError::GpuLost)));
        gpu.device(0).set_lost(false);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(move || matches!(set.wait(60_000), Err(NvmlError::GpuLost)));
            crate::world::eventually("it waits", || gpu.calls("nvmlEventSetWait_v2") == 3);
            gpu.reload_driver();
            assert!(waiting.join().expect("no panic"));
        });
    });
}

#[test]
fn events_can_be_unsupported() {
    with_nvml(&cards(), |gpu, nvml| {
        gpu.inject(Fault::new("nvmlDeviceRegisterEvents", FaultKind::Code(3)))
            .expect("injected");
        let device = nvml.device_by_index(0).expect("there");
        let set = nvml.create_event_set().expect("made");
        let refused = device
            .register_events(EventTypes::CRITICAL_XID_ERROR, set)
            .expect_err("refused");
        assert!(matches!(refused.error, NvmlError::NotSupported));
    });
}
