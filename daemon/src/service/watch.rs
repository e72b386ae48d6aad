//! Watching files that people edit: the daemon's own configuration and the engines' files.
//!
//! Editors replace files rather than write into them, so directories are watched; many notices belong to one edit, so
//! they are gathered; and only a changed content is an edit.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

/// Notices within this time of each other are one edit.
const DEBOUNCE: Duration = Duration::from_millis(150);

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
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // To be read is no edit; the look itself reads, and would be the cause of the next one.
            if event.is_ok_and(|event| is_reading(event.kind)) {
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
                for (file, before) in &mut known {
                    let now = content(file);
                    if now != *before {
                        *before = now;
                        changed(file.clone());
                    }
                }
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

fn content(file: &Path) -> Content {
    std::fs::read(file).ok().map(|bytes| Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, ModifyKind, RemoveKind, RenameMode};

    use super::*;

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
