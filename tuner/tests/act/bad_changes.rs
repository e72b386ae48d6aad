//! Changes that do harm, each in its own way: all are taken back, byte for byte, and the engine serves as before.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll_trace::{DecisionOutcome, EngineFigures, Histogram, Stamp};
use plimsoll_tuner::act::{Ended, Live, ProcessRef};
use plimsoll_tuner::guard::{Guards, Quality, Waits};
use plimsoll_tuner::{Call, EngineSpec, Probe, Reload};
use serde_json::{Value, json};

use super::engine::{Answer, asked, values};
use super::world::{Daemon, GIB, PERSON, Paths};

/// What goes wrong with the changed configuration. With the person's own all is well.
#[derive(Clone, Debug)]
enum Bad {
    /// Nothing.
    Nothing,
    /// The reload is answered like this, and the file is read or not.
    Reload(Answer, bool),
    /// This is what is answered at an address, from so many questions on.
    Answers(&'static str, Answer, u32),
    /// The values in force, as it shows them.
    Shows(Value),
    /// The memory that is freed, as a share of the promise: for the first readings, and for all others. Without, nothing is
    /// read.
    Frees(Option<f64>),
    /// First and further tokens take so many times as long.
    Slower(f64, f64),
    /// This share of requests is lost.
    Loses(f64),
    /// The engine shows no metrics any more.
    NoMetrics,
    /// No requests come any more.
    NoRequests,
    /// Another load, and slower.
    MoreLoad,
    /// Its process dies after a while, and its supervisor starts it again.
    Restarted,
    /// The reload is this command.
    Command(&'static str),
    /// What the quality command does.
    Answering(&'static str),
}

const RELOADED: &str = "reload";
const RESTARTED: &str = "restart";

/// Name, what goes wrong, what the change costs, and what is said about it.
type Case = (&'static str, Bad, &'static str, &'static str);

fn is(status: u16) -> Answer {
    Answer::Is(status, String::new())
}

fn cases() -> Vec<Case> {
    use Answer::{Closed, Endless, Garbage, Nothing};
    use Bad::*;

    vec![
        (
            "a reload that is refused",
            Reload(is(500), false),
            RELOADED,
            "answered 500",
        ),
        (
            "a reload that is refused at length",
            Reload(Answer::Is(400, "no ".repeat(9_000)), false),
            RELOADED,
            "answered 400",
        ),
        (
            "a reload that fails half way",
            Reload(is(500), true),
            RELOADED,
            "answered 500",
        ),
        (
            "a reload that leads elsewhere",
            Reload(is(302), false),
            RELOADED,
            "answered 302",
        ),
        (
            "a reload that never returns",
            Reload(Nothing, true),
            RELOADED,
            "reload call failed",
        ),
        (
            "a reload that never returns and reads nothing",
            Reload(Nothing, false),
            RELOADED,
            "reload call failed",
        ),
        (
            "a reload that streams for ever",
            Reload(Endless, true),
            RELOADED,
            "reload call failed",
        ),
        (
            "a reload that ends the connection",
            Reload(Closed, true),
            RELOADED,
            "reload call failed",
        ),
        (
            "a reload that answers no HTTP",
            Reload(Garbage, true),
            RELOADED,
            "reload call failed",
        ),
        (
            "a reload that only says so",
            Reload(is(200), false),
            RELOADED,
            "instead of",
        ),
        (
            "a health check that fails",
            Answers("/health", is(503), 0),
            RELOADED,
            "answers 503",
        ),
        (
            "a health check that leads elsewhere",
            Answers("/health", is(301), 0),
            RELOADED,
            "answers 301",
        ),
        (
            "a health check that hangs",
            Answers("/health", Nothing, 0),
            RELOADED,
            "does not answer",
        ),
        (
            "a health check that streams for ever",
            Answers("/health", Endless, 0),
            RELOADED,
            "does not answer",
        ),
        (
            "a health check that answers no HTTP",
            Answers("/health", Garbage, 0),
            RELOADED,
            "does not answer",
        ),
        (
            "a health check that ends the connection",
            Answers("/health", Closed, 0),
            RELOADED,
            "does not answer",
        ),
        (
            "a health check that lies: the model is gone",
            Answers("/probe", is(500), 0),
            RELOADED,
            "model does not answer",
        ),
        (
            "a model that hangs",
            Answers("/probe", Nothing, 0),
            RELOADED,
            "model does not answer",
        ),
        (
            "a model that streams for ever",
            Answers("/probe", Endless, 0),
            RELOADED,
            "model does not answer",
        ),
        (
            "a model behind a redirect",
            Answers("/probe", is(307), 0),
            RELOADED,
            "model does not answer",
        ),
        (
            "an engine that dies while it is watched",
            Answers("/health", Closed, 1),
            RELOADED,
            "stopped answering",
        ),
        (
            "an engine that falls ill while it is watched",
            Answers("/health", is(500), 1),
            RELOADED,
            "stopped answering",
        ),
        (
            "an engine that crashes and is started again",
            Restarted,
            RELOADED,
            "was started again",
        ),
        (
            "another value in force",
            Shows(json!({"quantization": "int4"})),
            RELOADED,
            "int4",
        ),
        (
            "a value of another kind in force",
            Shows(json!({"quantization": {"bits": 8}})),
            RELOADED,
            "instead of",
        ),
        (
            "no value in force",
            Shows(json!({"quantization": null})),
            RELOADED,
            "instead of",
        ),
        (
            "nothing saved",
            Frees(Some(0.0)),
            RELOADED,
            "freed 0 % of what it promised",
        ),
        (
            "a third of the promise saved",
            Frees(Some(0.33)),
            RELOADED,
            "33 % of what it promised",
        ),
        (
            "more memory taken",
            Frees(Some(-0.5)),
            RELOADED,
            "-50 % of what it promised",
        ),
        (
            "a gap in the sampling, at a restart",
            Frees(None),
            RESTARTED,
            "what the engine holds now is not known",
        ),
        (
            "first tokens that take twice as long",
            Slower(2.0, 1.0),
            RELOADED,
            "95th percentile",
        ),
        (
            "further tokens that take twice as long",
            Slower(1.0, 2.0),
            RELOADED,
            "95th percentile",
        ),
        (
            "everything three times as slow, at a restart",
            Slower(3.0, 3.0),
            RESTARTED,
            "95th percentile",
        ),
        (
            "everything ten times as slow",
            Slower(10.0, 10.0),
            RELOADED,
            "95th percentile",
        ),
        (
            "requests that are lost",
            Loses(0.3),
            RELOADED,
            "loses more requests",
        ),
        ("all requests lost", Loses(1.0), RELOADED, "loses more requests"),
        (
            "metrics that are gone, at a restart",
            NoMetrics,
            RESTARTED,
            "too few requests",
        ),
        (
            "requests that are gone, at a restart",
            NoRequests,
            RESTARTED,
            "too few requests",
        ),
        (
            "another load, at a restart",
            MoreLoad,
            RESTARTED,
            "the load is another one",
        ),
        (
            "a reload command that fails",
            Command("exit 3"),
            RELOADED,
            "exit status: 3",
        ),
        (
            "a reload command that hangs",
            Command("sleep 600"),
            RELOADED,
            "did not end within",
        ),
        (
            "a reload command that does nothing",
            Command("exit 0"),
            RELOADED,
            "instead of",
        ),
        (
            "worse answers, at a restart",
            Answering(
                "if grep -q int8 $FILE; then echo '{\"score\": 0.90}'; else echo '{\"score\": 0.95}'; fi",
            ),
            RESTARTED,
            "score 0.9 instead of 0.95",
        ),
        (
            "a quality command that fails with it, at a restart",
            Answering("grep -q int8 $FILE && exit 1; echo '{\"score\": 0.95}'"),
            RESTARTED,
            "ended with exit status: 1",
        ),
        (
            "a quality command that hangs with it, at a restart",
            Answering("grep -q int8 $FILE && sleep 600; echo '{\"score\": 0.95}'"),
            RESTARTED,
            "did not end within",
        ),
        (
            "a quality command that says junk with it, at a restart",
            Answering("grep -q int8 $FILE && echo junk; echo '{\"score\": 0.95}'"),
            RESTARTED,
            "did not say",
        ),
        (
            "a quality command that floods with it, at a restart",
            Answering("grep -q int8 $FILE && yes; echo '{\"score\": 0.95}'"),
            RESTARTED,
            "quality command",
        ),
    ]
}

/// An engine that is ill while it serves anything but the person's values.
struct Patient {
    file: PathBuf,
    person: Value,
    state: Mutex<State>,
    bad: Bad,
}

struct State {
    applied: Value,
    /// How often each address was asked since the values changed.
    asked: Vec<String>,
}

impl Patient {
    fn start(file: &Path, bad: Bad) -> (Arc<Self>, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let applied = values(file).unwrap();
        let patient = Arc::new(Self {
            file: file.to_owned(),
            person: applied.clone(),
            state: Mutex::new(State {
                applied,
                asked: Vec::new(),
            }),
            bad,
        });
        let served = Arc::clone(&patient);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let patient = Arc::clone(&served);
                std::thread::spawn(move || {
                    // A caller that has had enough leaves a broken connection.
                    if let Ok((path, stream)) = asked(stream.unwrap()) {
                        drop(patient.answer(&path).give(stream));
                    }
                });
            }
        });
        (patient, port)
    }

    fn applied(&self) -> Value {
        self.state.lock().unwrap().applied.clone()
    }

    fn is_ill(&self) -> bool {
        self.applied() != self.person
    }

    fn answer(&self, path: &str) -> Answer {
        let mut state = self.state.lock().unwrap();
        let ill = state.applied != self.person;
        if path == "/reload" {
            let text = values(&self.file);
            let (answer, reads) = match &self.bad {
                Bad::Reload(answer, reads) if text.as_ref() != Some(&self.person) => (answer.clone(), *reads),
                _ => (is(200), true),
            };
            let Some(values) = text else {
                return is(500);
            };
            if reads {
                state.applied = values;
                state.asked.clear();
            }
            return answer;
        }
        if ill {
            state.asked.push(path.to_owned());
            let before = state.asked.iter().filter(|asked| *asked == path).count();
            if let Bad::Answers(at, answer, from) = &self.bad
                && *at == path
                && before > *from as usize
            {
                return answer.clone();
            }
        }
        match path {
            "/health" | "/probe" => is(200),
            "/status" => {
                let shown = match &self.bad {
                    Bad::Shows(shown) if ill => shown.clone(),
                    _ => state.applied.clone(),
                };
                Answer::Is(200, json!({ "applied": shown }).to_string())
            }
            _ => is(404),
        }
    }
}

/// Shows the engine's memory, metrics and process as the collectors would, many times as fast.
struct Feed {
    paths: Paths,
    patient: Arc<Patient>,
    live: Arc<Live>,
    stop: Arc<AtomicBool>,
    counts: Counts,
}

#[derive(Clone, Default)]
struct Counts {
    ttft: [f64; 6],
    tpot: [f64; 6],
    finished: f64,
    refused: f64,
}

const TTFT_BOUNDS: [f64; 6] = [0.1, 0.2, 0.4, 0.8, 1.6, f64::INFINITY];
const TPOT_BOUNDS: [f64; 6] = [0.01, 0.02, 0.04, 0.08, 0.16, f64::INFINITY];
const PER_SEC: u32 = 20;

impl Counts {
    /// One second of requests.
    fn second(&mut self, per_sec: u32, (ttft, tpot): (f64, f64), lost: f64) {
        for number in 0..per_sec {
            let share = (f64::from(number) + 0.5) / f64::from(per_sec);
            if share < lost {
                self.refused += 1.0;
                continue;
            }
            self.finished += 1.0;
            let add = |counts: &mut [f64; 6], bounds: [f64; 6], secs: f64| {
                let counts = counts.iter_mut().zip(bounds);
                counts
                    .filter(|(_, bound)| secs <= *bound)
                    .for_each(|(count, _)| *count += 1.0);
            };
            add(&mut self.ttft, TTFT_BOUNDS, (0.05 + 0.4 * share) * ttft);
            add(&mut self.tpot, TPOT_BOUNDS, (0.005 + 0.04 * share) * tpot);
        }
    }

    fn figures(&self, at: Stamp) -> EngineFigures {
        let histogram =
            |bounds: [f64; 6], counts: [f64; 6]| Histogram::new(bounds.into_iter().zip(counts).collect());
        EngineFigures {
            at,
            running: Some(4.0),
            waiting: Some(0.0),
            finished: Some(self.finished),
            refused: Some(self.refused),
            ttft: histogram(TTFT_BOUNDS, self.ttft),
            tpot: histogram(TPOT_BOUNDS, self.tpot),
            ..EngineFigures::default()
        }
    }
}

fn process(started: Stamp) -> ProcessRef {
    let per_second = i64::try_from(rustix::param::clock_ticks_per_second()).unwrap();
    ProcessRef {
        pid: 4242,
        started_ticks: u64::try_from(started.mono_ns / (1_000_000_000 / per_second)).unwrap(),
    }
}

fn secs_ago(secs: i64) -> Stamp {
    let now = Stamp::now();
    Stamp {
        mono_ns: now.mono_ns - secs * 1_000_000_000,
        unix_ns: now.unix_ns - secs * 1_000_000_000,
    }
}

impl Feed {
    /// The two minutes before the change, and then what comes.
    fn start(paths: &Paths, patient: &Arc<Patient>, live: &Arc<Live>) -> Arc<AtomicBool> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut feed = Self {
            paths: paths.clone(),
            patient: Arc::clone(patient),
            live: Arc::clone(live),
            stop: Arc::clone(&stop),
            counts: Counts::default(),
        };
        for ago in (1..=120).rev() {
            feed.counts.second(PER_SEC, (1.0, 1.0), 0.0);
            feed.live.add_figures("e", feed.counts.figures(secs_ago(ago)));
        }
        feed.live
            .update("e", |latest| latest.root = Some(process(secs_ago(3_600))));
        feed.hold(0.0);
        std::thread::spawn(move || feed.run());
        stop
    }

    fn hold(&self, share_freed: f64) {
        let held = (8.0 - 2.0 * share_freed) * GIB;
        self.live
            .update("e", |latest| latest.vram = Some((Stamp::now(), held)));
    }

    /// Whether the change is in force and its effect is awaited.
    fn is_watched(&self) -> bool {
        let rows = self.paths.book().rows();
        rows.decisions
            .values()
            .any(|it| it.outcome == DecisionOutcome::Applied)
    }

    fn run(mut self) {
        let bad = self.patient.bad.clone();
        let mut since: Option<(Stamp, u64)> = None;
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(4));
            if !self.patient.is_ill() {
                since = None;
                self.hold(0.0);
                continue;
            }
            let (from, steps) = since.get_or_insert((Stamp::now(), 0));
            *steps += 1;
            match bad {
                Bad::Frees(Some(share)) => self.hold(share),
                Bad::Frees(None) => {}
                _ => self.hold(1.0),
            }
            if matches!(bad, Bad::Restarted) && self.is_watched() {
                // Processes are told apart by hundredths of a second.
                std::thread::sleep(Duration::from_millis(30));
                let started = process(Stamp::now());
                self.live.update("e", |latest| latest.root = Some(started));
            }
            let (per_sec, slower, lost) = match bad {
                Bad::NoMetrics => continue,
                // Nobody is served while it is away.
                Bad::Answers(..) | Bad::Restarted | Bad::NoRequests => (0, (1.0, 1.0), 0.0),
                Bad::Slower(ttft, tpot) => (PER_SEC, (ttft, tpot), 0.0),
                Bad::Loses(share) => (PER_SEC, (1.0, 1.0), share),
                Bad::MoreLoad => (10 * PER_SEC, (3.0, 3.0), 0.0),
                _ => (PER_SEC, (1.0, 1.0), 0.0),
            };
            self.counts.second(per_sec, slower, lost);
            let at = from.plus(Duration::from_secs(*steps));
            self.live.add_figures("e", self.counts.figures(at));
        }
    }
}

struct Played {
    ended: Ended,
    said: String,
    guards: Value,
    text: String,
    applied: Value,
    person: Value,
    tries_again: bool,
}

/// Takes one rung on such an engine.
fn play(bad: &Bad, cost: &str) -> Played {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("engine.yaml");
    std::fs::write(&file, PERSON).unwrap();
    let (patient, port) = Patient::start(&file, bad.clone());
    let paths = Paths {
        folder: folder.path().to_owned(),
        port,
    };
    let rules = format!(
        "[[rule]]\nname = \"quantize\"\nengine = \"e\"\nmode = \"act\"\nwhen = {{ signal = \"vram.used_ratio\", enter = \"80%\", exit = \"65%\" }}\n\
         set = {{ quantization = \"int8\" }}\nsaves = \"2GiB\"\nfor = \"0\"\ncost = \"{cost}\"\n"
    );
    let mut daemon = Daemon::start_with(&paths, paths.book(), spec(&paths, bad), &rules);
    daemon.stop_feeding();
    let stop = Feed::start(&paths, &patient, &daemon.live);
    let report = daemon.act(0.85).expect("an action");
    let decision = daemon.book.rows().last().clone();
    let played = Played {
        ended: report.ended,
        said: decision.explanation,
        guards: decision.detail["guards"].clone(),
        text: paths.text(),
        applied: patient.applied(),
        person: patient.person.clone(),
        tries_again: daemon.act(0.85).is_some(),
    };
    daemon.check("a bad change");
    assert_ne!(decision.outcome, DecisionOutcome::Applying);
    stop.store(true, Ordering::Relaxed);
    played
}

fn spec(paths: &Paths, bad: &Bad) -> EngineSpec {
    let mut spec = paths.spec();
    let url = |path: &str| format!("http://127.0.0.1:{}/{path}", paths.port);
    if let Some(health) = &mut spec.health {
        health.probe = Some(Probe {
            http: Call {
                method: "POST".to_owned(),
                url: url("probe"),
            },
            body: "{}".to_owned(),
        });
    }
    if let Bad::Command(script) = bad {
        // On the way back it works.
        let file = paths.file();
        let script = format!(
            "if grep -q int8 {0}; then {script}; else curl -s -X POST {1} || true; fi",
            file.display(),
            url("reload")
        );
        spec.reload = Reload::Command(["sh", "-c", &script].map(str::to_owned).to_vec());
    }
    let quality = match bad {
        Bad::Answering(script) => Some(Quality {
            command: vec![
                "sh".to_owned(),
                "-c".to_owned(),
                script.replace("$FILE", &paths.file().to_string_lossy()),
            ],
            timeout: Duration::from_secs(5),
        }),
        _ => None,
    };
    spec.guards = Guards {
        metrics: true,
        quality,
        waits: Waits {
            settled: Duration::ZERO,
            idle: Duration::from_millis(50),
            warm_up: Duration::ZERO,
            memory: Duration::from_millis(500),
            latency: Duration::from_secs(4),
        },
        ..Guards::default()
    };
    spec
}

#[test]
fn every_bad_change_is_taken_back() {
    let cases = cases();
    assert!(cases.len() >= 30);
    let mut failures = Vec::new();
    std::thread::scope(|scope| {
        let played: Vec<_> = cases
            .iter()
            .map(|case| (case, scope.spawn(|| play(&case.1, case.2))))
            .collect();
        for ((name, _, _, says), played) in played {
            let Played {
                ended,
                said,
                guards,
                text,
                applied,
                person,
                tries_again,
            } = played.join().unwrap();
            // What failed is told to programs as well.
            let findings =
                ["during", "after"].map(|when| guards[when].as_array().cloned().unwrap_or_default());
            let told = findings.iter().flatten().any(|guard| guard["finding"] != "pass");
            let wrong = [
                (ended != Ended::RolledBack, "not rolled back"),
                (text != PERSON, "not byte for byte"),
                (applied != person, "the engine does not serve as before"),
                (!said.contains(says), "something else is said"),
                (tries_again, "tried again at once"),
                (!told, "no guard says so"),
            ];
            let wrong: Vec<&str> = wrong
                .into_iter()
                .filter(|(is, _)| *is)
                .map(|(_, what)| what)
                .collect();
            if !wrong.is_empty() {
                failures.push(format!("{name}: {}\n    {said}\n    {guards}", wrong.join(", ")));
            }
        }
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_good_change_stays_whatever_it_costs() {
    for cost in ["hot", "reload", "restart"] {
        let played = play(&Bad::Nothing, cost);
        assert_eq!(
            played.ended,
            Ended::Kept,
            "{cost}: {}\n{:#}",
            played.said,
            played.guards
        );
        assert!(played.text.contains("int8"), "{cost}");
        let after = played.guards["after"].as_array().unwrap();
        let passed = |name: &str| {
            after
                .iter()
                .any(|guard| guard["guard"] == name && guard["finding"] == "pass")
        };
        for name in ["read_back", "alive", "memory", "latency", "errors"] {
            assert!(passed(name), "{cost}, {name}: {:#}", played.guards);
        }
    }
}

#[test]
fn answers_are_checked_where_it_is_known_what_they_were_worth() {
    let score = |score: &str| format!("echo '{{\"score\": {score}}}'");
    // 2 % less are not 3 %.
    let script = format!(
        "if grep -q int8 $FILE; then {}; else {}; fi",
        score("0.98"),
        score("1.0")
    );
    let played = play(&Bad::Answering(script.leak()), RESTARTED);
    assert_eq!(played.ended, Ended::Kept, "{}", played.said);
    // Before a change that is cheap nobody waits for a score.
    let script = format!(
        "if grep -q int8 $FILE; then {}; else {}; fi",
        score("0.1"),
        score("1.0")
    );
    let played = play(&Bad::Answering(script.leak()), RELOADED);
    assert_eq!(played.ended, Ended::Kept, "{}", played.said);
    let after = played.guards["after"].as_array().unwrap();
    let quality = after.iter().find(|guard| guard["guard"] == "quality").unwrap();
    assert_eq!(
        (&quality["finding"], &quality["after"]),
        (&json!("inconclusive"), &json!(0.1))
    );
}

#[test]
fn what_cannot_be_told_stays_where_it_was_cheap_and_that_is_said() {
    for (bad, says) in [
        (Bad::Frees(None), "what the engine holds now is not known"),
        (Bad::NoMetrics, "too few requests"),
        (Bad::MoreLoad, "the load is another one"),
    ] {
        let played = play(&bad, RELOADED);
        assert_eq!(played.ended, Ended::Kept, "{bad:?}: {}", played.said);
        assert!(
            played.said.contains("it stays, though"),
            "{bad:?}: {}",
            played.said
        );
        assert!(played.said.contains(says), "{bad:?}: {}", played.said);
    }
}
