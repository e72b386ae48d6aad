//! A thin reader of `/proc`: the few files that tell processes apart, as text here and as figures in the modules below.
//!
//! `sysinfo` could list processes too. It reads more files of every process at every refresh than are asked for here,
//! and it cannot leave out a process that it already knows, which is what keeps a scan cheap (see
//! [`crate::processes`]). It knows neither cgroups nor sessions nor sockets.

pub(crate) mod cgroup;
pub(crate) mod signals;
pub(crate) mod sockets;
pub(crate) mod stat;

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

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

/// Whether the process catches the signal of that number (`SigCgt` in `/proc/PID/status`): it has a handler for it.
/// A signal that is not caught ends most programs, so this is asked before one is sent.
///
/// # Errors
/// The process is gone or may not be looked at, the number is not 1 to 64, or the kernel's text is not understood.
pub fn catches_signal(pid: u32, signal: i32) -> io::Result<bool> {
    let status = read(pid, "status")?;
    let caught = signals::caught(&status).ok_or_else(|| {
        let text = format!("no signal mask in /proc/{pid}/status: the process may be ending");
        io::Error::new(io::ErrorKind::InvalidData, text)
    })?;
    signals::contains(caught, signal).ok_or_else(|| {
        let text = format!("signal number {signal} does not exist: it must be from 1 to 64");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
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
        let error = catches_signal(nobody, 1).expect_err("nobody");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_child_catches_what_it_declares() {
        use std::io::BufRead;
        let mut child = std::process::Command::new("sh")
            .args(["-c", "trap 'exit 0' HUP; echo ready; read line"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("sh");
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        io::BufReader::new(output).read_line(&mut line).expect("ready");
        let (hup, usr1) = (catches_signal(child.id(), 1), catches_signal(child.id(), 10));
        let invalid = catches_signal(child.id(), 65);
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(hup.expect("status"), "the shell traps HUP");
        assert!(!usr1.expect("status"), "nothing traps USR1");
        assert_eq!(invalid.expect_err("65").kind(), io::ErrorKind::InvalidInput);
    }
}
