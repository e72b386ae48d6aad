//! Who may say what at the control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::agent::prepared;

#[test]
fn an_allocator_tells_about_itself_over_the_same_socket() {
    let world = prepared();
    let own_group = rustix::process::getgid().as_raw();
    let config = format!("{}[agent]\ngroup = \"{own_group}\"\n", world.base_config());
    let daemon = world.daemon(&config);
    let socket = world.path("plimsoll.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660, "it is open to its group");
    let mut stream = BufReader::new(UnixStream::connect(&socket).unwrap());
    let mut ask = |line: &str| -> Value {
        stream.get_mut().write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    };
    let told = ask(
        "{\"request\": \"allocator\", \"pid\": 1, \"device\": \"GPU-00000000-0000-4000-8000-000000000000\", \
         \"allocated_bytes\": 75, \"reserved_bytes\": 100, \"inactive_split_bytes\": 10}\n",
    );
    assert_eq!(told, json!({ "stored": true, "snapshot": false }));
    let refused = ask("{\"request\": \"allocator\", \"reserved_bytes\": -1}\n");
    assert!(
        refused["error"]
            .as_str()
            .is_some_and(|error| error.contains("not a request")),
        "{refused}"
    );
    let row = world.row("SELECT * FROM allocator_samples");
    assert_eq!(
        (
            row["level"].as_str(),
            row["slack_ratio"].as_f64(),
            row["stuck_ratio"].as_f64()
        ),
        (Some("pytorch"), Some(0.25), Some(0.1))
    );
    // Whose it is the socket says.
    assert_eq!(
        (row["pid"].as_u64(), &row["run_id"]),
        (Some(std::process::id().into()), &Value::Null)
    );
    assert!(daemon.stop().success());
}

#[test]
fn others_of_the_group_may_tell_and_nothing_else() {
    use rustix::process::{Gid, Uid};
    use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
    if !rustix::process::geteuid().is_root() {
        // Only root can be somebody else for a moment. Written past the harness, which keeps what tests print to itself.
        let test = "others_of_the_group_may_tell_and_nothing_else";
        writeln!(std::io::stderr(), "NOT TESTED: {test} needs root").unwrap();
        return;
    }
    let (user, group) = (65_534, 65_533);
    let world = prepared();
    let daemon = world.daemon(&format!("{}[agent]\ngroup = \"{group}\"\n", world.base_config()));
    std::fs::set_permissions(world.path("."), std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = world.path("plimsoll.sock");
    let ask = |group: u32, request: &'static str| {
        let socket = socket.clone();
        // Linux has users by thread, and this one ends here.
        let other = std::thread::spawn(move || {
            set_thread_groups(&[]).unwrap();
            set_thread_gid(Gid::from_raw(group)).unwrap();
            set_thread_uid(Uid::from_raw(user)).unwrap();
            let Ok(mut stream) = UnixStream::connect(socket) else {
                return String::new();
            };
            stream.write_all(format!("{request}\n").as_bytes()).unwrap();
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer).unwrap();
            answer
        });
        other.join().unwrap()
    };
    assert_eq!(
        ask(1, r#"{"request": "status"}"#),
        "",
        "a stranger does not even come in"
    );
    let answer = ask(group, r#"{"request": "pause"}"#);
    assert!(answer.contains("this user may not ask that"), "{answer}");
    // Nor when the socket's file lets it: what counts is who is in the group.
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    let answer = ask(1, r#"{"request": "allocator", "reserved_bytes": 6}"#);
    assert!(answer.contains("this user may not ask that"), "{answer}");
    let answer = ask(group, r#"{"request": "allocator", "reserved_bytes": 5}"#);
    assert!(answer.contains(r#""stored":true"#), "{answer}");
    assert!(daemon.stop().success());
    assert_eq!(
        world.sql("SELECT reserved_bytes FROM allocator_samples"),
        [json!({ "reserved_bytes": 5 })]
    );
}
