//! `plimsoll check`: what it finds, in words, and its exit status.

use std::process::Output;

use serde_json::Value;

use crate::world::World;

/// What it found, and its status.
fn check(world: &World, variables: &[(&str, &str)]) -> (String, Option<i32>) {
    let mut command = world.plimsoll();
    let cuda = plimsoll_sim_cuda::library_path().expect("the CUDA library is built with the tests");
    command.env("PLIMSOLL_CUPTI_LIBRARY", cuda);
    let Output { status, stdout, .. } = command
        .arg("check")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    (String::from_utf8(stdout).unwrap(), status.code())
}

#[test]
fn a_machine_on_which_everything_works() {
    let world = World::new();
    world.write("plimsoll.toml", &world.config(""));
    let (text, status) = check(&world, &[]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("ok       driver: NVIDIA driver"), "{text}");
    assert!(text.contains("takes records of kernels"), "{text}");
    assert!(text.contains("libplimsoll_agent.so can be loaded"), "{text}");
    assert!(text.contains("note     daemon: none answers"), "{text}");
}

#[test]
fn why_kernels_cannot_be_timed_is_told_and_is_no_problem() {
    let world = World::new();
    world.write("plimsoll.toml", &world.base_config());
    for (name, value, told) in [
        (
            "PLIMSOLL_SIM_CUPTI_FAULT",
            "crash-on-version",
            "failed in a process of its own",
        ),
        (
            "PLIMSOLL_SIM_CUPTI_FAULT",
            "not-initialized",
            "older than this CUPTI",
        ),
        (
            "PLIMSOLL_SIM_CUPTI_FAULT",
            "enable-fails:10:35",
            "this user may not profile",
        ),
        (
            "PLIMSOLL_SIM_CUPTI_FAULT",
            "subscribe-busy",
            "another profiler holds",
        ),
        (
            "PLIMSOLL_CUPTI_LIBRARY",
            "/no/such/libcupti.so",
            "/no/such/libcupti.so",
        ),
    ] {
        let (text, status) = check(&world, &[(name, value)]);
        assert_eq!(status, Some(0), "{value}: {text}");
        let line = text.lines().find(|line| line.contains(told));
        assert!(
            line.is_some_and(|line| line.starts_with("note")),
            "{value}: {text}"
        );
    }
}

#[test]
fn without_a_driver_it_is_said_and_the_rest_is_told() {
    let world = World::new();
    world.write("plimsoll.toml", &world.base_config());
    std::fs::remove_file(world.library()).unwrap();
    let (text, status) = check(&world, &[]);
    assert_eq!(status, Some(3), "{text}");
    assert!(
        text.contains("problem  driver: ") && text.contains("agent: "),
        "{text}"
    );
}

#[test]
fn a_configuration_that_is_not_valid_is_a_problem_and_not_the_end() {
    let world = World::new();
    world.write("plimsoll.toml", "[sampling]\nintervall = \"1s\"\n");
    let library = world.library().display().to_string();
    let (text, status) = check(&world, &[("PLIMSOLL_NVML_LIBRARY", &library)]);
    assert_eq!(status, Some(6), "{text}");
    assert!(
        text.contains("problem  configuration: ") && text.contains("interval"),
        "{text}"
    );
}

#[test]
fn a_unit_gets_the_text_of_its_drop_in_and_json_has_the_same_findings() {
    let world = World::new();
    let engine = "[engine.chat]\nprofile = \"custom\"\nmatch = { unit = \"chat.service\" }\n";
    world.write("plimsoll.toml", &format!("{}{engine}", world.base_config()));
    let (text, _) = check(&world, &[]);
    assert!(
        text.contains("/etc/systemd/system/chat.service.d/plimsoll.conf"),
        "{text}"
    );
    assert!(text.contains("Environment=CUDA_INJECTION64_PATH=/"), "{text}");
    let output = world.plimsoll().args(["check", "--json"]).output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["version"], 1);
    let subjects: Vec<&str> = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|finding| finding["subject"].as_str())
        .collect();
    assert!(subjects.starts_with(&["configuration", "driver"]), "{subjects:?}");
    let drop_in = &json["drop_ins"][0];
    assert_eq!(
        (&drop_in["engine"], &drop_in["unit"]),
        (&"chat".into(), &"chat.service".into())
    );
    let said = drop_in["text"].as_str().unwrap();
    assert!(said.starts_with("[Service]\n") && text.contains(said), "{said}");
}

#[test]
fn without_a_unit_it_is_said_what_one_would_need() {
    let world = World::new();
    world.write("plimsoll.toml", &world.base_config());
    let (text, _) = check(&world, &[]);
    assert!(
        text.contains("put this into /etc/systemd/system/SERVER.service.d/plimsoll.conf"),
        "{text}"
    );
}

#[test]
fn whose_unit_may_not_use_the_socket_and_who_has_the_agent_s_place_is_told() {
    let world = World::new();
    let engine = "[engine.chat]\nprofile = \"custom\"\nmatch = { unit = \"chat.service\" }\n";
    world.write("plimsoll.toml", &format!("{}{engine}", world.base_config()));
    std::fs::create_dir(world.path("bin")).unwrap();
    let script = "#!/bin/sh\necho User=somebody-else\necho 'Environment=A=b \"CUDA_INJECTION64_PATH=/opt/other tool.so\"'\n";
    world.write("bin/systemctl", script);
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(world.path("bin/systemctl"), executable).unwrap();
    let (text, _) = check(&world, &[]);
    assert!(
        text.contains("note     agent: chat.service runs as somebody-else, who may not use "),
        "{text}"
    );
    assert!(
        text.contains("note     agent: chat.service loads /opt/other tool.so by CUDA_INJECTION64_PATH"),
        "{text}"
    );
    assert!(
        text.contains("\nEnvironment=\"PLIMSOLL_CHAIN=/opt/other tool.so\"\n"),
        "{text}"
    );
    // Root may, and with nobody else there nothing is handed on.
    world.write("bin/systemctl", "#!/bin/sh\necho User=\necho Environment=\n");
    let (text, _) = check(&world, &[]);
    assert!(
        !text.contains("chat.service runs as") && !text.contains("PLIMSOLL_CHAIN"),
        "{text}"
    );
}
