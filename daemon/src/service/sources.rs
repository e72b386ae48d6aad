//! The collectors, and the thread that tells them the time.
//!
//! The loop does not tick: a timer of the runtime wakes it several times a tick, and each waking from idle costs more than
//! what the loop then does. So it is woken by what was read, and by nothing else.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plimsoll_collectors::{
    AgentDesk, Agents, Collector, Deliver, EngineMetrics, Host, MetricsEndpoint, Nvml, NvmlOptions,
    Processes, Progress, Watch,
};
use plimsoll_store::Writer;
use plimsoll_trace::{Batch, Stamp};
use tokio::sync::mpsc::Sender as Events;
use tokio::sync::oneshot;

use super::pipeline::Event;
use super::watches;
use crate::config::Config;

/// The sources of batches. They sample nothing until they are given an interval, and end when this is dropped, which
/// waits for what they are reading.
pub(crate) struct Sources {
    /// `None` only while it is being dropped.
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    agents: AgentDesk,
}

enum Order {
    /// Tick now, and so often from now on.
    Every(Duration),
    /// Tick so often from now on; the next tick is no later than it was, and no later than that.
    Pace(Duration),
    /// Look for these processes.
    Watch(Vec<Watch>),
    /// Read the metrics of these engines.
    Metrics(Vec<MetricsEndpoint>),
}

struct Collectors {
    nvml: Nvml,
    host: Host,
    processes: Processes,
    metrics: EngineMetrics,
    agents: Agents,
}

impl Sources {
    pub(crate) fn spawn(config: &Config, events: &Events<Event>, writer: Writer) -> std::io::Result<Self> {
        let collectors = Collectors::spawn(config, events, writer)?;
        let agents = collectors.agents.desk();
        let (orders, inbox) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("plimsoll-clock".to_owned())
            .spawn(move || beat(collectors, &inbox))?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
            agents,
        })
    }

    /// Where connections of agents go.
    pub(crate) fn agents(&self) -> AgentDesk {
        self.agents.clone()
    }

    /// Ticks now, and then once in `interval`.
    pub(crate) fn set_interval(&self, interval: Duration) {
        self.order(Order::Every(interval));
    }

    /// Ticks once in `interval` from now on, without one at once.
    pub(crate) fn set_pace(&self, interval: Duration) {
        self.order(Order::Pace(interval));
    }

    /// Looks for the processes of others from now on.
    pub(crate) fn set_watches(&self, watches: Vec<Watch>) {
        self.order(Order::Watch(watches));
    }

    /// Reads the metrics of others from now on.
    pub(crate) fn set_metrics(&self, endpoints: Vec<MetricsEndpoint>) {
        self.order(Order::Metrics(endpoints));
    }

    fn order(&self, order: Order) {
        if self
            .orders
            .as_ref()
            .is_none_or(|orders| orders.send(order).is_err())
        {
            tracing::error!("the collectors' clock has stopped by a panic; nothing is sampled any more");
        }
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the collectors' clock ended by a panic");
        }
    }
}

impl Collectors {
    fn spawn(config: &Config, events: &Events<Event>, writer: Writer) -> std::io::Result<Self> {
        let to_loop = events.clone();
        // The collectors' threads may wait here; the loop never waits for them.
        let deliver: Deliver = Arc::new(move |batch: Batch| drop(to_loop.blocking_send(Event::Batch(batch))));
        let to_loop = events.clone();
        let metrics_to_loop = events.clone();
        let to_agents = events.clone();
        let library = config.sampling.nvml_library.clone();
        Ok(Self {
            nvml: Nvml::spawn(
                NvmlOptions {
                    library,
                    ..NvmlOptions::default()
                },
                Arc::clone(&deliver),
            ),
            host: Host::spawn(deliver)?,
            processes: Processes::spawn(
                watches(config),
                Arc::new(move |table| drop(to_loop.blocking_send(Event::Processes(table)))),
            )?,
            metrics: EngineMetrics::spawn(
                config.metrics(),
                Arc::new(move |report| drop(metrics_to_loop.blocking_send(Event::Metrics(report)))),
            ),
            agents: Agents::spawn(
                Arc::new(move |report| {
                    // What was taken in is what the store's room is reckoned with, so this waits for it.
                    let (taken, is_taken) = oneshot::channel();
                    to_agents.blocking_send(Event::Agents(report, taken)).is_ok()
                        && is_taken.blocking_recv().is_ok()
                }),
                {
                    let writer = writer.clone();
                    Arc::new(move || writer.room())
                },
                Arc::new(move || Progress {
                    taken_in: writer.appended(),
                    stored: writer.stored(),
                }),
            )?,
        })
    }

    fn tick(&mut self, at: Stamp) {
        self.nvml.tick(at);
        self.host.tick(at);
        self.processes.tick(at);
        self.metrics.tick(at);
        self.agents.tick(at);
    }
}

/// Ticks until nobody gives orders any more.
fn beat(mut collectors: Collectors, orders: &Receiver<Order>) {
    let mut interval = Duration::ZERO;
    let mut due: Option<Instant> = None;
    loop {
        let order = match due {
            Some(due) => orders.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => orders.recv().map_err(RecvTimeoutError::from),
        };
        match order {
            Ok(Order::Every(next)) => {
                interval = next;
                due = Some(Instant::now());
            }
            Ok(Order::Pace(next)) => {
                interval = next;
                due = due.map(|due| due.min(Instant::now() + next));
            }
            Ok(Order::Watch(watches)) => collectors.processes.set_watches(watches),
            Ok(Order::Metrics(endpoints)) => collectors.metrics.set_endpoints(endpoints),
            Err(RecvTimeoutError::Timeout) => {
                collectors.tick(Stamp::now());
                due = due.map(|due| after(due, interval, Instant::now()));
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The next tick after the one that was due at `due`: ticks that were slept through are left out, and the beat stays.
fn after(due: Instant, interval: Duration, now: Instant) -> Instant {
    let interval = interval.max(Duration::from_millis(1));
    let late = now.saturating_duration_since(due);
    let slept = late.as_nanos() / interval.as_nanos();
    match u32::try_from(slept) {
        Ok(slept) => due + interval * slept + interval,
        Err(_) => now + interval,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beat_stays_and_ticks_that_were_slept_through_are_left_out() {
        let second = Duration::from_secs(1);
        let due = Instant::now();
        for (late_ms, next_secs) in [(0, 1), (1, 1), (999, 1), (1_000, 2), (1_001, 2), (60_500, 61)] {
            let now = due + Duration::from_millis(late_ms);
            assert_eq!(
                after(due, second, now),
                due + second * next_secs,
                "{late_ms} ms late"
            );
        }
        // Never at once again, or it would not sleep any more.
        assert!(after(due, Duration::ZERO, due) > due);
        let long = due + Duration::from_secs(100_000_000);
        assert!(after(due, Duration::from_millis(1), long) > long);
    }
}
