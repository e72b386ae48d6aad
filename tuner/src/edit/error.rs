//! Why an edit was refused.

use thiserror::Error;

use super::{Format, KeyPath, MAX_BYTES};

/// A file that was not edited: where, why, and what a person can do. Nothing was changed.
///
/// The text is a fragment that fits after "failed to set the value:" and holds no line break of ours.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}{reason}", self.place())]
pub struct EditError {
    /// The key path that was to be read or changed; `None` when the file as a whole is at fault.
    pub path: Option<KeyPath>,
    /// The line in the file, counted from 1, where it is known.
    pub line: Option<usize>,
    /// Why.
    pub reason: Reason,
}

/// Why a file cannot be edited safely.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Reason {
    /// Bytes that are no text.
    #[error("the file is not UTF-8 text; save it as UTF-8")]
    NotUtf8,
    /// Too large to be a configuration file.
    #[error("the file has {bytes} bytes, and more than {MAX_BYTES} are not edited; is it the right file?")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The file does not parse.
    #[error("not valid {format}: {message}; correct the file")]
    Invalid {
        /// As what it was read.
        format: Format,
        /// What the parser says.
        message: String,
    },
    /// Nothing in it, where the format asks for a value.
    #[error("the file has no value in it, which is not valid {format}; write {{}} into it")]
    Empty {
        /// As what it was read.
        format: Format,
    },
    /// `---` between two documents.
    #[error("the file has several YAML documents; only files of one document are edited, so split it")]
    SeveralDocuments,
    /// A tab outside text and comments.
    #[error("a tab between values or in the indentation, which YAML readers take differently; use spaces")]
    Tab,
    /// A block of text that ends with the file and not with a line ending: PyYAML adds one to the text if anything follows.
    #[error(
        "the file ends in a block of text without a line ending, so adding to it would change that text; end the line"
    )]
    OpenBlock,
    /// One key twice.
    #[error(
        "the key '{key}' is there twice (first in line {first_line}) and readers disagree about which one counts; \
         remove one of them"
    )]
    Duplicate {
        /// The key.
        key: String,
        /// Where it stands first.
        first_line: usize,
    },
    /// `&name` on the path.
    #[error(
        "'{key}' has an anchor (&), so a change would reach every alias of it; write the value out instead"
    )]
    Anchor {
        /// The key it is at.
        key: String,
    },
    /// `*name` on the path.
    #[error("'{key}' is an alias (*) of another value; write the value out instead")]
    Alias {
        /// The key it is at.
        key: String,
    },
    /// `<<` on the path.
    #[error(
        "'{key}' takes keys from elsewhere (<<), so it is not certain which value counts; write them out instead"
    )]
    Merge {
        /// The section's key.
        key: String,
    },
    /// `!tag` on the path.
    #[error("'{key}' has an explicit tag (!), which an edit would drop; remove the tag")]
    Tag {
        /// The key it is at.
        key: String,
    },
    /// The path leads on below a single value.
    #[error("'{key}' is a single value, so it has no keys; correct the key path, or make it a section")]
    ThroughScalar {
        /// The key of the value.
        key: String,
    },
    /// The path leads on below a list.
    #[error("'{key}' is a list, and key paths do not lead into lists; correct the key path")]
    ThroughList {
        /// The key of the list.
        key: String,
    },
    /// The path ends at a section.
    #[error("'{key}' is a section; name the keys in it one by one")]
    Section {
        /// The section's key.
        key: String,
    },
    /// The format, or we, cannot write this value.
    #[error(
        "{what} cannot be written as a {format} value; use text, a number, true, false, or a list of these"
    )]
    Unwritable {
        /// The format.
        format: Format,
        /// The kind of value.
        what: &'static str,
    },
    /// A comment inside the value that goes away.
    #[error("the old value has a comment inside, which would be lost; move the comment above the key")]
    Comment,
    /// A value to scale that is not there.
    #[error("the file has no value here that could be scaled; write one, or set a value instead of a scale")]
    NothingToScale,
    /// A value to scale that is no number.
    #[error("{found} is not a number that can be scaled; write a number, or set a value instead of a scale")]
    NotANumber {
        /// What is there.
        found: String,
    },
    /// A value that readers of YAML 1.1 and 1.2 take differently.
    #[error("YAML 1.1 and 1.2 disagree about what {found} means; write a plain decimal number, or quote it")]
    Disputed {
        /// What is there.
        found: String,
    },
    /// A scale that leads to no finite number, or bounds that cross.
    #[error("the scale leads to no usable number; correct its factor, min and max")]
    BadScale,
    /// The edited text was read again and was not what was meant.
    #[error("the edited text would not read back as intended ({detail}); change this value by hand")]
    Misread {
        /// What was wrong with it.
        detail: &'static str,
    },
}

impl EditError {
    pub(super) fn file(line: Option<usize>, reason: Reason) -> Self {
        Self {
            path: None,
            line,
            reason,
        }
    }

    pub(super) fn at(path: &KeyPath, line: impl Into<Option<usize>>, reason: Reason) -> Self {
        Self {
            path: Some(path.clone()),
            line: line.into(),
            reason,
        }
    }

    fn place(&self) -> String {
        match (&self.path, self.line) {
            (Some(path), Some(line)) => format!("{path} (line {line}): "),
            (Some(path), None) => format!("{path}: "),
            (None, Some(line)) => format!("line {line}: "),
            (None, None) => String::new(),
        }
    }
}
