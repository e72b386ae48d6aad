//! `plimsoll rules`: what rules mean, what they would have done, whether they are wise. Nothing here changes anything.

mod replay;

use super::Outcome;
use crate::cli::Rules;

pub(super) fn run(command: &Rules) -> Outcome {
    match command {
        Rules::Replay(arguments) => replay::run(arguments),
    }
}
