//! What the service costs while it samples: processor, memory, disk.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::bail;
use plimsoll_sim_gpu::Gpu;

use crate::floor::{CALLS, FLOOR, TIMER};
use crate::table::{Line, Section};
use crate::usage::{Cost, Memory, Usage};
use crate::world::{Crowd, Running, World};

const DEVICES: usize = 8;
const PER_DEVICE: usize = 2;
const WARM_UP: Duration = Duration::from_secs(10);

/// Percent of one core.
const GOAL_PERCENT: f64 = 0.30;
const GOAL_BYTES: f64 = 40.0 * 1_048_576.0;

/// What is measured is the median of windows of this length: on a machine that others use too, some are far off.
const WINDOW: Duration = Duration::from_secs(5);

/// How a process ran.
struct Ran {
    /// The window whose cost is the median of all.
    cost: Cost,
    /// All windows together.
    whole: Cost,
    memory: Memory,
    /// Calls to the driver a second.
    calls: f64,
}

/// Ten readings a second, and everything changes between any two of them.
pub(crate) fn busy(seconds: u64) -> anyhow::Result<Section> {
    section("10 readings a second, every value moving", 100, true, seconds)
}

/// One reading a second, as by default, and nothing changes.
pub(crate) fn idle(seconds: u64) -> anyhow::Result<Section> {
    section("1 reading a second, every value at rest", 1_000, false, seconds)
}

fn section(title: &str, interval_ms: u32, moving: bool, seconds: u64) -> anyhow::Result<Section> {
    let world = World::new(DEVICES)?;
    let crowd = Crowd::new(&world, PER_DEVICE)?;
    let (_crowd, _moving) = if moving {
        (None, Some(crowd.keep_moving()?))
    } else {
        (Some(crowd), None)
    };
    let interval = format!("{interval_ms}ms");
    let as_child = |role| stand_in_for(&world, role, interval_ms);
    let timer = watch(&world.gpu, as_child(TIMER)?, seconds)?;
    let floor = watch(&world.gpu, as_child(FLOOR)?, seconds)?;
    let daemon = watch(&world.gpu, world.daemon(&interval, "")?, seconds)?;

    // The floor is waking up, and the driver; the wrapper between them is thin.
    let driver = (floor.cost.percent() - timer.cost.percent()) * daemon.calls / floor.calls;
    let own = daemon.cost.percent() - driver;
    let percent = |value: f64| format!("{value:.3} %");
    let mib = |bytes: u64| format!("{:.1} MiB", to_mib(bytes));
    let mut lines = vec![
        Line::new(
            "processor, % of a core, median of windows of 5 s",
            percent(daemon.cost.percent()),
        )
        .floor(percent(floor.cost.percent())),
        Line::new("– of it the simulated driver", percent(driver))
            .floor(percent(floor.cost.percent() - timer.cost.percent())),
        Line::new("– of it Plimsoll itself", percent(own))
            .at_most(own, GOAL_PERCENT, format!("≤ {GOAL_PERCENT:.2} %"))
            .floor(percent(timer.cost.percent())),
    ];
    lines.extend(
        daemon
            .cost
            .threads
            .iter()
            .map(|(name, cost)| Line::new(format!("– thread {name}"), percent(*cost))),
    );
    lines.extend([
        Line::new("processor, mean of all windows", percent(daemon.whole.percent()))
            .floor(percent(floor.whole.percent())),
        Line::new("memory resident", mib(daemon.memory.resident))
            .at_most(to_bytes(daemon.memory.resident), GOAL_BYTES, "≤ 40 MiB")
            .floor(mib(floor.memory.resident)),
        Line::new("memory resident, peak", mib(daemon.memory.peak)).floor(mib(floor.memory.peak)),
        Line::new(
            "written to disk",
            format!("{:.1} KiB/s", daemon.whole.written_bytes_per_sec / 1024.0),
        ),
        Line::new("calls to the driver", format!("{:.0}/s", daemon.calls))
            .floor(format!("{:.0}/s", floor.calls)),
        recorded(&world)?,
    ]);
    Ok(Section {
        title: format!("Cost: {title}, 8 devices, 16 processes"),
        lines,
        notes: Vec::new(),
    })
}

/// What the store has, so that nobody measures a service that does nothing.
fn recorded(world: &World) -> anyhow::Result<Line> {
    let secs = world.number("SELECT (max(at_ns) - min(at_ns)) / 1e9 FROM device_samples")?;
    let per_sec = |view: &str| anyhow::Ok(world.number(&format!("SELECT count(*) FROM {view}"))? / secs);
    let lost = world.number("SELECT coalesce(sum(count), 0) FROM losses")?;
    let (devices, processes) = (per_sec("device_samples")?, per_sec("process_samples")?);
    Ok(Line::new(
        "rows stored: devices, processes; lost",
        format!("{devices:.1}/s, {processes:.1}/s; {lost}"),
    ))
}

/// Watches a process while it works, after a warm-up, and ends it.
fn watch(gpu: &Gpu, process: Running, seconds: u64) -> anyhow::Result<Ran> {
    std::thread::sleep(WARM_UP);
    let calls = || CALLS.iter().map(|function| gpu.calls(function)).sum::<u64>();
    let calls_before = calls();
    let mut usages = vec![Usage::of(process.pid())?];
    for _ in 0..seconds.div_ceil(WINDOW.as_secs()) {
        std::thread::sleep(WINDOW);
        usages.push(Usage::of(process.pid())?);
    }
    let (Some(first), Some(last)) = (usages.first(), usages.last()) else {
        bail!("nothing was measured")
    };
    let whole = last.since(first);
    #[expect(clippy::cast_precision_loss, reason = "a count of calls in minutes")]
    let calls = (calls() - calls_before) as f64 / whole.secs;
    let mut windows: Vec<Cost> = usages
        .iter()
        .zip(usages.iter().skip(1))
        .map(|(before, after)| after.since(before))
        .collect();
    windows.sort_by(|a, b| a.percent().total_cmp(&b.percent()));
    let cost = windows.swap_remove(windows.len() / 2);
    Ok(Ran {
        cost,
        whole,
        memory: Memory::of(process.pid())?,
        calls,
    })
}

fn stand_in_for(world: &World, role: &str, interval_ms: u32) -> anyhow::Result<Running> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(role)
        .arg(world.library())
        .arg(interval_ms.to_string())
        .stdin(Stdio::null());
    Ok(Running(command.spawn()?))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a process's memory, far below 2^52 bytes"
)]
fn to_bytes(bytes: u64) -> f64 {
    bytes as f64
}

fn to_mib(bytes: u64) -> f64 {
    to_bytes(bytes) / 1_048_576.0
}
