//! What CUPTI's functions return.

use std::fmt;

/// A `CUptiResult`. Other numbers than those named here occur; they are shown as numbers.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Answer(pub u32);

macro_rules! answers {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)+) => {
        impl Answer {
            $($(#[$doc])* pub const $name: Self = Self($number);)+

            /// NVIDIA's word for it without the prefix, where it is one of those named here.
            #[must_use]
            pub const fn word(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)+
                    _ => None,
                }
            }
        }
    };
}

answers! {
    /// It was done.
    SUCCESS = 0;
    /// An argument is not valid.
    INVALID_PARAMETER = 1;
    /// There is no further record in the buffer.
    MAX_LIMIT_REACHED = 12;
    /// Another kind of use of CUPTI excludes this one.
    NOT_COMPATIBLE = 14;
    /// CUPTI could not start: no driver, or one that is older than CUPTI.
    NOT_INITIALIZED = 15;
    /// This version does not know the activity kind.
    INVALID_KIND = 21;
    /// The hardware is in use by another profiler.
    HARDWARE_BUSY = 26;
    /// The platform does not support it.
    NOT_SUPPORTED = 27;
    /// The user may not.
    INSUFFICIENT_PRIVILEGES = 35;
    /// Somebody else subscribed already.
    MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED = 39;
    /// Something else.
    UNKNOWN = 999;
}

impl Answer {
    /// What it means for whoever wanted to record, where that is known.
    #[must_use]
    pub const fn meaning(self) -> Option<&'static str> {
        Some(match self {
            Self::NOT_COMPATIBLE => "another profiler uses CUPTI in a way that excludes this",
            Self::NOT_INITIALIZED => "there is no driver, or it is older than this CUPTI",
            Self::INVALID_KIND => "this version does not know it",
            Self::HARDWARE_BUSY => "another profiler has the hardware",
            Self::NOT_SUPPORTED => "it is not supported here",
            Self::INSUFFICIENT_PRIVILEGES => "this user may not profile",
            Self::MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED => "another profiler has subscribed",
            _ => return None,
        })
    }

    /// `Ok` for [`Answer::SUCCESS`].
    ///
    /// # Errors
    /// For everything else.
    pub const fn done(self) -> Result<(), Self> {
        if self.0 == 0 { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.word() {
            Some(word) => write!(f, "{} ({word})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

impl std::error::Error for Answer {}
