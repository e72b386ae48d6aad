//! The processes of a device.

use std::process::{Child, Command};

use plimsoll_sim_gpu::{Context, Fault, FaultKind, Process};
use plimsoll_trace::{Batch, ProcessSample};

use crate::world::{GIB, Look, World, card};

const LISTS: [&str; 3] = [
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
];

/// Processes that live as long as this does.
struct Crowd(Vec<Child>);

impl Crowd {
    fn new(size: usize) -> Self {
        let sleep = || Command::new("sleep").arg("600").spawn().expect("sleep");
        Self((0..size).map(|_| sleep()).collect())
    }

    /// Each on the device, with one GiB, two MiB, … of memory.
    fn on(&self, world: &World, device: usize) -> Vec<Process> {
        let attach = |(number, child): (usize, &Child)| {
            let process = world.gpu.attach(device, child.id()).expect("attach");
            process.resize((number as u64 + 1) << 20).expect("memory");
            process
        };
        self.0.iter().enumerate().map(attach).collect()
    }

    fn rows(&self) -> Vec<(u32, Option<u64>)> {
        let row = |(number, child): (usize, &Child)| (child.id(), Some((number as u64 + 1) << 20));
        let mut rows: Vec<_> = self.0.iter().enumerate().map(row).collect();
        rows.sort_unstable();
        rows
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().expect("kill");
            child.wait().expect("wait");
        }
    }
}

fn rows(batch: &Batch, device: &str) -> Vec<(u32, Option<u64>)> {
    batch
        .processes(device)
        .iter()
        .map(|row| (row.pid, row.used_bytes))
        .collect()
}

#[test]
fn a_process_is_listed_to_the_byte_on_each_of_its_devices() {
    let mut world = World::new(&[card(0), card(1)]);
    let own = std::process::id();
    let [first, second] = [0, 1].map(|device| world.gpu.attach(device, own).expect("attach"));
    first.resize(3 * GIB + 1).expect("memory");
    second.resize(GIB).expect("memory");
    world.start();
    let batch = world.batch_with("GPU-0");
    let name = std::fs::read_to_string("/proc/self/comm").expect("comm");
    let expected = ProcessSample {
        device: "GPU-0".into(),
        pid: own,
        run: None,
        used_bytes: Some(3 * GIB + 1),
        sm_busy_ratio: None,
        process: Some(name.trim_end().into()),
        container: plimsoll_collectors::container_of(own),
    };
    assert_eq!(batch.processes("GPU-0"), [&expected]);
    assert_eq!(rows(&batch, "GPU-1"), [(own, Some(GIB))]);
    drop(first);
    world.until("its end on the first device", |batch| {
        (batch.device("GPU-0").is_some() && rows(batch, "GPU-0").is_empty()).then_some(())
    });
    assert_eq!(rows(&world.batch_with("GPU-1"), "GPU-1"), [(own, Some(GIB))]);
}

#[test]
fn a_process_in_several_lists_is_one_row() {
    let mut world = World::new(&[card(0)]);
    let process = world.gpu.attach(0, std::process::id()).expect("attach");
    process.resize(GIB).expect("memory");
    for contexts in [
        &[Context::Compute, Context::Graphics, Context::Mps][..],
        &[Context::Graphics],
        &[Context::Mps],
    ] {
        process.set_contexts(contexts);
        if contexts.len() == 3 {
            world.start();
        }
        assert_eq!(
            rows(&world.batch_with("GPU-0"), "GPU-0"),
            [(std::process::id(), Some(GIB))],
            "{contexts:?}"
        );
    }
}

#[test]
fn a_list_longer_than_the_buffer_is_complete() {
    let mut world = World::new(&[card(0)]);
    let crowd = Crowd::new(150);
    let _processes = crowd.on(&world, 0);
    world.start();
    let batch = world.batch_with("GPU-0");
    assert_eq!(rows(&batch, "GPU-0"), crowd.rows());
    assert_eq!(world.lost("processes_failed"), 0);
}

#[test]
fn every_generation_of_the_lists_serves() {
    let v3 = LISTS;
    let v2 = LISTS.map(|name| name.replace("_v3", "_v2"));
    let without_v3: Vec<&str> = v3.to_vec();
    let without_v2: Vec<&str> = v3.iter().copied().chain(v2.iter().map(String::as_str)).collect();
    let crowd = Crowd::new(3);
    for missing in [vec![], without_v3, without_v2] {
        let mut world = World::without(&missing, &[card(0)]);
        let processes = crowd.on(&world, 0);
        processes[1].set_contexts(&[Context::Graphics]);
        world.start();
        assert_eq!(
            rows(&world.batch_with("GPU-0"), "GPU-0"),
            crowd.rows(),
            "without {missing:?}"
        );
        assert_eq!(world.lost("processes_failed"), 0);
    }
}

#[test]
fn a_library_without_any_list_leaves_processes_unknown() {
    let v1 = LISTS.map(|name| name.replace("_v3", ""));
    let v2 = LISTS.map(|name| name.replace("_v3", "_v2"));
    let all: Vec<&str> = LISTS
        .into_iter()
        .chain(v2.iter().map(String::as_str))
        .chain(v1.iter().take(2).map(String::as_str))
        .collect();
    let mut world = World::without(&all, &[card(0)]);
    let _process = world.gpu.attach(0, std::process::id()).expect("attach");
    world.start();
    assert!(rows(&world.batch_with("GPU-0"), "GPU-0").is_empty());
    assert!(world.lost("processes_unsupported") > 0);
}

#[test]
fn a_failed_list_is_a_loss_and_not_an_empty_list() {
    for function in LISTS {
        let mut world = World::new(&[card(0), card(1)]);
        let crowd = Crowd::new(2);
        let processes = crowd.on(&world, 0);
        let _elsewhere = crowd.on(&world, 1);
        processes[1].set_contexts(&[Context::Graphics]);
        world.start();
        assert_eq!(rows(&world.batch_with("GPU-0"), "GPU-0"), crowd.rows());
        let names = [
            function.to_owned(),
            function.replace("_v3", "_v2"),
            function.replace("_v3", ""),
        ];
        for code in [999, 3, 15] {
            for name in &names {
                let fault = Fault {
                    device: Some(0),
                    ..Fault::new(name, FaultKind::Code(code))
                };
                world.gpu.inject(fault).expect("fault");
            }
            for _ in 0..3 {
                let batch = world.batch_with("GPU-0");
                assert!(
                    rows(&batch, "GPU-0").is_empty(),
                    "{function} answers {code}: nothing is known"
                );
                assert_eq!(batch.lost("processes_failed"), 1, "and the same batch says so");
                assert_eq!(
                    rows(&batch, "GPU-1"),
                    crowd.rows(),
                    "the other device is not concerned"
                );
            }
            world.gpu.clear_faults();
            assert_eq!(rows(&world.batch_with("GPU-0"), "GPU-0"), crowd.rows());
        }
    }
}

#[test]
fn a_list_that_grows_between_calls_is_read_all_the_same() {
    let mut world = World::new(&[card(0)]);
    let crowd = Crowd::new(2);
    let _processes = crowd.on(&world, 0);
    world
        .gpu
        .inject(Fault::new(LISTS[0], FaultKind::GrowingList(70)))
        .expect("fault");
    world.start();
    for _ in 0..10 {
        assert_eq!(rows(&world.batch_with("GPU-0"), "GPU-0"), crowd.rows());
    }
    assert_eq!(world.lost("processes_failed"), 0);
    assert!(
        world.lost("unbelievable_process") > 0,
        "the made-up ones are nobody"
    );
}

#[test]
fn a_count_that_succeeds_hides_no_process() {
    let mut world = World::new(&[card(0)]);
    let crowd = Crowd::new(2);
    let _processes = crowd.on(&world, 0);
    world
        .gpu
        .inject(Fault::new("*", FaultKind::CountIsSuccess))
        .expect("fault");
    world.start();
    assert_eq!(rows(&world.batch_with("GPU-0"), "GPU-0"), crowd.rows());
}

#[test]
fn memory_that_the_driver_does_not_tell_is_unknown() {
    let mut world = World::new(&[card(0)]);
    let process = world.gpu.attach(0, std::process::id()).expect("attach");
    process.resize(GIB).expect("memory");
    world
        .gpu
        .inject(Fault::new(LISTS[0], FaultKind::UnknownProcessMemory))
        .expect("fault");
    world.start();
    assert_eq!(
        rows(&world.batch_with("GPU-0"), "GPU-0"),
        [(std::process::id(), None)]
    );
}

#[test]
fn records_that_cannot_be_are_left_out_and_counted() {
    let mut world = World::new(&[card(0)]);
    let own = world.gpu.attach(0, std::process::id()).expect("attach");
    let _phantoms =
        [0, u32::MAX, (1 << 22) + 5].map(|pid| world.gpu.attach_phantom(0, pid, GIB).expect("phantom"));
    own.resize(GIB).expect("memory");
    world.start();
    assert_eq!(
        rows(&world.batch_with("GPU-0"), "GPU-0"),
        [(std::process::id(), Some(GIB))]
    );
    assert_eq!(world.lost("unbelievable_process"), 3);
}

#[test]
fn records_of_the_wrong_length_are_read_right() {
    let crowd = Crowd::new(20);
    for driver in ["535.54.03", "580.95.05"] {
        let mut world = World::new(&[card(0)]);
        world.gpu.set_driver_version(driver);
        let _processes = crowd.on(&world, 0);
        for name in LISTS {
            world
                .gpu
                .inject(Fault::new(name, FaultKind::LongRecords))
                .expect("fault");
        }
        world.start();
        assert_eq!(
            rows(&world.batch_with("GPU-0"), "GPU-0"),
            crowd.rows(),
            "driver {driver}"
        );
        assert_eq!(world.lost("unbelievable_process"), 0);
        let second = world.gpu.calls(&LISTS[0].replace("_v3", "_v2"));
        assert_eq!(
            second > 0,
            driver.starts_with("535"),
            "asked for the second generation by its version"
        );
    }
}

#[test]
fn a_process_that_dies_is_gone_with_the_next_list() {
    let mut world = World::new(&[card(0)]);
    let crowd = Crowd::new(1);
    let _processes = crowd.on(&world, 0);
    world.start();
    assert_eq!(rows(&world.batch_with("GPU-0"), "GPU-0"), crowd.rows());
    drop(crowd);
    world.until("an empty list", |batch| {
        (batch.device("GPU-0").is_some() && rows(batch, "GPU-0").is_empty()).then_some(())
    });
    assert_eq!(
        world.lost("unbelievable_process"),
        0,
        "it was somebody a moment ago"
    );
}

fn share(batch: &Batch, pid: u32) -> Option<f64> {
    batch
        .processes("GPU-0")
        .iter()
        .find(|row| row.pid == pid)?
        .sm_busy_ratio
}

#[test]
fn each_process_has_its_share_of_the_multiprocessors() {
    let mut world = World::new(&[card(0)]);
    let crowd = Crowd::new(2);
    let processes = crowd.on(&world, 0);
    let [first, second] = [0, 1].map(|number| crowd.0[number].id());
    processes[0].set_sm_busy_percent(45);
    processes[1].set_sm_busy_percent(30);
    world.start();
    world.until("the shares", |batch| {
        (share(batch, first) == Some(0.45)).then_some(())
    });
    world.until("the shares", |batch| {
        (share(batch, second) == Some(0.3)).then_some(())
    });
    // Idle is answered with nothing at all, which is no zero.
    processes[1].set_sm_busy_percent(0);
    for _ in 0..5 {
        let batch = world.until("news of the busy one", |batch| {
            share(batch, first).map(|_| batch.clone())
        });
        assert_eq!(share(&batch, second), None);
    }
    assert_eq!(world.lost("process_utilization_failed"), 0);
}

#[test]
fn shares_that_cannot_be_are_discarded_and_counted() {
    let mut world = World::new(&[card(0)]);
    let process = world.gpu.attach(0, std::process::id()).expect("attach");
    process.set_sm_busy_percent(3_000);
    world.start();
    world.until("the count", |batch| {
        (batch.lost("implausible_utilization") > 0).then_some(())
    });
    assert!(
        world
            .seen
            .iter()
            .all(|batch| share(batch, std::process::id()).is_none())
    );
}

#[test]
fn shares_that_were_seen_before_are_not_shown_again() {
    let mut world = World::new(&[card(0)]);
    let process = world.gpu.attach(0, std::process::id()).expect("attach");
    process.set_sm_busy_percent(45);
    world.start();
    world.until("the share", |batch| share(batch, std::process::id()));
    world
        .gpu
        .inject(Fault::new(
            "nvmlDeviceGetProcessUtilization",
            FaultKind::StaleStamps,
        ))
        .expect("fault");
    world.batch_with("GPU-0");
    for _ in 0..20 {
        assert_eq!(share(&world.batch_with("GPU-0"), std::process::id()), None);
    }
}

#[test]
fn shares_that_are_refused_are_unknown_and_asked_for_again_later() {
    let mut world = World::new(&[card(0)]);
    let process = world.gpu.attach(0, std::process::id()).expect("attach");
    process.set_sm_busy_percent(45);
    let refused = world
        .gpu
        .inject(Fault::new("nvmlDeviceGetProcessUtilization", FaultKind::Code(4)))
        .expect("fault");
    world.start();
    assert_eq!(share(&world.batch_with("GPU-0"), std::process::id()), None);
    assert_eq!(world.lost("process_utilization_failed"), 0);
    world.gpu.withdraw(refused);
    world.until("the share", |batch| share(batch, std::process::id()));
}
