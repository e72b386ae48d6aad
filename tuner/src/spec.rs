//! What the tuner must know about an engine: its file, how it is reloaded, and how to tell that it serves again.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use plimsoll_trace::units::Period;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::edit::Format;
use crate::guard::Guards;
use crate::rule::Cost;

/// One engine, as far as acting on it goes.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineSpec {
    /// Its name in the configuration.
    pub name: String,
    /// Its own configuration file, if Plimsoll may know it.
    pub config: Option<ConfigFile>,
    /// How it is made to read that file again.
    pub reload: Reload,
    /// How to tell that it serves.
    pub health: Option<Health>,
    /// Where it shows the values in force, for the read-back.
    pub applied: Option<Applied>,
    /// What a change may do to it, and how long that is watched.
    pub guards: Guards,
}

/// The engine's own configuration file.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigFile {
    /// Where it is.
    pub path: PathBuf,
    /// How it is written.
    pub format: Format,
}

/// A signal that some engines take as "read your configuration again".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadSignal {
    /// SIGHUP.
    Hup,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
}

/// How an engine is made to read its file again. No engine is assumed to have any way.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Reload {
    /// It cannot be told; a change takes effect at its next start.
    #[default]
    None,
    /// A signal that the process is seen to catch.
    Signal(ReloadSignal),
    /// One HTTP call that answers 2xx.
    Http(Call),
    /// A command that exits 0; no shell.
    Command(Vec<String>),
    /// A restart of a systemd unit.
    Restart(String),
}

impl Reload {
    /// What a rule on such an engine costs unless it says so itself.
    #[must_use]
    pub const fn cost(&self) -> Cost {
        match self {
            Self::Signal(_) | Self::Http(_) | Self::Command(_) => Cost::Reload,
            Self::None | Self::Restart(_) => Cost::Restart,
        }
    }

    /// What will be done, for people: "signal HUP".
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::None => "no reload; takes effect at the engine's next start".to_owned(),
            Self::Signal(signal) => format!("signal {}", signal.name()),
            Self::Http(call) => format!("{} {}", call.method, call.url),
            Self::Command(words) => format!("command {}", words.join(" ")),
            Self::Restart(unit) => format!("restart of {unit}"),
        }
    }
}

impl ReloadSignal {
    /// The name without SIG, as the configuration has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hup => "HUP",
            Self::Usr1 => "USR1",
            Self::Usr2 => "USR2",
        }
    }
}

impl FromStr for ReloadSignal {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name.strip_prefix("SIG").unwrap_or(name) {
            "HUP" => Ok(Self::Hup),
            "USR1" => Ok(Self::Usr1),
            "USR2" => Ok(Self::Usr2),
            _ => Err(format!(
                "'{name}' is not a reload signal; it may be HUP, USR1 or USR2"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Reload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "expected \"none\" or a table with one of signal, http, command, restart"
        )]
        enum Written {
            Word(String),
            Table(Table),
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            signal: Option<String>,
            http: Option<String>,
            command: Option<Vec<String>>,
            restart: Option<String>,
        }
        let table = match Written::deserialize(deserializer)? {
            Written::Word(word) if word == "none" => return Ok(Self::None),
            Written::Word(word) => {
                return Err(D::Error::custom(format!(
                    "'{word}' is not a way to reload; write \"none\" or for example {{ signal = \"HUP\" }}"
                )));
            }
            Written::Table(table) => table,
        };
        match table {
            Table {
                signal: Some(name),
                http: None,
                command: None,
                restart: None,
            } => name.parse().map(Self::Signal).map_err(D::Error::custom),
            Table {
                signal: None,
                http: Some(call),
                command: None,
                restart: None,
            } => call.parse().map(Self::Http).map_err(D::Error::custom),
            Table {
                signal: None,
                http: None,
                command: Some(words),
                restart: None,
            } if !words.is_empty() => Ok(Self::Command(words)),
            Table {
                signal: None,
                http: None,
                command: None,
                restart: Some(unit),
            } if !unit.is_empty() => Ok(Self::Restart(unit)),
            _ => Err(D::Error::custom(
                "reload takes exactly one of signal, http, command, restart",
            )),
        }
    }
}

/// How to tell that an engine serves.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Answers 2xx when the engine serves.
    #[serde(deserialize_with = "read_http_url")]
    pub http: String,
    /// How long a reload may take until it answers.
    #[serde(default = "default_within", deserialize_with = "read_period")]
    pub within: Duration,
    /// A request that the model itself must answer. A health check alone passes on many engines whose model is gone.
    pub probe: Option<Probe>,
}

/// One request to the model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Answers 2xx when the model answered: "POST http://127.0.0.1:8000/v1/completions".
    pub http: Call,
    /// The request's JSON.
    #[serde(default)]
    pub body: String,
}

/// One HTTP call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// GET, POST or PUT.
    pub method: String,
    /// An `http://` address.
    pub url: String,
}

impl FromStr for Call {
    type Err = String;

    /// Reads "POST http://host/path"; without a method it is a POST.
    fn from_str(text: &str) -> Result<Self, String> {
        let (method, url) = text.trim().split_once(' ').unwrap_or(("POST", text));
        let method = method.to_ascii_uppercase();
        if !["GET", "POST", "PUT"].contains(&method.as_str()) {
            return Err(format!("'{method}' is not GET, POST or PUT"));
        }
        Ok(Self {
            method,
            url: http_url(url.trim())?,
        })
    }
}

impl<'de> Deserialize<'de> for Call {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// How long a reload may take where no health check says so.
pub(crate) const DEFAULT_WITHIN: Duration = Duration::from_secs(60);

fn default_within() -> Duration {
    DEFAULT_WITHIN
}

/// A URL that answers with JSON, and the place in it that holds the values in force: `http://host/status#/applied`,
/// where the fragment is a JSON pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The address without the fragment.
    pub url: String,
    /// The JSON pointer; empty for the whole document.
    pub pointer: String,
}

impl<'de> Deserialize<'de> for Applied {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (url, pointer) = text.split_once('#').unwrap_or((&text, ""));
        if !pointer.is_empty() && !pointer.starts_with('/') {
            return Err(D::Error::custom(format!(
                "'#{pointer}' is not a JSON pointer such as #/applied"
            )));
        }
        Ok(Self {
            url: http_url(url).map_err(D::Error::custom)?,
            pointer: pointer.to_owned(),
        })
    }
}

/// An address that is asked with GET, such as "http://127.0.0.1:8000/metrics".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl(pub String);

impl<'de> Deserialize<'de> for HttpUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_http_url(deserializer).map(Self)
    }
}

fn read_http_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    http_url(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn read_period<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Period::deserialize(deserializer).map(|period| period.0)
}

fn http_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").unwrap_or("");
    let valid = !rest.is_empty() && !rest.starts_with('/') && !text.contains(char::is_whitespace);
    valid.then(|| text.to_owned()).ok_or_else(|| {
        format!("'{text}' is not an address such as \"http://127.0.0.1:8000/health\" (plain http only: there is no TLS)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reload(json: &str) -> Result<Reload, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn reload_forms() {
        assert_eq!(reload(r#""none""#), Ok(Reload::None));
        assert_eq!(
            reload(r#"{"signal":"SIGHUP"}"#),
            Ok(Reload::Signal(ReloadSignal::Hup))
        );
        assert_eq!(
            reload(r#"{"http":"post http://h/r"}"#),
            Ok(Reload::Http(Call {
                method: "POST".into(),
                url: "http://h/r".into()
            }))
        );
        assert_eq!(
            reload(r#"{"command":["a","b"]}"#),
            Ok(Reload::Command(vec!["a".into(), "b".into()]))
        );
        for (json, says) in [
            (r#""hup""#, "'hup' is not a way to reload"),
            (r#"{"signal":"KILL"}"#, "'KILL' is not a reload signal"),
            (
                r#"{"http":"DELETE http://h/r"}"#,
                "'DELETE' is not GET, POST or PUT",
            ),
            (r#"{"http":"POST https://h/r"}"#, "no TLS"),
            (r#"{"command":[]}"#, "exactly one of"),
            (r#"{"signal":"HUP","restart":"x"}"#, "exactly one of"),
        ] {
            let error = reload(json).unwrap_err();
            assert!(error.contains(says), "{json}: {error}");
        }
    }

    #[test]
    fn applied_takes_a_json_pointer() {
        let applied: Applied = serde_json::from_str(r#""http://h/status#/applied""#).unwrap();
        assert_eq!(
            applied,
            Applied {
                url: "http://h/status".into(),
                pointer: "/applied".into()
            }
        );
        assert!(serde_json::from_str::<Applied>(r#""http://h/s#applied""#).is_err());
    }
}
