//! Who has a file open for writing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Identity;

/// A process that has this file open for writing, if one can be seen. `name` is the name it has now.
///
/// Processes of other users are seen by root only. To look at few descriptors closely, those whose file has another name
/// are passed over: the kernel shows each file under its present name.
pub(super) fn find(file: Identity, name: &str) -> Option<u32> {
    let pids = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.into_iter().find(|pid| writes(*pid, file, name))
}

fn writes(pid: u32, file: Identity, name: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors.flatten().any(|entry| {
        let link = entry.path();
        let named =
            fs::read_link(&link).is_ok_and(|target| target.file_name().is_some_and(|last| last == name));
        named && is_file(&link, file) && for_writing(pid, &entry.file_name().to_string_lossy())
    })
}

fn is_file(link: &Path, file: Identity) -> bool {
    fs::metadata(link).is_ok_and(|metadata| {
        Identity {
            dev: metadata.dev(),
            ino: metadata.ino(),
        } == file
    })
}

/// Reads the line `flags: 0100002` of `/proc/PID/fdinfo/FD`: the access mode is in the lowest two bits (proc(5)).
fn for_writing(pid: u32, descriptor: &str) -> bool {
    let Ok(info) = fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}")) else {
        return false;
    };
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags
        .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
        .is_some_and(|flags| flags & 0b11 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;

    #[test]
    fn sees_writers_and_not_readers() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.yaml");
        fs::write(&path, "x").expect("written");
        let metadata = fs::metadata(&path).expect("metadata");
        let identity = Identity {
            dev: metadata.dev(),
            ino: metadata.ino(),
        };
        let reader = fs::File::open(&path).expect("opened");
        assert_eq!(find(identity, "a.yaml"), None);
        let writer = OpenOptions::new().append(true).open(&path).expect("opened");
        assert_eq!(find(identity, "a.yaml"), Some(std::process::id()));
        fs::rename(&path, folder.path().join("b.yaml")).expect("renamed");
        assert_eq!(find(identity, "b.yaml"), Some(std::process::id()));
        drop((reader, writer));
        assert_eq!(find(identity, "b.yaml"), None);
    }
}
