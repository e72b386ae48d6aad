//! What clients ask of the engine: arrivals with their sizes, read from a file or made by a [`Scenario`].
//!
//! [`Scenario`]: crate::scenario::Scenario

use std::path::{Path, PathBuf};

/// One request as it arrives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// Seconds of the simulated world since the load began.
    pub at_secs: f64,
    /// Tokens of the prompt.
    pub input_tokens: u32,
    /// Tokens of the answer.
    pub output_tokens: u32,
}

/// From this moment on, another process takes so much of the card.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NeighborStep {
    /// Seconds of the simulated world since the load began.
    pub from_secs: f64,
    /// Memory of the other process in bytes.
    pub bytes: u64,
}

/// A load: arrivals in order of time, and what else happens to the card.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workload {
    /// Requests, earliest first.
    pub arrivals: Vec<Arrival>,
    /// Memory that each served request leaves behind until the process ends, in bytes.
    pub leak_bytes_per_request: u64,
    /// Another process on the card, earliest step first; empty when the engine is alone.
    pub neighbor: Vec<NeighborStep>,
}

impl Workload {
    /// Memory of the other process at a moment, in bytes.
    #[must_use]
    pub fn neighbor_bytes(&self, at_secs: f64) -> u64 {
        let passed = self.neighbor.partition_point(|step| step.from_secs <= at_secs);
        passed
            .checked_sub(1)
            .and_then(|last| self.neighbor.get(last))
            .map_or(0, |step| step.bytes)
    }

    /// Reads a CSV file with the columns `t_s,input_tokens,output_tokens` in any order. Rows in any order too: they are
    /// sorted by time.
    ///
    /// # Errors
    /// The file cannot be read, or a line is not as described; the error has the file and the line.
    pub fn read(path: &Path) -> Result<Self, WorkloadError> {
        let text = std::fs::read_to_string(path).map_err(|source| WorkloadError::Read {
            path: path.into(),
            source,
        })?;
        Self::parse(&text).map_err(|(line, reason)| WorkloadError::Line {
            path: path.into(),
            line,
            reason,
        })
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut lines = (1..)
            .zip(text.lines())
            .filter(|(_, line)| !line.trim().is_empty());
        let (number, header) = lines.next().ok_or((1, "the file is empty".to_owned()))?;
        let columns = Columns::find(header).map_err(|missing| (number, missing))?;
        let mut arrivals: Vec<Arrival> = Vec::new();
        for (number, line) in lines {
            let arrival = columns.arrival(line).map_err(|reason| (number, reason))?;
            arrivals.push(arrival);
        }
        arrivals.sort_by(|a, b| a.at_secs.total_cmp(&b.at_secs));
        Ok(Self {
            arrivals,
            ..Self::default()
        })
    }
}

/// Why a file of arrivals was refused.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// The file cannot be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A line is not as it should be.
    #[error("{path}, line {line}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// Where the three columns stand in a row.
struct Columns {
    at: usize,
    input: usize,
    output: usize,
}

impl Columns {
    fn find(header: &str) -> Result<Self, String> {
        let names: Vec<&str> = header
            .trim_start_matches('\u{feff}')
            .split(',')
            .map(str::trim)
            .collect();
        let find = |name: &str| {
            names.iter().position(|n| *n == name).ok_or_else(|| {
                format!("the header has no column {name} (t_s, input_tokens and output_tokens are needed)")
            })
        };
        Ok(Self {
            at: find("t_s")?,
            input: find("input_tokens")?,
            output: find("output_tokens")?,
        })
    }

    fn arrival(&self, line: &str) -> Result<Arrival, String> {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let field = |at: usize, name: &str| {
            fields
                .get(at)
                .copied()
                .ok_or_else(|| format!("{name} is missing"))
        };
        let tokens = |at: usize, name: &str| {
            let text = field(at, name)?;
            text.parse::<u32>()
                .map_err(|_| format!("{name} is {text:?}, not a whole number of tokens"))
        };
        let text = field(self.at, "t_s")?;
        let at_secs = text
            .parse::<f64>()
            .ok()
            .filter(|secs| secs.is_finite() && *secs >= 0.0)
            .ok_or_else(|| format!("t_s is {text:?}, not a number of seconds from 0 on"))?;
        Ok(Arrival {
            at_secs,
            input_tokens: tokens(self.input, "input_tokens")?,
            output_tokens: tokens(self.output, "output_tokens")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_columns_in_any_order() {
        let workload =
            Workload::parse("output_tokens,t_s,input_tokens\n44,0.00,374\n\n109,4.31,396\n").expect("valid");
        assert_eq!(
            workload.arrivals,
            [
                Arrival {
                    at_secs: 0.0,
                    input_tokens: 374,
                    output_tokens: 44
                },
                Arrival {
                    at_secs: 4.31,
                    input_tokens: 396,
                    output_tokens: 109
                },
            ]
        );
    }

    #[test]
    fn rows_are_sorted_by_time() {
        let text = "t_s,input_tokens,output_tokens\n5,1,1\n4,2,2\n5,3,3\n";
        let workload = Workload::parse(text).expect("valid");
        let inputs: Vec<u32> = workload
            .arrivals
            .iter()
            .map(|arrival| arrival.input_tokens)
            .collect();
        assert_eq!(inputs, [2, 1, 3]);
    }

    #[track_caller]
    fn refused(text: &str, line: usize, expect: &str) {
        let (at, reason) = Workload::parse(text).expect_err("refused");
        assert_eq!(at, line, "{reason}");
        assert!(reason.contains(expect), "{reason:?} does not say {expect:?}");
    }

    #[test]
    fn a_bad_line_is_named() {
        let header = "t_s,input_tokens,output_tokens\n";
        refused("", 1, "empty");
        refused("t_s,input,output_tokens\n", 1, "no column input_tokens");
        refused(&format!("{header}1,2,3\n1,2\n"), 3, "output_tokens is missing");
        refused(&format!("{header}\n1,2,3.5\n"), 3, "\"3.5\", not a whole number");
        refused(&format!("{header}NaN,2,3\n"), 2, "\"NaN\"");
        refused(&format!("{header}-1,2,3\n"), 2, "\"-1\"");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Workload::read(Path::new("/nowhere/load.csv")).expect_err("missing");
        assert_eq!(error.to_string(), "reading /nowhere/load.csv");
    }

    #[test]
    fn neighbor_holds_until_its_next_step() {
        let neighbor = vec![
            NeighborStep {
                from_secs: 2.0,
                bytes: 7,
            },
            NeighborStep {
                from_secs: 5.0,
                bytes: 0,
            },
        ];
        let workload = Workload {
            neighbor,
            ..Workload::default()
        };
        assert_eq!(
            [1.9, 2.0, 4.9, 5.0].map(|at| workload.neighbor_bytes(at)),
            [0, 7, 7, 0]
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(t_s,input_tokens,output_tokens\n)?[0-9a-z,.\\-\n\u{feff}]{0,80}") {
            if let Ok(workload) = Workload::parse(&text) {
                prop_assert!(workload.arrivals.is_sorted_by(|a, b| a.at_secs <= b.at_secs));
            }
        }
    }
}
