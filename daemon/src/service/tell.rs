//! What a person tells the agents of a run: to record single kernels for a while, to leave CUPTI to another profiler, and
//! to take it again.
//!
//! An agent hears it with its next flush. Whoever asked is answered when the deed is done, or when it takes too long.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_collectors::{AgentId, Standing};
use plimsoll_trace::wire::{LossReason, State, Tell, window_quarters};
use plimsoll_trace::{Batch, RunId, Stamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::control;
use super::pipeline::{Event, Pipeline};

/// Beyond the flush with which an agent hears, and the next with which it tells.
const SLACK: Duration = Duration::from_secs(2);
/// Of an agent that has not said how often it flushes.
const USUAL_FLUSH: Duration = Duration::from_secs(1);
/// No agent flushes less often, whatever one says.
const LONGEST_FLUSH: Duration = Duration::from_secs(60);

/// What agents can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TraceWord {
    /// Record each kernel for so long.
    Window {
        /// Milliseconds.
        ms: u32,
    },
    /// Leave CUPTI to another.
    Yield,
    /// Take it again.
    Resume,
}

/// Those who wait for agents to do what they were told.
#[derive(Default)]
pub(super) struct Told {
    waiting: Vec<Waiting>,
    last: u64,
}

struct Waiting {
    number: u64,
    run: RunId,
    word: TraceWord,
    agents: BTreeSet<AgentId>,
    since_ns: i64,
    /// Single kernels that these agents had left out by then.
    skipped: u64,
    answer: oneshot::Sender<Value>,
}

impl Waiting {
    /// Whether an agent has done it. A window is over when its time is.
    fn is_done(&self, standing: Option<&Standing>) -> bool {
        let state = standing.map(|standing| standing.state);
        match (self.word, state) {
            (TraceWord::Window { .. }, _) => false,
            // One that hung up does neither.
            (_, None) => true,
            // One that records nothing has nothing to leave.
            (TraceWord::Yield, Some(state)) => matches!(state, Some(State::Yielded | State::Off)),
            // Whoever records nothing at all has nothing to take again. One that has not said how it stands may have been
            // displaced.
            (TraceWord::Resume, Some(state)) => {
                matches!(state, Some(State::Tracing | State::Degraded | State::Off))
            }
        }
    }
}

impl Pipeline {
    /// Tells the agents of a run.
    pub(super) fn tell_agents(&mut self, run: RunId, word: TraceWord, answer: oneshot::Sender<Value>) {
        let bound: Vec<(AgentId, Standing)> = self.attached.of_run(run);
        let able: BTreeSet<AgentId> = bound
            .iter()
            .filter(|(_, standing)| hindrance(word, standing).is_none())
            .map(|(agent, _)| *agent)
            .collect();
        if able.is_empty() {
            drop(answer.send(control::error(&refusal(run, word, &bound))));
            return;
        }
        let tell = match word {
            TraceWord::Window { ms } => Tell::WindowOf(window_quarters(Duration::from_millis(ms.into()))),
            TraceWord::Yield => Tell::Yield,
            TraceWord::Resume => Tell::Resume,
        };
        // One that records already would begin anew, and lose what is on its way.
        let is_idle = |standing: &Standing| {
            word == TraceWord::Resume
                && matches!(
                    standing.state,
                    Some(State::Tracing | State::Degraded | State::Off)
                )
        };
        let told = bound
            .iter()
            .filter(|(agent, standing)| able.contains(agent) && !is_idle(standing));
        self.agents.tell(told.map(|(agent, _)| *agent).collect(), tell);
        let flush = bound.iter().filter_map(|(_, standing)| standing.flush).max();
        let flush = flush.unwrap_or(USUAL_FLUSH).min(LONGEST_FLUSH);
        let window = match word {
            TraceWord::Window { ms } => Duration::from_millis(ms.into()),
            _ => Duration::ZERO,
        };
        let due = window + 2 * flush + SLACK;
        let skipped = skipped(bound.iter().filter(|(agent, _)| able.contains(agent)));
        self.told.last += 1;
        let number = self.told.last;
        self.told.waiting.push(Waiting {
            number,
            run,
            word,
            agents: able,
            since_ns: Stamp::now().unix_ns,
            skipped,
            answer,
        });
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(due).await;
            drop(events.send(Event::ToldDue(number)).await);
        });
        self.look_at_told();
    }

    /// Answers those whose agents have all done what they were told.
    pub(super) fn look_at_told(&mut self) {
        let attached = &self.attached;
        let is_done = |waiting: &mut Waiting| {
            let mut agents = waiting.agents.iter();
            agents.all(|agent| waiting.is_done(attached.standing(*agent)))
        };
        let done: Vec<Waiting> = self.told.waiting.extract_if(.., is_done).collect();
        done.into_iter().for_each(|waiting| self.answer_told(waiting));
    }

    pub(super) fn told_due(&mut self, number: u64) {
        let due = |waiting: &mut Waiting| waiting.number == number;
        let due: Vec<Waiting> = self.told.waiting.extract_if(.., due).collect();
        due.into_iter().for_each(|waiting| self.answer_told(waiting));
    }

    /// Answers with how the agents stand, once what they recorded is on the disk.
    fn answer_told(&self, waiting: Waiting) {
        let standings = self.attached.of_run(waiting.run);
        let told = standings
            .iter()
            .filter(|(agent, _)| waiting.agents.contains(agent));
        let skipped = skipped(told.clone()).saturating_sub(waiting.skipped);
        let agents: Vec<Value> = told
            .map(|(agent, standing)| {
                let mut shown = show(standing);
                let standing = self.attached.standing(*agent);
                shown["done"] = match waiting.word {
                    TraceWord::Window { .. } => true,
                    _ => waiting.is_done(standing),
                }
                .into();
                shown
            })
            .collect();
        let left_out: Vec<Value> = standings
            .iter()
            .filter(|(agent, _)| !waiting.agents.contains(agent))
            .map(|(_, standing)| json!({ "pid": standing.pid, "why": hindrance(waiting.word, standing) }))
            .collect();
        let mut answer = json!({ "since_ns": waiting.since_ns, "agents": agents, "left_out": left_out });
        let is_window = matches!(waiting.word, TraceWord::Window { .. });
        if is_window {
            answer["skipped"] = skipped.into();
        }
        let flushed = is_window.then(|| self.flush_agents(false));
        let writer = self.writer.clone();
        tokio::spawn(async move {
            if let Some(flushed) = flushed {
                // Its end is that the other side is dropped.
                drop(flushed.await);
            }
            let stored = writer.commit(Batch::new(Stamp::now())).await;
            let answer = match stored {
                Ok(()) => answer,
                Err(error) => control::error(&error.to_string()),
            };
            // Who asked may have gone; then nobody needs the answer.
            drop(waiting.answer.send(answer));
        });
    }
}

/// How many single kernels agents left out, because there were more than they keep.
fn skipped<'a>(agents: impl Iterator<Item = &'a (AgentId, Standing)>) -> u64 {
    let of_one = |(_, standing): &(AgentId, Standing)| {
        let reason = LossReason::OverBudget.as_str();
        standing.losses.get(reason).copied().unwrap_or(0)
    };
    agents.map(of_one).fold(0, u64::saturating_add)
}

/// Why an agent cannot do it; `None` when it can.
fn hindrance(word: TraceWord, standing: &Standing) -> Option<&'static str> {
    match (word, standing.state) {
        (TraceWord::Window { .. }, Some(State::Off)) => Some("it records nothing"),
        (TraceWord::Window { .. }, Some(State::Yielded)) => {
            Some("it has left CUPTI to another profiler; `plimsoll trace RUN --resume` takes it back")
        }
        (TraceWord::Window { .. }, Some(State::Displaced)) => Some("another profiler has taken CUPTI over"),
        _ => None,
    }
}

fn refusal(run: RunId, word: TraceWord, bound: &[(AgentId, Standing)]) -> String {
    let mut pids: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (_, standing) in bound {
        let Some(why) = hindrance(word, standing) else {
            continue;
        };
        // What is off says itself why.
        let why = match standing.state {
            Some(State::Off) if !standing.message.is_empty() => format!("{why}: {}", standing.message),
            _ => why.to_owned(),
        };
        let pid = standing
            .pid
            .map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
        pids.entry(why).or_default().push(pid);
    }
    let reasons: Vec<String> = pids
        .into_iter()
        .map(|(why, pids)| format!("{why} (process {})", pids.join(", ")))
        .collect();
    if reasons.is_empty() {
        format!(
            "no agent reports from run {run}: it has ended, or it was not started with `plimsoll run --trace TIER`, or \
             with the agent in its service's environment (plimsoll check says how)"
        )
    } else {
        format!("the agents of run {run} cannot do that: {}", reasons.join("; "))
    }
}

/// How an agent stands, for programs.
pub(super) fn show(standing: &Standing) -> Value {
    json!({
        "pid": standing.pid,
        "wanted_tier": standing.wanted,
        "tier": standing.tier,
        "state": standing.state,
        "message": standing.message,
        "budget_ratio": standing.budget_ratio,
        "cost_ratio": standing.cost_ratio,
        "duty_ratio": standing.duty_ratio,
        "device_bytes": standing.device_bytes,
        "losses": standing.losses,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(state: State) -> Standing {
        Standing {
            pid: Some(7),
            state: Some(state),
            ..Standing::default()
        }
    }

    #[test]
    fn who_cannot_says_why() {
        let window = TraceWord::Window { ms: 1_000 };
        assert_eq!(hindrance(window, &standing(State::Tracing)), None);
        assert_eq!(
            hindrance(window, &Standing::default()),
            None,
            "it has not spoken yet"
        );
        assert_eq!(hindrance(TraceWord::Resume, &standing(State::Yielded)), None);
        let yielded = [(AgentId(1), standing(State::Yielded))];
        let said = refusal(RunId(3), window, &yielded);
        assert!(said.contains("process 7") && said.contains("--resume"), "{said}");
        assert!(refusal(RunId(3), window, &[]).contains("no agent reports from run 3"));
    }

    #[test]
    fn to_take_cupti_again_is_done_when_the_agent_says_that_it_records() {
        let waiting = Waiting {
            number: 1,
            run: RunId(3),
            word: TraceWord::Resume,
            agents: BTreeSet::new(),
            since_ns: 0,
            skipped: 0,
            answer: oneshot::channel().0,
        };
        for (state, is_done) in [
            (State::Yielded, false),
            (State::Displaced, false),
            (State::Tracing, true),
            (State::Degraded, true),
            (State::Off, true),
        ] {
            assert_eq!(waiting.is_done(Some(&standing(state))), is_done, "{state:?}");
        }
        assert!(
            !waiting.is_done(Some(&Standing::default())),
            "it has not spoken yet"
        );
        assert!(waiting.is_done(None), "it hung up");
    }

    #[test]
    fn what_did_not_fit_into_a_window_is_summed_over_the_agents() {
        let agent = |number, losses| {
            let losses = std::collections::BTreeMap::from([losses]);
            (
                AgentId(number),
                Standing {
                    losses,
                    ..Standing::default()
                },
            )
        };
        let agents = [
            agent(1, ("over_budget", 5)),
            agent(2, ("over_budget", u64::MAX)),
            agent(3, ("ring_full", 7)),
        ];
        assert_eq!(skipped(agents[..1].iter()), 5);
        assert_eq!(skipped(agents.iter()), u64::MAX);
    }
}
