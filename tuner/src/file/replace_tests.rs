use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::{Step, replace, replace_with};
use crate::file::{FileError, Leftover, Snapshot, clean_leftovers, hash, read};

const OLD: &str = "# mine\na: 1\n";
const NEW: &str = "# mine\na: 2\n";
const THEIRS: &str = "# mine, edited\na: 3\n";
const LATER: &str = "# mine, edited again\na: 4\n";

/// Every step in the order of a replacement that succeeds.
const STEPS: [Step; 7] = [
    Step::Permitted,
    Step::Drafted,
    Step::Named,
    Step::Checked,
    Step::Leased,
    Step::Exchanged,
    Step::Done,
];

fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder
        .path()
        .canonicalize()
        .expect("resolved")
        .join("server.yaml");
    fs::write(&path, OLD).expect("written");
    (folder, path)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("read")
}

fn only_file_in(path: &Path) -> bool {
    fs::read_dir(path.parent().expect("a folder"))
        .expect("listed")
        .count()
        == 1
}

/// The ways in which editors save.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Save {
    Rename,
    Truncate,
    WriteOver,
}

const SAVES: [Save; 3] = [Save::Rename, Save::Truncate, Save::WriteOver];

fn save(path: &Path, how: Save, text: &str) {
    match how {
        Save::Rename => {
            let beside = path.with_extension("swp");
            fs::write(&beside, text).expect("written");
            fs::rename(&beside, path).expect("renamed");
        }
        Save::Truncate => fs::write(path, text).expect("written"),
        Save::WriteOver => {
            let mut file = OpenOptions::new().write(true).open(path).expect("opened");
            file.write_all(text.as_bytes()).expect("written");
            file.set_len(text.len() as u64).expect("shortened");
        }
    }
}

#[test]
fn the_new_text_is_in_place_and_nothing_else_changed() {
    let (_folder, path) = file();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("set");
    let owned = std::os::unix::fs::chown(&path, Some(12345), Some(54321)).is_ok();
    let labelled =
        rustix::fs::setxattr(&path, "user.label", b"chat", rustix::fs::XattrFlags::empty()).is_ok();
    let before = read(&path).expect("read");
    let mut steps = Vec::new();
    let written = replace_with(&before, NEW.as_bytes(), &mut |step| steps.push(step)).expect("replaced");
    assert_eq!(steps, STEPS);
    let after = read(&path).expect("read");
    assert_eq!((text(&path).as_str(), &written.hash), (NEW, &after.hash));
    assert_eq!(
        (after.mode, after.uid, after.gid),
        (0o640, before.uid, before.gid)
    );
    assert!(!owned || (after.uid, after.gid) == (12345, 54321));
    assert_eq!(after.identity, written.identity);
    assert_ne!(after.identity, before.identity);
    if labelled {
        let mut label = [0_u8; 16];
        let length = rustix::fs::getxattr(&path, "user.label", &mut label[..]).expect("kept");
        assert_eq!(label.get(..length), Some(&b"chat"[..]));
    }
    assert!(only_file_in(&path));
}

#[test]
fn a_link_is_refused_with_what_it_leads_to() {
    let (_folder, path) = file();
    let links = tempfile::tempdir().expect("a folder");
    let link = links.path().join("link.yaml");
    symlink(&path, &link).expect("linked");
    let error = read(&link).expect_err("refused").to_string();
    assert_eq!(
        error,
        format!(
            "{} is a symbolic link, and links are not edited; if {} may be changed, name it itself in `config`",
            link.display(),
            path.display()
        )
    );
    assert_eq!(fs::read_link(&link).expect("still a link"), path);
    assert_eq!(text(&path), OLD);
}

#[test]
fn a_folder_may_be_a_link_but_not_into_one_that_is_open_to_all() {
    let (folder, path) = file();
    let links = tempfile::tempdir().expect("a folder");
    let behind = links.path().join("folder");
    symlink(folder.path(), &behind).expect("linked");
    let linked = behind.join(path.file_name().expect("a name"));
    let snapshot = read(&linked).expect("read");
    assert_eq!(snapshot.path, path);
    replace(&snapshot, NEW.as_bytes()).expect("replaced");
    assert_eq!(text(&path), NEW);

    fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).expect("set");
    assert!(matches!(read(&linked), Err(FileError::LinkToOpenFolder { .. })));
    assert!(read(&path).is_ok(), "named itself, it is the person's own choice");
}

#[test]
fn what_is_no_file_is_refused() {
    let (folder, path) = file();
    let missing = read(&path.with_extension("toml")).expect_err("refused");
    assert!(
        missing
            .to_string()
            .ends_with("does not exist; create it, or correct `config`"),
        "{missing}"
    );
    assert!(matches!(read(folder.path()), Err(FileError::NotRegular { .. })));
    let pipe = path.with_extension("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .expect("made");
    assert!(matches!(read(&pipe), Err(FileError::NotRegular { .. })));
    let dangling = path.with_extension("link");
    symlink("nowhere", &dangling).expect("linked");
    let nowhere = dangling.with_file_name("nowhere");
    assert!(matches!(read(&dangling), Err(FileError::Link { target: Some(to), .. }) if to == nowhere));
    let large = fs::File::create(&path).expect("created");
    large
        .set_len(crate::edit::MAX_BYTES as u64 + 1)
        .expect("extended");
    assert!(matches!(
        read(&path),
        Err(FileError::TooLarge { bytes: 4_194_305, .. })
    ));
}

/// Refused before the first step, and nothing changed.
fn refused(snapshot: &Snapshot) -> FileError {
    let mut steps = Vec::new();
    let error = replace_with(snapshot, NEW.as_bytes(), &mut |step| steps.push(step)).expect_err("refused");
    assert_eq!(steps, [], "{error}");
    assert_eq!(text(&snapshot.path), OLD);
    error
}

#[test]
fn what_is_read_only_is_refused_even_for_root() {
    let (folder, path) = file();
    let snapshot = |mode| {
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set");
        read(&path).expect("read")
    };
    assert!(matches!(refused(&snapshot(0o444)), FileError::ReadOnly { path: at } if at == path));
    let writable = snapshot(0o644);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o555)).expect("set");
    let error = refused(&writable);
    assert!(
        error
            .to_string()
            .ends_with("is read-only; allow writing to it if it may be changed"),
        "{error}"
    );
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("set");
    fs::hard_link(&path, path.with_extension("bak")).expect("linked");
    assert!(matches!(refused(&writable), FileError::HardLinked { .. }));
}

#[test]
fn two_of_us_do_not_write_at_once() {
    let (_folder, path) = file();
    let snapshot = read(&path).expect("read");
    let mut second = None;
    replace_with(&snapshot, NEW.as_bytes(), &mut |step| {
        if step == Step::Named {
            second = Some(clean_leftovers(path.parent().expect("a folder")));
        }
    })
    .expect("replaced");
    assert!(matches!(second, Some(Err(FileError::Locked { .. }))));
    assert_eq!(text(&path), NEW);
}

#[test]
fn files_in_one_folder_wait_for_each_other() {
    let (_folder, path) = file();
    let other = path.with_extension("yml");
    fs::write(&other, OLD).expect("written");
    let (snapshot, second) = (read(&path).expect("read"), read(&other).expect("read"));
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        replace_with(&snapshot, NEW.as_bytes(), &mut |step| {
            if step == Step::Permitted {
                let (done, second) = (done.clone(), &second);
                scope.spawn(move || done.send(replace(second, LATER.as_bytes())));
                // It does not end as long as the folder is ours, so this is only to let it come as far as it can.
                let early = ended.recv_timeout(std::time::Duration::from_millis(100));
                assert!(early.is_err(), "{early:?}");
            }
        })
        .expect("replaced");
        ended.recv().expect("ended").expect("replaced");
    });
    assert_eq!((text(&path).as_str(), text(&other).as_str()), (NEW, LATER));
}

#[test]
fn what_cannot_be_read_is_not_taken_for_the_same() {
    let (_folder, path) = file();
    let snapshot = read(&path).expect("read");
    let large = crate::edit::MAX_BYTES as u64 + 1;
    let outcome = replace_with(&snapshot, NEW.as_bytes(), &mut |step| match step {
        Step::Leased => {
            let beside = path.with_extension("swp");
            let file = fs::File::create(&beside).expect("created");
            file.set_len(large).expect("set");
            fs::rename(&beside, &path).expect("renamed");
        }
        Step::GivingBack => save(&path, Save::Rename, LATER),
        _ => {}
    });
    let Err(FileError::Contended { kept, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(text(&path), LATER, "what they saved last");
    assert_eq!(fs::metadata(&kept).expect("kept").len(), large);
}

#[test]
fn a_change_before_we_start_is_refused() {
    let (_folder, path) = file();
    let snapshot = read(&path).expect("read");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("set");
    assert!(
        matches!(refused(&snapshot), FileError::ChangedMeanwhile { .. }),
        "the mode is the author's word too"
    );
    fs::remove_file(&path).expect("removed");
    assert!(replace(&snapshot, NEW.as_bytes()).is_err());
    assert!(!path.exists());
}

#[test]
fn a_save_at_any_moment_stays() {
    for how in SAVES {
        for moment in STEPS {
            let (_folder, path) = file();
            let snapshot = read(&path).expect("read");
            let outcome = std::thread::scope(|scope| {
                replace_with(&snapshot, NEW.as_bytes(), &mut |step| {
                    if step != moment {
                        return;
                    }
                    let saved = scope.spawn(|| save(&path, how, THEIRS));
                    // Whoever comes to write into the old file now waits until it is decided where that is.
                    if step != Step::Leased || how == Save::Rename {
                        saved.join().expect("saved");
                    }
                })
            });
            assert_eq!(text(&path), THEIRS, "{how:?} at {moment:?}: {outcome:?}");
            match outcome {
                Ok(_) => assert!(
                    moment >= Step::Exchanged || (moment == Step::Leased && how != Save::Rename),
                    "{how:?} at {moment:?}"
                ),
                Err(FileError::ChangedMeanwhile { .. }) => assert!(moment < Step::Exchanged),
                Err(FileError::BeingWritten { .. }) => assert_eq!(moment, Step::Leased),
                Err(error) => panic!("{how:?} at {moment:?}: {error}"),
            }
            assert!(only_file_in(&path), "{how:?} at {moment:?}");
        }
    }
}

/// The second text may have been made from ours, before the first was back.
#[test]
fn of_two_saves_while_ours_is_in_place_none_is_lost() {
    for second in SAVES {
        let (_folder, path) = file();
        let snapshot = read(&path).expect("read");
        let outcome = replace_with(&snapshot, NEW.as_bytes(), &mut |step| match step {
            Step::Leased => save(&path, Save::Rename, THEIRS),
            Step::GivingBack => save(&path, second, LATER),
            _ => {}
        });
        let Err(FileError::Contended { kept, .. }) = outcome else {
            panic!("{second:?}: {outcome:?}")
        };
        assert_eq!(
            (text(&path).as_str(), text(&kept).as_str()),
            (LATER, THEIRS),
            "{second:?}"
        );
    }
}

/// A program read ours, and saves when the first text is back already.
#[test]
fn a_text_that_is_saved_over_without_having_been_read_is_kept() {
    let ours_and_more = format!("{NEW}b: 1\n");
    let theirs_and_more = format!("{THEIRS}b: 1\n");
    for (later, is_kept) in [(ours_and_more, true), (theirs_and_more, false)] {
        let (_folder, path) = file();
        let snapshot = read(&path).expect("read");
        let outcome = std::thread::scope(|scope| {
            replace_with(&snapshot, NEW.as_bytes(), &mut |step| match step {
                Step::Leased => save(&path, Save::Rename, THEIRS),
                Step::GivingBack => {
                    scope.spawn(|| {
                        while text(&path) != THEIRS {
                            std::thread::yield_now();
                        }
                        save(&path, Save::Rename, &later);
                    });
                }
                _ => {}
            })
        });
        assert_eq!(text(&path), later);
        match outcome {
            Err(FileError::Contended { kept, .. }) => {
                assert_eq!((text(&kept).as_str(), is_kept), (THEIRS, true))
            }
            Err(FileError::ChangedMeanwhile { .. }) => assert!(!is_kept && only_file_in(&path)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_editor_in_the_middle_of_a_write_gets_its_file_back() {
    for truncate in [true, false] {
        let (_folder, path) = file();
        let snapshot = read(&path).expect("read");
        let mut editor = None;
        let outcome = replace_with(&snapshot, NEW.as_bytes(), &mut |step| {
            if step == Step::Checked {
                editor = Some(
                    OpenOptions::new()
                        .write(true)
                        .truncate(truncate)
                        .open(&path)
                        .expect("opened"),
                );
            }
        });
        let error = outcome.expect_err("refused");
        assert!(
            matches!(error, FileError::BeingWritten { pid: Some(pid), .. } if pid == std::process::id()),
            "{error}"
        );
        editor
            .expect("open")
            .write_all(THEIRS.as_bytes())
            .expect("written");
        assert_eq!(text(&path), THEIRS);
        assert!(only_file_in(&path));
    }
}

#[test]
fn a_link_or_nothing_put_in_place_at_the_last_moment_stays() {
    let (_folder, path) = file();
    let snapshot = read(&path).expect("read");
    let outcome = replace_with(&snapshot, NEW.as_bytes(), &mut |step| {
        if step == Step::Leased {
            fs::remove_file(&path).expect("removed");
            symlink("elsewhere", &path).expect("linked");
        }
    });
    assert!(
        matches!(outcome, Err(FileError::ChangedMeanwhile { .. })),
        "{outcome:?}"
    );
    assert_eq!(fs::read_link(&path).expect("their link"), Path::new("elsewhere"));
    assert!(only_file_in(&path));

    let (_folder, path) = file();
    let snapshot = read(&path).expect("read");
    let outcome = replace_with(&snapshot, NEW.as_bytes(), &mut |step| match step {
        Step::Leased => save(&path, Save::Rename, THEIRS),
        Step::GivingBack => fs::remove_file(&path).expect("removed"),
        _ => {}
    });
    let Err(FileError::Contended { kept, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(!path.exists(), "they removed it");
    assert_eq!(
        text(&kept),
        THEIRS,
        "but what they wrote before is not ours to remove"
    );
}

#[test]
fn an_editor_that_opened_our_text_keeps_a_file_to_write_to() {
    let (_folder, path) = file();
    let snapshot = read(&path).expect("read");
    let mut editor = None;
    let outcome = replace_with(&snapshot, NEW.as_bytes(), &mut |step| match step {
        Step::Leased => save(&path, Save::Rename, THEIRS),
        Step::GivingBack => editor = Some(OpenOptions::new().append(true).open(&path).expect("opened")),
        _ => {}
    });
    let Err(FileError::Contended { kept, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(text(&path), THEIRS);
    editor.expect("open").write_all(b"more\n").expect("written");
    assert_eq!(text(&kept), format!("{NEW}more\n"));
}

/// While processes are started all the time, each with copies of our descriptors for a moment.
#[test]
fn starting_processes_does_not_confuse_us() {
    struct StopAtEnd<'a>(&'a AtomicBool);
    impl Drop for StopAtEnd<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                Command::new("true").status().expect("ran");
            }
        });
        let _stop = StopAtEnd(&stop);
        for round in 0..200 {
            let (_folder, path) = file();
            let snapshot = read(&path).expect("read");
            let outcome = replace_with(&snapshot, NEW.as_bytes(), &mut |step| {
                if step == Step::Checked && round % 2 == 0 {
                    save(&path, Save::Rename, THEIRS);
                }
            });
            match outcome {
                Ok(_) => assert_eq!((round % 2, text(&path).as_str()), (1, NEW)),
                Err(FileError::ChangedMeanwhile { .. }) => {
                    assert_eq!((round % 2, text(&path).as_str()), (0, THEIRS));
                }
                Err(error) => panic!("round {round}: {error}"),
            }
            replace(&read(&path).expect("read"), LATER.as_bytes()).expect("replaced once more");
        }
    });
}

/// One thread saves like an editor, the other replaces what it read, at the same time and hundreds of times.
#[test]
fn no_edit_is_lost_in_hundreds_of_races() {
    let (_folder, path) = file();
    let (mut taken, mut refused) = (0, 0);
    for round in 0..300_usize {
        let start = Barrier::new(2);
        let ours = std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                edit_like_a_person(&path, round);
            });
            start.wait();
            spin(round * 15_485_863 % 20_000);
            let snapshot = read(&path).ok()?;
            let ours = [snapshot.bytes.as_slice(), b"# ours\n"].concat();
            Some(replace(&snapshot, &ours))
        });
        match ours {
            Some(Ok(_)) => taken += 1,
            Some(Err(FileError::ChangedMeanwhile { .. } | FileError::BeingWritten { .. })) => refused += 1,
            // The path led nowhere for an instant, or to a file that was gone again.
            None => {}
            Some(Err(error)) => panic!("round {round}: {error}: {:?}", std::error::Error::source(&error)),
        }
        let now = text(&path);
        assert!(
            now.starts_with(&format!("human {round}\n")),
            "round {round}: {now:?}"
        );
        assert!(only_file_in(&path), "round {round}");
    }
    assert!(
        taken > 0 && refused > 0,
        "the races were none: {taken} taken, {refused} refused"
    );
}

fn edit_like_a_person(path: &Path, round: usize) {
    spin(round * 7919 % 40_000);
    let text = format!("human {round}\n");
    if let Some(how) = SAVES.get(round % 4) {
        return save(path, *how, &text);
    }
    // An editor that writes in pieces.
    let (head, tail) = text.split_at(4);
    let mut file = fs::File::create(path).expect("opened");
    file.write_all(head.as_bytes()).expect("written");
    spin(round * 104_729 % 60_000);
    file.write_all(tail.as_bytes()).expect("written");
}

fn spin(turns: usize) {
    for _ in 0..turns {
        std::hint::spin_loop();
    }
}

/// Where a child process finds what to do.
const CHILD_FILE: &str = "TEST_CHILD_FILE";
const CHILD_STEP: &str = "TEST_CHILD_STEP";

fn child(name: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    let test = format!("file::replace::tests::{name}");
    command
        .args(["--exact", &test, "--ignored", "--nocapture"])
        .env(CHILD_FILE, path);
    command
}

#[test]
#[ignore = "runs as a child of the next test, which kills it"]
fn child_that_is_killed() {
    let path = PathBuf::from(std::env::var_os(CHILD_FILE).expect("a file"));
    let wanted = std::env::var(CHILD_STEP).expect("a step");
    let snapshot = read(&path).expect("read");
    let outcome = replace_with(&snapshot, NEW.as_bytes(), &mut |step| {
        let (wanted, edited) = wanted
            .strip_suffix(" after a save")
            .map_or((wanted.as_str(), false), |wanted| (wanted, true));
        if step == Step::Leased && edited {
            save(&path, Save::Rename, THEIRS);
        }
        if format!("{step:?}") == wanted {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL).expect("killed");
        }
    });
    panic!("was not killed: {outcome:?}");
}

#[test]
fn killed_at_any_step_it_leaves_one_whole_text_and_cleans_up_later() {
    let edited = [(Step::Exchanged, true), (Step::GivingBack, true)];
    for (step, edited) in STEPS.map(|step| (step, false)).into_iter().chain(edited) {
        let (folder, path) = file();
        let after = if edited { " after a save" } else { "" };
        let status = child("child_that_is_killed", &path)
            .env(CHILD_STEP, format!("{step:?}{after}"))
            .output();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status.expect("ran").status);
        assert_eq!(signal, Some(9), "at {step:?}");
        let exchanged = matches!(step, Step::Exchanged | Step::Done | Step::GivingBack);
        assert_eq!(text(&path), if exchanged { NEW } else { OLD }, "at {step:?}");
        let cleaned = clean_leftovers(folder.path()).expect("cleaned");
        assert!(only_file_in(&path), "at {step:?}: {cleaned:?}");
        match step {
            _ if edited => {
                assert_eq!(cleaned, [Leftover::Restored(folder.path().join("server.yaml"))]);
                assert_eq!(text(&path), THEIRS);
            }
            Step::Permitted | Step::Drafted | Step::Done => assert_eq!(cleaned, [], "at {step:?}"),
            _ => assert!(
                matches!(cleaned.as_slice(), [Leftover::Removed(_)]),
                "at {step:?}: {cleaned:?}"
            ),
        }
        // And the next one works.
        let snapshot = read(&path).expect("read");
        assert_eq!(
            replace(&snapshot, LATER.as_bytes()).expect("replaced").hash,
            hash(LATER.as_bytes())
        );
    }
}

#[test]
#[ignore = "runs as a child of the next test, in a mount namespace of its own"]
fn child_with_a_mounted_file() {
    let path = PathBuf::from(std::env::var_os(CHILD_FILE).expect("a file"));
    let error = replace(&read(&path).expect("read"), NEW.as_bytes()).expect_err("refused");
    assert!(matches!(error, FileError::Mounted { .. }), "{error}");
    assert_eq!(text(&path), OLD);
    assert!(only_file_in(&path));
}

#[test]
fn a_file_that_is_a_mount_is_refused() {
    let (_folder, path) = file();
    let (_other, source) = file();
    let mount = |then: &str| {
        let script = format!("mount --bind \"$0\" \"$1\" && {then}");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", &script])
            .arg(&source)
            .arg(&path);
        command
    };
    if !mount("true").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this user may not mount");
        return;
    }
    let test = child("child_with_a_mounted_file", &path);
    let mut command = mount("shift && exec \"$@\"");
    let output = command
        .arg(test.get_program())
        .args(test.get_args())
        .env(CHILD_FILE, &path)
        .output()
        .expect("ran");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert_eq!(text(&path), OLD);
}

#[test]
fn the_new_file_is_not_the_one_that_others_still_read() {
    let (_folder, path) = file();
    let reader = fs::File::open(&path).expect("opened");
    replace(&read(&path).expect("read"), NEW.as_bytes()).expect("replaced");
    assert_eq!(std::io::read_to_string(&reader).expect("read"), OLD);
    assert_eq!(reader.metadata().expect("metadata").nlink(), 0);
}
