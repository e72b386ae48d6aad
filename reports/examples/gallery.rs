//! Draws example timelines from made-up data into a folder: `cargo run -p plimsoll-reports --example gallery -- DIR`.

use std::error::Error;
use std::path::PathBuf;

use jiff::tz::{Offset, TimeZone};
use plimsoll_reports::timeline::{
    Allocator, Busy, DeviceTrack, GpuTime, Line, Mark, MarkKind, Owner, OwnerName, Sample, Share, Timeline,
    Title, find_gaps, find_peak,
};
use plimsoll_reports::{Theme, flame, svg};

const SECOND: i64 = 1_000_000_000;
const MIB: u64 = 1 << 20;
/// 2026-11-22 09:00:00 UTC.
const START: i64 = 1_795_338_000 * SECOND;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: gallery DIR")?);
    std::fs::create_dir_all(&folder)?;
    let zone = TimeZone::fixed(Offset::constant(1));
    let (tuned, untuned, day, broken) = (demo(true), demo(false), day(), broken());
    let (traced, traced_day) = (traced(tuned.clone()), traced(day.clone()));
    for (name, timeline, theme) in [
        ("demo", &tuned, Theme::Auto),
        ("demo-dark", &tuned, Theme::Dark),
        ("demo-untuned", &untuned, Theme::Auto),
        ("day-8-gpus", &day, Theme::Auto),
        ("day-8-gpus-dark", &day, Theme::Dark),
        ("traced", &traced, Theme::Auto),
        ("traced-dark", &traced, Theme::Dark),
        ("traced-day", &traced_day, Theme::Auto),
        ("broken", &broken, Theme::Auto),
        ("empty", &empty(), Theme::Auto),
    ] {
        let picture = svg(timeline, theme, &zone)?;
        println!("{name}: {} bytes; {}", picture.len(), timeline.verdict(&zone));
        std::fs::write(folder.join(format!("{name}.svg")), picture)?;
    }
    for (name, theme) in [("flame", Theme::Auto), ("flame-dark", Theme::Dark)] {
        std::fs::write(folder.join(format!("{name}.svg")), flame::svg(&kernels(), theme))?;
    }
    Ok(())
}

/// A small generator, so that the pictures are the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below.max(1)
    }
}

fn known(at_ns: i64, used_bytes: u64) -> Sample {
    Sample {
        at_ns,
        used_bytes: Some(used_bytes),
    }
}

fn process(name: &str, pid: u32, samples: Vec<Sample>) -> Owner {
    Owner {
        name: OwnerName::Process {
            name: Some(name.to_owned()),
            pid,
        },
        samples,
    }
}

fn line(rule: &str, usable: u64, enter: u64, exit: u64) -> Line {
    let ratio = |percent: u64| Some(f64::from(u32::try_from(percent).unwrap_or(0)) / 100.0);
    Line {
        rule: rule.to_owned(),
        enter_bytes: usable / 100 * enter,
        exit_bytes: Some(usable / 100 * exit),
        enter_ratio: ratio(enter),
        exit_ratio: ratio(exit),
    }
}

fn mark(at_ns: i64, kind: MarkKind, label: &str, detail: &str) -> Mark {
    Mark {
        at_ns,
        kind,
        device: None,
        label: label.to_owned(),
        detail: detail.to_owned(),
    }
}

/// Half a minute of rising load on a 24 GiB card, with the tuner at work or without it.
fn demo(tuned: bool) -> Timeline {
    let (capacity, reserved) = (24_576 * MIB, 512 * MIB);
    let usable = capacity - reserved;
    let mut dice = Dice(7);
    let mut track = DeviceTrack {
        uuid: "GPU-5a1e2c9d-7f4b-4c5a-9e0d-2f1b3c4d5e6f".to_owned(),
        name: Some("NVIDIA GeForce RTX 4090".to_owned()),
        driver: Some("580.95.05".to_owned()),
        capacity_bytes: Some(capacity),
        reserved_bytes: Some(reserved),
        lines: if tuned {
            vec![
                line("checkpointing", usable, 80, 65),
                line("quantize", usable, 92, 75),
            ]
        } else {
            Vec::new()
        },
        ..DeviceTrack::default()
    };
    let (mut engine, mut desktop) = (Vec::new(), Vec::new());
    let mut marks = Vec::new();
    let mut cache = 0_u64;
    let mut dead_until = 0;
    for tick in 0..=300_i64 {
        let at_ns = START + tick * SECOND / 10;
        let load = u64::try_from(tick).unwrap_or(0);
        let mut weights = 13_900;
        let mut activations = 1_500 + load * 6;
        cache = (900 + load * load / 9).min(cache + 160) + dice.roll(130);
        if tuned && tick >= 118 {
            activations = activations * 2 / 5;
        }
        if tuned && tick >= 215 {
            weights = 7_600;
        }
        let mut held = weights + activations + cache;
        if !tuned && held > 23_400 {
            dead_until = tick + 22;
            cache = 0;
            marks.push(mark(
                at_ns,
                MarkKind::OutOfMemory,
                "engine ran out of memory",
                "asked for 640 MiB with 120 MiB free; exit status 1",
            ));
            marks.push(mark(
                START + dead_until * SECOND / 10,
                MarkKind::Restart,
                "engine restarted",
                "with a backlog of 31 requests",
            ));
        }
        if tick < dead_until {
            held = 0;
        }
        let other = 410 + if tick > 60 && tick < 180 { 220 } else { 0 };
        engine.push(if held == 0 {
            Sample {
                at_ns,
                used_bytes: None,
            }
        } else {
            known(at_ns, held * MIB)
        });
        desktop.push(known(at_ns, other * MIB));
        track.samples.push(known(at_ns, (held + other + 260) * MIB));
        let percent = if held == 0 {
            1
        } else {
            40 + load / 6 + dice.roll(14)
        };
        track.busy.push(Busy {
            at_ns,
            ratio: Some(f64::from(u32::try_from(percent.min(100)).unwrap_or(0)) / 100.0),
        });
    }
    track.owners = vec![
        process("sim-engine", 41_877, engine),
        process("Xorg", 2_210, desktop),
    ];
    track.peak = find_peak(&track.samples);
    if tuned {
        let at = |tenths: i64| START + tenths * SECOND / 10;
        marks = vec![
            mark(
                at(3),
                MarkKind::Note,
                "engine ready",
                "http://127.0.0.1:8000/health answered in 12 ms",
            ),
            mark(
                at(118),
                MarkKind::Kept,
                "checkpointing applied and kept",
                "gradient_checkpointing: false → true in server.yaml, SIGHUP, ready after 0.4 s, 1.1 GiB less",
            ),
            mark(at(121), MarkKind::Note, "configuration reloaded", "server.yaml"),
            mark(
                at(215),
                MarkKind::Kept,
                "quantize applied and kept",
                "model.quantization: none → int8 in server.yaml, SIGHUP, ready after 0.9 s, 6.2 GiB less",
            ),
        ];
    }
    Timeline {
        title: Title {
            run_id: Some(if tuned { 2 } else { 1 }),
            name: if tuned {
                "demo"
            } else {
                "demo, the same load without the tuner"
            }
            .to_owned(),
            engine: Some("demo".to_owned()),
            model: Some("simulated 7B, bf16".to_owned()),
            host: Some("build-17".to_owned()),
            started_ns: Some(START),
            outcome: Some("ok".to_owned()),
        },
        from_ns: START,
        to_ns: START + 30 * SECOND,
        devices: vec![track],
        marks,
    }
}

/// Kernels of a decoding loop, with many small ones.
fn kernels() -> flame::Flame {
    let mut dice = Dice(5);
    let named = [
        (
            "void flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<128, 64, 128, 4>, false, true>(flash::Flash_fwd_params)",
            9_100,
        ),
        (
            "void flash::flash_fwd_splitkv_combine_kernel<Flash_fwd_kernel_traits<128, 64, 128, 4>, 4>(flash::Flash_fwd_params)",
            700,
        ),
        ("nvjet_hsh_64x16_64x16_4x1_v_bz_TNT", 12_800),
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_TNT", 5_200),
        (
            "void cublasLt::splitKreduce_kernel<32, 16, int, float, __half>(cublasLt::cublasSplitKParams<float>)",
            900,
        ),
        (
            "ncclDevKernel_AllReduce_Sum_f16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
            3_600,
        ),
        ("void vllm::rms_norm_kernel<c10::Half>(c10::Half*)", 1_100),
        (
            "void vllm::fused_add_rms_norm_kernel<c10::Half, 8>(c10::Half*)",
            900,
        ),
        (
            "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>(int)",
            800,
        ),
        (
            "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<int>>(int)",
            300,
        ),
        (
            "void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda>(int)",
            500,
        ),
        (
            "void at::native::(anonymous namespace)::cunn_SoftMaxForward<8, float, float>(float*)",
            650,
        ),
    ];
    let mut kernels: Vec<flame::Kernel> = named
        .iter()
        .map(|(name, ms)| flame::Kernel {
            name: (*name).to_owned(),
            count: 900 + dice.roll(90_000),
            total_ns: ms * 1_000_000,
        })
        .collect();
    kernels.extend((0..120).map(|number| flame::Kernel {
        name: format!("triton_poi_fused_add_mul_{number}"),
        count: 10,
        total_ns: dice.roll(9_000_000),
    }));
    flame::Flame {
        run_id: 418,
        name: "chat".to_owned(),
        kernels,
    }
}

/// The same with kernels recorded: the governor lets the agent rest for a while, then for half of each second.
fn traced(mut timeline: Timeline) -> Timeline {
    let mut dice = Dice(11);
    let columns = 190;
    let length = (timeline.to_ns - timeline.from_ns) / columns;
    let at = |column: i64| timeline.from_ns + column * length;
    for (number, track) in timeline
        .devices
        .iter_mut()
        .enumerate()
        .filter(|(number, _)| *number != 2)
    {
        let mut shares = [180, 360, 60, 40, 0, 70];
        for column in 0..columns {
            let resting = (70..92).contains(&column) && number % 3 == 0;
            if resting {
                continue;
            }
            let mut time = GpuTime::unknown(at(column), at(column + 1));
            let length = time.to_ns.abs_diff(time.from_ns);
            let recorded = if (92..110).contains(&column) { 50 } else { 100 };
            time.recorded_ns = length * recorded / 100;
            for (share, ns) in shares.iter_mut().zip(&mut time.family_ns) {
                if column % 5 == 0 {
                    *share = *share * (90 + dice.roll(22)) / 100;
                }
                let quiet = (130..140).contains(&column);
                *ns = if quiet {
                    0
                } else {
                    length * *share * recorded / 100_000
                };
            }
            track.gpu_time.push(time);
        }
        let share = |column: i64, thousandths: Option<u64>| Share {
            at_ns: at(column),
            ratio: thousandths.map(|n| f64::from(u32::try_from(n).unwrap_or(0)) / 1000.0),
        };
        let mut pytorch = Allocator {
            level: "pytorch".to_owned(),
            source: "pytorch".to_owned(),
            ..Allocator::default()
        };
        for column in 6..columns {
            let told = (!(100..115).contains(&column)).then_some(column.unsigned_abs());
            let stuck = told.map(|told| told / 2 + dice.roll(8));
            pytorch.stuck.push(share(column, stuck));
            pytorch
                .slack
                .push(share(column, stuck.map(|stuck| stuck + 60 + dice.roll(40))));
        }
        let slack = (0..columns)
            .step_by(30)
            .map(|column| share(column, Some(150 + dice.roll(20))));
        let pools = Allocator {
            level: "pools".to_owned(),
            source: "cupti".to_owned(),
            slack: slack.collect(),
            stuck: Vec::new(),
        };
        track.allocators = vec![pools, pytorch];
    }
    timeline
}

/// A day on eight cards at one reading a second, with an hour lost on one of them.
fn day() -> Timeline {
    let (capacity, reserved) = (81_559 * MIB, 570 * MIB);
    let usable = capacity - reserved;
    let mut dice = Dice(42);
    let mut devices = Vec::new();
    for number in 0..8_u32 {
        let mut track = DeviceTrack {
            uuid: format!("GPU-{number}b7c1d2e-55aa-4e0f-8b1c-0123456789a{number}"),
            name: Some("NVIDIA H100 80GB HBM3".to_owned()),
            driver: Some("580.95.05".to_owned()),
            capacity_bytes: Some(capacity),
            reserved_bytes: Some(reserved),
            lines: vec![line("kv-fp8", usable, 95, 80)],
            ..DeviceTrack::default()
        };
        let (mut engine, mut side) = (Vec::new(), Vec::new());
        let mut cache = 9_000_u64;
        for second in 0..86_400_i64 {
            if number == 5 && (30_000..33_600).contains(&second) {
                continue;
            }
            let at_ns = START + second * SECOND;
            let hour = second / 3_600;
            let target = if (6..18).contains(&hour) { 30_000 } else { 12_000 } + u64::from(number) * 900;
            cache = cache + dice.roll(900) + u64::from(cache < target) * 300 - dice.roll(900).min(cache) / 2;
            cache = cache.min(target + 8_000) - dice.roll(800).min(cache);
            let spike = if number == 3 && second == 52_345 { 8_500 } else { 0 };
            let held = 34_000 + cache + spike;
            let embed = if number < 4 { 2_200 } else { 0 };
            engine.push(known(at_ns, held * MIB));
            if number < 4 && second % 60 == 0 {
                side.push(known(at_ns, embed * MIB));
            }
            track.samples.push(known(at_ns, (held + embed + 620) * MIB));
            track.busy.push(Busy {
                at_ns,
                ratio: Some(
                    f64::from(u32::try_from((cache / 400 + dice.roll(30)).min(100)).unwrap_or(0)) / 100.0,
                ),
            });
        }
        track.owners.push(process("vllm", 3_000 + number, engine));
        if number < 4 {
            track
                .owners
                .push(process("embedding-server", 4_000 + number, side));
        }
        track.peak = find_peak(&track.samples);
        track.gaps = find_gaps(&track.samples);
        devices.push(track);
    }
    let lost = START + 30_000 * SECOND;
    let gpu = Some(devices[5].uuid.clone());
    let mut marks = vec![
        mark(
            START + 21_800 * SECOND,
            MarkKind::Proposed,
            "kv-fp8 proposed",
            "kv-cache-dtype: auto → fp8, needs a restart",
        ),
        mark(
            lost,
            MarkKind::Xid,
            "Xid 79 on GPU-5b7c1d2e",
            "the GPU has fallen off the bus",
        ),
        mark(
            lost + SECOND,
            MarkKind::DeviceLost,
            "GPU-5b7c1d2e lost",
            "the driver answers: GPU is lost",
        ),
        mark(
            lost + 3_600 * SECOND,
            MarkKind::DeviceBack,
            "GPU-5b7c1d2e answers again",
            "after 1 h",
        ),
        mark(
            START + 52_000 * SECOND,
            MarkKind::Throttle,
            "clocks lowered on GPU-3b7c1d2e",
            "power cap",
        ),
        mark(
            START + 66_000 * SECOND,
            MarkKind::HumanEdit,
            "chat.yaml changed by hand",
            "kv-fp8 suspended",
        ),
        mark(
            START + 66_020 * SECOND,
            MarkKind::Restart,
            "vllm-chat.service restarted",
            "ready after 71 s",
        ),
    ];
    for mark in &mut marks[1..4] {
        mark.device.clone_from(&gpu);
    }
    Timeline {
        title: Title {
            run_id: Some(418),
            name: "chat".to_owned(),
            engine: Some("chat".to_owned()),
            model: Some("Llama-3.3-70B-Instruct".to_owned()),
            host: Some("gpu-host-03".to_owned()),
            started_ns: Some(START - 40 * 3_600 * SECOND),
            outcome: Some("running".to_owned()),
        },
        from_ns: START,
        to_ns: START + 86_400 * SECOND,
        devices,
        marks,
    }
}

/// Everything that can go wrong: a gap, unknown readings, processes that claim too much, hostile names, many events.
fn broken() -> Timeline {
    let capacity = 8_192 * MIB;
    let usable = capacity - 300 * MIB;
    let mut track = DeviceTrack {
        uuid: "GPU-<&>\"'".to_owned(),
        name: Some("NVIDIA \u{202e}RTX</title><script>alert(1)</script>".to_owned()),
        capacity_bytes: Some(capacity),
        reserved_bytes: Some(300 * MIB),
        lines: vec![
            line(
                "a-rule-with-a-very-long-name-that-nobody-should-use",
                usable,
                90,
                80,
            ),
            line("second", usable, 88, 79),
            line("third", usable, 86, 40),
        ],
        ..DeviceTrack::default()
    };
    let mut owners: Vec<Vec<Sample>> = vec![Vec::new(); 9];
    for second in 0..600_i64 {
        let at_ns = START + second * SECOND;
        if (150..230).contains(&second) || (400..403).contains(&second) {
            continue;
        }
        let unknown = (300..360).contains(&second);
        let wave = u64::try_from((second % 97) * (second % 31)).unwrap_or(0);
        let used = 4_100 + wave / 2 + if second == 471 { 2_900 } else { 0 };
        track.samples.push(Sample {
            at_ns,
            used_bytes: (!unknown).then_some(used * MIB),
        });
        track.busy.push(Busy {
            at_ns,
            ratio: (!(80..150).contains(&second)).then_some(if second % 10 < 7 { 0.8 } else { 0.1 }),
        });
        for (index, samples) in owners.iter_mut().enumerate() {
            let share = 300 + u64::try_from(index).unwrap_or(0) * 40 + wave / 30;
            let over = if index == 8 && (500..560).contains(&second) {
                2_000
            } else {
                0
            };
            samples.push(known(at_ns, (share + over) * MIB));
        }
    }
    track.owners = owners
        .into_iter()
        .enumerate()
        .map(|(index, samples)| {
            let name = match index {
                0 => "evil\n\u{0}</text><script>",
                1 | 2 => "worker",
                3 => "模型服务器",
                4 => "a-process-name-that-goes-on-and-on-and-on-and-on-and-on-and-on-and-on",
                _ => "python3",
            };
            process(name, 100 + u32::try_from(index).unwrap_or(0), samples)
        })
        .collect();
    track.owners.push(Owner {
        name: OwnerName::OtherProcesses,
        samples: vec![known(START, 200 * MIB)],
    });
    track.peak = find_peak(&track.samples);
    track.gaps = find_gaps(&track.samples);
    let kinds = [
        MarkKind::RolledBack,
        MarkKind::Refused,
        MarkKind::Failed,
        MarkKind::Released,
        MarkKind::Applied,
        MarkKind::ProcessStart,
        MarkKind::ProcessExit,
        MarkKind::SamplingGap,
        MarkKind::OutOfMemory,
        MarkKind::Xid,
        MarkKind::Note,
    ];
    let marks = (0..30_i64)
        .map(|n| {
            let kind = kinds[usize::try_from(n).unwrap_or(0) % kinds.len()];
            let at_ns = START + n * n * SECOND * 2 / 3;
            mark(
                at_ns,
                kind,
                &format!("{} <b>number</b> {n}", kind.word()),
                &"a long story ".repeat(20),
            )
        })
        .collect();
    Timeline {
        title: Title {
            name: "a run with a hostile name <script>alert('x')</script> that is also much too long for the line it is on"
                .to_owned(),
            ..Title::default()
        },
        from_ns: START,
        to_ns: START + 600 * SECOND,
        devices: vec![track],
        marks,
    }
}

/// A run of which nothing was recorded.
fn empty() -> Timeline {
    Timeline {
        title: Title {
            name: "nothing".to_owned(),
            ..Title::default()
        },
        from_ns: START,
        to_ns: START + 60 * SECOND,
        devices: vec![DeviceTrack {
            uuid: "GPU-0".to_owned(),
            ..DeviceTrack::default()
        }],
        marks: Vec::new(),
    }
}
