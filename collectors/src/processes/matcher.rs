//! How the configuration says which process is an engine.

use std::fmt;
use std::path::PathBuf;

use regex::Regex;
use serde::Deserialize;
use thiserror::Error;

use crate::proc::cgroup;

/// A container's id is shown by its first twelve digits; fewer than this is a typing error or a name.
const SHORTEST_CONTAINER_ID: usize = 6;

/// Which process is an engine's root: exactly one of the keys, except that `exe` and `args` may go together.
///
/// ```toml
/// match = { unit = "deepseek.service" }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Keys")]
pub enum Match {
    /// `unit`: the main process of a systemd unit; its cgroup's processes belong to it.
    Unit(String),
    /// `exe`, `args` or both: patterns that must be found in the executable's path and in the command line, whose
    /// words are joined by spaces. Only root and the process's own user may know the path; for anybody else the
    /// command line's first word stands for it.
    Command {
        /// For the executable's path.
        exe: Option<Pattern>,
        /// For the command line.
        args: Option<Pattern>,
    },
    /// `pid_file`: a file with the process's number in its first line. If the process is younger than the file, the
    /// file is stale and names nobody.
    PidFile(PathBuf),
    /// `port`: the process that listens on this TCP port, in Plimsoll's network namespace. For a port that a container
    /// engine publishes that is its proxy; use `container` there. Looking is dear on large machines, so that it may
    /// take some seconds until it is found.
    Port(u16),
    /// `cgroup`: processes whose cgroup's path ends so.
    Cgroup(String),
    /// `container`: processes of the container whose id begins so.
    Container(String),
    /// The process with this pid, such as a child of Plimsoll's own; not for a configuration.
    Process(u32),
}

/// An engine to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The engine's name in the configuration.
    pub engine: String,
    /// Which process it is.
    pub matcher: Match,
}

/// A regular expression, equal to another when its text is.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Regex);

impl Pattern {
    /// Whether it is found anywhere in the text.
    #[must_use]
    pub fn is_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = MatchError;

    fn try_from(text: String) -> Result<Self, MatchError> {
        let regex = Regex::new(&text).map_err(|e| MatchError::Pattern {
            text: text.clone(),
            reason: e.to_string(),
        })?;
        if regex.is_match("") {
            return Err(MatchError::Everything(text));
        }
        Ok(Self(regex))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.0.as_str())
    }
}

/// Why a `match` in the configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MatchError {
    /// Not exactly one key.
    #[error("match needs exactly one of unit, exe/args, pid_file, port, cgroup, container; it has {found}")]
    Keys {
        /// The keys that were given.
        found: String,
    },
    /// Not a regular expression.
    #[error("'{text}' is not a regular expression: {reason}")]
    Pattern {
        /// What was given.
        text: String,
        /// What is wrong with it, with a caret below the place. Text, because serde keeps no sources.
        reason: String,
    },
    /// A regular expression that finds the empty text is found in every process.
    #[error(
        "'{0}' would match every process; write a part of the path or command line that only the engine has"
    )]
    Everything(String),
    /// A value that identifies nothing.
    #[error("{key} names nothing; {advice}")]
    Nothing {
        /// The key.
        key: &'static str,
        /// What to write instead.
        advice: &'static str,
    },
    /// Not the beginning of a container's id.
    #[error("'{0}' is not a container's id; write its first 12 digits (0-9, a-f), as `docker ps` shows them")]
    Container(String),
}

/// The keys as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    unit: Option<String>,
    exe: Option<Pattern>,
    args: Option<Pattern>,
    pid_file: Option<PathBuf>,
    port: Option<u16>,
    cgroup: Option<String>,
    container: Option<String>,
}

impl TryFrom<Keys> for Match {
    type Error = MatchError;

    fn try_from(keys: Keys) -> Result<Self, MatchError> {
        let Keys { exe, args, .. } = keys;
        let command = (exe.is_some() || args.is_some()).then_some(Ok(Self::Command { exe, args }));
        let mut given: Vec<(&str, Result<Self, MatchError>)> = [
            ("unit", keys.unit.map(unit)),
            ("exe/args", command),
            ("pid_file", keys.pid_file.map(pid_file)),
            ("port", keys.port.map(port)),
            ("cgroup", keys.cgroup.map(cgroup_suffix)),
            ("container", keys.container.map(container)),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
        match (given.pop(), given.as_slice()) {
            (Some((_, value)), []) => value,
            (None, _) => Err(MatchError::Keys {
                found: "none".to_owned(),
            }),
            (Some((last, _)), others) => {
                let others: Vec<&str> = others.iter().map(|(key, _)| *key).collect();
                Err(MatchError::Keys {
                    found: format!("{} and {last}", others.join(", ")),
                })
            }
        }
    }
}

/// As for `systemctl`, a name without a suffix is a service.
fn unit(name: String) -> Result<Match, MatchError> {
    if name.is_empty() || name.contains('/') {
        let advice = "write a unit's name such as x.service, without a path";
        return Err(MatchError::Nothing { key: "unit", advice });
    }
    let has_suffix = [".service", ".scope", ".slice"]
        .iter()
        .any(|suffix| name.ends_with(suffix));
    Ok(Match::Unit(if has_suffix { name } else { name + ".service" }))
}

fn pid_file(path: PathBuf) -> Result<Match, MatchError> {
    // The daemon's working folder is nobody's business.
    if !path.is_absolute() {
        let advice = "write the whole path of the engine's pid file, from the root on";
        return Err(MatchError::Nothing {
            key: "pid_file",
            advice,
        });
    }
    Ok(Match::PidFile(path))
}

fn port(number: u16) -> Result<Match, MatchError> {
    if number == 0 {
        let advice = "write the number of the port that the engine listens on, from 1 to 65535";
        return Err(MatchError::Nothing { key: "port", advice });
    }
    Ok(Match::Port(number))
}

fn cgroup_suffix(path: String) -> Result<Match, MatchError> {
    if path.trim_matches('/').is_empty() {
        let advice = "write the end of the path in /proc/PID/cgroup";
        return Err(MatchError::Nothing {
            key: "cgroup",
            advice,
        });
    }
    Ok(Match::Cgroup(path))
}

fn container(id: String) -> Result<Match, MatchError> {
    if id.len() < SHORTEST_CONTAINER_ID || !cgroup::is_id(&id) {
        return Err(MatchError::Container(id));
    }
    Ok(Match::Container(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Match, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn each_key_alone() {
        let pattern = |text: &str| Pattern::try_from(text.to_owned()).expect("pattern");
        for (json, expected) in [
            (r#"{"unit":"x.service"}"#, Match::Unit("x.service".into())),
            (r#"{"unit":"vllm@chat"}"#, Match::Unit("vllm@chat.service".into())),
            (
                r#"{"exe":"/vllm$"}"#,
                Match::Command {
                    exe: Some(pattern("/vllm$")),
                    args: None,
                },
            ),
            (
                r#"{"args":"serve"}"#,
                Match::Command {
                    exe: None,
                    args: Some(pattern("serve")),
                },
            ),
            (
                r#"{"exe":"python3","args":"serve"}"#,
                Match::Command {
                    exe: Some(pattern("python3")),
                    args: Some(pattern("serve")),
                },
            ),
            (
                r#"{"pid_file":"/run/x.pid"}"#,
                Match::PidFile("/run/x.pid".into()),
            ),
            (r#"{"port":8000}"#, Match::Port(8000)),
            (r#"{"cgroup":"/a/b"}"#, Match::Cgroup("/a/b".into())),
            (
                r#"{"container":"b84291b22d94"}"#,
                Match::Container("b84291b22d94".into()),
            ),
        ] {
            assert_eq!(read(json), Ok(expected), "{json}");
        }
        assert_ne!(pattern("a"), pattern("b"));
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let errors: String = [
            "{}",
            r#"{"unit":"x.service","port":1}"#,
            r#"{"exe":"a","port":1,"container":"b84291b22d94"}"#,
            r#"{"unti":"x.service"}"#,
            r#"{"unit":""}"#,
            r#"{"args":"(a"}"#,
            r#"{"args":".*"}"#,
            r#"{"exe":""}"#,
            r#"{"pid_file":"x.pid"}"#,
            r#"{"port":0}"#,
            r#"{"port":70000}"#,
            r#"{"cgroup":"/"}"#,
            r#"{"container":"vllm"}"#,
        ]
        .iter()
        .map(|json| {
            format!(
                "{json}\n  {}\n",
                read(json).expect_err(json).replace('\n', "\n  ")
            )
        })
        .collect();
        insta::assert_snapshot!(errors);
    }
}
