//! The probe against the simulated library, in a child process as it is meant to be used.
#![expect(clippy::unwrap_used, reason = "a test that finds no value has failed")]

use std::process::{Command, Output};

use cupti_sys::{Library, probe};
use plimsoll_sim_cuda::{Cuda, library_path};

const IS_CHILD: &str = "CUPTI_SYS_TEST_CHILD";

/// Not a test by itself: the child process. With a driver the program has initialised CUDA before.
#[test]
fn child() {
    let Ok(driver) = std::env::var(IS_CHILD) else {
        return;
    };
    let library = library_path().unwrap();
    if driver == "driver" {
        Cuda::load(&library).unwrap().init().unwrap();
    }
    println!();
    probe(Some(&library), |finding| println!("found {finding:?}"));
    println!("found the end");
}

fn probe_in_child(driver: &str, release: &str, fault: &str) -> (Output, Vec<String>) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(IS_CHILD, driver)
        .env("PLIMSOLL_SIM_CUPTI", release)
        .env("PLIMSOLL_SIM_CUPTI_FAULT", fault)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = text.lines().filter_map(|line| line.strip_prefix("found "));
    let found = found.map(str::to_owned).collect();
    (output, found)
}

#[test]
fn with_a_driver_each_call_is_answered() {
    for (release, version) in [("11.8", "Version(18)"), ("13.0", "Version(130000)")] {
        let (output, found) = probe_in_child("driver", release, "");
        assert!(output.status.success(), "{output:?}");
        assert!(found[0].starts_with("Loaded"), "{found:?}");
        for call in [
            "register callbacks",
            "enable MEMORY2",
            "enable GRAPH_TRACE",
            "subscribe",
            "version",
        ] {
            assert!(
                found.contains(&format!("Answered(\"{call}\", Answer(0))")),
                "{release}: {call} in {found:?}"
            );
        }
        assert!(found.iter().any(|line| line == version), "{release}: {found:?}");
        assert_eq!(found.last().map(String::as_str), Some("the end"));
    }
}

#[test]
fn a_crash_leaves_what_was_found_before_it() {
    let (output, found) = probe_in_child("driver", "13.2", "crash-on-version");
    assert!(!output.status.success());
    assert_eq!(
        found.last().map(String::as_str),
        Some("Trying(\"version\")"),
        "{found:?}"
    );
    assert!(
        found
            .iter()
            .any(|line| line.starts_with("Answered(\"subscribe\""))
    );
}

#[test]
fn refusals_are_answers() {
    let (_, found) = probe_in_child("driver", "12.6", "subscribe-busy,enable-fails:51:27");
    assert!(
        found.contains(&"Answered(\"subscribe\", Answer(39))".to_owned()),
        "{found:?}"
    );
    assert!(
        found.contains(&"Answered(\"enable GRAPH_TRACE\", Answer(27))".to_owned()),
        "{found:?}"
    );
}

#[test]
fn functions_that_are_missing_are_named() {
    let (_, found) = probe_in_child("driver", "12.6", "missing-symbol:cuptiSubscribe");
    assert!(
        found.contains(&"Missing(\"cuptiSubscribe\")".to_owned()),
        "{found:?}"
    );
    let (_, found) = probe_in_child("driver", "12.6", "missing-symbol:cuptiActivityEnable");
    assert!(
        found[0].contains("has no function cuptiActivityEnable"),
        "{found:?}"
    );
}

/// Not a test by itself: the child process in which CUPTI is searched for.
#[test]
fn searching_child() {
    if std::env::var_os(IS_CHILD).is_none() {
        return;
    }
    println!();
    probe(None, |finding| println!("found {finding:?}"));
    println!("found the end");
}

#[test]
fn a_copy_that_is_newer_than_the_driver_is_passed_over_if_another_is_there() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("extras/CUPTI/lib64");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["libcupti.so.13", "libcupti.so.12"] {
        std::fs::copy(library_path().unwrap(), folder.join(name)).unwrap();
    }
    let search = |fault: &str| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "searching_child", "--nocapture"])
            .env(IS_CHILD, "driver")
            .env("CUDA_HOME", home.path())
            .env("PLIMSOLL_SIM_CUPTI_FAULT", fault)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let found = text.lines().filter_map(|line| line.strip_prefix("found "));
        let told = |word: &str| {
            let told = found.clone().filter(|line| line.starts_with(word));
            told.map(str::to_owned).collect::<Vec<String>>()
        };
        assert_eq!(found.clone().next_back(), Some("the end"), "{text}");
        (
            told("Loaded"),
            told("PassedOver"),
            told("Answered(\"enable MEMORY2\""),
        )
    };
    let (loaded, passed_over, answered) = search("");
    assert!(
        loaded.len() == 1 && loaded[0].contains("libcupti.so.13"),
        "{loaded:?}"
    );
    assert!(passed_over.is_empty(), "{passed_over:?}");
    assert_eq!(answered, ["Answered(\"enable MEMORY2\", Answer(0))"]);

    let (loaded, passed_over, answered) = search("too-new:libcupti.so.13");
    assert!(
        passed_over.len() == 1 && passed_over[0].contains("libcupti.so.13"),
        "{passed_over:?}"
    );
    assert!(
        loaded.len() == 2 && loaded[1].contains("libcupti.so.12"),
        "{loaded:?}"
    );
    assert_eq!(answered, ["Answered(\"enable MEMORY2\", Answer(0))"]);

    // None can: the first says why.
    let (loaded, _, answered) = search("fails:999");
    assert!(
        loaded.last().is_some_and(|last| last.contains("libcupti.so.13")),
        "{loaded:?}"
    );
    assert_eq!(answered, ["Answered(\"enable MEMORY2\", Answer(999))"]);
}

#[test]
fn a_file_that_is_no_cupti_is_passed_over() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("extras/CUPTI/lib64");
    std::fs::create_dir_all(&folder).unwrap();
    // A library of this process that has none of CUPTI's functions.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let other = maps.lines().find_map(|line| {
        let path = &line[line.find('/')?..];
        path.contains("/libgcc_s.so").then_some(path)
    });
    std::fs::copy(other.unwrap(), folder.join("libcupti.so.13")).unwrap();
    let search = || {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "searching_child", "--nocapture"])
            .env(IS_CHILD, "driver")
            .env("CUDA_HOME", home.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .find_map(|line| line.strip_prefix("found "))
            .unwrap()
            .to_owned()
    };
    // It alone: what it misses is said, not that there was nothing.
    let found = search();
    assert!(found.contains("has no function cupti"), "{found}");
    std::fs::copy(library_path().unwrap(), folder.join("libcupti.so.12")).unwrap();
    let found = search();
    assert!(
        found.starts_with("Loaded") && found.contains("libcupti.so.12"),
        "{found}"
    );
}

#[test]
fn a_copy_that_is_loaded_is_never_loaded_twice() {
    // Under CUPTI's own name, as torch has it.
    let folder = tempfile::tempdir().unwrap();
    let loaded = folder.path().join("libcupti.so.12");
    std::fs::copy(library_path().unwrap(), &loaded).unwrap();
    let first = Library::open(Some(&loaded)).unwrap();
    let other = folder.path().join("other.so");
    std::fs::copy(library_path().unwrap(), &other).unwrap();
    let second = Library::open(Some(&other)).unwrap();
    assert_eq!(second.found().path, loaded);
    assert_eq!(first.symbol("cuptiGetVersion"), second.symbol("cuptiGetVersion"));
}
