//! Two handles on one state file, as two processes have them, and processes that die.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use plimsoll_sim_gpu::{
    Context, DeviceSpec, DriverState, Fault, FaultKind, Fired, Function, Gpu, GpuError, OutOfMemory, XidEvent,
};

const GIB: u64 = 1 << 30;

struct World {
    _folder: tempfile::TempDir,
    path: PathBuf,
    gpu: Gpu,
}

fn world() -> World {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("gpu.state");
    let card = DeviceSpec {
        reserved_bytes: GIB,
        ..DeviceSpec::new("GPU-a", "Simulated 24 GiB", 24 * GIB)
    };
    let gpu = Gpu::create(
        &path,
        &[card, DeviceSpec::new("GPU-b", "Simulated 8 GiB", 8 * GIB)],
    )
    .expect("created");
    World {
        _folder: folder,
        path,
        gpu,
    }
}

#[test]
fn what_one_handle_sets_the_other_reads() {
    let World { path, gpu, _folder } = world();
    let other = Gpu::open(&path).expect("opened");
    assert_eq!(other.device_count(), 2);
    assert_eq!(
        (other.device(0).uuid(), other.device(1).name()),
        ("GPU-a".to_owned(), "Simulated 8 GiB".to_owned())
    );
    let process = gpu.attach(0, std::process::id()).expect("attached");
    process.resize(5 * GIB + 1).expect("there is room");
    process.set_sm_busy_percent(42);
    process.set_contexts(&[Context::Compute, Context::Graphics]);
    gpu.device(0).set_other_used_bytes(GIB);
    gpu.device(1).set_temperature_celsius(71);
    assert_eq!(other.device(0).used_bytes(), 6 * GIB + 1);
    assert_eq!(other.device(0).free_bytes(), 17 * GIB - 1);
    assert_eq!(other.device(1).used_bytes(), 0);
    assert_eq!(other.device(1).temperature_celsius(), 71);
    let seen: Vec<_> = other.processes(0).collect();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].pid, seen[0].used_bytes, seen[0].sm_busy_percent),
        (std::process::id(), 5 * GIB + 1, 42)
    );
    assert!(seen[0].has(Context::Graphics) && !seen[0].has(Context::Mps));
    drop(process);
    assert_eq!(other.device(0).used_bytes(), GIB);
    assert_eq!(other.processes(0).count(), 0);
}

#[test]
fn memory_is_granted_whole_or_not_at_all() {
    let World { gpu, _folder, .. } = world();
    let (first, second) = (
        gpu.attach(0, std::process::id()),
        gpu.attach(0, std::process::id()),
    );
    let (first, second) = (first.expect("attached"), second.expect("attached"));
    first.resize(20 * GIB).expect("there is room");
    assert_eq!(
        second.resize(4 * GIB),
        Err(OutOfMemory {
            asked: 4 * GIB,
            free: 3 * GIB
        })
    );
    assert_eq!(second.used_bytes(), 0);
    second.resize(3 * GIB).expect("exactly what is left");
    assert_eq!(gpu.device(0).free_bytes(), 0);
    assert_eq!(first.resize(20 * GIB + 1), Err(OutOfMemory { asked: 1, free: 0 }));
    assert_eq!(first.used_bytes(), 20 * GIB);
    first.resize(GIB).expect("less is always granted");
    assert_eq!(gpu.device(0).free_bytes(), 19 * GIB);
}

#[test]
fn many_at_once_never_get_more_than_there_is() {
    let World { path, gpu, _folder } = world();
    let start = std::sync::Barrier::new(8);
    let granted: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let gpu = Gpu::open(&path).expect("opened");
                    let process = gpu.attach(0, std::process::id()).expect("attached");
                    start.wait();
                    while process.resize(process.used_bytes() + GIB / 4).is_ok() {}
                    let used = process.used_bytes();
                    process.leave();
                    used
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum()
    });
    assert_eq!(gpu.device(0).used_bytes(), granted);
    assert!(granted <= 23 * GIB, "{granted} bytes were granted");
    assert!(granted > 22 * GIB, "only {granted} bytes were granted");
}

#[test]
fn a_killed_process_frees_its_memory() {
    let World { gpu, _folder, .. } = world();
    let mut child = Command::new("sleep")
        .arg("600")
        .stdout(Stdio::null())
        .spawn()
        .expect("started");
    let process = gpu.attach(0, child.id()).expect("attached");
    process.resize(20 * GIB).expect("there is room");
    let own = gpu.attach(0, std::process::id()).expect("attached");
    assert!(own.resize(4 * GIB).is_err());
    child.kill().expect("killed");
    // Seen as soon as it is dead, before its parent has waited for it: a zombie has no memory.
    let before_wait = std::time::Instant::now();
    while gpu.device(0).used_bytes() != 0 && before_wait.elapsed() < Duration::from_secs(60) {
        std::thread::yield_now();
    }
    assert_eq!(gpu.device(0).used_bytes(), 0);
    child.wait().expect("waited");
    own.resize(4 * GIB).expect("there is room again");
    assert_eq!(gpu.processes(0).count(), 1);
    // Its place goes to the next one, and the old handle no longer reaches it.
    let next = gpu.attach(0, std::process::id()).expect("attached");
    next.resize(GIB).expect("there is room");
    process.resize(3).expect("less is always granted");
    drop(process);
    assert_eq!(next.used_bytes(), GIB);
    assert_eq!(gpu.device(0).used_bytes(), 5 * GIB);
}

#[test]
fn a_process_that_is_not_there_is_refused_and_a_phantom_is_not() {
    let World { gpu, _folder, .. } = world();
    assert!(matches!(
        gpu.attach(0, u32::MAX),
        Err(GpuError::NoProcess { pid: u32::MAX })
    ));
    assert!(matches!(
        gpu.attach(2, std::process::id()),
        Err(GpuError::NoDevice { index: 2, count: 2 })
    ));
    let phantom = gpu.attach_phantom(1, u32::MAX, 7 * GIB).expect("attached");
    gpu.attach_phantom(1, 0, 1).expect("attached").leave();
    assert_eq!(gpu.device(1).used_bytes(), 7 * GIB + 1);
    drop(phantom);
    assert_eq!(gpu.device(1).used_bytes(), 1);
}

#[test]
fn places_run_out_with_a_word_and_come_back() {
    let World { gpu, _folder, .. } = world();
    let mut all: Vec<_> = (0..1024)
        .map(|pid| gpu.attach_phantom(0, pid, 1).expect("attached"))
        .collect();
    assert_eq!(gpu.processes(0).count(), 1024);
    let full = gpu.attach_phantom(0, 1024, 1).expect_err("full");
    assert_eq!(
        full.to_string(),
        "the simulated GPU has no room for more processes (at most 1024)"
    );
    all.pop();
    gpu.attach_phantom(0, 1024, 1).expect("a place came back");
}

#[test]
fn instances_of_a_card_count_towards_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("gpu.state");
    let instance = |uuid| DeviceSpec {
        mig_parent: Some(0),
        ..DeviceSpec::new(uuid, "MIG 1g.10gb", 10 * GIB)
    };
    let card = DeviceSpec::new("GPU-a", "Simulated 80 GiB", 80 * GIB);
    let gpu = Gpu::create(&path, &[card, instance("MIG-1"), instance("MIG-2")]).expect("created");
    assert!(gpu.device(0).mig_mode());
    assert_eq!(gpu.device(2).mig_parent(), Some(0));
    assert_eq!(
        (gpu.device(1).gpu_instance(), gpu.device(2).gpu_instance()),
        (0, 1)
    );
    let process = gpu.attach(2, std::process::id()).expect("attached");
    process.resize(9 * GIB).expect("there is room");
    assert!(process.resize(11 * GIB).is_err());
    assert_eq!(
        (gpu.device(2).used_bytes(), gpu.device(0).used_bytes()),
        (9 * GIB, 9 * GIB)
    );
    assert_eq!(gpu.device(0).instances().count(), 2);
}

#[test]
fn xids_reach_each_reader_once_and_wake_it() {
    let World { path, gpu, _folder } = world();
    let other = Gpu::open(&path).expect("opened");
    gpu.raise_xid(0, 13);
    let mut cursor = other.xid_cursor();
    assert_eq!(other.next_xid(&mut cursor), None);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            loop {
                let heard = other.bell();
                if let Some(event) = other.next_xid(&mut cursor) {
                    return (event, other.next_xid(&mut cursor));
                }
                other.wait(heard, Duration::from_secs(60));
            }
        });
        gpu.raise_xid(1, 79);
        let got = reader.join().expect("no panic");
        assert_eq!(got, (XidEvent { device: 1, xid: 79 }, None));
    });
    for xid in 0..1000 {
        gpu.raise_xid(0, xid);
    }
    let rest: Vec<_> = std::iter::from_fn(|| other.next_xid(&mut cursor))
        .map(|event| event.xid)
        .collect();
    assert_eq!(rest, (745..1000).collect::<Vec<_>>());
}

#[test]
fn xids_raised_at_once_all_arrive() {
    let World { path, gpu, _folder } = world();
    let mut cursor = gpu.xid_cursor();
    std::thread::scope(|scope| {
        for device in 0..2 {
            let path = &path;
            scope.spawn(move || {
                let gpu = Gpu::open(path).expect("opened");
                (0..100).for_each(|xid| gpu.raise_xid(device, xid));
            });
        }
    });
    let all: Vec<_> = std::iter::from_fn(|| gpu.next_xid(&mut cursor)).collect();
    for device in 0..2 {
        let xids: Vec<_> = all
            .iter()
            .filter(|event| event.device == device)
            .map(|event| event.xid)
            .collect();
        assert_eq!(xids, (0..100).collect::<Vec<_>>());
    }
}

#[test]
fn a_fault_meets_its_function_and_device_when_it_should() {
    const MEMORY: Function = Function::new("nvmlDeviceGetMemoryInfo_v2");
    const OTHER: Function = Function::new("nvmlDeviceGetName");
    let World { path, gpu, _folder } = world();
    let other = Gpu::open(&path).expect("opened");
    let base = Fault::new("nvmlDeviceGetMemoryInfo_v2", FaultKind::Code(15));
    gpu.inject(Fault {
        device: Some(1),
        after_calls: 2,
        times: Some(2),
        every: 3,
        ..base
    })
    .expect("injected");
    assert_eq!(other.faults(MEMORY, Some(0)), Fired::default());
    assert_eq!(other.faults(OTHER, Some(1)), Fired::default());
    let codes: Vec<_> = (0..12)
        .map(|_| other.faults(MEMORY, Some(1)).code.is_some())
        .collect();
    let expected = [2, 5];
    assert_eq!(
        codes,
        (0..12).map(|call| expected.contains(&call)).collect::<Vec<_>>()
    );
    gpu.clear_faults();
    gpu.inject(Fault::new("*", FaultKind::Delay(Duration::from_millis(7))))
        .expect("injected");
    let hang = gpu
        .inject(Fault::new("nvmlDeviceGetName", FaultKind::Hang))
        .expect("injected");
    gpu.inject(Fault::new("nvmlDeviceGetName", FaultKind::GrowingList(4)))
        .expect("injected");
    assert_eq!(other.faults(OTHER, None).grown, 4);
    let fired = other.faults(OTHER, Some(0));
    assert_eq!(
        (fired.delay, fired.hang, fired.grown),
        (Duration::from_millis(7), Some(hang), 8)
    );
    assert!(other.is_on(hang));
    gpu.withdraw(hang);
    assert!(!other.is_on(hang));
    assert_eq!(other.faults(OTHER, Some(0)).hang, None);
    gpu.clear_faults();
    assert_eq!(other.faults(OTHER, Some(0)), Fired::default());
}

#[test]
fn faults_run_out_with_a_word() {
    let World { gpu, _folder, .. } = world();
    let fault = Fault::new("*", FaultKind::Hang);
    assert!((0..64).all(|_| gpu.inject(fault).is_ok()));
    assert!(matches!(
        gpu.inject(fault),
        Err(GpuError::Full {
            what: "faults",
            limit: 64
        })
    ));
    assert!(matches!(
        gpu.inject(Fault {
            device: Some(9),
            ..fault
        }),
        Err(GpuError::NoDevice { .. })
    ));
    gpu.clear_faults();
    gpu.inject(fault).expect("there is room again");
}

#[test]
fn calls_inits_and_the_driver_are_seen_by_all() {
    let World { path, gpu, _folder } = world();
    let other = Gpu::open(&path).expect("opened");
    (0..3).for_each(|_| other.count_call(Function::new("nvmlInit_v2")));
    assert_eq!((gpu.calls("nvmlInit_v2"), gpu.calls("nvmlShutdown")), (3, 0));
    other.count_init(1);
    other.count_event_set(1);
    other.count_event_set(-1);
    assert_eq!((gpu.open_inits(), gpu.open_event_sets()), (1, 0));
    let before = other.driver_generation();
    gpu.reload_driver();
    assert_ne!(other.driver_generation(), before);
    gpu.set_driver(DriverState::NotLoaded);
    assert_eq!(other.driver(), DriverState::NotLoaded);
}

#[test]
fn a_file_that_is_not_one_is_refused_with_the_reason() {
    let World { path, _folder, .. } = world();
    let good = std::fs::read(&path).expect("read");
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("written");
        let error = Gpu::open(&path).expect_err("refused").to_string();
        error
            .replace(path.to_str().expect("plain"), "FILE")
            .replace(&good.len().to_string(), "SIZE")
    };
    let mut version = good.clone();
    version[8] = 9;
    assert_eq!(
        [
            refused(b""),
            refused(&good[1..]).replace(&(good.len() - 1).to_string(), "SHORT"),
            refused(&vec![0; good.len()]),
            refused(&version)
        ],
        [
            "FILE is not a state file of this simulated GPU: it has 0 bytes instead of SIZE; create it anew",
            "FILE is not a state file of this simulated GPU: it has SHORT bytes instead of SIZE; create it anew",
            "FILE is not a state file of this simulated GPU: it does not begin with PLIMSGPU; create it anew",
            "FILE is not a state file of this simulated GPU: it has layout version 9 instead of 1; create it anew",
        ]
    );
    std::fs::remove_file(&path).expect("removed");
    assert!(matches!(
        Gpu::open(&path),
        Err(GpuError::Io {
            action: "opening",
            ..
        })
    ));
}

#[test]
fn devices_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("gpu.state");
    let card = DeviceSpec::new("GPU-a", "card", GIB);
    for bad in [
        DeviceSpec::new("GPU-a", "the same UUID", GIB),
        DeviceSpec::new(&"x".repeat(96), "long", GIB),
        DeviceSpec {
            reserved_bytes: 2 * GIB,
            ..DeviceSpec::new("GPU-b", "too much reserved", GIB)
        },
        DeviceSpec {
            mig_parent: Some(1),
            ..DeviceSpec::new("MIG-1", "its own parent", GIB)
        },
    ] {
        let result = Gpu::create(&path, &[card.clone(), bad.clone()]);
        assert!(
            matches!(result, Err(GpuError::BadDevice { index: 1, .. })),
            "{bad:?}"
        );
    }
    let many: Vec<_> = (0..17)
        .map(|n| DeviceSpec::new(&format!("GPU-{n}"), "card", GIB))
        .collect();
    assert!(matches!(
        Gpu::create(&path, &many),
        Err(GpuError::BadDevice { index: 16, .. })
    ));
    assert!(!path.exists());
}

/// Not a test of its own: the process that the next test kills, busy with everything a participant does.
#[test]
#[ignore = "is started and killed by a_participant_may_be_killed_at_any_instant"]
fn participant() {
    let Some(path) = std::env::var_os("PLIMSOLL_TEST_STATE") else {
        return;
    };
    let gpu = Gpu::open(path.as_ref()).expect("opened");
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        let process = gpu.attach(0, std::process::id()).expect("attached");
        for step in 1..50 {
            process.resize(step * GIB / 4).expect("there is room for one");
        }
        gpu.raise_xid(0, 13);
        let fault = Fault::new("nvmlShutdown", FaultKind::Code(1));
        gpu.withdraw(gpu.inject(fault).expect("injected"));
        gpu.count_call(Function::new("participant"));
    }
}

#[test]
fn a_participant_may_be_killed_at_any_instant() {
    let World { path, gpu, _folder } = world();
    let mut cursor = gpu.xid_cursor();
    for round in 1..=30 {
        let calls = gpu.calls("participant");
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "participant", "--ignored"])
            .env("PLIMSOLL_TEST_STATE", &path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        while gpu.calls("participant") < calls + round {
            assert_eq!(child.try_wait().expect("asked"), None, "it ended by itself");
            std::thread::yield_now();
        }
        child.kill().expect("killed");
        child.wait().expect("waited");
        assert_eq!(gpu.device(0).used_bytes(), 0);
        let own = gpu.attach(0, std::process::id()).expect("attached");
        own.resize(23 * GIB).expect("all of it is free");
        // The ring goes on where it was: an Xid raised now is the next one that comes.
        while gpu.next_xid(&mut cursor).is_some() {}
        gpu.raise_xid(1, 79);
        assert_eq!(gpu.next_xid(&mut cursor), Some(XidEvent { device: 1, xid: 79 }));
    }
    gpu.clear_faults();
    assert!(
        (0..64).all(|_| gpu.inject(Fault::new("*", FaultKind::Hang)).is_ok()),
        "no place was lost"
    );
}
