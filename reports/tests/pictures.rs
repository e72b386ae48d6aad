//! Pictures out of plain data: what is in them, and that they stay small, well-formed and the same.

use jiff::tz::{Offset, TimeZone};
use plimsoll_reports::timeline::{
    Allocator, Busy, DeviceTrack, GpuTime, Line, Mark, MarkKind, Owner, OwnerName, Sample, Share, Timeline,
    Title, find_gaps, find_peak,
};
use plimsoll_reports::{Theme, svg};
use proptest::prelude::*;

const SECOND: i64 = 1_000_000_000;
const GIB: u64 = 1 << 30;
/// 2026-11-22 09:00:00 UTC.
const START: i64 = 1_795_338_000 * SECOND;

fn zone() -> TimeZone {
    TimeZone::fixed(Offset::constant(1))
}

fn draw(timeline: &Timeline) -> String {
    svg(timeline, Theme::Auto, &zone()).expect("a picture")
}

fn sample(second: i64, used_bytes: impl Into<Option<u64>>) -> Sample {
    Sample {
        at_ns: START + second * SECOND,
        used_bytes: used_bytes.into(),
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

fn mark(second: i64, kind: MarkKind, label: &str) -> Mark {
    Mark {
        at_ns: START + second * SECOND,
        kind,
        device: None,
        label: label.to_owned(),
        detail: "model.quantization: none → int8 in server.yaml".to_owned(),
    }
}

fn track(samples: Vec<Sample>) -> DeviceTrack {
    DeviceTrack {
        uuid: "GPU-1".to_owned(),
        name: Some("NVIDIA Test 24GB".to_owned()),
        driver: Some("580.95.05".to_owned()),
        capacity_bytes: Some(24 * GIB),
        reserved_bytes: Some(GIB / 2),
        gaps: find_gaps(&samples),
        peak: find_peak(&samples),
        samples,
        ..DeviceTrack::default()
    }
}

fn timeline(secs: i64, devices: Vec<DeviceTrack>, marks: Vec<Mark>) -> Timeline {
    Timeline {
        title: Title {
            run_id: Some(7),
            name: "deepseek".to_owned(),
            engine: Some("deepseek".to_owned()),
            host: Some("box".to_owned()),
            started_ns: Some(START),
            outcome: Some("ok".to_owned()),
            ..Title::default()
        },
        from_ns: START,
        to_ns: START + secs * SECOND,
        devices,
        marks,
    }
}

/// Twelve seconds in which a rule acts, on one device.
fn story() -> Timeline {
    let used = [10, 12, 14, 17, 20, 22, 15, 15, 16, 16, 15, 15, 15];
    let at = |second: usize| i64::try_from(second).unwrap_or(0);
    let mut device = track(
        used.iter()
            .enumerate()
            .map(|(s, gib)| sample(at(s), gib * GIB))
            .collect(),
    );
    device.owners = vec![
        process(
            "engine",
            42,
            used.iter()
                .enumerate()
                .map(|(s, gib)| sample(at(s), (gib - 2) * GIB))
                .collect(),
        ),
        process("Xorg", 7, vec![sample(0, GIB)]),
    ];
    device.lines = vec![Line {
        rule: "quantize".to_owned(),
        enter_bytes: 21 * GIB,
        exit_bytes: Some(17 * GIB),
        enter_ratio: Some(0.9),
        exit_ratio: Some(0.75),
    }];
    device.busy = (0..=12)
        .map(|s| Busy {
            at_ns: START + s * SECOND,
            ratio: (s != 8).then_some(0.5),
        })
        .collect();
    timeline(
        12,
        vec![device],
        vec![mark(5, MarkKind::Kept, "quantize applied and kept")],
    )
}

#[test]
fn a_small_story() {
    insta::assert_snapshot!(draw(&story()));
}

/// The story with kernels recorded in 8 of its 12 seconds, in one of them half of the time.
fn traced() -> Timeline {
    let mut timeline = story();
    timeline.devices[0].gpu_time = (0..12)
        .filter(|second| !(4..8).contains(second))
        .map(|second| {
            let from_ns = START + second * SECOND;
            let mut time = GpuTime::unknown(from_ns, from_ns + SECOND);
            time.recorded_ns = if second == 8 { 500_000_000 } else { 1_000_000_000 };
            // Attention, GEMM and others.
            time.family_ns = [100_000_000, 200_000_000, 0, 0, 0, 50_000_000];
            time
        })
        .collect();
    timeline
}

#[test]
fn kernels_have_a_lane_and_what_was_not_recorded_is_not_idle() {
    let picture = draw(&traced());
    for told in [
        "attention: 10.7 % of the recorded time, 800 ms of kernels",
        "GEMM: 21.3 % of the recorded time, 1.6 s of kernels",
        "idle: 62.7 % of the recorded time",
        "kernels not recorded: 37.5 % of the time",
        ">GEMM 21.3 %</text>",
        ">not recorded</text>",
    ] {
        assert!(picture.contains(told), "{told} is not in {picture}");
    }
    assert!(!picture.contains("communication"));
    assert!(!draw(&story()).contains("GPU time by"));
    insta::assert_snapshot!("kernels", picture);
}

fn shares(ratios: &[(i64, Option<f64>)]) -> Vec<Share> {
    let share = |(second, ratio): &(i64, Option<f64>)| Share {
        at_ns: START + second * SECOND,
        ratio: *ratio,
    };
    ratios.iter().map(share).collect()
}

/// PyTorch's allocator is unknown in the first second and from the ninth on; the pools are known throughout.
fn fragmented() -> Timeline {
    let mut timeline = story();
    timeline.devices[0].allocators = vec![
        Allocator {
            level: "pools".to_owned(),
            source: "cupti".to_owned(),
            slack: shares(&[(0, Some(0.1))]),
            stuck: Vec::new(),
        },
        Allocator {
            level: "pytorch".to_owned(),
            source: "pytorch".to_owned(),
            slack: shares(&[(1, Some(0.1)), (4, Some(0.2)), (9, None)]),
            stuck: shares(&[(1, Some(0.05)), (4, Some(0.125)), (9, None)]),
        },
    ];
    timeline
}

#[test]
fn allocators_have_a_lane_with_their_level_and_what_is_unknown_is_no_zero() {
    let picture = draw(&fragmented());
    let hatched = picture.matches("the allocators&#39; figures are unknown").count();
    assert_eq!(hatched, 2, "{picture}");
    for told in [
        "stuck: free, but in blocks that cannot be given back; level pytorch, told by pytorch; at most 12.5 % at 00:04",
        "slack: taken from the level below and not in use; level pools, told by cupti; at most 10 %",
        ">pools slack (from cupti), at most 10 %</text>",
        ">25 %</text>",
    ] {
        assert!(picture.contains(told), "{told} is not in {picture}");
    }
    assert!(!picture.contains("level pools, told by cupti; stuck"));
    assert!(!draw(&story()).contains("allocators:"));
    insta::assert_snapshot!("allocators", picture);
}

#[test]
fn the_same_data_give_the_same_bytes() {
    assert_eq!(draw(&story()), draw(&story()));
    let mut turned = story();
    turned.devices[0].owners.reverse();
    assert_eq!(draw(&story()), draw(&turned));
}

#[test]
fn the_verdict_tells_the_peak_and_what_was_done() {
    assert_eq!(
        story().verdict(&zone()),
        "peak 22.0 of 23.5 GiB at 00:05, 1 tuner action kept, 0 out of memory"
    );
    let nothing = timeline(12, Vec::new(), vec![mark(3, MarkKind::OutOfMemory, "engine")]);
    assert_eq!(
        nothing.verdict(&zone()),
        "memory in use is unknown, 0 tuner actions kept, 1 out of memory"
    );
}

#[test]
fn nothing_little_and_unknown_are_pictures_too() {
    insta::assert_snapshot!("empty", draw(&timeline(12, vec![track(Vec::new())], Vec::new())));
    let one = draw(&timeline(12, vec![track(vec![sample(6, 3 * GIB)])], Vec::new()));
    assert!(one.contains("peak 3.0 GiB at 00:06"));
    let unknown = draw(&timeline(
        60,
        vec![track((0..60).map(|s| sample(s, None)).collect())],
        Vec::new(),
    ));
    assert!(unknown.contains("memory in use is unknown"));
    assert!(unknown.contains("unknown from 00:00"));
    let nowhere = draw(&timeline(12, Vec::new(), Vec::new()));
    assert!(nowhere.starts_with("<svg ") && nowhere.ends_with("</svg>\n"));
}

#[test]
fn a_gap_is_not_drawn_across() {
    let seconds = (0..20).chain(50..60);
    let picture = draw(&timeline(
        60,
        vec![track(seconds.map(|s| sample(s, 3 * GIB)).collect())],
        Vec::new(),
    ));
    assert!(picture.contains("no samples from 00:19"), "{picture}");
    let layer = picture.split("<title>unattributed").nth(1).expect("the layer");
    let path = layer
        .split(" d=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("its path");
    assert_eq!(path.matches('z').count(), 2, "{path}");
}

#[test]
fn a_peak_of_one_reading_in_an_hour_is_told_and_drawn() {
    let mut samples: Vec<Sample> = (0..36_000)
        .map(|tick| Sample {
            at_ns: START + tick * SECOND / 10,
            used_bytes: Some(10 * GIB),
        })
        .collect();
    samples[17_771].used_bytes = Some(23 * GIB);
    let picture = draw(&timeline(3_600, vec![track(samples)], Vec::new()));
    assert!(picture.contains("peak 23.0 GiB at 29:37"));
    // 13 of the 27 GiB that the lane's 300 pixels stand for, up and down again.
    let layer = picture.split("<title>unattributed").nth(1).expect("the layer");
    let path = layer
        .split(" d=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("its path");
    let steps = path.replace('-', " -").replace(|c: char| c.is_alphabetic(), " ");
    let steps: Vec<i32> = steps
        .split_whitespace()
        .filter_map(|step| step.parse().ok())
        .collect();
    let near = |wanted: i32| steps.iter().filter(|step| (**step - wanted).abs() <= 2).count();
    assert!(near(-144) >= 1 && near(144) >= 1, "no spike in {path}");
    assert!(picture.len() < 20_000, "{}", picture.len());
}

#[test]
fn processes_that_claim_too_much_get_a_layer_of_their_own() {
    let mut device = track((0..10).map(|s| sample(s, 10 * GIB)).collect());
    device.owners = vec![process("liar", 1, vec![sample(0, 8 * GIB), sample(5, 14 * GIB)])];
    let picture = draw(&timeline(10, vec![device], Vec::new()));
    assert!(picture.contains("processes claim this much more than the device has in use"));
    assert!(!draw(&story()).contains("processes claim"));
}

#[test]
fn a_line_that_a_device_is_too_small_for_is_only_told() {
    let mut device = track((0..10).map(|s| sample(s, 10 * GIB)).collect());
    device.lines = vec![Line {
        rule: "spill".to_owned(),
        enter_bytes: 30 * GIB,
        exit_bytes: Some(20 * GIB),
        enter_ratio: None,
        exit_ratio: None,
    }];
    let picture = draw(&timeline(10, vec![device], Vec::new()));
    let title = "rule spill takes effect at 30.0 GiB (32212254720 bytes in use, more than this device has)";
    assert_eq!(picture.matches(title).count(), 1, "a label and no line");
    assert!(picture.contains("spill 30.0 GiB ↑"));
    assert!(picture.contains("rule spill may be taken back below 20.0 GiB"));
}

#[test]
fn devices_are_told_apart_by_their_uuids_and_never_by_a_number() {
    let devices = ["GPU-5a1e2c9d-7f4b-4c5a", "GPU-0b7c1d2e-55aa-4e0f"].map(|uuid| DeviceTrack {
        uuid: uuid.to_owned(),
        ..track(vec![sample(0, if uuid.contains("5a1e") { GIB } else { 2 * GIB })])
    });
    let timeline = timeline(10, devices.to_vec(), Vec::new());
    assert!(
        timeline
            .verdict(&zone())
            .contains("2.0 of 23.5 GiB on GPU-0b7c1d2e at"),
        "{}",
        timeline.verdict(&zone())
    );
    let picture = draw(&timeline);
    assert!(picture.contains(">GPU-5a1e2c9d<") && picture.contains(">GPU-0b7c1d2e<"));
    assert!(!picture.contains("GPU 0") && !picture.contains("GPU 1"));
}

#[test]
fn many_marks_are_clustered_and_the_key_stays_short() {
    let marks = (0..400)
        .map(|n| mark(n / 40, MarkKind::Note, &format!("note {n}")))
        .collect();
    let picture = draw(&timeline(12, vec![track(vec![sample(0, GIB)])], marks));
    assert!(picture.contains("40 events"));
    assert!(picture.contains("and 382 more: the first 200 of all are in this file&#39;s metadata"));
    assert!(picture.contains("marks_left_out&quot;:200"));
}

#[test]
fn a_day_of_eight_devices_stays_small() {
    let mut noise = 88_172_645_463_325_252_u64;
    let devices: Vec<DeviceTrack> = (0..8)
        .map(|number| {
            let mut samples = Vec::with_capacity(86_400);
            let mut busy = Vec::with_capacity(86_400);
            for second in 0..86_400 {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                samples.push(sample(second, noise % (20 * GIB)));
                busy.push(Busy {
                    at_ns: START + second * SECOND,
                    ratio: Some(f64::from(u8::try_from(noise >> 56).unwrap_or(0)) / 255.0),
                });
            }
            let mut device = track(samples.clone());
            device.uuid = format!("GPU-{number}");
            device.owners = vec![process("vllm", 100 + number, samples)];
            device.busy = busy;
            device
        })
        .collect();
    let picture = draw(&timeline(86_400, devices, Vec::new()));
    assert!(picture.len() < 150_000, "{}", picture.len());
}

#[test]
fn themes_are_one_or_both() {
    let theme = |theme| svg(&story(), theme, &zone()).expect("a picture");
    assert!(theme(Theme::Auto).contains("prefers-color-scheme:dark"));
    assert!(!theme(Theme::Light).contains("prefers-color-scheme"));
    assert!(theme(Theme::Dark).contains("fill=\"#11161c\""));
}

#[test]
fn pictures_need_nothing_from_outside() {
    for picture in [
        draw(&story()),
        draw(&timeline(60, vec![track(Vec::new())], Vec::new())),
    ] {
        assert!(!picture.contains("<script") && !picture.contains("href") && !picture.contains("@import"));
        assert_eq!(picture.matches("http").count(), 1, "only the name space");
        assert!(picture.contains("role=\"img\"") && picture.contains("<desc"));
    }
}

/// Every tag is closed in order and no character is left that XML forbids.
fn assert_well_formed(picture: &str) {
    let mut open: Vec<&str> = Vec::new();
    for piece in picture.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').expect("a closed tag");
        assert!(!text.contains('>'), "stray '>' in {text}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split([' ', '\n']).next().unwrap_or(tag));
        }
    }
    assert!(open.is_empty(), "{open:?}");
    assert!(!picture.chars().any(|c| c.is_control() && c != '\n'));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_names_and_readings_make_a_well_formed_picture(
        name in "\\PC{0,30}|[\\x00-\\x7f]{0,30}",
        readings in prop::collection::vec((0_i64..4_000_000_000, prop::option::of(any::<u64>()), prop::option::of(any::<f64>())), 0..40),
        capacity in prop::option::of(any::<u64>()),
        reserved in prop::option::of(any::<u64>()),
        enter in any::<u64>(),
        window in (any::<i64>(), any::<i64>()),
    ) {
        let mut at_ns = START;
        let mut device = DeviceTrack { uuid: name.clone(), name: Some(name.clone()), capacity_bytes: capacity, reserved_bytes: reserved, ..DeviceTrack::default() };
        for (step, used_bytes, ratio) in readings {
            at_ns += step;
            device.samples.push(Sample { at_ns, used_bytes });
            device.busy.push(Busy { at_ns, ratio });
        }
        device.owners = vec![process(&name, 1, device.samples.clone()), process(&name, 2, device.samples.clone())];
        device.lines = vec![Line { rule: name.clone(), enter_bytes: enter, exit_bytes: reserved, enter_ratio: None, exit_ratio: None }];
        let shares: Vec<Share> = device.busy.iter().map(|busy| Share { at_ns: busy.at_ns, ratio: busy.ratio }).collect();
        device.allocators = vec![Allocator { level: name.clone(), source: name.clone(), slack: shares.clone(), stuck: shares }];
        device.gpu_time = device.samples.windows(2).map(|pair| GpuTime {
            recorded_ns: pair[0].used_bytes.unwrap_or(0),
            family_ns: [pair[1].used_bytes.unwrap_or(0); 6],
            ..GpuTime::unknown(pair[0].at_ns, pair[1].at_ns)
        }).collect();
        device.gaps = find_gaps(&device.samples);
        device.peak = find_peak(&device.samples);
        let mut drawn = timeline(60, vec![device], vec![mark(1, MarkKind::Xid, &name)]);
        drawn.title.name = name;
        assert_well_formed(&draw(&drawn));
        // Any window at all, even one that ends before it begins.
        (drawn.from_ns, drawn.to_ns) = window;
        assert_well_formed(&draw(&drawn));
    }
}
