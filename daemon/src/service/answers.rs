//! What the loop answers to who asks over the control socket.

use std::time::Duration;

use plimsoll_trace::{Batch, Event, EventKind, Record, RunId, RunStart, Stamp};
use plimsoll_tuner::Engine;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::control::{self, Call, Request};
use super::pipeline::{self, Command, Ended, Pipeline, host_name};

/// How long the end of a run waits for what its agents wrote.
const FLUSH: Duration = Duration::from_secs(3);

impl Pipeline {
    pub(super) fn answer(&mut self, call: Call) {
        let answer = match call.request {
            Request::Status => {
                let mut status = self.status.show(&self.runs, &self.rules(), &self.signals);
                let paused = self.engines.iter().filter(|engine| engine.is_paused());
                status["sampling_secs"] = self.pace.interval().as_secs_f64().into();
                status["agents"] = self.attached.show(&self.runs).into();
                status["paused"] = paused.map(Engine::name).collect();
                status
            }
            Request::Why => json!({ "version": 1, "rules": self.rules() }),
            Request::Plan => json!({ "version": 1, "plan": self.plan() }),
            Request::Apply { proposal } => return self.apply(&proposal, call.peer.uid, call.answer),
            Request::Revert { decision } => return self.revert(decision, call.peer.uid, call.answer),
            Request::Pause => {
                let now = Stamp::now();
                let mut records: Vec<Record> =
                    self.engines.iter_mut().map(|engine| engine.pause(now)).collect();
                records.push(ordered(EventKind::Paused, call.peer.uid, None));
                self.store(records);
                json!({ "paused": true })
            }
            Request::Resume { rule: None } => {
                let mut records: Vec<Record> = self.engines.iter_mut().map(Engine::resume_all).collect();
                records.push(ordered(EventKind::Resumed, call.peer.uid, None));
                self.store(records);
                json!({ "paused": false })
            }
            Request::Resume { rule: Some(rule) } => self.resume_rule(&rule, call.peer.uid),
            Request::RunBegin {
                name,
                pid,
                command,
                trace_tier,
            } => {
                let id = self.writer.next_run_id();
                self.commands.insert(
                    call.connection,
                    Command {
                        id,
                        name: name.clone(),
                        pid,
                        uid: call.peer.uid,
                    },
                );
                self.watch_processes();
                let start = RunStart {
                    id,
                    name,
                    engine: None,
                    host: host_name(),
                    pid: Some(pid),
                    process_key: None,
                    command: Some(command),
                    trace_tier,
                };
                let record = self.runs.begin_command(start);
                self.store(vec![record]);
                self.place_agents(Stamp::now());
                json!({ "run": id.0 })
            }
            Request::RunEnd { exit_code } => {
                return self.end_when_read(call.connection, exit_code, call.answer);
            }
            Request::MeasureAllocators { run } => {
                return self.measure_allocators(RunId(run), call.answer);
            }
            Request::Trace { run, word } => return self.tell_agents(RunId(run), word, call.answer),
            Request::Allocator(told) => self.take_allocator(&told, call.peer),
        };
        // Who asked may have gone; then nobody needs the answer.
        drop(call.answer.send(answer));
    }

    fn resume_rule(&mut self, rule: &str, uid: u32) -> Value {
        let mut records: Vec<Record> = self
            .engines
            .iter_mut()
            .filter_map(|engine| engine.resume_rule(rule))
            .collect();
        if records.is_empty() {
            return control::error(&format!("there is no rule '{rule}'"));
        }
        records.push(ordered(EventKind::Resumed, uid, Some(rule)));
        self.store(records);
        json!({ "resumed": rule })
    }

    pub(super) fn hung_up(&mut self, connection: u64) {
        self.end_command(connection, None, Stamp::now());
    }

    /// The last that a command's agents wrote comes before its end, so that whoever hears of the end finds all of it.
    fn end_when_read(&self, connection: u64, exit_code: i32, answer: oneshot::Sender<Value>) {
        let ended = Ended {
            connection,
            exit_code,
            at: Stamp::now(),
            answer,
        };
        let (flushed, events) = (self.flush_agents(false), self.events.clone());
        tokio::spawn(async move {
            // The asker is patient for five seconds.
            if tokio::time::timeout(FLUSH, flushed).await.is_err() {
                tracing::warn!("a run ends before all that its agents wrote is read; the rest comes later");
            }
            drop(events.send(pipeline::Event::CommandEnded(ended)).await);
        });
    }

    pub(super) fn take_end(&mut self, ended: Ended) {
        self.end_command(ended.connection, Some(ended.exit_code), ended.at);
        let writer = self.writer.clone();
        tokio::spawn(async move {
            // Nothing of its own: it is through when all that came before is on the disk.
            let through = writer.commit(Batch::new(ended.at)).await;
            let answer = match through {
                Ok(()) => json!({ "ended": true }),
                Err(error) => control::error(&error.to_string()),
            };
            // Who asked may have gone; then nobody needs the answer.
            drop(ended.answer.send(answer));
        });
    }

    fn end_command(&mut self, connection: u64, exit_code: Option<i32>, at: Stamp) {
        if let Some(command) = self.commands.remove(&connection) {
            self.attached.command_ended(command.pid, command.id, Stamp::now());
            let records = self.runs.end_command(command.id, &command.name, exit_code, at);
            self.store(records);
            self.watch_processes();
        }
    }

    fn rules(&self) -> Vec<Value> {
        let now = Stamp::now();
        let explain = |engine: &Engine| engine.explain(&self.readings(engine, now), now);
        self.engines
            .iter()
            .flat_map(explain)
            .map(|rule| json!(rule))
            .collect()
    }
}

/// What a person ordered: who, and of which rule, if not of all.
fn ordered(kind: EventKind, uid: u32, rule: Option<&str>) -> Record {
    let message = match (kind, rule) {
        (EventKind::Paused, _) => format!("the user {uid} suspended all acting"),
        (_, None) => format!("the user {uid} let all rules act again"),
        (_, Some(rule)) => format!("the user {uid} let rule {rule} act again"),
    };
    let detail = json!({ "actor": { "kind": "person", "uid": uid }, "rule": rule });
    Record::Event(Event::new(kind, message).with_detail(detail))
}
