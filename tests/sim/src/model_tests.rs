use super::*;
use crate::config::Format;
use proptest::prelude::*;

const GIB: u64 = 1 << 30;
const HARDWARE: Hardware = Hardware {
    usable_bytes: 24 * GIB,
    speed: 1.0,
};

fn config(more: &str) -> Config {
    let config = Config::parse(&format!("model: {{name: a}}\n{more}"), Format::Yaml).expect("valid");
    Config {
        load_secs: 0.0,
        ..config
    }
}

fn request(input_tokens: u32, output_tokens: u32) -> Request {
    Request {
        probe: None,
        arrived_secs: 0.0,
        input_tokens,
        output_tokens,
    }
}

/// Steps until nothing is left to do; what finished, the highest memory, and the time then.
fn run(engine: &mut Engine, limit: u64) -> Result<(Vec<Finished>, u64, f64), OutOfMemory> {
    let (mut all, mut peak, mut now) = (Vec::new(), 0, 0.0);
    while engine.running() + engine.waiting() > 0 && now < 600.0 {
        now += STEP_SECS;
        let step = engine.step(now, limit, [])?;
        peak = peak.max(step.memory.total_bytes());
        all.extend(step.finished);
    }
    Ok((all, peak, now))
}

fn loaded(config: Config, requests: &[Request]) -> Engine {
    let mut engine = Engine::new(config, HARDWARE, 0);
    engine
        .step(0.0, 24 * GIB, requests.iter().copied())
        .expect("fits");
    assert_eq!(engine.phase(), Phase::Serving);
    engine
}

#[test]
fn latencies_of_a_lone_request_are_plausible() {
    let mut engine = loaded(config(""), &[request(1000, 200)]);
    let (finished, ..) = run(&mut engine, 24 * GIB).expect("fits");
    let first = finished[0].first_token_secs;
    let per_token = finished[0].per_token_secs.expect("many tokens");
    assert!((0.05..0.4).contains(&first), "{first}");
    assert!((0.015..0.04).contains(&per_token), "{per_token}");
}

#[test]
fn memory_is_the_documented_formula() {
    let mut engine = loaded(config(""), &[request(4000, 4000)]);
    let step = engine.step(0.05, 24 * GIB, []).expect("fits");
    let tokens = engine.kv_tokens();
    assert!(tokens > 100.0);
    assert_eq!(step.memory.context_bytes, memory::CONTEXT_BYTES);
    assert_eq!(step.memory.weights_bytes, 16_000_000_000);
    assert_eq!(step.memory.kv_bytes, memory::to_bytes(tokens * 131_072.0));
    assert_eq!(
        step.memory.activation_bytes,
        memory::WORKSPACE_BYTES + memory::to_bytes(tokens * 8.0 * memory::ACTIVATION_BYTES)
    );
}

#[test]
fn quantized_or_checkpointed_it_needs_less_for_the_same_requests() {
    let requests = [request(3000, 300); 6];
    let peak = |more| run(&mut loaded(config(more), &requests), 24 * GIB).map(|(_, peak, _)| peak);
    let plain = peak("").expect("fits");
    let checkpointed = peak("gradient_checkpointing: true").expect("fits");
    let narrow_kv = peak("kv_bytes_per_token: 65536").expect("fits");
    let small_batch = peak("max_batch_size: 2").expect("fits");
    assert!(checkpointed < plain && narrow_kv < plain && small_batch < plain);
}

#[test]
fn checkpointing_costs_time() {
    let secs = |more| {
        run(&mut loaded(config(more), &[request(3000, 300); 6]), 24 * GIB)
            .expect("fits")
            .2
    };
    let (plain, slower) = (secs(""), secs("gradient_checkpointing: true"));
    assert!(slower > plain * 1.02 && slower < plain * 1.1, "{plain} {slower}");
}

#[test]
fn kv_that_does_not_fit_is_out_of_memory() {
    let mut engine = loaded(config(""), &[request(7000, 500); 40]);
    let error = run(&mut engine, 20 * GIB).expect_err("too much");
    assert!(
        error.asked_bytes > 0 && error.in_use_bytes + error.asked_bytes > error.limit_bytes,
        "{error:?}"
    );
    assert_eq!(error.limit_bytes, 20 * GIB);
}

#[test]
fn weights_that_do_not_fit_are_out_of_memory() {
    let mut engine = Engine::new(
        Config {
            load_secs: 1.0,
            ..config("")
        },
        HARDWARE,
        0,
    );
    let error = (0..30)
        .find_map(|_| engine.step(0.0, 10 * GIB, []).err())
        .expect("too large");
    assert!(error.asked_bytes > 0, "{error:?}");
}

#[test]
fn a_reload_frees_the_weights_and_keeps_the_requests() {
    let mut engine = loaded(config(""), &[request(2000, 2000); 4]);
    let mut now = 0.0;
    for _ in 0..100 {
        now += STEP_SECS;
        engine.step(now, 24 * GIB, []).expect("fits");
    }
    let before = engine.step(now, 24 * GIB, []).expect("fits").memory;
    engine.reload(Config {
        load_secs: 2.0,
        ..config("")
    });
    let during = engine.step(now, 24 * GIB, []).expect("fits");
    assert!(during.memory.weights_bytes < before.weights_bytes / 10);
    assert_eq!(engine.running(), 4);
    assert!(engine.kv_tokens() > 0.0 && during.busy_ratio == 0.0);
    assert_eq!(run(&mut engine, 24 * GIB).expect("fits").0.len(), 4);
}

#[test]
fn without_a_model_everything_is_turned_away() {
    let mut engine = loaded(config(""), &[request(100, 10); 3]);
    assert_eq!(engine.unload().len(), 3);
    let step = engine.step(1.0, 24 * GIB, [request(1, 1)]).expect("fits");
    assert_eq!(step.lost.len(), 1);
    assert_eq!(step.memory.total_bytes(), memory::CONTEXT_BYTES);
}

#[test]
fn context_and_queue_have_their_limits() {
    let mut engine = loaded(config("context_length: 1000\nmax_batch_size: 1"), &[]);
    let step = engine
        .step(0.1, 24 * GIB, [request(1000, 1), request(990, 500)])
        .expect("fits");
    assert_eq!(step.lost, [request(1000, 1)]);
    let (finished, ..) = run(&mut engine, 24 * GIB).expect("fits");
    assert_eq!(finished[0].request.output_tokens, 10);
    let step = engine
        .step(9.0, 24 * GIB, vec![request(10, 10); QUEUE_LIMIT + 5])
        .expect("fits");
    assert_eq!(step.lost.len(), 5);
}

#[test]
fn a_leak_stays() {
    let mut engine = Engine::new(config(""), HARDWARE, GIB);
    engine.step(0.0, 24 * GIB, [request(10, 10); 3]).expect("fits");
    run(&mut engine, 24 * GIB).expect("fits");
    assert_eq!(
        engine.step(60.0, 24 * GIB, []).expect("fits").memory.leaked_bytes,
        3 * GIB
    );
}

proptest! {
    #[test]
    fn no_request_is_lost_from_the_books(
        sizes in prop::collection::vec((0_u32..12_000, 0_u32..2_000), 0..60),
        batch in 1_u32..20,
    ) {
        let mut engine = Engine::new(config(&format!("max_batch_size: {batch}")), HARDWARE, 0);
        let (mut finished, mut lost, mut out_of_memory) = (0, 0, false);
        let requests = sizes.iter().map(|(input, output)| request(*input, *output));
        let mut arrivals: Vec<Request> = requests.collect();
        for at in 1..4000_u32 {
            match engine.step(f64::from(at) * STEP_SECS, 40 * GIB, arrivals.drain(..)) {
                Ok(step) => {
                    prop_assert!(step.memory.total_bytes() <= 40 * GIB);
                    prop_assert!((0.0..=1.0 + 1e-9).contains(&step.busy_ratio));
                    finished += step.finished.len();
                    lost += step.lost.len();
                }
                Err(_) => { out_of_memory = true; break }
            }
        }
        prop_assert!(out_of_memory || finished + lost + engine.running() + engine.waiting() == sizes.len());
    }
}

/// An engine whose pool holds so many tokens.
fn pooled(tokens: u32, more: &str) -> Engine {
    let config = config(&format!(
        "gpu_memory_utilization: 0.98\ncontext_length: 1000000\n{more}"
    ));
    let mut usable_bytes = 16 * GIB;
    while memory::pool_tokens(&config, usable_bytes) < f64::from(tokens) {
        usable_bytes += 1 << 20;
    }
    let hardware = Hardware {
        usable_bytes,
        ..HARDWARE
    };
    Engine::new(config, hardware, 0)
}

#[test]
fn a_pool_is_taken_at_once_and_puts_the_newest_request_off() {
    let mut engine = pooled(2_000, "");
    let limit = engine.hardware.usable_bytes;
    engine.step(0.0, limit, []).expect("fits");
    let idle = engine.step(0.05, limit, []).expect("fits");
    assert!(idle.memory.total_bytes() as f64 > 0.97 * limit as f64, "{idle:?}");
    let mut arrivals = vec![request(900, 400), request(900, 400)];
    let (mut preempted, mut finished, mut now) = (0, 0, 0.05);
    while finished < 2 && now < 120.0 {
        now += STEP_SECS;
        let step = engine
            .step(now, limit, arrivals.drain(..))
            .expect("a pool is never short");
        assert!(engine.kv_tokens() <= 2_001.0, "{}", engine.kv_tokens());
        assert_eq!(step.memory.total_bytes(), idle.memory.total_bytes());
        preempted += step.preempted;
        finished += step.finished.len();
    }
    assert_eq!(finished, 2);
    assert!(preempted >= 1, "{preempted}");
}

#[test]
fn what_never_fits_into_the_pool_is_turned_away() {
    let mut engine = pooled(2_000, "");
    let limit = engine.hardware.usable_bytes;
    let step = engine
        .step(0.0, limit, [request(2_100, 1), request(100, 9_000)])
        .expect("fits");
    assert_eq!(step.lost, [request(2_100, 1)]);
    // The other one's answer is cut to what fits.
    let (finished, ..) = run(&mut engine, limit).expect("fits");
    assert!(finished[0].request.output_tokens < 1_900, "{finished:?}");
}

#[test]
fn a_limit_on_tokens_lets_the_rest_wait_and_patience_ends() {
    let mut engine = loaded(
        config("max_batch_total_tokens: 1000\nmax_queue_secs: 1.0"),
        &[request(500, 300), request(500, 300), request(1_000, 1)],
    );
    engine.step(0.01, 24 * GIB, []).expect("fits");
    assert_eq!((engine.running(), engine.waiting()), (1, 1));
    assert_eq!(engine.kv_used_ratio(), Some(0.8));
    let mut lost = Vec::new();
    for number in 1..40_u32 {
        let now = f64::from(number) * STEP_SECS;
        lost.extend(engine.step(now, 24 * GIB, []).expect("fits").lost);
    }
    assert_eq!(lost, [request(500, 300)]);
    engine.limit(&config(""));
    assert_eq!(engine.kv_used_ratio(), None);
}

#[test]
fn eight_bits_halve_the_cache() {
    let tokens = |more: &str| {
        memory::pool_tokens(
            &config(&format!(
                "gradient_checkpointing: true\ngpu_memory_utilization: 0.9\n{more}"
            )),
            24 * GIB,
        )
    };
    let (auto, fp8) = (tokens(""), tokens("kv_cache_dtype: fp8"));
    assert!((1.5..1.7).contains(&(fp8 / auto)), "{auto} {fp8}");
    assert_eq!(
        memory::kv_bytes(&config("kv_cache_dtype: fp8"), 10.0),
        10 * 65_536
    );
}
