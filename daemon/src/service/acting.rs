//! What the loop does around actions: it begins them, takes in what came of them, resolves what a former daemon left, and
//! changes the engines when the configuration is edited.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use plimsoll_store::Unfinished;
use plimsoll_trace::{Decision, DecisionOutcome, Event as TraceEvent, EventKind, Record, Stamp};
use plimsoll_tuner::act::{self, Live};
use plimsoll_tuner::{Engine, file};

use super::journal::StoreJournal;
use super::pipeline::{Event, Pipeline};
use super::remember::remembering;
use crate::config::{self, Config, OnExit};

impl Pipeline {
    /// Runs an action on a thread of its own; its report comes back as an event. `false` when there is no thread.
    pub(super) fn act(
        &self,
        action: impl FnOnce(&Live, &StoreJournal) -> act::Report + Send + 'static,
    ) -> bool {
        let (live, journal, events) = (
            Arc::clone(&self.live),
            StoreJournal {
                writer: self.writer.clone(),
                events: self.events.clone(),
            },
            self.events.clone(),
        );
        let thread = std::thread::Builder::new().name("plimsoll-act".to_owned());
        let spawned =
            thread.spawn(move || drop(events.blocking_send(Event::Report(action(&live, &journal)))));
        if let Err(error) = &spawned {
            tracing::error!(%error, "there is no thread for an action; it is tried again later");
        }
        spawned.is_ok()
    }

    /// The daemon ends: engines that are to be left as their person wrote them are given their file back. Returns whether
    /// that is under way.
    pub(super) fn restore_engines(&mut self) -> bool {
        let wanted = |(engine, _): &&(config::Engine, _)| engine.on_exit == OnExit::Restore;
        let restored: BTreeSet<String> = self
            .config
            .engines
            .iter()
            .filter(wanted)
            .map(|(engine, _)| engine.spec.name.clone())
            .collect();
        for index in 0..self.engines.len() {
            if !restored.contains(self.engines[index].name()) {
                continue;
            }
            let (now, run) = (Stamp::now(), self.runs.of_engine(self.engines[index].name()));
            let writer = &self.writer;
            let ids = || (writer.next_decision_id(), writer.next_change_id());
            let step = self.engines[index].restore(run, now, ids);
            self.store(step.records);
            if let Some(order) = step.order {
                tracing::info!(engine = self.engines[index].name(), "its rungs are let go");
                if !self.act(move |live, journal| act::carry_out(order, live, journal)) {
                    let memo = self.engines[index].not_begun(now);
                    self.store(vec![memo]);
                }
            }
        }
        self.is_acting()
    }

    pub(super) fn take_report(&mut self, report: &act::Report) {
        let mut records = report.records.clone();
        if report.ended == act::Ended::Unresolved {
            // The next look at who runs tries again.
            let waiting = self.unfinished.entry(report.engine.clone()).or_default();
            waiting.extend(still_unfinished(&records));
        }
        if let Some(engine) = self
            .engines
            .iter_mut()
            .find(|engine| engine.name() == report.engine)
        {
            let settled = engine.finished(report, Stamp::now());
            // A row that is told more fully comes once.
            let is_settled =
                |record: &Record| settled.iter().any(|settled| is_same_decision(record, settled));
            records.retain(|record| !is_settled(record));
            records.extend(settled);
        }
        for record in &records {
            if let Record::Decision(decision) = record
                && report.ended != act::Ended::Unresolved
            {
                tracing::info!(engine = decision.engine, rule = decision.rule, outcome = %decision.outcome, "{}", decision.explanation);
            }
        }
        let of_report = |record: &&Record| report.records.iter().any(|own| is_same_decision(own, record));
        let ended = records.iter().find(of_report).and_then(|record| match record {
            Record::Decision(decision) => Some(decision.clone()),
            _ => None,
        });
        self.store(records);
        if let Some(ended) = ended.filter(|_| report.ended != act::Ended::Unresolved) {
            self.tell_ended(&ended);
        }
        if report.ended != act::Ended::Unresolved {
            self.recover(&report.engine);
        }
    }

    pub(super) fn take_applied(&mut self, engine: &str, rule: &str) {
        let now = Stamp::now();
        let mut engines = self.engines.iter_mut();
        if let Some(engine) = engines.find(|known| known.name() == engine) {
            engine.applied(rule, now);
        }
    }

    /// Resolves one decision that a former daemon left unfinished, if there is one and nothing else is under way.
    pub(super) fn recover(&mut self, engine: &str) {
        let Some(index) = self.engines.iter().position(|known| known.name() == engine) else {
            return;
        };
        if self.engines[index].is_acting() || self.is_stopping() {
            return;
        }
        let Some(left) = self.unfinished.get_mut(engine).and_then(Vec::pop) else {
            self.unfinished.remove(engine);
            self.engines[index].hold(false);
            return;
        };
        let order = self.engines[index].resume(left.decision.clone());
        let change = left.changes.last().cloned();
        if !self.act(move |live, journal| act::recover(order, change, live, journal)) {
            self.engines[index].not_resumed();
            self.unfinished.entry(engine.to_owned()).or_default().push(left);
        }
    }

    /// Unfinished decisions of engines that are no longer configured cannot be acted on; they are closed, and said so.
    pub(super) fn abandon_unknown(&mut self) {
        for (name, left) in std::mem::take(&mut self.unfinished) {
            if let Some(engine) = self.engines.iter_mut().find(|engine| engine.name() == name) {
                engine.hold(true);
                self.unfinished.insert(name, left);
                continue;
            }
            for Unfinished {
                mut decision,
                changes,
            } in left
            {
                let path = changes.last().map_or("its file", |change| &change.path);
                decision.outcome = DecisionOutcome::Interrupted;
                decision.explanation += &format!(
                    " The daemon ended in the middle, and the engine is no longer configured: look at {path}."
                );
                tracing::error!(
                    engine = decision.engine,
                    rule = decision.rule,
                    "{}",
                    decision.explanation
                );
                self.store(vec![Record::Decision(decision)]);
            }
        }
    }

    /// Proposals of a former daemon go back to their engines, or are closed.
    pub(super) fn take_up(&mut self, proposals: Vec<Decision>) {
        let mut by_engine: HashMap<String, Vec<Decision>> = HashMap::new();
        for proposal in proposals {
            by_engine
                .entry(proposal.engine.clone())
                .or_default()
                .push(proposal);
        }
        let mut closed = Vec::new();
        for engine in &mut self.engines {
            let records = engine.take_up(by_engine.remove(engine.name()).unwrap_or_default());
            closed.extend(records);
        }
        for mut decision in by_engine.into_values().flatten() {
            decision.outcome = DecisionOutcome::Refused;
            decision.explanation += " Withdrawn: the engine is no longer configured.";
            closed.push(Record::Decision(decision));
        }
        self.store(closed);
    }

    /// A daemon that was killed in the middle of a write may have left a person's text beside the file: it goes back
    /// before anything else looks at the file.
    pub(super) fn clean_leftovers(&self) {
        let folder = |engine: &Engine| std::fs::canonicalize(engine.file()?.parent()?).ok();
        let folders: BTreeSet<PathBuf> = self.engines.iter().filter_map(folder).collect();
        for folder in folders {
            match file::clean_leftovers(&folder) {
                Ok(leftovers) => {
                    for leftover in leftovers {
                        tracing::warn!(folder = %folder.display(), ?leftover, "a former daemon left this in the middle of a write");
                    }
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(folder = %folder.display(), error, "what a former daemon left cannot be looked for");
                }
            }
        }
    }

    /// Reads the configuration again. An invalid one is reported, and the running one stays.
    pub(super) fn reconfigure(&mut self) {
        let path = self.config.file.clone().or_else(|| self.named.clone());
        let no_file = |path: &PathBuf| path.metadata().is_ok_and(|metadata| !metadata.is_file());
        let loaded = match path.as_ref().filter(|path| no_file(path)) {
            // A named pipe would hold the loop up until somebody writes to it.
            Some(path) => Err(format!("{} is no regular file any more", path.display())),
            None => Config::load(path.as_deref()).map_err(|error| error.to_string()),
        };
        match loaded {
            Ok(config) => {
                if config.store_path() != self.config.store_path() {
                    tracing::warn!("[store] path takes effect at the next start");
                }
                if config.sampling.nvml_library != self.config.sampling.nvml_library {
                    tracing::warn!("[sampling] nvml_library takes effect at the next start");
                }
                for warning in &config.warnings {
                    tracing::warn!("{warning}");
                }
                self.exchange_engines(&config);
                self.config = config;
                self.signals.set_interval(self.config.sampling.interval.0);
                self.live.set_interval(self.config.sampling.interval.0);
                self.signals.watch(self.engines.iter().map(Engine::ladder));
                self.watch_processes();
                self.watch_metrics();
                self.watch_files();
                self.abandon_unknown();
                self.look_at_files();
                tracing::info!("the configuration was read again");
                let event = TraceEvent::new(
                    EventKind::ConfigReloaded,
                    "Plimsoll's configuration was read again",
                );
                self.store(vec![Record::Event(event)]);
            }
            Err(error) => {
                let message = format!("the changed configuration is not used: {error}");
                tracing::error!("{message}");
                let event = TraceEvent::new(EventKind::ConfigRejected, message);
                self.store(vec![Record::Event(event)]);
            }
        }
    }

    /// Puts the configured engines in the place of the present ones; what is known of each goes on.
    fn exchange_engines(&mut self, config: &Config) {
        let now = Stamp::now();
        let configured: BTreeSet<&str> = config
            .engines
            .iter()
            .map(|(engine, _)| engine.spec.name.as_str())
            .collect();
        let (stay, gone): (Vec<Engine>, Vec<Engine>) = self
            .engines
            .drain(..)
            .partition(|engine| configured.contains(engine.name()));
        for mut engine in gone {
            let records = engine.retire(now);
            self.memos.insert(engine.name().to_owned(), engine.remembered());
            self.store(records);
        }
        let mut stay: HashMap<String, Engine> = stay
            .into_iter()
            .map(|engine| (engine.name().to_owned(), engine))
            .collect();
        let (engines, moved) = remembering(config, &mut self.memos, |name| stay.contains_key(name));
        let edited = |engine: Engine| match stay.remove(engine.name()) {
            Some(known) => known.reconfigured(engine),
            None => engine,
        };
        self.engines = engines.into_iter().map(edited).collect();
        self.store(moved);
    }

    /// What a person wrote while nobody watched the file.
    fn look_at_files(&mut self) {
        let now = Stamp::now();
        let records = self
            .engines
            .iter_mut()
            .flat_map(|engine| engine.file_changed(now))
            .collect();
        self.store(records);
    }
}

/// A decision and its change, as a former daemon had left them.
fn still_unfinished(records: &[Record]) -> Option<Unfinished> {
    let decision = records.iter().find_map(|record| match record {
        Record::Decision(decision) => Some(decision.clone()),
        _ => None,
    })?;
    let changes = records.iter().filter_map(|record| match record {
        Record::ConfigChange(change) => Some(change.clone()),
        _ => None,
    });
    Some(Unfinished {
        decision,
        changes: changes.collect(),
    })
}

fn is_same_decision(one: &Record, other: &Record) -> bool {
    matches!((one, other), (Record::Decision(one), Record::Decision(other)) if one.id == other.id)
}
