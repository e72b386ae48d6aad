//! What a process has used, from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use anyhow::Context;

/// What a process had used at an instant.
pub(crate) struct Usage {
    at: Instant,
    /// Name and time on a processor in ns, by thread.
    threads: BTreeMap<u32, (String, u64)>,
    written_bytes: u64,
}

/// What a process used between two instants.
pub(crate) struct Cost {
    /// How long that was.
    pub(crate) secs: f64,
    /// Percent of one core, by name of thread.
    pub(crate) threads: BTreeMap<String, f64>,
    /// Bytes a second that it made the kernel write to the disk.
    pub(crate) written_bytes_per_sec: f64,
}

/// Memory of a process, bytes.
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) peak: u64,
}

impl Usage {
    /// Asks for the present. A thread's time is counted by the scheduler in ns; that of threads that have ended is lost,
    /// but in steady state none end.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let at = Instant::now();
        let mut threads = BTreeMap::new();
        let folder = format!("/proc/{pid}/task");
        for task in fs::read_dir(&folder).with_context(|| folder.clone())? {
            let path = task?.path();
            let thread: u32 = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.parse().ok())
                .context("a thread's number")?;
            let times = fs::read_to_string(path.join("schedstat")).context("this kernel has no schedstat")?;
            let ran_ns = times
                .split_whitespace()
                .next()
                .and_then(|word| word.parse().ok())
                .context("schedstat")?;
            let name = fs::read_to_string(path.join("comm"))?;
            threads.insert(thread, (name.trim_end().to_owned(), ran_ns));
        }
        let written = fs::read_to_string(format!("/proc/{pid}/io")).context("/proc/PID/io")?;
        let written_bytes = field(&written, "write_bytes:").context("write_bytes")?;
        Ok(Self {
            at,
            threads,
            written_bytes,
        })
    }

    /// What was used since `before`.
    #[expect(
        clippy::cast_precision_loss,
        reason = "ns and bytes of a minute, far below 2^52"
    )]
    pub(crate) fn since(&self, before: &Self) -> Cost {
        let secs = self.at.duration_since(before.at).as_secs_f64();
        let mut threads = BTreeMap::new();
        for (thread, (name, ran_ns)) in &self.threads {
            let ran_before = before.threads.get(thread).map_or(0, |(_, ran_ns)| *ran_ns);
            let percent = (ran_ns - ran_before) as f64 / 1e9 / secs * 100.0;
            *threads.entry(name.clone()).or_default() += percent;
        }
        let written = self.written_bytes - before.written_bytes;
        Cost {
            secs,
            threads,
            written_bytes_per_sec: written as f64 / secs,
        }
    }
}

impl Cost {
    /// Percent of one core, all threads together.
    pub(crate) fn percent(&self) -> f64 {
        self.threads.values().sum()
    }
}

impl Memory {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = |key| field(&status, key).with_context(|| format!("{key} in /proc/PID/status"));
        Ok(Self {
            resident: kib("VmRSS:")? << 10,
            peak: kib("VmHWM:")? << 10,
        })
    }
}

/// The number behind a key at the start of a line.
fn field(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Seconds on a processor of all children of this process that have ended, to 10 ms (getrusage's figures as
/// proc_pid_stat(5) shows them: fields 16 and 17).
pub(crate) fn ended_children_secs() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |place: usize| {
        fields
            .get(place)
            .and_then(|word| word.parse::<u32>().ok())
            .context("/proc/self/stat")
    };
    let per_sec = u32::try_from(rustix::param::clock_ticks_per_second())?;
    Ok(f64::from(ticks(13)? + ticks(14)?) / f64::from(per_sec))
}
