//! What can be wrong with a rule, in words for whoever wrote it.

use plimsoll_trace::signal;
use plimsoll_trace::units::UnitError;
use thiserror::Error;

use crate::edit::{KeyPath, KeyPathError};

/// A rule that cannot be used. The text is a fragment that fits after "failed to read the configuration:".
#[derive(Clone, Debug, PartialEq, Error)]
#[error("rule '{rule}', {key}: {problem}")]
pub struct RuleError {
    /// The rule's name.
    pub rule: String,
    /// The key below the rule, such as `when.enter` or `set.model.quantization`.
    pub key: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a key of a rule.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Problem {
    /// A name that is no signal's.
    #[error("there is no signal '{name}'{}", nearest.map(|name| format!("; did you mean '{name}'?")).unwrap_or_default())]
    UnknownSignal {
        /// What was written.
        name: String,
        /// The nearest name, if one is near.
        nearest: Option<&'static str>,
    },
    /// A quantity that does not fit the signal.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// A ratio above 1 or below 0.
    #[error("{0} is not between 0 and 1; write for example 0.8 or \"80%\"")]
    NotARatio(f64),
    /// nan or inf.
    #[error("it is not a finite number")]
    NotFinite,
    /// No `exit`, and no default for it.
    #[error("it must be given here: only a ratio of at least 15 % has a default")]
    NoExit,
    /// `enter` and `exit` are one line.
    #[error("it equals `enter`; leave a gap, or the rule would come and go with every sample")]
    NoGap,
    /// An emergency line that comes before `enter`.
    #[error("it must lie beyond `enter`, away from `exit`")]
    NoEmergency,
    /// A key that must be there.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// Neither one clause nor one list.
    #[error("write one clause {{ signal, enter, exit }}, or {{ all = [clauses] }}, or {{ any = [clauses] }}")]
    WhenForm,
    /// A window, and nothing that looks at it.
    #[error("only `stat = \"mean\"`, `\"max\"` and percentiles such as `\"p95\"` look at a window")]
    WindowWithoutStat,
    /// A stat that looks at a window, and none.
    #[error("`stat` needs a window here, such as \"30s\"")]
    NoWindow,
    /// A window of no length, or too long.
    #[error("a window is more than 0 and at most 10 min")]
    Window,
    /// An empty name, list or table.
    #[error("it is empty")]
    Empty,
    /// A key path that cannot be read.
    #[error(transparent)]
    KeyPath(#[from] KeyPathError),
    /// A TOML date.
    #[error("a date cannot be set; write it as text")]
    Date,
    /// Two settings that touch each other.
    #[error("the same rule sets '{0}' already")]
    Overlap(String),
    /// A scale that is none.
    #[error("a scale is {{ scale, min, max }}: a factor above 0 and, if wanted, limits with min at most max")]
    Scale,
    /// A capacity that is none.
    #[error("it says how many times as much the KV cache holds, such as 2.0")]
    Capacity,
    /// A key that the rules of the engine may not set.
    #[error("the engine's `allow` does not list this key{}", nearest.as_ref().map(|name| format!("; did you mean '{name}'?")).unwrap_or_default())]
    NotAllowed {
        /// The nearest key that they may set, if one is near.
        nearest: Option<String>,
    },
    /// A value that the rules of the engine may not set.
    #[error("the engine's `allow` has here: {allowed}")]
    OutsideAllowed {
        /// What they may set, for people.
        allowed: String,
    },
    /// Two rules of one priority that set one key to different values.
    #[error(
        "rule '{other}' has the same priority and sets '{key}' to another value; give one of them a higher priority"
    )]
    Conflict {
        /// The earlier rule.
        other: String,
        /// The key that the earlier rule sets.
        key: KeyPath,
    },
    /// A restart, and something else.
    #[error("a rule that restarts the engine sets nothing, and its cost is \"restart\"")]
    RestartAlone,
    /// Two rules of one name.
    #[error("another rule of this engine has this name; rules are told apart by name")]
    SameName,
}

impl Problem {
    /// No signal of that name; the nearest is looked up.
    pub(crate) fn unknown_signal(name: String) -> Self {
        let nearest = signal::CATALOGUE
            .iter()
            .map(|known| (strsim::jaro_winkler(known.name, &name), known.name))
            .filter(|(likeness, _)| *likeness > 0.85)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, name)| name);
        Self::UnknownSignal { name, nearest }
    }
}
