//! What engines say of themselves: their metrics in Prometheus' text format, read over plain HTTP once a second.
//!
//! Each engine has a thread of its own, so that one that does not answer costs nobody but itself. A call is short, takes
//! no redirects and no proxy, and what it may bring is bounded.

mod names;
mod page;
mod rates;
mod text;

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::Duration;

use plimsoll_trace::{EngineFigures, Stamp};

use crate::Collector;
use crate::pace::Pace;
use rates::Recent;

pub use text::{MetricName, MetricNameError};

/// A call takes no longer, whatever the engine does.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A page that is larger is not read.
const PAGE_LIMIT: u64 = 4 << 20;

/// Where an engine shows its metrics, and what of them is wanted beside the figures that are known by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsEndpoint {
    /// The engine's name in the configuration.
    pub engine: String,
    /// An `http://` address.
    pub url: String,
    /// Signals that rules name, and the series behind each.
    pub named: Vec<(Arc<str>, MetricName)>,
}

/// What one call brought.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsReport {
    /// The engine's name.
    pub engine: String,
    /// When it was asked.
    pub at: Stamp,
    /// The values of signals, by their names; what is unknown is not among them.
    pub signals: Vec<(Arc<str>, f64)>,
    /// What the page said; `None` when there was none.
    pub figures: Option<EngineFigures>,
    /// Ticks that came while the engine had not answered the one before.
    pub missed: u64,
}

/// Where reports go. Called from the collector's own threads.
pub type DeliverMetrics = Arc<dyn Fn(MetricsReport) + Send + Sync>;

/// Reads the metrics of engines.
pub struct EngineMetrics {
    deliver: DeliverMetrics,
    scrapers: Vec<Scraper>,
}

impl fmt::Debug for EngineMetrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engines = self.scrapers.iter().map(|scraper| &scraper.endpoint);
        formatter.debug_list().entries(engines).finish()
    }
}

/// One engine's thread. It ends when this is gone and its call has returned; nobody waits for that, since the engine may
/// hang.
struct Scraper {
    endpoint: MetricsEndpoint,
    ticks: SyncSender<Tick>,
    pace: Pace,
    missed: u64,
}

#[derive(Debug)]
struct Tick {
    at: Stamp,
    missed: u64,
}

impl EngineMetrics {
    /// Reads these from the next tick on.
    #[must_use]
    pub fn spawn(endpoints: Vec<MetricsEndpoint>, deliver: DeliverMetrics) -> Self {
        let mut metrics = Self {
            deliver,
            scrapers: Vec::new(),
        };
        metrics.set_endpoints(endpoints);
        metrics
    }

    /// Reads others from the next tick on; engines that stay the same go on as they are.
    pub fn set_endpoints(&mut self, endpoints: Vec<MetricsEndpoint>) {
        let mut former = std::mem::take(&mut self.scrapers);
        for endpoint in endpoints {
            let same = former.iter().position(|scraper| scraper.endpoint == endpoint);
            let scraper = match same {
                Some(index) => Ok(former.swap_remove(index)),
                None => Scraper::spawn(endpoint, Arc::clone(&self.deliver)),
            };
            match scraper {
                Ok(scraper) => self.scrapers.push(scraper),
                Err(error) => {
                    tracing::error!(%error, "there is no thread to read an engine's metrics; its signals stay unknown");
                }
            }
        }
    }
}

impl Collector for EngineMetrics {
    fn name(&self) -> &'static str {
        "metrics"
    }

    fn tick(&mut self, at: Stamp) {
        for scraper in &mut self.scrapers {
            if !scraper.pace.is_due(at) {
                continue;
            }
            let missed = scraper.missed;
            match scraper.ticks.try_send(Tick { at, missed }) {
                Ok(()) => scraper.missed = 0,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => scraper.missed += 1,
            }
        }
    }
}

impl Scraper {
    fn spawn(endpoint: MetricsEndpoint, deliver: DeliverMetrics) -> std::io::Result<Self> {
        let (ticks, orders) = mpsc::sync_channel(1);
        let of = endpoint.clone();
        std::thread::Builder::new()
            .name("plimsoll-metric".to_owned())
            .spawn(move || scrape(&of, &orders, &deliver))?;
        Ok(Self {
            endpoint,
            ticks,
            pace: Pace::default(),
            missed: 0,
        })
    }
}

fn scrape(endpoint: &MetricsEndpoint, orders: &Receiver<Tick>, deliver: &DeliverMetrics) {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .new_agent();
    let mut recent = Recent::default();
    let mut silent = false;
    for tick in orders {
        let answer = get(&agent, &endpoint.url);
        // Once, not with every second.
        match &answer {
            Ok(_) if std::mem::take(&mut silent) => {
                tracing::info!(engine = endpoint.engine, "its metrics can be read again");
            }
            Err(problem) if !std::mem::replace(&mut silent, true) => tracing::warn!(
                engine = endpoint.engine,
                "its metrics cannot be read, so its engine.* and metric: signals are unknown: {} {problem}",
                endpoint.url
            ),
            _ => {}
        }
        let (mut signals, mut figures) = (Vec::new(), None);
        if let Ok(page) = answer {
            let known = page::figures(&page, tick.at);
            let known_signals = recent.take(&known).into_iter();
            signals.extend(known_signals.map(|(name, value)| (Arc::from(name), value)));
            signals.extend(page::named(&page, &endpoint.named));
            figures = Some(known);
        }
        deliver(MetricsReport {
            engine: endpoint.engine.clone(),
            at: tick.at,
            signals,
            figures,
            missed: tick.missed,
        });
    }
}

fn get(agent: &ureq::Agent, url: &str) -> Result<String, String> {
    let mut answer = agent
        .get(url)
        .call()
        .map_err(|error| format!("does not answer: {error}"))?;
    let status = answer.status().as_u16();
    if !(200..300).contains(&status) {
        return Err(format!("answers {status}"));
    }
    let page = answer.body_mut().with_config().limit(PAGE_LIMIT).read_to_vec();
    let page = page.map_err(|error| format!("has no page that can be read: {error}"))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
