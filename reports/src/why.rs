//! Why something was decided: the stored decisions of a rule, one decision, or the newest ones.

use jiff::tz::TimeZone;
use plimsoll_store::{Reader, Value};
use serde::Serialize;

use crate::decisions::{self, Decision};
use crate::error::ReportError;
use crate::find::near;
use crate::row::rows;
use crate::versioned;

/// How many decisions are told.
const MOST: usize = 10;
/// How many of one rule's.
const MOST_OF_A_RULE: usize = 3;

/// Reads the decision with a number, the newest decisions of a rule, or the newest of all; newest first.
///
/// # Errors
/// [`ReportError::UnknownDecision`] with names that look like it.
pub async fn load(reader: &Reader, wanted: Option<&str>) -> Result<Vec<Decision>, ReportError> {
    let newest = |most: usize| format!("ORDER BY at_ns DESC, id DESC LIMIT {most}");
    let Some(wanted) = wanted else {
        return decisions::read(reader, &format!("1 {}", newest(MOST)), &[]).await;
    };
    if let Ok(id) = wanted.parse::<i64>() {
        let found = decisions::read(reader, "id = ?", &[Value::Integer(id)]).await?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let found = decisions::read(
        reader,
        &format!("rule = ? {}", newest(MOST_OF_A_RULE)),
        &[Value::from(wanted)],
    )
    .await?;
    if !found.is_empty() {
        return Ok(found);
    }
    let names = reader.query("SELECT DISTINCT rule FROM decisions", &[]).await?;
    Err(ReportError::UnknownDecision {
        wanted: wanted.to_owned(),
        near: near(wanted, rows(&names).map(|mut row| row.word())),
    })
}

/// The decisions for people, with local times.
#[must_use]
pub fn text(decisions: &[Decision], zone: &TimeZone) -> String {
    if decisions.is_empty() {
        return "Nothing was decided yet.\n".to_owned();
    }
    let told: Vec<String> = decisions.iter().map(|decision| decision.text(zone)).collect();
    told.join("\n")
}

/// The decisions for programs: `{"version": 1, "decisions": [...]}`.
#[must_use]
pub fn json(decisions: &[Decision]) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        decisions: &'a [Decision],
    }
    versioned(&Body { decisions })
}
