//! Closed lists of words that the store, the command line and JSON share.

use thiserror::Error;

/// A word that is not in the list.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{word}' is none of {known}")]
pub struct UnknownWord {
    /// What was given.
    pub word: String,
    /// The words that would have been valid, separated by commas.
    pub known: String,
}

/// Declares an enum whose variants have one fixed word each, with `as_str`, `Display`, `FromStr`, serde and `ALL`.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$doc])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// Every variant, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word that stands for it everywhere.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::UnknownWord {
                        word: word.to_owned(),
                        known: [$($word,)+].join(", "),
                    }),
                }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use crate::{EventKind, RunOutcome};

    #[test]
    fn words_round_trip() {
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
            assert_eq!(serde_json::to_string(kind).ok(), Some(format!("\"{kind}\"")));
        }
        let error = "done".parse::<RunOutcome>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "'done' is none of running, ok, failed, killed, out_of_memory, lost"
        );
    }
}
