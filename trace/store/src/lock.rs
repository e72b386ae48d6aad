//! One writer per store: an advisory lock on a file beside it.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use rustix::fs::{FlockOperation, flock};

use crate::StoreError;

/// Held for as long as the writer lives. The kernel lets go of it when the process dies, however it dies; the file
/// itself stays, because deleting it would let two processes lock two different files of the same name.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "closing the file is what unlocks")] File);

impl Lock {
    pub(crate) fn take(store: &Path) -> Result<Self, StoreError> {
        let mut path = store.as_os_str().to_owned();
        path.push(".lock");
        let path = Path::new(&path);
        let io = |doing| {
            move |source| StoreError::Io {
                doing,
                path: path.to_owned(),
                source: Arc::new(source),
            }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .open(path)
            .map_err(io("opening"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let pid = file
                    .read_to_string(&mut text)
                    .ok()
                    .and_then(|_| text.trim().parse().ok());
                return Err(StoreError::Locked {
                    path: store.to_owned(),
                    pid,
                });
            }
            Err(error) => return Err(io("locking")(error.into())),
        }
        file.set_len(0).map_err(io("writing"))?;
        writeln!(file, "{}", std::process::id()).map_err(io("writing"))?;
        Ok(Self(file))
    }
}
