//! Watching files that people edit: the daemon's own configuration and the engines' files.
//!
//! Editors replace files rather than write into them, so directories are watched; many notices belong to one edit, so
//! they are gathered; and only a changed content is an edit.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

/// Notices within this time of each other are one edit.
const DEBOUNCE: Duration = Duration::from_millis(150);

/// Of a larger file only the start is looked at, and its length; it is no configuration.
const SIZE_LIMIT: u64 = 16 << 20;

/// Unknown when it is no file, or cannot be read.
type Content = Option<[u8; 32]>;

/// A watch over some files. Ends when dropped.
pub(crate) struct Watch {
    _watcher: Option<RecommendedWatcher>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    /// Watches `files` and tells `changed` which of them have another content than before.
    pub(crate) fn start(files: &BTreeSet<PathBuf>, changed: impl Fn(PathBuf) + Send + 'static) -> Self {
        let (notice, mut notices) = mpsc::channel::<()>(1);
        let names: BTreeSet<OsString> = files.iter().flat_map(|file| names(file)).collect();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // To be read is no edit; the look itself reads, and would be the cause of the next one.
            if event.is_ok_and(|event| is_reading(event.kind) || !concerns(&event, &names)) {
                return;
            }
            if notice.try_send(()).is_err() {
                tracing::trace!("a look is due already");
            }
        });
        let watcher = match watcher {
            Ok(mut watcher) => {
                for directory in files.iter().flat_map(|file| directories(file)) {
                    if let Err(error) = watcher.watch(&directory, RecursiveMode::NonRecursive) {
                        tracing::warn!(directory = %directory.display(), %error, "edits here will not be noticed");
                    }
                }
                Some(watcher)
            }
            Err(error) => {
                tracing::warn!(%error, "edits of configuration files will not be noticed; send SIGHUP instead");
                None
            }
        };
        let mut known: HashMap<PathBuf, Content> =
            files.iter().map(|file| (file.clone(), content(file))).collect();
        let task = tokio::spawn(async move {
            while notices.recv().await.is_some() {
                tokio::time::sleep(DEBOUNCE).await;
                while notices.try_recv().is_ok() {}
                // Not on the loop's thread: a disk may be slow.
                let look = tokio::task::spawn_blocking(move || {
                    let edited = edited(&mut known);
                    (known, edited)
                });
                let Ok((looked_at, edited)) = look.await else {
                    return;
                };
                known = looked_at;
                edited.into_iter().for_each(&changed);
            }
        });
        Self {
            _watcher: watcher,
            task,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether nothing was changed, only opened or read.
fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// The directory of the file, and of what it links to.
fn directories(file: &Path) -> BTreeSet<PathBuf> {
    let target = std::fs::canonicalize(file).ok();
    [Some(file.to_owned()), target]
        .into_iter()
        .flatten()
        .filter_map(|path| path.parent().map(Path::to_owned))
        .collect()
}

/// The names whose change may change the file: its own and its folder's, and those on the way of a link. (A mounted
/// Kubernetes ConfigMap links FILE to ..data/FILE, and an edit turns ..data to another folder.)
fn names(file: &Path) -> BTreeSet<OsString> {
    let own = |path: &Path| path.file_name().map(OsStr::to_owned);
    let link = std::fs::read_link(file).unwrap_or_default();
    let on_the_way = link.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        _ => None,
    });
    let target = std::fs::canonicalize(file).ok();
    let places = [
        file.parent(),
        target.as_deref(),
        target.as_deref().and_then(Path::parent),
    ];
    let places = places.into_iter().flatten().filter_map(own);
    own(file).into_iter().chain(on_the_way).chain(places).collect()
}

/// Whether a notice may be about one of these names. One that says that notices were lost is about all of them.
fn concerns(event: &notify::Event, names: &BTreeSet<OsString>) -> bool {
    let is_named = |path: &PathBuf| path.file_name().is_none_or(|name| names.contains(name));
    event.need_rescan() || event.paths.is_empty() || event.paths.iter().any(is_named)
}

/// The files whose content is another now, which is noted.
fn edited(known: &mut HashMap<PathBuf, Content>) -> Vec<PathBuf> {
    let mut edited = Vec::new();
    for (file, before) in known {
        let now = content(file);
        if now != *before {
            *before = now;
            edited.push(file.clone());
        }
    }
    edited
}

fn content(file: &Path) -> Content {
    // A pipe would make a plain open wait for its other end.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(file, flags, Mode::empty()).ok()?);
    let length = file.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
    let mut bytes = Vec::new();
    file.take(SIZE_LIMIT).read_to_end(&mut bytes).ok()?;
    let mut hash = Sha256::new();
    hash.update(bytes);
    hash.update(length.to_le_bytes());
    Some(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, ModifyKind, RemoveKind, RenameMode};

    use super::*;

    /// As an editor saves: a new file, renamed over the old one.
    fn save(path: &Path, text: &str) {
        let draft = path.with_extension("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, path).unwrap();
    }

    #[tokio::test]
    async fn an_edit_is_told_once_and_what_is_no_edit_never() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let [touched, edited] = ["touched.toml", "edited.toml"].map(file);
        for path in [&touched, &edited] {
            std::fs::write(path, "a").unwrap();
        }
        let (changed, mut told) = mpsc::unbounded_channel();
        let files = BTreeSet::from([touched.clone(), edited.clone()]);
        let _watch = Watch::start(&files, move |path| changed.send(path).unwrap());
        // Each look tells of everything before it, so what was told by the last is all there is to tell.
        for text in ["b", "c", "d"] {
            save(&touched, "a");
            File::open(&touched)
                .unwrap()
                .set_modified(std::time::UNIX_EPOCH)
                .unwrap();
            std::fs::write(file("another.toml"), text).unwrap();
            save(&edited, text);
            let path = tokio::time::timeout(Duration::from_secs(60), told.recv()).await;
            assert_eq!(path.expect("it is noticed"), Some(edited.clone()), "{text}");
        }
        assert!(told.try_recv().is_err(), "a save is many notices and one edit");
    }

    #[test]
    fn only_some_names_concern_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        std::fs::create_dir(folder.join("..2026")).unwrap();
        std::fs::write(folder.join("..2026/a.toml"), "").unwrap();
        std::os::unix::fs::symlink("..2026", folder.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.toml", folder.join("a.toml")).unwrap();
        let names = names(&folder.join("a.toml"));
        let event = |name: &str| notify::Event::new(EventKind::Any).add_path(folder.join(name));
        for name in ["a.toml", "..data", "..2026"] {
            assert!(concerns(&event(name), &names), "{name}");
        }
        for name in ["b.toml", "server.log", ".a.toml.swp"] {
            assert!(!concerns(&event(name), &names), "{name}");
        }
        assert!(concerns(&event("b.toml").add_path(folder.join("a.toml")), &names));
        assert!(concerns(&notify::Event::new(EventKind::Any), &names));
        assert!(concerns(
            &event("b.toml").set_flag(notify::event::Flag::Rescan),
            &names
        ));
    }

    #[test]
    fn what_is_no_file_or_is_huge_does_not_hold_the_look_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        std::fs::write(&path, "a").unwrap();
        let mut known = HashMap::from([(path.clone(), content(&path))]);
        assert!(edited(&mut known).is_empty());
        std::fs::remove_file(&path).unwrap();
        let status = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(status.success());
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send((edited(&mut known), known)));
        let (changed, mut known) = ended
            .recv_timeout(Duration::from_secs(30))
            .expect("it does not wait for a writer");
        assert_eq!(changed, std::slice::from_ref(&path));
        std::fs::remove_file(&path).unwrap();
        assert!(edited(&mut known).is_empty(), "neither is a configuration");
        // It takes no room on the disk, and would take this much memory.
        let huge = File::create(&path).unwrap();
        huge.set_len(1 << 40).unwrap();
        assert_eq!(edited(&mut known), std::slice::from_ref(&path));
        huge.set_len(2 << 40).unwrap();
        assert_eq!(edited(&mut known), [path]);
    }

    #[test]
    fn reading_is_no_edit() {
        for kind in [
            AccessKind::Open(AccessMode::Any),
            AccessKind::Read,
            AccessKind::Close(AccessMode::Read),
        ] {
            assert!(is_reading(EventKind::Access(kind)), "{kind:?}");
        }
        for kind in [
            EventKind::Access(AccessKind::Close(AccessMode::Write)),
            EventKind::Create(CreateKind::File),
            EventKind::Modify(ModifyKind::Name(RenameMode::To)),
            EventKind::Remove(RemoveKind::File),
            EventKind::Any,
        ] {
            assert!(!is_reading(kind), "{kind:?}");
        }
    }
}
