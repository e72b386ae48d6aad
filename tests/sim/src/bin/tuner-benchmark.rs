//! prototype
#![allow(clippy::all, clippy::unwrap_used, clippy::cast_possible_truncation)]
use std::sync::Arc;
use plimsoll_sim::benchmark::{rungs::*, size, world::*, tuned, clairvoyant, score::Score};
use plimsoll_sim::workload::Workload;

fn line(n: f64, what: &str, s: &Score) {
    println!("  {what:14} oom {:3} good {:.4} full {:.4} v5 {:.4} v8 {:.4} v95 {:.4} lost {:5} down {:4.0} restarts {} flaps {} rungs {:?}", s.oom, s.good as f64 / n, s.full as f64 / n, s.value(0.5)/n, s.value(0.8)/n, s.value(0.95)/n, s.lost, s.down_secs, s.restarts, s.flaps, s.rung_secs.iter().map(|s| (s/60.0).round()).collect::<Vec<_>>());
}
fn env(name: &str, or: &str) -> String { std::env::var(name).unwrap_or(or.into()) }

fn main() {
    let mut args = std::env::args().skip(1);
    let file = args.next().unwrap();
    use clap::ValueEnum;
    let (workload, duration) = match plimsoll_sim::scenario::Scenario::from_str(&file, true) {
        Ok(family) => (family.workload(args.next().map_or(1, |s| s.parse().unwrap()), 3600.0), 3660.0),
        Err(_) => {
            let workload = Workload::read(file.as_ref()).unwrap();
            let duration = workload.arrivals.last().unwrap().at_secs + 60.0;
            (workload, duration)
        }
    };
    let n = workload.arrivals.len() as f64;
    let sizes = env("SIZES", "roomy,tight,short,deep");
    for (name, share, slack) in [("roomy", 1.0, 1.1), ("tight", 0.99, 1.0), ("short", 0.85, 1.0), ("deep", 0.7, 1.0), ("abyss", 0.5, 1.0)] {
        if !sizes.contains(name) { continue; }
        let (kv, hardware, demand) = size::fit(&workload, duration, share, slack);
        println!("{name}: kv {kv} speed {:.2} good {:.4} p50 {:.0} p85 {:.0} p99 {:.0} max {:.0}", hardware.speed, demand.good_ratio, demand.quantile(0.5), demand.quantile(0.85), demand.quantile(0.99), demand.quantile(1.0));
        for kind in [Kind::OnDemand, Kind::Preallocated] {
            for restart in [10.0, 30.0, 90.0] {
            if !env("RESTARTS", "10,30,90").contains(&format!("{restart}")) { continue; }
            let rungs = Rungs::new(kind, kv, hardware.usable_bytes);
            let tokens = |i: usize| f64::from(rungs.config(i).max_batch_total_tokens);
            let (c2, c3) = (tokens(2) / tokens(1), tokens(3) / tokens(2));
            let scenario = Arc::new(Scenario { name: name.into(), workload: workload.clone(), duration_secs: duration, hardware, rungs, restart_secs: restart });
            println!(" {kind:?} restart {restart} capacity {c2:.2} {c3:.2}");
            if env("STATIC", "1") == "1" {
                for rung in 0..4 {
                    let mut world = World::new(Arc::clone(&scenario), rung);
                    while !world.is_over() { world.advance(1.0); }
                    line(n, &format!("static_{rung}"), world.score());
                }
            }
            if env("CLAIR", "0") == "1" {
                for w in [0.5, 0.8, 0.95] { line(n, &format!("clair {w}"), &clairvoyant::clairvoyant(&scenario, w)); }
            }
            let (window, share) = (env("WINDOW", "120s"), env("SHARE", "0.1"));
            let first = match kind { Kind::OnDemand => "when = { signal = 'vram.used_ratio', enter = 0.8, exit = 0.5 }", Kind::Preallocated => "when = { signal = 'engine.kv_used_ratio', enter = 0.5, exit = 0.2 }" };
            let (hold, calm, exit) = (env("HOLD", "10m"), env("CALM", "5m"), env("EXIT", "0.8"));
            let text = format!("
[[rule]]
name = 'limits'
engine = 'engine'
mode = 'act'
cost = 'hot'
{first}
set = {{ max = 1 }}
[[rule]]
name = 'kv-fp8'
engine = 'engine'
mode = 'act'
when = {{ all = [ {{ signal = 'engine.kv_used_ratio', stat = 'mean', window = '30s', enter = 0.9, exit = {exit} }}, {{ signal = 'engine.refused_ratio', stat = 'mean', window = '{window}', enter = {share}, exit = 0.0 }} ] }}
set = {{ kv = 'fp8' }}
capacity = {c2}
for = '0s'
hold = '{hold}'
calm = '{calm}'
[[rule]]
name = 'int8'
engine = 'engine'
mode = 'act'
when = {{ all = [ {{ signal = 'engine.kv_used_ratio', stat = 'mean', window = '30s', enter = 0.9, exit = {exit} }}, {{ signal = 'engine.refused_ratio', stat = 'mean', window = '{window}', enter = {share}, exit = 0.0 }} ] }}
set = {{ q = 'int8' }}
capacity = {c3}
for = '0s'
hold = '{hold}'
calm = '{calm}'
");
            let ladder = tuned::ladder(&text);
            line(n, "tuner", &tuned::tuned(&scenario, &ladder, 0, env("TRACE", "0") == "1"));
        }}
    }
}
