//! The agent in a process: what launches cost there, what its own thread costs, how long it takes to come and to go.
#![expect(unsafe_code, reason = "maps the ring")]

use std::io::{BufRead, BufReader, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use plimsoll_trace::wire::ring::{Next, Reader};
use plimsoll_trace::wire::{Frame, HELLO_LENGTH, Hello};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::Row;
use crate::program::WORD;

/// What one run of the program showed.
#[derive(Default)]
struct Run {
    launches: f64,
    elapsed_us: f64,
    injection_us: f64,
    p50: f64,
    p99: f64,
    threads: f64,
    resident_kib: f64,
    exit_ms: f64,
    /// The agent's thread, or what the least consumer spent, ns; the agent's hooks and start, ns; kernels counted; records
    /// lost.
    thread_ns: f64,
    hooks_ns: f64,
    counted: f64,
    lost: f64,
    /// Of the consumer itself, by all that the process spent.
    frames_bytes: f64,
}

/// Who is at the other end of the agent's socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Daemon {
    /// One that has taken the ring.
    Connected,
    /// One that was stopped: the system takes connections for it, and nobody answers.
    Stopped,
    /// Nobody.
    Absent,
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |what, agent, floor, goal, unit| {
        rows.push(Row {
            what,
            agent,
            floor,
            goal,
            unit,
        });
    };
    // A machine with other work on it: the best of three.
    let best = |with: &str, seconds: f64, rate: u32, daemon: Daemon| {
        let runs = (0..3).map(|_| run(with, seconds, rate, daemon));
        runs.min_by(|a, b| a.p50.total_cmp(&b.p50).then(a.p99.total_cmp(&b.p99)))
            .unwrap()
    };
    let (agent, floor, none) = (
        best("agent", 5.0, 100_000, Daemon::Connected),
        best("floor", 5.0, 100_000, Daemon::Connected),
        best("none", 5.0, 100_000, Daemon::Connected),
    );
    row(
        "consumer at 100,000 launches/s, thread",
        agent.thread_ns / agent.counted,
        Some(floor.thread_ns / floor.counted),
        "80",
        "ns per record",
    );
    row(
        "hooks and start there",
        agent.hooks_ns / 1e6,
        None,
        "",
        "ms in all",
    );
    row(
        "thread there",
        agent.thread_ns / agent.elapsed_us / 10.0,
        Some(floor.thread_ns / floor.elapsed_us / 10.0),
        "1",
        "% of a core",
    );
    row(
        "launch, p50, 100,000/s",
        agent.p50,
        Some(floor.p50),
        "10 more than the least",
        "ns",
    );
    row(
        "launch, p99, 100,000/s",
        agent.p99,
        Some(floor.p99),
        "100 more than the least",
        "ns",
    );
    row("launch, p50, without CUPTI", none.p50, None, "", "ns");
    row(
        "injection",
        (agent.injection_us - none.injection_us).max(0.0) / 1e3,
        None,
        "30",
        "ms",
    );
    row(
        "resident memory",
        agent.resident_kib - none.resident_kib,
        Some(floor.resident_kib - none.resident_kib),
        "16384",
        "KiB",
    );
    row("threads", agent.threads - none.threads, None, "2", "");
    row("exit", agent.exit_ms - none.exit_ms, None, "250", "ms");
    row(
        "wire at 200 names",
        agent.frames_bytes / (agent.elapsed_us / 1e6),
        None,
        "16000",
        "bytes/s",
    );
    let full = run("agent", 3.0, 2_000_000, Daemon::Connected);
    row(
        "launches at 2,000,000/s, counted",
        full.counted / full.elapsed_us,
        None,
        "1.5",
        "million/s",
    );
    row("records lost there", full.launches - full.counted, None, "0", "");
    let full = run("agent", 3.0, 0, Daemon::Connected);
    row(
        "launches at saturation, counted",
        full.counted / full.elapsed_us,
        None,
        "1.5",
        "million/s",
    );
    row("records lost there", full.launches - full.counted, None, "", "");
    row("losses told there", full.lost, None, "", "");
    for (daemon, p50, p99) in [
        (Daemon::Absent, "launch, p50, no daemon", "launch, p99, no daemon"),
        (
            Daemon::Stopped,
            "launch, p50, stopped daemon",
            "launch, p99, stopped daemon",
        ),
    ] {
        let without = best("agent", 3.0, 100_000, daemon);
        row(p50, without.p50, Some(agent.p50), "the same", "ns");
        row(p99, without.p99, Some(agent.p99), "the same", "ns");
    }
    rows
}

fn run(with: &str, seconds: f64, rate: u32, daemon: Daemon) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = (daemon != Daemon::Absent).then(|| UnixListener::bind(&socket).unwrap());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([WORD, with, &seconds.to_string(), &rate.to_string()])
        .env("PLIMSOLL_SOCKET", &socket)
        .env("PLIMSOLL_TRACE", "graph")
        .env("PLIMSOLL_BUDGET", "100%")
        .env(
            "PLIMSOLL_CUPTI_LIBRARY",
            plimsoll_sim_cuda::library_path().unwrap(),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if with == "agent" {
        command.env("CUDA_INJECTION64_PATH", plimsoll_agent::library_path().unwrap());
    }
    let mut child = command.spawn().unwrap();
    let mut ring = listener
        .as_ref()
        .filter(|_| with == "agent" && daemon == Daemon::Connected)
        .map(accept);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let ended = Instant::now();
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    child.wait().unwrap();
    let exit_ms = ended.elapsed().as_secs_f64() * 1e3;
    let figures: Vec<f64> = line
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    let mut run = Run {
        launches: figures[0],
        elapsed_us: figures[1],
        injection_us: figures[2],
        p50: figures[3],
        p99: figures[4],
        threads: figures[5],
        resident_kib: figures[6],
        thread_ns: figures[7],
        counted: figures[8],
        exit_ms,
        ..Run::default()
    };
    if let Some(ring) = &mut ring {
        read(ring, &mut run);
    }
    run
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn read(ring: &mut Reader<'static>, run: &mut Run) {
    let mut bytes = Vec::new();
    while let Next::Frame(kind) = ring.next(&mut bytes) {
        run.frames_bytes += bytes.len() as f64 + 8.0;
        match Frame::decode(kind, &bytes).unwrap() {
            Some(Frame::Kernels(kernels)) => {
                run.counted += kernels.stats.iter().map(|stats| stats.count).sum::<u64>() as f64;
            }
            Some(Frame::Cost(cost)) => {
                run.thread_ns += cost.thread_ns as f64;
                run.hooks_ns += cost.hooks_ns as f64;
            }
            Some(Frame::Loss { count, .. }) => run.lost += count as f64,
            _ => {}
        }
    }
}

fn accept(listener: &UnixListener) -> Reader<'static> {
    let (stream, _) = listener.accept().unwrap();
    let mut bytes = [0; HELLO_LENGTH];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    recvmsg(&stream, &mut slices, &mut control, RecvFlags::empty()).unwrap();
    let memory = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    let length = Hello::from_bytes(&bytes).unwrap().bytes as usize;
    // SAFETY: a new mapping, used as atomic words alone, which is never unmapped.
    let words = unsafe {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let start = mmap(
            std::ptr::null_mut(),
            length,
            protection,
            MapFlags::SHARED,
            memory.unwrap(),
            0,
        )
        .unwrap();
        std::slice::from_raw_parts(start.cast::<AtomicU64>(), length / 8)
    };
    Reader::open(words).unwrap()
}
