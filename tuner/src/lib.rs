//! Rules, decisions, plans, and the executor that writes, reloads, verifies and undoes.

pub mod condition;
pub mod edit;
mod evaluate;
mod explain;
mod outcome;
mod projection;
pub mod rule;
mod series;
mod setting;
pub mod signals;
mod state;
mod timer;
mod transition;

pub use edit::KeyPath;
pub use evaluate::{Evaluation, LONGEST_HOLD, PROPOSAL_STANDS, Withdrawal, evaluate};
pub use explain::{Block, ClauseExplanation, Phase, RuleExplanation, explain};
pub use outcome::{
    FIRST_BACKOFF, FIRST_QUARANTINE, LONGEST_BACKOFF, LONGEST_QUARANTINE, Outcome, SOON_AGAIN, StartError,
};
pub use projection::{Effect, EffectSource};
pub use rule::{Ladder, Rule, RuleConfig, RuleError};
pub use signals::{EngineView, Reading, Readings, Signals};
pub use state::LadderState;
pub use transition::Transition;
