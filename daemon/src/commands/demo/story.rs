//! The live story: what the database says as it happens, told on stderr.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use plimsoll_store::{Reader, Value};
use plimsoll_trace::units;

use crate::screen::say;

/// How often the state of memory is told when nothing happens.
const QUIET: Duration = Duration::from_secs(3);

/// What has been told so far.
pub(super) struct Story {
    began: Instant,
    last_event: i64,
    decisions: Vec<(i64, String)>,
    last_told: Option<Instant>,
    bar: bool,
}

impl Story {
    pub(super) fn begin() -> Self {
        let bar = std::io::stderr().is_terminal();
        Self {
            began: Instant::now(),
            last_event: 0,
            decisions: Vec::new(),
            last_told: None,
            bar,
        }
    }

    /// Tells what has happened since the last look.
    pub(super) async fn tell(&mut self, reader: &Reader) -> anyhow::Result<()> {
        let events = reader
            .query(
                "SELECT id, kind, message FROM events WHERE id > ?1 ORDER BY id",
                &[Value::Integer(self.last_event)],
            )
            .await?;
        for row in &events.rows {
            if let [Value::Integer(id), Value::Text(kind), Value::Text(message)] = row.as_slice() {
                self.last_event = *id;
                self.line(&format!("{kind}: {message}"));
            }
        }
        let decisions = reader
            .query(
                "SELECT id, outcome, rule, explanation FROM decisions ORDER BY id",
                &[],
            )
            .await?;
        for row in &decisions.rows {
            let [
                Value::Integer(id),
                Value::Text(outcome),
                Value::Text(rule),
                Value::Text(explanation),
            ] = row.as_slice()
            else {
                continue;
            };
            if !self
                .decisions
                .iter()
                .any(|(told, then)| told == id && then == outcome)
            {
                self.decisions.push((*id, outcome.clone()));
                self.line(&format!("rule {rule}: {outcome}. {explanation}"));
            }
        }
        if self.last_told.is_none_or(|then| then.elapsed() >= QUIET) {
            self.memory(reader).await?;
        }
        Ok(())
    }

    async fn memory(&mut self, reader: &Reader) -> anyhow::Result<()> {
        let latest = "SELECT used_bytes, total_bytes - coalesce(reserved_bytes, 0) FROM device_samples ORDER BY at_ns DESC LIMIT 1";
        let table = reader.query(latest, &[]).await?;
        let Some([Value::Integer(used), Value::Integer(usable)]) = table.rows.first().map(Vec::as_slice)
        else {
            return Ok(());
        };
        let (used, usable) = (
            u64::try_from(*used).unwrap_or(0),
            u64::try_from(*usable).unwrap_or(0),
        );
        #[expect(clippy::cast_precision_loss, reason = "a share, printed")]
        let ratio = if usable > 0 {
            used as f64 / usable as f64
        } else {
            0.0
        };
        let bar = if self.bar { gauge(ratio) } else { String::new() };
        let text = format!(
            "memory {bar}{} of {} ({})",
            units::show_bytes(used),
            units::show_bytes(usable),
            units::show_ratio(ratio)
        );
        self.line(&text);
        Ok(())
    }

    fn line(&mut self, text: &str) {
        self.last_told = Some(Instant::now());
        say(format_args!(
            "{:6.1} s  {text}",
            self.began.elapsed().as_secs_f64()
        ));
    }
}

fn gauge(ratio: f64) -> String {
    const WIDTH: usize = 24;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "0..24"
    )]
    let filled = (ratio.clamp(0.0, 1.0) * WIDTH as f64).round() as usize;
    format!("[{}{}] ", "#".repeat(filled), ".".repeat(WIDTH - filled))
}
