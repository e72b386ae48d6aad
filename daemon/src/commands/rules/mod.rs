//! `plimsoll rules`: what rules mean, what they would have done, whether they are wise. Nothing here changes anything.

mod check;
pub(super) mod replay;
mod test;

use super::Outcome;
use crate::cli::Rules;

pub(super) fn run(command: &Rules) -> Outcome {
    match command {
        Rules::Check { config, json } => check::run(config.config.as_deref(), *json),
        Rules::Test { file, rules, json } => test::run(file, rules.as_deref(), *json),
        Rules::Replay(arguments) => replay::run(arguments),
    }
}
