//! Everything a person or a broken disk can put in front of the program: refused with the reason, nothing touched.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::json;

use crate::rules::{QUANTIZE, press};
use crate::world::{World, text, until};

/// Starts the daemon on a configuration that is not valid and answers with what it says.
fn refused(config: &str) -> String {
    let world = World::new();
    world.write(
        "plimsoll.toml",
        &config.replace("DIR", world.path("").to_str().unwrap()),
    );
    let output = world.call(&["daemon"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn configuration_errors_name_file_line_key_and_the_nearest() {
    let engine = "[engine.chat]\nprofile = \"custom\"\nconfig = \"/tmp/engine.yaml\"\nreload = { signal = \"HUP\" }\nmatch = { port = 8000 }\nhealth = { http = \"http://127.0.0.1:1/health\" }\n";
    let rule = |line: &str| {
        format!("{engine}\n[[rule]]\nname = \"r\"\nengine = \"chat\"\nset = {{ a = 1 }}\n{line}\n")
    };
    let when = "when = { signal = \"vram.used_ratio\", enter = \"80%\", exit = \"65%\" }";
    for (config, says) in [
        (
            "[sampling]\nintervall = \"1s\"\n".to_owned(),
            vec![
                "plimsoll.toml:2",
                "unknown key `intervall`",
                "did you mean `interval`?",
            ],
        ),
        (
            "[sampling]\ninterval = \"1 parsec\"\n".to_owned(),
            vec!["plimsoll.toml:2", "is not a duration"],
        ),
        (
            "[sampling]\ninterval = \"1ms\"\n".to_owned(),
            vec!["plimsoll.toml:2", "between 100ms and 60s"],
        ),
        (
            "[store]\nmax_size = \"4 Gigs\"\n".to_owned(),
            vec!["plimsoll.toml:2", "is not a size"],
        ),
        (
            "[stor]\n".to_owned(),
            vec!["plimsoll.toml:1", "unknown key `stor`", "did you mean `store`?"],
        ),
        ("[store\n".to_owned(), vec!["plimsoll.toml:1"]),
        (
            format!("{engine}matchh = {{ port = 1 }}\n"),
            vec!["plimsoll.toml:7", "unknown key `matchh`", "did you mean `match`?"],
        ),
        (
            engine.replace(
                "match = { port = 8000 }",
                "match = { port = 8000, unit = \"a.service\" }",
            ),
            vec!["plimsoll.toml:5", "exactly one"],
        ),
        (
            engine.replace("\"HUP\"", "\"KILL\""),
            vec!["plimsoll.toml:4", "'KILL' is not a reload signal"],
        ),
        (
            engine.replace("/tmp/engine.yaml", "engine.yaml"),
            vec!["plimsoll.toml:3", "must be an absolute path"],
        ),
        (
            engine.replace(".yaml", ".conf"),
            vec!["plimsoll.toml:3", "config_format"],
        ),
        (
            rule(when).replace("engine = \"chat\"", "engine = \"chatt\""),
            vec!["plimsoll.toml:10", "did you mean `chat`?"],
        ),
        (
            rule(&when.replace("used_ratio", "use_ratio")),
            vec!["plimsoll.toml:12", "vram.used_ratio"],
        ),
        (
            rule(&when.replace("80%", "80 GiB")),
            vec!["plimsoll.toml:12", "is not a ratio"],
        ),
        (
            rule(&format!("{when}\nmoode = \"act\"")),
            vec!["plimsoll.toml:13", "unknown key `moode`", "did you mean `mode`?"],
        ),
        (
            rule(&format!("{when}\nmode = \"perform\"")),
            vec!["plimsoll.toml:13", "perform"],
        ),
        (
            rule(&format!("{when}\nmode = \"act\""))
                .replace("health = { http = \"http://127.0.0.1:1/health\" }\n", ""),
            vec!["plimsoll.toml:12", "may not act", "health"],
        ),
        (
            rule(when) + &rule(when).replace(engine, ""),
            vec!["plimsoll.toml:15", "name"],
        ),
        (
            engine.replace("signal = \"HUP\"", "signl = \"HUP\""),
            vec![
                "plimsoll.toml:4",
                "`signl` in engine.chat.reload",
                "did you mean `signal`?",
            ],
        ),
        (
            engine.replace("{ port = 8000 }", "\"chat\""),
            vec!["plimsoll.toml:5", "engine.chat.match: expected a table"],
        ),
        (
            engine.replace("{ http = \"http", "{ htp = \"http"),
            vec![
                "plimsoll.toml:6",
                "`htp` in engine.chat.health",
                "did you mean `http`?",
            ],
        ),
        (
            "[store]\npath = \"plimsoll.db\"\n".to_owned(),
            vec!["plimsoll.toml:2", "must be an absolute path"],
        ),
    ] {
        let said = refused(&config);
        for word in says {
            assert!(said.contains(word), "expected {word:?} in {said:?} for\n{config}");
        }
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn a_configuration_that_cannot_be_read() {
    let world = World::new();
    world.write("empty.toml", "");
    fs::create_dir(world.path("folder.toml")).unwrap();
    symlink("nowhere", world.path("link.toml")).unwrap();
    fs::write(world.path("latin.toml"), b"[store]\n# f\xfcr\n").unwrap();
    fs::write(world.path("nested.toml"), format!("a = {}", "[".repeat(10_000))).unwrap();
    for (name, says) in [
        (
            "nowhere.toml",
            "nowhere.toml (named with --config) does not exist",
        ),
        ("folder.toml", "Is a directory"),
        ("link.toml", "link to nowhere"),
        ("latin.toml", "latin.toml:2: it is not UTF-8"),
        ("nested.toml", "nested.toml:1"),
        ("/dev/zero", "larger than 16 MiB"),
    ] {
        let output = world.call(&["daemon", "--config", name]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(
            said.contains(says) && !said.contains("panicked"),
            "{name}: {said}"
        );
    }
    let named = |variable: &str| {
        world
            .plimsoll()
            .env("PLIMSOLL_CONFIG", variable)
            .env("PLIMSOLL_DB", "")
            .arg("runs")
            .output()
            .unwrap()
    };
    assert!(text(&named("gone.toml").stderr).contains("gone.toml (named by PLIMSOLL_CONFIG) does not exist"));
    // An empty variable is as good as none, for both: the usual places, in a home where there is nothing.
    let usual = named("");
    assert!(usual.status.code() != Some(2), "{}", text(&usual.stderr));
}

#[test]
fn what_is_written_in_a_configuration_cannot_command_the_terminal() {
    let said = refused("[sampling]\n\"a\\u001b[31m\\u009b2J\" = 1\n");
    assert!(
        said.contains("plimsoll.toml:2: unknown key") && !said.contains(['\u{1b}', '\u{9b}']),
        "{said:?}"
    );
}

/// The rule holds, the file is as `prepare` left it: the decision is refused with `says`, and the bytes stay.
fn refuses_to_edit(prepare: impl Fn(&World), says: &str) {
    let world = World::new();
    let _engine = world.engine(&[]);
    prepare(&world);
    let before = fs::read(world.path("engine.yaml")).ok();
    let _daemon = world.daemon(&world.config(QUANTIZE));
    press(&world.gpu);
    let decision = world.decision("quantize", "refused");
    let said = decision["explanation"].as_str().unwrap();
    assert!(said.contains(says), "expected {says:?} in {said:?}");
    assert_eq!(fs::read(world.path("engine.yaml")).ok(), before, "untouched");
    assert_eq!(world.applied("/model/quantization"), json!("none"));
    assert!(world.sql("SELECT * FROM config_changes").is_empty());
}

#[test]
fn an_engine_file_that_is_missing() {
    refuses_to_edit(
        |world| fs::remove_file(world.path("engine.yaml")).unwrap(),
        "does not exist",
    );
}

#[test]
fn an_engine_file_that_is_not_valid() {
    refuses_to_edit(|world| world.write("engine.yaml", "model: [\n"), "not valid");
}

#[test]
fn an_engine_file_with_the_key_twice() {
    let twice = |world: &World| {
        let text = world.engine_yaml() + "model:\n  quantization: none\n";
        world.write("engine.yaml", &text);
    };
    refuses_to_edit(twice, "twice");
}

#[test]
fn an_engine_file_with_an_anchor_at_the_place() {
    let anchored = |world: &World| {
        let text = world
            .engine_yaml()
            .replace("quantization: none", "quantization: &q none");
        world.write("engine.yaml", &text);
    };
    refuses_to_edit(anchored, "anchor");
}

#[test]
fn an_engine_file_that_is_read_only() {
    let locked = |world: &World| {
        fs::set_permissions(world.path("engine.yaml"), fs::Permissions::from_mode(0o444)).unwrap();
    };
    refuses_to_edit(locked, "read-only");
}

#[test]
fn an_engine_file_that_is_not_text() {
    refuses_to_edit(
        |world| fs::write(world.path("engine.yaml"), [0xff, 0xfe, 0, 1]).unwrap(),
        "UTF-8",
    );
}

#[test]
fn an_engine_file_that_is_a_link() {
    let world = World::new();
    fs::create_dir(world.path("real")).unwrap();
    world.write("real/server.yaml", &world.engine_yaml());
    symlink("real/server.yaml", world.path("engine.yaml")).unwrap();
    let mut engine = world.engine(&[]);
    let _daemon = world.daemon(&world.config(QUANTIZE));
    press(&world.gpu);
    let decision = world.decision("quantize", "refused");
    let said = decision["explanation"].as_str().unwrap();
    let target = fs::canonicalize(world.path("real/server.yaml")).unwrap();
    assert!(said.contains("is a symbolic link"), "{said}");
    assert!(
        said.contains(target.to_str().unwrap()),
        "what to name instead: {said}"
    );
    let link = fs::read_link(world.path("engine.yaml")).unwrap();
    assert_eq!(link.to_str(), Some("real/server.yaml"), "the link stays");
    assert_eq!(world.read("real/server.yaml"), world.engine_yaml());
    assert!(world.sql("SELECT * FROM config_changes").is_empty());
    assert!(engine.is_running());
}

#[test]
fn an_engine_file_that_somebody_has_open_for_writing() {
    let world = World::new();
    let mut engine = world.engine(&[]);
    let _daemon = world.daemon(&world.config(QUANTIZE));
    let editor = fs::File::options()
        .append(true)
        .open(world.path("engine.yaml"))
        .unwrap();
    press(&world.gpu);
    let decision = world.decision("quantize", "refused");
    let said = decision["explanation"].as_str().unwrap();
    // In this process, or in one that another test begins at this moment and that has not closed it yet.
    assert!(said.contains("is open for writing in process "), "{said}");
    assert_eq!(world.read("engine.yaml"), world.engine_yaml());
    assert!(engine.is_running());
    assert_eq!(world.applied("/model/quantization"), json!("none"));
    // Their next write goes to the file that is there, not to one that was taken away.
    use std::io::Write;
    (&editor).write_all(b"# theirs\n").unwrap();
    assert_eq!(world.read("engine.yaml"), world.engine_yaml() + "# theirs\n");
}

#[test]
fn mode_and_owner_stay() {
    use std::os::unix::fs::{MetadataExt, chown};

    let world = World::new();
    world.write("engine.yaml", &world.engine_yaml());
    fs::set_permissions(world.path("engine.yaml"), fs::Permissions::from_mode(0o640)).unwrap();
    let root = rustix::process::geteuid().is_root();
    if root {
        chown(world.path("engine.yaml"), Some(12_345), Some(54_321)).unwrap();
    }
    let _engine = world.engine(&[]);
    let _daemon = world.daemon(&world.config(QUANTIZE));
    press(&world.gpu);
    world.decision("quantize", "kept");
    let meta = fs::metadata(world.path("engine.yaml")).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o640);
    if root {
        assert_eq!((meta.uid(), meta.gid()), (12_345, 54_321));
    }
}

#[test]
fn a_damaged_or_newer_database_is_refused_and_left_alone() {
    let world = World::new();
    let daemon = world.daemon(&world.base_config());
    world.row("SELECT * FROM host_samples");
    assert!(daemon.stop().success());
    let good = fs::read(world.path("plimsoll.db")).unwrap();
    let garbage = b"this is not a database, whatever its name says....".repeat(40);
    for (name, bytes, says) in [
        ("garbage", garbage, "is damaged"),
        ("truncated", good[..5000].to_vec(), "is damaged"),
        ("newer", newer(&good), "schema version 9000"),
    ] {
        for end in ["db-wal", "db-shm"] {
            drop(fs::remove_file(world.path("plimsoll.db").with_extension(end)));
        }
        fs::write(world.path("plimsoll.db"), &bytes).unwrap();
        let output = world.call(&["daemon"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(
            said.contains("plimsoll.db") && said.contains(says) && !said.contains("panicked"),
            "{name}: {said}"
        );
        assert_eq!(
            fs::read(world.path("plimsoll.db")).unwrap(),
            bytes,
            "{name}: never overwritten"
        );
        let output = world.call(&["sql", "SELECT * FROM runs"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(
            said.contains(says) && !said.contains("panicked"),
            "{name}: {said}"
        );
    }
}

/// The same database, as a program from the future leaves it.
fn newer(good: &[u8]) -> Vec<u8> {
    use sqlx::{Connection, Executor, SqliteConnection};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("newer.db");
    fs::write(&path, good).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        let mut database = SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
        let later = "INSERT INTO _sqlx_migrations VALUES (9000, 'later', CURRENT_TIMESTAMP, TRUE, x'00', 0)";
        database.execute(later).await.unwrap();
        database.close().await.unwrap();
    });
    fs::read(&path).unwrap()
}

#[test]
fn a_save_between_our_write_and_the_reload_stays() {
    let world = World::new();
    let mut engine = world.engine(&[]);
    // The reload is where a person saves, and then it fails.
    let edit = format!(
        "echo '# theirs' >> {}; exit 1",
        world.path("engine.yaml").display()
    );
    let reload = format!("reload = {{ command = [\"sh\", \"-c\", {edit:?}] }}");
    let config = world.config_with(&reload, QUANTIZE);
    let _daemon = world.daemon(&config.replace("within = \"15s\"", "within = \"2s\""));
    press(&world.gpu);
    let decision = world.row("SELECT * FROM decisions WHERE outcome IN ('rolled_back', 'failed')");
    let file = world.read("engine.yaml");
    let (ours_gone, theirs) = (
        file.starts_with(&world.engine_yaml()),
        file.contains("# theirs\n"),
    );
    assert!(ours_gone && theirs, "{decision}\n{file}");
    assert!(engine.is_running());
    assert_eq!(world.applied("/model/quantization"), json!("none"));
}

#[test]
fn a_bad_edit_of_the_running_configuration_changes_nothing() {
    let world = World::new();
    let _daemon = world.daemon(&world.config(QUANTIZE));
    world.write("plimsoll.toml", "[sampling]\nintervall = \"2s\"\n");
    let event = world.event("config_rejected");
    assert!(
        event["message"]
            .as_str()
            .unwrap()
            .contains("did you mean `interval`?"),
        "{event}"
    );
    let status = world.call(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(
        status["rules"][0]["rule"], "quantize",
        "the running configuration stays"
    );
    let good = world.config(&QUANTIZE.replace("\"quantize\"", "\"renamed\""));
    world.write("plimsoll.toml", &good);
    world.event("config_reloaded");
    until("the new rule is in force", || {
        let status: serde_json::Value =
            serde_json::from_slice(&world.call(&["status", "--json"]).stdout).ok()?;
        (status["rules"][0]["rule"] == "renamed").then_some(())
    });
}
