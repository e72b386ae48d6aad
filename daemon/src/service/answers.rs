//! What the loop answers to who asks over the control socket.

use plimsoll_trace::{Record, RunStart, Stamp, TraceTier};
use plimsoll_tuner::Engine;
use serde_json::{Value, json};

use super::control::{self, Call, Request};
use super::pipeline::{Command, Pipeline, host_name};

impl Pipeline {
    pub(super) fn answer(&mut self, call: Call) {
        let answer = match call.request {
            Request::Status => {
                let mut status = self
                    .status
                    .show(&self.runs, &self.rules(), self.signals.max_age());
                let paused = self.engines.iter().filter(|engine| engine.is_paused());
                status["paused"] = paused.map(Engine::name).collect();
                status
            }
            Request::Why => json!({ "version": 1, "rules": self.rules() }),
            Request::Pause => {
                let now = Stamp::now();
                let memos = self.engines.iter_mut().map(|engine| engine.pause(now)).collect();
                self.store(memos);
                json!({ "paused": true })
            }
            Request::Resume { rule: None } => {
                let memos = self.engines.iter_mut().map(Engine::resume_all).collect();
                self.store(memos);
                json!({ "paused": false })
            }
            Request::Resume { rule: Some(rule) } => self.resume_rule(&rule),
            Request::RunBegin { name, pid, command } => {
                let id = self.writer.next_run_id();
                self.commands.insert(
                    call.connection,
                    Command {
                        id,
                        name: name.clone(),
                        pid,
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
                    trace_tier: TraceTier::Off,
                };
                let record = self.runs.begin_command(start);
                self.store(vec![record]);
                json!({ "run": id.0 })
            }
            Request::RunEnd { exit_code } => {
                self.end_command(call.connection, Some(exit_code));
                json!({ "ended": true })
            }
        };
        // Who asked may have gone; then nobody needs the answer.
        drop(call.answer.send(answer));
    }

    fn resume_rule(&mut self, rule: &str) -> Value {
        let records: Vec<Record> = self
            .engines
            .iter_mut()
            .filter_map(|engine| engine.resume_rule(rule))
            .collect();
        if records.is_empty() {
            return control::error(&format!("there is no rule '{rule}'"));
        }
        self.store(records);
        json!({ "resumed": rule })
    }

    pub(super) fn hung_up(&mut self, connection: u64) {
        self.end_command(connection, None);
    }

    fn end_command(&mut self, connection: u64, exit_code: Option<i32>) {
        if let Some(command) = self.commands.remove(&connection) {
            let records = self
                .runs
                .end_command(command.id, &command.name, exit_code, Stamp::now());
            self.store(records);
            self.watch_processes();
        }
    }

    fn rules(&self) -> Vec<Value> {
        let now = Stamp::now();
        let explain = |engine: &Engine| {
            let readings = self
                .signals
                .readings(engine.ladder(), &self.view(engine.name()), now);
            engine.explain(&readings, now)
        };
        self.engines
            .iter()
            .flat_map(explain)
            .map(|rule| json!(rule))
            .collect()
    }
}
