//! The configuration file: what it may say, and what it means.
//!
//! Each part belongs to the crate that uses it and is checked there; this module finds the file, reads it, puts the
//! parts together and says where in the file a mistake is.

mod engine;
mod error;
mod group;
mod lints;
mod locate;
mod place;
#[cfg(test)]
mod tests;
mod written;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll_collectors::MetricsEndpoint;
use plimsoll_trace::units::{Period, Size};
use plimsoll_tuner::{HostLimits, Ladder, RuleConfig};
use serde::Deserialize;

pub(crate) use engine::{Engine, EngineSection, OnExit};
pub(crate) use error::ConfigError;
pub(crate) use lints::{Linted, lints_of};
pub(crate) use place::{fits_socket, make_default_folder, socket_beside, socket_path, store_path};
pub(crate) use written::{ladders, ladders_of, recorded_ladder};

/// The configuration in force.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The file it came from; none when there is none and the defaults apply.
    pub(crate) file: Option<PathBuf>,
    /// Where and how long traces are kept.
    pub(crate) store: StoreSection,
    /// How often values are read, and from what library.
    pub(crate) sampling: SamplingSection,
    /// The group whose members' processes may report, if any: its number.
    pub(crate) agent_group: Option<u32>,
    /// What changes may cost all engines together.
    pub(crate) limits: HostLimits,
    /// The engines, in order of their names, each with its ladder of rules in file order.
    pub(crate) engines: Vec<(Engine, Ladder)>,
    /// What is valid but does not do what one might expect.
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "the section [store]")]
pub(crate) struct StoreSection {
    /// The database file.
    pub(crate) path: Option<PathBuf>,
    /// How long each resolution is kept.
    pub(crate) keep: Keep,
    /// The database may not grow over this.
    pub(crate) max_size: Size,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as { raw = \"24h\" }")]
pub(crate) struct Keep {
    pub(crate) raw: Period,
    pub(crate) seconds: Period,
    pub(crate) minutes: Period,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "the section [sampling]")]
pub(crate) struct SamplingSection {
    pub(crate) interval: Period,
    pub(crate) burst: Period,
    pub(crate) nvml_library: PathBuf,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the section [http]")]
struct HttpSection {
    listen: Option<std::net::SocketAddr>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the section [agent]")]
struct AgentSection {
    group: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "the section [limits]")]
struct HostSection {
    restarts_per_hour: Option<u32>,
    restarts_per_day: Option<u32>,
    downtime_per_hour: Option<Period>,
}

impl HostSection {
    fn resolve(&self) -> HostLimits {
        let default = HostLimits::default();
        let downtime = self.downtime_per_hour.map(|Period(duration)| duration);
        HostLimits {
            restarts_per_hour: self.restarts_per_hour.unwrap_or(default.restarts_per_hour),
            restarts_per_day: self.restarts_per_day.unwrap_or(default.restarts_per_day),
            downtime_per_hour: downtime.unwrap_or(default.downtime_per_hour),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    store: StoreSection,
    #[serde(default)]
    sampling: SamplingSection,
    http: Option<HttpSection>,
    #[serde(default)]
    agent: AgentSection,
    #[serde(default)]
    limits: HostSection,
    #[serde(default)]
    engine: BTreeMap<String, EngineSection>,
    #[serde(default)]
    rule: Vec<RuleConfig>,
}

impl Default for StoreSection {
    fn default() -> Self {
        Self {
            path: None,
            keep: Keep::default(),
            max_size: Size(4 << 30),
        }
    }
}

impl Default for Keep {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self {
            raw: Period(DAY),
            seconds: Period(DAY * 14),
            minutes: Period(DAY * 400),
        }
    }
}

impl Default for SamplingSection {
    fn default() -> Self {
        Self {
            interval: Period(Duration::from_secs(1)),
            burst: Period(Duration::from_millis(100)),
            nvml_library: "libnvidia-ml.so.1".into(),
        }
    }
}

/// A larger file is not a configuration.
const SIZE_LIMIT: u64 = 16 << 20;
/// What is kept for a shorter time could not even be drawn.
const SHORTEST_KEEP: Duration = Duration::from_secs(60);
/// A database with a schema, a write-ahead log and a few minutes of samples needs some room.
const SMALLEST_STORE: Size = Size(16 << 20);

impl Config {
    /// Reads the file that `--config`, the environment or the usual places name; without one, the defaults.
    ///
    /// # Errors
    /// A named file that is missing, or anything in it that is not valid.
    pub(crate) fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        match place::find(named)? {
            Some(path) => Ok(Self::parse(&read(&path)?, &path)?.with_environment()),
            None => Self::without_file(),
        }
    }

    /// Where engines show their metrics.
    pub(crate) fn metrics(&self) -> Vec<MetricsEndpoint> {
        let engines = self.engines.iter();
        engines.filter_map(|(engine, _)| engine.metrics.clone()).collect()
    }

    /// The defaults.
    ///
    /// # Errors
    /// None that a user could make.
    pub(crate) fn without_file() -> Result<Self, ConfigError> {
        let defaults = Self {
            file: None,
            ..Self::parse("", Path::new(""))?
        };
        Ok(defaults.with_environment())
    }

    fn with_environment(mut self) -> Self {
        if let Some(path) = place::store_from_environment() {
            self.store.path = Some(path);
        }
        if let Some(library) = place::nvml_library_from_environment() {
            self.sampling.nvml_library = library;
        }
        self
    }

    /// Reads a configuration from text; `path` is for messages and the base of nothing.
    ///
    /// # Errors
    /// The first thing that is not valid, with its line.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file: File =
            toml_edit::de::from_str(text).map_err(|error| error::from_toml(&error, text, path))?;
        let at = locate::Locator::new(text, path);
        check_store(&file.store, &at)?;
        check_sampling(&file.sampling, &at)?;
        let mut warnings = Vec::new();
        if let Some(listen) = file.http.and_then(|http| http.listen) {
            warnings.push(format!(
                "[http] listen = \"{listen}\": this version serves no HTTP yet; use `plimsoll status`"
            ));
        }
        let agent_group = match &file.agent.group {
            Some(name) => {
                Some(group::number(name).map_err(|message| at.error(&["agent", "group"], message, None))?)
            }
            None => None,
        };
        let written = written::Written::new(text);
        let engines = engine::assemble(file.engine, file.rule, &written, &at, &mut warnings)?;
        Ok(Self {
            file: Some(path.to_owned()),
            store: file.store,
            sampling: file.sampling,
            agent_group,
            limits: file.limits.resolve(),
            engines,
            warnings,
        })
    }

    /// The database this configuration names, or the usual place.
    pub(crate) fn store_path(&self) -> PathBuf {
        self.store.path.clone().unwrap_or_else(place::default_store_path)
    }
}

/// The text of a configuration file.
fn read(path: &Path) -> Result<String, ConfigError> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).and_then(|file| file.take(SIZE_LIMIT + 1).read_to_end(&mut bytes));
    file.map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let invalid = |line, message: &str| ConfigError::Invalid {
        path: path.to_owned(),
        line,
        message: message.to_owned(),
        nearest: None,
    };
    if bytes.len() as u64 > SIZE_LIMIT {
        return Err(invalid(
            None,
            "it is larger than 16 MiB, so it is hardly a configuration; name another with --config",
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = valid.filter(|&&byte| byte == b'\n').count() + 1;
        invalid(Some(line), "it is not UTF-8 text; save it as UTF-8")
    })
}

fn check_store(store: &StoreSection, at: &locate::Locator<'_>) -> Result<(), ConfigError> {
    // Commands find the database by this path from wherever they are called.
    if let Some(path) = store.path.as_ref().filter(|path| path.is_relative()) {
        let message = format!(
            "store.path: '{}' must be an absolute path, such as /var/lib/plimsoll/plimsoll.db",
            path.display()
        );
        return Err(at.error(&["store", "path"], message, None));
    }
    for (key, value) in [
        ("raw", store.keep.raw),
        ("seconds", store.keep.seconds),
        ("minutes", store.keep.minutes),
    ] {
        if value.0 < SHORTEST_KEEP {
            return Err(at.error(
                &["store", "keep", key],
                format!("store.keep.{key} must be at least 1m"),
                None,
            ));
        }
    }
    if store.max_size < SMALLEST_STORE {
        return Err(at.error(
            &["store", "max_size"],
            "store.max_size must be at least 16MiB".to_owned(),
            None,
        ));
    }
    Ok(())
}

fn check_sampling(sampling: &SamplingSection, at: &locate::Locator<'_>) -> Result<(), ConfigError> {
    let bounds = Duration::from_millis(100)..=Duration::from_secs(60);
    for (key, value) in [("interval", sampling.interval), ("burst", sampling.burst)] {
        if !bounds.contains(&value.0) {
            let message = format!("sampling.{key} must lie between 100ms and 60s");
            return Err(at.error(&["sampling", key], message, None));
        }
    }
    if sampling.burst > sampling.interval {
        let message = "sampling.burst must not be longer than sampling.interval".to_owned();
        return Err(at.error(&["sampling", "burst"], message, None));
    }
    if sampling.nvml_library.as_os_str().is_empty() {
        let message = "sampling.nvml_library is empty; leave it out for the installed driver's".to_owned();
        return Err(at.error(&["sampling", "nvml_library"], message, None));
    }
    Ok(())
}
