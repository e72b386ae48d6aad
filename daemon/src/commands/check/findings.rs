//! One thing that was found: what, why it matters, what to do.

use std::fmt;

use serde_json::{Value, json};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grade {
    /// It works.
    Ok,
    /// Something less will be recorded.
    Note,
    /// Something will not work that should.
    Problem,
}

impl Grade {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Problem => "problem",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) grade: Grade,
    /// What it is about, in one word or two.
    pub(crate) subject: &'static str,
    pub(crate) what: String,
    pub(crate) why: Option<&'static str>,
    pub(crate) to_do: Option<&'static str>,
}

impl Finding {
    fn new(grade: Grade, subject: &'static str, what: impl fmt::Display) -> Self {
        Self {
            grade,
            subject,
            what: what.to_string(),
            why: None,
            to_do: None,
        }
    }

    pub(crate) fn ok(subject: &'static str, what: impl fmt::Display) -> Self {
        Self::new(Grade::Ok, subject, what)
    }

    pub(crate) fn note(subject: &'static str, what: impl fmt::Display) -> Self {
        Self::new(Grade::Note, subject, what)
    }

    pub(crate) fn problem(subject: &'static str, what: impl fmt::Display) -> Self {
        Self::new(Grade::Problem, subject, what)
    }

    /// Why it matters.
    pub(crate) const fn why(mut self, why: &'static str) -> Self {
        self.why = Some(why);
        self
    }

    /// What to do about it.
    pub(crate) const fn remedy(mut self, to_do: &'static str) -> Self {
        self.to_do = Some(to_do);
        self
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "grade": self.grade.word(),
            "subject": self.subject,
            "what": self.what,
            "why": self.why,
            "to_do": self.to_do,
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<7}  {}: {}", self.grade.word(), self.subject, self.what)?;
        for more in [self.why, self.to_do].into_iter().flatten() {
            write!(f, " – {more}")?;
        }
        writeln!(f)
    }
}
