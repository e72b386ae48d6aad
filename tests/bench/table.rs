//! Figures beside their goals and floors, as a table for people or as Markdown.

use comfy_table::{Table, presets};

/// One table.
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) lines: Vec<Line>,
    /// What one must know to read it.
    pub(crate) notes: Vec<String>,
}

/// One figure.
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) measured: String,
    pub(crate) goal: String,
    pub(crate) floor: String,
    /// Whether a goal was missed.
    pub(crate) missed: bool,
}

impl Line {
    /// A figure without a goal.
    pub(crate) fn new(what: impl Into<String>, measured: impl Into<String>) -> Self {
        let (what, measured) = (what.into(), measured.into());
        Self {
            what,
            measured,
            goal: String::new(),
            floor: String::new(),
            missed: false,
        }
    }

    /// The same with a goal, which `value` should not exceed.
    pub(crate) fn at_most(mut self, value: f64, goal: f64, shown: impl Into<String>) -> Self {
        self.goal = shown.into();
        self.missed = value > goal;
        self
    }

    /// The same beside a floor.
    pub(crate) fn floor(mut self, floor: impl Into<String>) -> Self {
        self.floor = floor.into();
        self
    }
}

impl Section {
    pub(crate) fn show(&self, markdown: bool) -> String {
        let mut table = Table::new();
        table.load_style(if markdown {
            presets::ASCII_MARKDOWN
        } else {
            presets::UTF8_FULL_CONDENSED
        });
        table.set_header(["", "measured", "goal", "floor"]);
        for line in &self.lines {
            let measured = match (line.missed, markdown) {
                (true, true) => format!("**{}, missed**", line.measured),
                (true, false) => format!("{}  MISSED", line.measured),
                (false, _) => line.measured.clone(),
            };
            table.add_row([&line.what, &measured, &line.goal, &line.floor]);
        }
        let heading = if markdown {
            format!("### {}\n", self.title)
        } else {
            self.title.clone()
        };
        let notes: String = self.notes.iter().map(|note| format!("\n- {note}")).collect();
        let gap = if notes.is_empty() { "" } else { "\n" };
        format!("{heading}\n{table}{gap}{notes}")
    }
}

/// The value at least as large as `share` of them all; not a number when there is none.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small rank"
    )]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
