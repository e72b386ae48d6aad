//! What a tick costs: 100 rules of one engine on 8 devices, looked at once. Prints the median and the 99th percentile.
//!
//!     cargo bench -p plimsoll-tuner

use std::time::{Duration, Instant};

use plimsoll_trace::{Batch, DeviceId, DeviceSample, Record, Stamp};
use plimsoll_tuner::rule::Cost;
use plimsoll_tuner::{EngineView, Ladder, LadderState, RuleConfig, Signals, evaluate};

const RULES: usize = 100;
const DEVICES: usize = 8;
const TICKS: i64 = 4_000;
/// Windows are full before anything is measured.
const WARM: i64 = 700;

/// Rules of each kind: the newest value, windows, several clauses, a forecast.
fn when(index: usize) -> String {
    let enter = 0.80 + index as f64 / 1_000.0;
    let used = |stat: &str| format!("signal = 'vram.used_ratio', {stat} enter = {enter}, exit = 0.6");
    let window = 10 * (1 + index % 6);
    match index % 5 {
        0 => format!("{{ {} }}", used("")),
        1 => format!("{{ {} }}", used(&format!("stat = 'mean', window = '{window}s',"))),
        2 => format!("{{ {} }}", used(&format!("stat = 'p95', window = '{window}s',"))),
        3 => format!(
            "{{ all = [ {{ {} }}, {{ signal = 'gpu.busy_ratio', stat = 'mean', window = '{window}s', enter = 0.5 }}, \
             {{ signal = 'vram.free_bytes', enter = '{}MiB', exit = '6GiB' }} ] }}",
            used("unless_falling = true,"),
            1_000 + index
        ),
        _ => format!(
            "{{ signal = 'vram.full_in_secs', enter = {}, exit = 1800 }}",
            300 + index
        ),
    }
}

fn ladder() -> Result<Ladder, Box<dyn std::error::Error>> {
    let mut rules = Vec::new();
    for index in 0..RULES {
        let text = format!(
            "name = 'rule-{index}'\nengine = 'e'\nmode = 'act'\nset = {{ key-{index} = 1 }}\nsaves = '1GiB'\nwhen = {}",
            when(index),
        );
        let config: RuleConfig = toml_edit::de::from_str(&text)?;
        rules.push(config.resolve(Cost::Reload)?);
    }
    Ok(Ladder::new("e", rules)?)
}

fn batch(devices: &[DeviceId], second: i64) -> Batch {
    let sample = |(index, device): (usize, &DeviceId)| {
        let mut sample = DeviceSample::unknown(device.clone());
        // Half full, and every value moves; no line is crossed.
        let wave = (second * 37 + index as i64 * 11) % 100;
        let used = (40 << 30) + (wave << 24);
        sample.total_bytes = Some(80 << 30);
        sample.reserved_bytes = Some(1 << 29);
        sample.used_bytes = u64::try_from(used).ok();
        sample.free_bytes = sample.used_bytes.map(|used| (80 << 30) - (1 << 29) - used);
        sample.gpu_busy_ratio = Some(wave as f64 / 100.0);
        Record::Device(sample)
    };
    Batch {
        at: Stamp::at_secs(second),
        records: devices.iter().enumerate().map(sample).collect(),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ladder = ladder()?;
    let devices: Vec<DeviceId> = (0..DEVICES).map(|index| format!("GPU-{index}").into()).collect();
    let view = EngineView {
        devices: devices.clone(),
        run: None,
    };
    let mut signals = Signals::new(Duration::from_secs(1));
    signals.watch([&ladder]);
    let mut state = LadderState::default();
    let mut took: [Vec<Duration>; 4] = Default::default();
    let mut decided = 0;
    for second in 0..TICKS {
        let batch = batch(&devices, second);
        let began = Instant::now();
        signals.update(&batch);
        let updated = Instant::now();
        let readings = signals.readings(&ladder, &view, batch.at);
        let read = Instant::now();
        let done = evaluate(&ladder, &state, &readings, batch.at);
        let evaluated = Instant::now();
        decided += done.transitions.len();
        state = done.state;
        if second >= WARM {
            let parts = [
                updated - began,
                read - updated,
                evaluated - read,
                evaluated - updated,
            ];
            for (took, part) in took.iter_mut().zip(parts) {
                took.push(part);
            }
        }
    }
    println!("{RULES} rules, {DEVICES} devices, {decided} decisions; microseconds a tick, median and p99");
    let parts = [
        "taking a batch in",
        "reading what the rules look at",
        "evaluating them",
        "reading and evaluating (goal: 100)",
    ];
    for (part, mut took) in parts.into_iter().zip(took) {
        took.sort_unstable();
        let micros = |at: usize| took.get(took.len() * at / 100).map_or(0.0, Duration::as_secs_f64) * 1e6;
        println!("{part:<36} {:>8.1} {:>8.1}", micros(50), micros(99));
    }
    Ok(())
}
