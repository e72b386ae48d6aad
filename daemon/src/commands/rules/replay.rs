//! `plimsoll rules replay`: the recording, the rules, and what comes of the two together.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use plimsoll_reports::find_run;
use plimsoll_store::{Reader, StoreError, Value as Cell};
use plimsoll_trace::{DeviceId, MarkKind, RunId};
use plimsoll_tuner::replay::{Log, Mark, Past, Replay};
use plimsoll_tuner::signals::LONGEST_WINDOW;
use plimsoll_tuner::{EngineView, Host, Ladder, LadderState};
use serde_json::{Value, json};

use super::super::query::{failed, open};
use super::super::{Outcome, print, print_json, runtime};
use crate::cli::RulesReplay;
use crate::config::{Config, ladders_of, recorded_ladder};
use crate::failure::{Failure, Status};

/// A run and what its recording has besides samples.
struct Recording {
    run: i64,
    name: String,
    /// The engine's name, when it is one's run.
    engine: Option<String>,
    from_ns: i64,
    to_ns: i64,
    marks: Vec<Mark>,
    /// The rules that were in force, by their hashes; and the first of them.
    rule_sets: BTreeMap<String, Ladder>,
    first_rules: Option<String>,
    past: Vec<Past>,
}

/// The rules to replay.
struct Chosen {
    /// What people call them.
    name: String,
    ladder: Ladder,
    /// Whether they change as they did then.
    follows: bool,
}

/// One replay, with what it was of.
struct Played {
    rules: String,
    engine: String,
    hash: String,
    log: Log,
}

pub(super) fn run(arguments: &RulesReplay) -> Outcome {
    let (recording, mut played) = runtime()?.block_on(async {
        let reader = open(&arguments.source).await?;
        let run = find_run(&reader, &arguments.run.run).await.map_err(failed)?;
        let recording = Recording::read(&reader, run).await?;
        let mut played = vec![recording.play(&reader, recording.rules(arguments)?).await?];
        if let Some(path) = &arguments.against {
            let other = recording.rules_of(path)?;
            played.push(recording.play(&reader, other).await?);
        }
        Ok::<_, Failure>((recording, played))
    })?;
    for played in &mut played {
        // The rules were followed from before the run; what is told is the run.
        let within = |at_ns: i64| (recording.from_ns..=recording.to_ns).contains(&at_ns);
        played.log.decisions.retain(|decision| within(decision.at_ns));
        played.log.missing.retain(|past| within(past.at_ns));
    }
    if arguments.json {
        return print_json(&recording.json(&played));
    }
    print(&recording.text(&played))
}

/// Where the rules of each engine stood when its newest run was last recorded, for when no daemon can be asked: the time, ns
/// since the Unix epoch, and the rules as the daemon shows them. Engines without recorded rules are left out.
pub(in crate::commands) async fn stood(reader: &Reader) -> Result<Vec<(i64, Vec<Value>)>, Failure> {
    let sql =
        "SELECT max(id) FROM runs WHERE engine IN (SELECT DISTINCT engine FROM ladder_marks) GROUP BY engine";
    let table = reader.query(sql, &[]).await.map_err(unreadable)?;
    let mut all = Vec::new();
    for row in table.rows {
        let Some(Cell::Integer(run)) = row.first() else {
            continue;
        };
        let recording = Recording::read(reader, *run).await?;
        if let Some(chosen) = recording.rules_of_then() {
            let replay = recording.follow_rules(reader, chosen).await?;
            all.extend(
                replay
                    .stands()
                    .map(|(at_ns, stands)| (at_ns, stands.iter().map(|stands| json!(stands)).collect())),
            );
        }
    }
    Ok(all)
}

impl Recording {
    async fn read(reader: &Reader, run: i64) -> Result<Self, Failure> {
        let sql = "SELECT name, engine, started_ns,
                 coalesce(ended_ns, max(coalesce((SELECT max(at_ns) FROM device_samples), started_ns),
                     coalesce((SELECT max(at_ns) FROM host_samples), started_ns))),
                 (SELECT min(at_ns) FROM device_samples) FROM runs WHERE id = ?";
        let table = reader
            .query(sql, &[Cell::Integer(run)])
            .await
            .map_err(unreadable)?;
        let row = table.rows.into_iter().next().unwrap_or_default();
        let [
            Cell::Text(name),
            engine,
            Cell::Integer(from_ns),
            Cell::Integer(to_ns),
            oldest,
        ] = row.as_slice()
        else {
            return Err(say(format!("run {run} cannot be read")));
        };
        if !matches!(oldest, Cell::Integer(oldest) if oldest <= to_ns) {
            let text = format!(
                "no samples of run {run} ({name}) are left to replay; `keep.raw` in the configuration says how long they are kept"
            );
            return Err(say(text));
        }
        let mut recording = Self {
            run,
            name: name.clone(),
            engine: match engine {
                Cell::Text(engine) => Some(engine.clone()),
                _ => None,
            },
            from_ns: *from_ns,
            to_ns: *to_ns,
            marks: Vec::new(),
            rule_sets: BTreeMap::new(),
            first_rules: None,
            past: Vec::new(),
        };
        if let Some(engine) = recording.engine.clone() {
            recording.follow(reader, &engine).await?;
        }
        if recording.marks.is_empty() {
            recording.marks.push(recording.only_mark(reader).await?);
        }
        Ok(recording)
    }

    /// Where the engine's ladder stood, from before the run on, and what was decided.
    async fn follow(&mut self, reader: &Reader, engine: &str) -> Result<(), Failure> {
        let warm_ns = self.from_ns - nanoseconds(LONGEST_WINDOW);
        let begin = reader
            .ladder_mark_before(engine, warm_ns)
            .await
            .map_err(unreadable)?;
        let begin_ns = begin.unwrap_or(warm_ns);
        let marks = reader
            .ladder_marks(engine, begin_ns, self.to_ns)
            .await
            .map_err(unreadable)?;
        let Some(first) = marks.first() else { return Ok(()) };
        self.first_rules = Some(first.rules_hash.clone());
        let hashes: BTreeSet<&String> = marks.iter().map(|mark| &mark.rules_hash).collect();
        for hash in hashes {
            if let Some(text) = reader.rule_set(hash).await.map_err(unreadable)?
                && let Some(ladder) = recorded_ladder(&text)?
            {
                self.rule_sets.insert(hash.clone(), ladder);
            }
        }
        let decisions = reader
            .decisions(engine, first.at_ns, self.to_ns)
            .await
            .map_err(unreadable)?;
        self.past = decisions.iter().filter_map(Past::new).collect();
        let understood: Result<Vec<Mark>, _> = marks.iter().map(Mark::new).collect();
        self.marks = understood.map_err(|error| {
            say(format!(
                "where the rules of {engine} stood is recorded in a form that this version does not know: {error}"
            ))
        })?;
        Ok(())
    }

    /// For a run whose rules were not recorded: as if its devices had been known from the start.
    async fn only_mark(&self, reader: &Reader) -> Result<Mark, Failure> {
        let sql = "SELECT DISTINCT device FROM process_samples WHERE run_id = ? AND at_ns BETWEEN ? AND ?";
        let values = [self.run, self.from_ns, self.to_ns].map(Cell::Integer);
        let table = reader.query(sql, &values).await.map_err(unreadable)?;
        let device = |row: Vec<Cell>| match row.into_iter().next() {
            Some(Cell::Text(device)) => Some(DeviceId::from(device)),
            _ => None,
        };
        Ok(Mark {
            at_ns: self.from_ns,
            kind: MarkKind::Start,
            rules_hash: None,
            max_age: plimsoll_trace::signal::MAX_AGE,
            view: EngineView {
                devices: table.rows.into_iter().filter_map(device).collect(),
                run: Some(RunId(self.run)),
            },
            state: Some(LadderState::default()),
            host: Host::default(),
        })
    }

    fn rules_of_then(&self) -> Option<Chosen> {
        let first = self.first_rules.as_ref()?;
        Some(Chosen {
            name: "the rules of then".to_owned(),
            ladder: self.rule_sets.get(first)?.clone(),
            follows: true,
        })
    }

    /// The rules that were asked for.
    fn rules(&self, arguments: &RulesReplay) -> Result<Chosen, Failure> {
        if let Some(path) = arguments
            .rules
            .as_deref()
            .or(arguments.source.config.config.as_deref())
        {
            return self.rules_of(path);
        }
        if let Some(chosen) = self.rules_of_then() {
            return Ok(chosen);
        }
        match &Config::load(None)?.file {
            Some(path) => self.rules_of(path),
            None => Err(Failure::usage(format!(
                "no rules are recorded with run {} ({}), and there is no configuration; name rules with --rules FILE",
                self.run, self.name
            ))),
        }
    }

    /// The ladder of a file for this run: its engine's, or the only one.
    fn rules_of(&self, path: &Path) -> Result<Chosen, Failure> {
        let with_rules = |ladder: &Ladder| !ladder.rules.is_empty();
        let mut ladders: Vec<Ladder> = ladders_of(path)?.into_iter().filter(with_rules).collect();
        let own = ladders
            .iter()
            .position(|ladder| Some(&ladder.engine) == self.engine.as_ref());
        let index = own.or((ladders.len() == 1).then_some(0));
        let Some(index) = index else {
            let names: Vec<&str> = ladders.iter().map(|ladder| ladder.engine.as_str()).collect();
            let which = if names.is_empty() {
                "it has no rules".to_owned()
            } else {
                format!("it has rules for {}", names.join(", "))
            };
            let whose = self.engine.as_deref().unwrap_or(&self.name);
            return Err(Failure::usage(format!(
                "{} has no rules for {whose}: {which}",
                path.display()
            )));
        };
        Ok(Chosen {
            name: path.display().to_string(),
            ladder: ladders.swap_remove(index),
            follows: false,
        })
    }

    async fn play(&self, reader: &Reader, chosen: Chosen) -> Result<Played, Failure> {
        let rules = chosen.name.clone();
        let (engine, hash) = (
            chosen.ladder.engine.clone(),
            chosen.ladder.source.hash().to_string(),
        );
        let log = self.follow_rules(reader, chosen).await?.finish();
        Ok(Played {
            rules,
            engine,
            hash,
            log,
        })
    }

    /// The rules after all that is recorded.
    async fn follow_rules(&self, reader: &Reader, chosen: Chosen) -> Result<Replay, Failure> {
        let ladder = chosen.ladder;
        let (rule_sets, past) = (self.rule_sets.clone(), self.past.clone());
        let mut replay = Replay::new(ladder, chosen.follows, rule_sets, past);
        let begin_ns = self.marks.first().map_or(self.from_ns, |mark| mark.at_ns);
        let from_ns = begin_ns - nanoseconds(LONGEST_WINDOW);
        let mut playback = reader.play(from_ns, self.to_ns).await.map_err(unreadable)?;
        let mut marks = self.marks.iter().peekable();
        while let Some(batches) = playback.next().await.map_err(unreadable)? {
            for batch in &batches {
                while let Some(mark) = marks.next_if(|mark| mark.at_ns <= batch.at.unix_ns) {
                    replay.mark(mark);
                }
                replay.batch(batch);
            }
        }
        Ok(replay)
    }

    fn json(&self, played: &[Played]) -> Value {
        let one = |played: &Played| {
            let log = &played.log;
            let (estimate, exact): (Vec<_>, Vec<_>) =
                log.decisions.iter().partition(|decision| decision.estimate);
            let found = exact
                .iter()
                .filter(|decision| decision.recorded.is_some())
                .count();
            json!({
                "rules": played.rules,
                "rules_hash": played.hash,
                "engine": played.engine,
                "evaluations": log.evaluations,
                "exact": {
                    "until_ns": log.exact_until.as_ref().map(|difference| difference.at_ns),
                    "because": log.exact_until.as_ref().map(|difference| &difference.why),
                    "decisions": exact,
                    "reproduced": found,
                    "missing": log.missing,
                },
                "estimate": { "decisions": estimate },
            })
        };
        json!({
            "version": 1,
            "run": self.run,
            "name": self.name,
            "from_ns": self.from_ns,
            "to_ns": self.to_ns,
            "replay": played.first().map(one),
            "against": played.get(1).map(one),
        })
    }

    fn text(&self, played: &[Played]) -> String {
        let mut text = format!("run {} ({})\n", self.run, self.name);
        for played in played {
            text += &format!("\n{}\n", played.rules);
            text += &self.told(&played.log);
        }
        if let [one, other] = played {
            text += &self.differences(one, other);
        }
        text
    }

    fn told(&self, log: &Log) -> String {
        let evaluations = log.evaluations;
        let mut text = format!("  {evaluations} evaluations\n");
        let exact = || log.decisions.iter().filter(|decision| !decision.estimate);
        let found = exact().filter(|decision| decision.recorded.is_some()).count();
        let whole = log.exact_until.is_none();
        text += &match (whole, log.missing.is_empty()) {
            (true, true) => format!(
                "  exact to the end: {}\n",
                count(found, "recorded decision is", "recorded decisions are") + " found again"
            ),
            (true, false) => format!(
                "  exact to the end; {} of {} found again\n",
                found,
                count(
                    found + log.missing.len(),
                    "recorded decision",
                    "recorded decisions"
                )
            ),
            (false, _) => format!(
                "  exact until {}: {}\n",
                self.time(log.exact_until.as_ref().map_or(0, |difference| difference.at_ns)),
                log.exact_until.as_ref().map_or("", |difference| &difference.why)
            ),
        };
        for decision in exact() {
            let recorded = decision
                .recorded
                .map_or_else(|| "not decided then".to_owned(), |id| format!("decision {id}"));
            text += &format!(
                "  {}  {} {} ({}), {recorded}\n      {}\n",
                self.time(decision.at_ns),
                decision.verdict,
                decision.rule,
                decision.mode,
                decision.explanation.trim()
            );
        }
        for past in &log.missing {
            text += &format!(
                "  {}  {} {} ({}) was decided then (decision {}), and is not now\n",
                self.time(past.at_ns),
                past.verdict,
                past.rule,
                past.mode,
                past.id
            );
        }
        if whole {
            return text;
        }
        text += "  estimate from there on: readings of memory and of the KV cache are moved by what the rungs differ in\n";
        let mut estimates = log
            .decisions
            .iter()
            .filter(|decision| decision.estimate)
            .peekable();
        if estimates.peek().is_none() {
            text += "  nothing more is decided\n";
        }
        for decision in estimates {
            text += &format!(
                "  ~ {}  {} {} ({})\n      {}\n",
                self.time(decision.at_ns),
                decision.verdict,
                decision.rule,
                decision.mode,
                decision.explanation.trim()
            );
        }
        text
    }

    /// What one of two replays decides and the other does not, at the same instant.
    fn differences(&self, one: &Played, other: &Played) -> String {
        let keys = |log: &Log| -> HashSet<(i64, String, Arc<str>)> {
            let key = |decision: &plimsoll_tuner::replay::Replayed| {
                (
                    decision.at_ns,
                    decision.rule.clone(),
                    Arc::from(decision.verdict.as_str()),
                )
            };
            log.decisions.iter().map(key).collect()
        };
        let (left, right) = (keys(&one.log), keys(&other.log));
        let mut both: Vec<_> = left.symmetric_difference(&right).cloned().collect();
        both.sort();
        if both.is_empty() {
            return "\nno difference between the two\n".to_owned();
        }
        let mut text = "\ndifferences (- first, + second)\n".to_owned();
        for key in both {
            let sign = if left.contains(&key) { '-' } else { '+' };
            let (at_ns, rule, verdict) = key;
            text += &format!("{sign} {}  {verdict} {rule}\n", self.time(at_ns));
        }
        text
    }

    /// How far into the run, and the time of day.
    fn time(&self, at_ns: i64) -> String {
        let ms = at_ns.saturating_sub(self.from_ns) / 1_000_000;
        let (minutes, rest) = (ms / 60_000, ms % 60_000);
        let into = format!("{minutes:02}:{:02}.{}", rest / 1_000, rest % 1_000 / 100);
        let clock = jiff::Timestamp::from_nanosecond(i128::from(at_ns))
            .map(|at| at.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string());
        clock.map_or_else(|_| into.clone(), |clock| format!("{into} ({clock})"))
    }
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn unreadable(error: StoreError) -> Failure {
    Failure::new(Status::Failed, error)
}

fn say(text: String) -> Failure {
    Failure::new(Status::Failed, anyhow::Error::msg(text))
}
