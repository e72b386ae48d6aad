//! A thin reader of `/proc`: the few files that tell processes apart, as text here and as figures in the modules below.
//!
//! `sysinfo` could list processes too. It reads more files of every process at every refresh than are asked for here,
//! and it cannot leave out a process that it already knows, which is what keeps a scan cheap (see
//! [`crate::processes`]). It knows neither cgroups nor sessions nor sockets.

pub(crate) mod cgroup;
pub(crate) mod sockets;
pub(crate) mod stat;

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use crate::processes::ProcessId;

/// No file that is read here needs more; command lines can be megabytes long.
const MOST_BYTES: u64 = 32 * 1024;

/// The path of one file of one process.
pub(crate) fn path_of(pid: u32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

/// Reads the first [`MOST_BYTES`] of one file of one process. Foreign bytes that are not UTF-8 are replaced.
pub(crate) fn read(pid: u32, file: &str) -> io::Result<String> {
    let mut bytes = Vec::with_capacity(1024);
    File::open(path_of(pid, file))?
        .take(MOST_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// The process's place in the tree and its start; `None` when it is gone or cannot be read.
pub(crate) fn stat(pid: u32) -> Option<stat::Stat> {
    stat::parse(&read(pid, "stat").ok()?)
}

/// The process that has this number now; `None` when it is gone or cannot be read.
pub(crate) fn identity(pid: u32) -> Option<ProcessId> {
    let started_ticks = stat(pid)?.started_ticks;
    Some(ProcessId { pid, started_ticks })
}

/// The command line with spaces between its words; `None` when it is gone, cannot be read or has none.
pub(crate) fn command(pid: u32) -> Option<String> {
    let line = read(pid, "cmdline").ok()?;
    let line = line.trim_end_matches('\0');
    (!line.is_empty()).then(|| line.replace('\0', " "))
}

/// The path of the executable. Only the process's own user and root may know it. A file that was replaced since, as
/// by an upgrade, keeps its name: the kernel's mark for that is taken off.
pub(crate) fn executable(pid: u32) -> io::Result<String> {
    let path = std::fs::read_link(path_of(pid, "exe"))?;
    let path = path.to_string_lossy();
    Ok(path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned())
}

/// The path of the process's cgroup below the hierarchy's root, such as `/system.slice/x.service`.
pub(crate) fn cgroup(pid: u32) -> Option<String> {
    cgroup::path(&read(pid, "cgroup").ok()?).map(str::to_owned)
}

/// The id of the container that the process runs in, from its cgroup: 64 hexadecimal digits as Docker, containerd,
/// CRI-O and Podman use them. `None` when it runs in none, when its cgroup does not tell, or when it is gone.
#[must_use]
pub fn container_of(pid: u32) -> Option<Arc<str>> {
    cgroup(pid).and_then(|path| cgroup::containers(&path).last().map(Arc::from))
}

/// The command line of a process, words joined by spaces; `None` when it is gone, cannot be read or has none.
#[must_use]
pub fn command_of(pid: u32) -> Option<String> {
    command(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_process() {
        let own = std::process::id();
        let stat = stat(own).expect("own stat");
        assert_eq!(stat.parent, std::os::unix::process::parent_id());
        assert!(stat.started_ticks > 0 && !stat.is_dead());
        let exe = executable(own).expect("own executable");
        assert_eq!(exe, std::env::current_exe().unwrap().to_string_lossy());
        let arguments: Vec<String> = std::env::args().collect();
        assert_eq!(command(own), Some(arguments.join(" ")));
        assert!(cgroup(own).is_some());
    }

    #[test]
    fn a_process_that_is_gone_is_unknown() {
        // Pids end at 2^22.
        let nobody = 1 << 23;
        assert!(stat(nobody).is_none() && command(nobody).is_none() && container_of(nobody).is_none());
        assert!(executable(nobody).is_err());
    }
}
