//! Rules, decisions, plans, and the executor that writes, reloads, verifies and undoes.

pub mod act;
mod adopt;
mod allow;
mod budget;
pub mod condition;
pub mod desired;
pub mod diff;
pub mod edit;
mod engine;
mod evaluate;
mod explain;
pub mod file;
mod forecast;
pub mod guard;
mod intake;
mod leak;
mod lint;
mod outcome;
mod pace;
mod projection;
pub mod replay;
pub mod rule;
mod series;
mod setting;
pub mod signals;
mod spec;
mod stat;
mod state;
mod timer;
mod transition;
pub mod trial;

pub use allow::{AllowError, Allowed};
pub use budget::{Balance, Host, HostLimits, Limits, Spent};
pub use edit::{Format, KeyPath};
pub use engine::{Engine, Named, OrderError, Planned, Step};
pub use evaluate::{Evaluation, LONGEST_HOLD, PROPOSAL_STANDS, Withdrawal, evaluate};
pub use explain::{Block, ClauseExplanation, Phase, RuleExplanation, explain};
pub use forecast::{Forecast, NOT_FILLING_SECS, Rise};
pub use intake::Intake;
pub use lint::{Lint, lint};
pub use outcome::{
    BLAMED_WITHIN, FIRST_BACKOFF, FIRST_QUARANTINE, LONGEST_BACKOFF, LONGEST_QUARANTINE, Outcome,
    REST_AFTER_ROLLBACK, ROLLBACKS_WITHIN, SOON_AGAIN,
};
pub use projection::{Effect, EffectSource};
pub use rule::{Ladder, Rule, RuleConfig, RuleError, Source};
pub use signals::{EngineView, Reading, Readings, Signals};
pub use spec::{Applied, Call, ConfigFile, EngineSpec, Health, HttpUrl, Probe, Reload, ReloadSignal};
pub use state::LadderState;
pub use transition::Transition;
