//! From what a person types to a row: a number, a name, or `last`.

use plimsoll_store::{Reader, Value};

use crate::error::ReportError;
use crate::row::rows;

/// At most so many suggestions.
const MOST_NEAR: usize = 3;

/// The number of the run that `wanted` names: its number, `last`, or a name, of which the newest run counts.
///
/// # Errors
/// [`ReportError::UnknownRun`] with names that look like it, [`ReportError::NoRuns`] for an empty store.
pub async fn find_run(reader: &Reader, wanted: &str) -> Result<i64, ReportError> {
    let newest = "SELECT id FROM runs ORDER BY started_ns DESC, id DESC LIMIT 1";
    let Some(newest) = first_id(reader, newest, &[]).await? else {
        return Err(ReportError::NoRuns);
    };
    if wanted == "last" {
        return Ok(newest);
    }
    if let Ok(id) = wanted.parse::<i64>()
        && let Some(id) = first_id(reader, "SELECT id FROM runs WHERE id = ?", &[Value::Integer(id)]).await?
    {
        return Ok(id);
    }
    let by_name = "SELECT id FROM runs WHERE name = ? ORDER BY started_ns DESC, id DESC LIMIT 1";
    if let Some(id) = first_id(reader, by_name, &[Value::from(wanted)]).await? {
        return Ok(id);
    }
    let names = reader.query("SELECT DISTINCT name FROM runs", &[]).await?;
    Err(ReportError::UnknownRun {
        wanted: wanted.to_owned(),
        near: near(wanted, rows(&names).map(|mut row| row.word())),
    })
}

async fn first_id(reader: &Reader, sql: &str, values: &[Value]) -> Result<Option<i64>, ReportError> {
    let table = reader.query(sql, values).await?;
    Ok(rows(&table).next().and_then(|mut row| row.int()))
}

/// The names that look most like `wanted`, best first.
pub(crate) fn near(wanted: &str, names: impl Iterator<Item = String>) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    let mut scored: Vec<(f64, String)> = names
        .map(|name| (strsim::jaro_winkler(&wanted, &name.to_lowercase()), name))
        .filter(|(score, _)| *score > 0.7)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    scored.into_iter().take(MOST_NEAR).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_few_and_alike() {
        let names = ["deepseek", "deepseek-canary", "chat", "embed"];
        let near = near("deepsek", names.iter().map(|name| (*name).to_owned()));
        assert_eq!(near, ["deepseek", "deepseek-canary"]);
    }
}
