//! The first call of a program.

use std::path::{Path, PathBuf};
use std::process::Command;

use plimsoll_sim_cuda::Cuda;

use crate::world::*;

/// Compiles a library whose start function leaves a line in a file.
fn injection(folder: &Path, answer: i32) -> (PathBuf, PathBuf) {
    let (source, library, trace) = (folder.join("a.c"), folder.join("a.so"), folder.join("trace"));
    let text = format!(
        "#include <stdio.h>\nint cuInit(unsigned);\nint InitializeInjection(void) {{\n\
         FILE *file = fopen(\"{}\", \"a\"); fputs(\"started\\n\", file); fclose(file); return {answer}; }}\n",
        trace.display()
    );
    std::fs::write(&source, text).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status();
    assert!(compiled.unwrap().success());
    (library, trace)
}

#[test]
fn the_first_call_loads_the_injected_library_once() {
    // Whatever it answers, the program goes on.
    for answer in [1, 0] {
        let folder = tempfile::tempdir().unwrap();
        let (library, trace) = injection(folder.path(), answer);
        let world = World::with(&[("CUDA_INJECTION64_PATH", library.to_str().unwrap())]);
        assert!(!trace.exists(), "loading the driver starts nothing");
        let cuda: Cuda = world.cuda;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(move || cuda.init().unwrap());
            }
        });
        assert_eq!(std::fs::read_to_string(trace).unwrap(), "started\n");
    }
}

#[test]
fn what_cannot_be_injected_hurts_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.so");
    std::fs::write(&text, "no library").unwrap();
    for path in ["none", "/nowhere/agent.so", text.to_str().unwrap(), "libc.so.6"] {
        let world = World::with(&[("CUDA_INJECTION64_PATH", path)]);
        world.cuda.init().unwrap();
        world.cuda.alloc(1).unwrap();
    }
}

#[test]
fn nothing_works_before_the_first_call_or_without_a_driver() {
    let world = World::with(&[]);
    assert_eq!(world.cuda.alloc(1).unwrap_err().code, 3);
    drop(world);
    let world = World::with(&[("PLIMSOLL_SIM_GPU", "/nowhere/state")]);
    assert_eq!(world.cuda.init().unwrap_err().code, 100);
    assert_eq!(world.cuda.alloc(1).unwrap_err().code, 3);
}

#[test]
fn devices_have_the_uuid_of_the_simulated_gpu() {
    let world = World::with(&[]);
    world.add_gpu();
    world.cuda.init().unwrap();
    let mut uuid = [0_u8; 16];
    let place = (&raw mut uuid).expose_provenance();
    assert_eq!(world.cupti.call("cuDeviceGetUuid_v2", [place, 0, 0, 0, 0]), 0);
    assert_eq!(
        uuid,
        [
            0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff
        ]
    );
    assert_eq!(world.cupti.call("cuDeviceGetUuid_v2", [place, 1, 0, 0, 0]), 101);
    assert_eq!(world.library.file_name().unwrap(), "libcuda.so.1");
}
