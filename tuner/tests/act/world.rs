//! One test's world: a file, an engine that reads it, a journal, and the daemon's part around an action.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plimsoll_trace::{DecisionId, DecisionOutcome, Record, Stamp};
use plimsoll_tuner::act::{self, Journal, Live, Order, Report};
use plimsoll_tuner::guard::{Guards, Waits};
use plimsoll_tuner::rule::Cost;
use plimsoll_tuner::signals::Reading;
use plimsoll_tuner::{
    Applied, Call, ConfigFile, Engine, EngineSpec, Format, Health, Ladder, Readings, Reload, RuleConfig,
};

use super::book::{Book, Rows};
use super::engine::{TestEngine, values};

/// The file as its author wrote it: quotes and comments that nobody else would write like this.
pub(crate) const PERSON: &str =
    "# the team's server\nquantization: 'none'   # weights\nbatch: 64\n\nnote: \"keep me\"\n";

/// Two rungs; the second sets a key that the file does not have, and one that is scaled.
pub(crate) const RULES: &str = r#"
[[rule]]
name = "quantize"
engine = "e"
mode = "act"
when = { signal = "vram.used_ratio", enter = "80%", exit = "65%" }
set = { quantization = "int8" }
saves = "2GiB"
for = "0"
hold = "1s"
calm = "1s"

[[rule]]
name = "shrink"
engine = "e"
mode = "act"
when = { signal = "vram.used_ratio", enter = "92%", exit = "70%" }
set = { batch = { scale = 0.5 }, swap = true }
saves = "2GiB"
for = "0"
hold = "1s"
calm = "1s"
"#;

/// Nobody waits for what cannot come any more.
const WAITS: Waits = Waits {
    settled: Duration::ZERO,
    idle: Duration::from_millis(200),
    warm_up: Duration::ZERO,
    memory: Duration::from_millis(300),
    latency: Duration::from_millis(300),
};

/// What the engine holds with what its file says.
fn held_bytes(text: &str) -> f64 {
    let freed = |what: &str| if text.contains(what) { 2.0 * GIB } else { 0.0 };
    8.0 * GIB - freed("int8") - freed("swap: true")
}

pub(crate) const GIB: f64 = (1_u64 << 30) as f64;

pub(crate) struct World {
    _folder: tempfile::TempDir,
    pub(crate) paths: Paths,
    pub(crate) engine: TestEngine,
}

/// Where everything is; another process needs no more.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) folder: PathBuf,
    pub(crate) port: u16,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("engine.yaml");
        std::fs::write(&file, PERSON).unwrap();
        let engine = TestEngine::start(&file);
        let paths = Paths {
            folder: folder.path().to_owned(),
            port: engine.port,
        };
        Self {
            _folder: folder,
            paths,
            engine,
        }
    }
}

impl std::ops::Deref for World {
    type Target = Paths;

    fn deref(&self) -> &Paths {
        &self.paths
    }
}

impl Paths {
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("engine.yaml")
    }

    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap()
    }

    /// Saves as most editors do: another file in its place.
    pub(crate) fn save(&self, text: &str) {
        let draft = self.folder.join("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, self.file()).unwrap();
    }

    pub(crate) fn book(&self) -> Book {
        Book::open(&self.folder.join("book"))
    }

    pub(crate) fn spec(&self) -> EngineSpec {
        let url = |path: &str| format!("http://127.0.0.1:{}/{path}", self.port);
        EngineSpec {
            name: "e".to_owned(),
            config: Some(ConfigFile {
                path: self.file(),
                format: Format::Yaml,
            }),
            reload: Reload::Http(Call {
                method: "POST".to_owned(),
                url: url("reload"),
            }),
            health: Some(Health {
                http: url("health"),
                within: Duration::from_secs(1),
                probe: None,
            }),
            applied: Some(Applied {
                url: url("status"),
                pointer: "/applied".to_owned(),
            }),
            guards: Guards {
                waits: WAITS,
                ..Guards::default()
            },
        }
    }
}

pub(crate) fn ladder(toml: &str) -> Ladder {
    #[derive(serde::Deserialize)]
    struct File {
        #[serde(default)]
        rule: Vec<RuleConfig>,
    }
    let file: File = toml_edit::de::from_str(toml).unwrap();
    let rules = file.rule.into_iter().map(|rule| rule.resolve(Cost::Hot).unwrap());
    Ladder::new("e", rules.collect()).unwrap()
}

/// The daemon's part: it looks at the rules, has an action carried out, and stores what comes of it.
pub(crate) struct Daemon {
    pub(crate) paths: Paths,
    pub(crate) engine: Engine,
    pub(crate) book: Book,
    pub(crate) live: Arc<Live>,
    pub(crate) now: Stamp,
    feed: Arc<AtomicBool>,
    ids: i64,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.feed.store(true, Ordering::Relaxed);
    }
}

impl Daemon {
    /// Starts as the daemon does: what a former one left in the middle is resolved before anything else.
    pub(crate) fn start(paths: &Paths, book: Book) -> Self {
        Self::start_with(paths, book, paths.spec(), RULES)
    }

    pub(crate) fn start_with(paths: &Paths, book: Book, spec: EngineSpec, rules: &str) -> Self {
        let rows = book.rows();
        let live = Arc::new(Live::default());
        let feed = Arc::new(AtomicBool::new(false));
        let (fed, stop, file) = (Arc::clone(&live), Arc::clone(&feed), paths.file());
        std::thread::spawn(move || {
            let mut held = 8.0 * GIB;
            while !stop.load(Ordering::Relaxed) {
                // Of a file that is being saved, nothing new is known.
                if let Ok(text) = std::fs::read_to_string(&file)
                    && !text.is_empty()
                {
                    held = held_bytes(&text);
                }
                fed.update("e", |latest| latest.vram = Some((Stamp::now(), held)));
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        let ids = rows.decisions.len();
        let mut daemon = Self {
            paths: paths.clone(),
            engine: Engine::new(spec, ladder(rules), rows.memo.as_deref()),
            book,
            live,
            // Each daemon lives later than the one before.
            now: Stamp::now().plus(Duration::from_secs(100_000 * (1 + u64::try_from(ids).unwrap()))),
            feed,
            ids: i64::try_from(ids).unwrap(),
        };
        plimsoll_tuner::file::clean_leftovers(&paths.folder).unwrap();
        daemon.resolve(rows);
        let records = daemon.engine.file_changed(daemon.now);
        daemon.store(records);
        daemon
    }

    /// From now on somebody else shows what the engine holds.
    pub(crate) fn stop_feeding(&self) {
        self.feed.store(true, Ordering::Relaxed);
    }

    fn resolve(&mut self, rows: Rows) {
        let open = |outcome| matches!(outcome, DecisionOutcome::Applying | DecisionOutcome::Applied);
        let Rows {
            decisions, changes, ..
        } = rows;
        let unfinished: Vec<_> = decisions.into_values().filter(|it| open(it.outcome)).collect();
        assert!(unfinished.len() <= 1, "one action at a time: {unfinished:?}");
        for decision in unfinished {
            self.engine.hold(true);
            let early = self.engine.file_changed(self.now);
            assert!(
                early.is_empty(),
                "what was left in the middle is no person's edit: {early:?}"
            );
            let change = changes
                .values()
                .find(|change| change.decision == decision.id)
                .cloned();
            let order = self.engine.resume(decision);
            let report = act::recover(order, change, &self.live, &self.book);
            self.finished(&report);
            if report.ended == act::Ended::Unresolved {
                return;
            }
            self.engine.hold(false);
        }
        self.engine.settle(self.now);
    }

    pub(crate) fn store(&self, records: Vec<Record>) {
        if !records.is_empty() {
            drop(self.book.commit(records));
        }
    }

    pub(crate) fn finished(&mut self, report: &Report) {
        self.now = self.now.plus(Duration::from_secs(1));
        let mut records = report.records.clone();
        records.extend(self.engine.finished(report, self.now));
        self.store(records);
    }

    /// One look at the rules, ten seconds after the last, with this much of the memory in use.
    pub(crate) fn tick(&mut self, ratio: f64) -> Option<Order> {
        self.now = self.now.plus(Duration::from_secs(10));
        let mut readings = Readings::unknown(Duration::from_secs(60));
        readings.set_usable_bytes(Some(24 << 30));
        for rule in &self.engine.ladder().rules {
            for clause in rule.when.clauses() {
                let reading = Reading {
                    value: ratio,
                    at: self.now,
                };
                readings.insert(clause.probe.clone(), reading);
            }
        }
        let next = self.ids + 1;
        let step = self
            .engine
            .tick(&readings, None, self.now, || (DecisionId(next), next));
        if step.order.is_some() {
            self.ids = next;
        }
        self.store(step.records);
        step.order
    }

    /// Ticks until something is to be carried out, and carries it out.
    pub(crate) fn act(&mut self, ratio: f64) -> Option<Report> {
        let order = (0..10).find_map(|_| self.tick(ratio))?;
        let report = act::carry_out(order, &self.live, &self.book);
        self.finished(&report);
        Some(report)
    }

    /// A person takes the last decision back.
    pub(crate) fn revert_last(&mut self) -> Report {
        self.now = self.now.plus(Duration::from_secs(10));
        let last = self.book.rows().last().id.0;
        self.ids += 1;
        let ids = (DecisionId(self.ids), self.ids);
        let (step, records) = self.engine.revert(last, 1000, None, self.now, ids);
        self.store(records);
        let step = step.expect("an order");
        self.store(step.records);
        let report = act::carry_out(step.order.expect("an order"), &self.live, &self.book);
        self.finished(&report);
        report
    }

    /// Lets everything go that may be let go.
    pub(crate) fn release_all(&mut self) {
        self.now = self.now.plus(Duration::from_secs(90_000));
        while let Some(report) = self.act(0.05) {
            assert_eq!(report.ended, act::Ended::Kept, "{:?}", report.records);
        }
    }

    /// What must hold whenever no action is under way.
    pub(crate) fn check(&self, what: &str) {
        let rows = self.book.rows();
        for decision in rows.decisions.values() {
            let open = matches!(
                decision.outcome,
                DecisionOutcome::Applying | DecisionOutcome::Applied
            );
            assert!(!open, "{what}: left open: {decision:?}");
        }
        let left: Vec<_> = std::fs::read_dir(&self.paths.folder)
            .unwrap()
            .map(|it| it.unwrap().file_name())
            .collect();
        assert!(
            left.iter()
                .all(|name| !name.to_string_lossy().starts_with(".plimsoll")),
            "{what}: {left:?}"
        );
    }
}

/// The values that the engine should serve with, by its file.
pub(crate) fn file_values(file: &Path) -> serde_json::Value {
    values(file).expect("a valid file")
}
