//! The first words on the socket.

use std::time::Duration;

use thiserror::Error;

/// The version of the ring's layout and of the frames. A daemon takes frames of this version and of none newer.
pub const VERSION: u32 = 1;

/// How long a [`Hello`] is.
pub const HELLO_LENGTH: usize = 16;

/// Told first by an agent that connects; with it comes one file descriptor, the ring's. The socket speaks JSON lines to
/// everybody else, and no JSON begins like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The agent's [`VERSION`].
    pub version: u32,
    /// The whole size of the ring's memory, bytes.
    pub bytes: u32,
}

/// Why a hello is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HelloError {
    /// It does not begin with the magic word.
    #[error("not an agent's hello")]
    Foreign,
    /// It comes from a newer agent.
    #[error("the agent speaks version {0} of the ring; this daemon knows versions up to {VERSION}")]
    Newer(u32),
}

const MAGIC: [u8; 8] = *b"PLIMAGNT";

impl Hello {
    /// As it travels.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HELLO_LENGTH] {
        let mut bytes = [0; HELLO_LENGTH];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..].copy_from_slice(&self.bytes.to_le_bytes());
        bytes
    }

    /// Whether the first byte of a connection can be the beginning of a hello.
    #[must_use]
    pub const fn may_begin(byte: u8) -> bool {
        byte == MAGIC[0]
    }

    /// Reads what came.
    ///
    /// # Errors
    /// When it is not a hello, or one of a newer version.
    pub fn from_bytes(bytes: &[u8; HELLO_LENGTH]) -> Result<Self, HelloError> {
        let number = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(word)
        };
        if bytes[..8] != MAGIC {
            return Err(HelloError::Foreign);
        }
        let version = number(8);
        if version > VERSION {
            return Err(HelloError::Newer(version));
        }
        Ok(Self {
            version,
            bytes: number(12),
        })
    }
}

/// What the daemon may tell an agent, one byte each, over the same socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// Stop tracing and let another profiler have CUPTI; stay connected.
    Yield,
    /// Trace again after a yield.
    Resume,
    /// Open a window of raw spans now, outside the agent's own rhythm.
    Window,
    /// The same, for so many quarters of a second, 1 to 127; see [`window_quarters`].
    WindowOf(u8),
}

/// What a byte says of a window's length; no other word has this bit.
const WINDOW_OF: u8 = 0x80;

/// A window's length in quarters of a second, rounded up, as [`Tell::WindowOf`] has it.
#[must_use]
pub fn window_quarters(length: Duration) -> u8 {
    let quarters = length.as_millis().div_ceil(250).clamp(1, 127);
    u8::try_from(quarters).unwrap_or(127)
}

impl Tell {
    /// As it travels.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Yield => b'y',
            Self::Resume => b'r',
            Self::Window => b'w',
            Self::WindowOf(quarters) => WINDOW_OF | quarters,
        }
    }

    /// What a byte says; `None` for what only a newer daemon says.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'y' => Some(Self::Yield),
            b'r' => Some(Self::Resume),
            b'w' => Some(Self::Window),
            _ if byte > WINDOW_OF => Some(Self::WindowOf(byte & !WINDOW_OF)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hello_round_trips_and_is_checked() {
        let hello = Hello {
            version: VERSION,
            bytes: 1 << 22,
        };
        let bytes = hello.to_bytes();
        assert!(Hello::may_begin(bytes[0]));
        assert!(!Hello::may_begin(b'{'));
        assert_eq!(Hello::from_bytes(&bytes), Ok(hello));
        let newer = Hello { version: 2, ..hello };
        assert_eq!(Hello::from_bytes(&newer.to_bytes()), Err(HelloError::Newer(2)));
        assert_eq!(Hello::from_bytes(&[0; 16]), Err(HelloError::Foreign));
    }

    #[test]
    fn what_is_told_round_trips() {
        let lengths = (1..=127).map(Tell::WindowOf);
        for tell in [Tell::Yield, Tell::Resume, Tell::Window]
            .into_iter()
            .chain(lengths)
        {
            assert_eq!(Tell::from_byte(tell.to_byte()), Some(tell));
        }
        assert_eq!((Tell::from_byte(0), Tell::from_byte(WINDOW_OF)), (None, None));
        let quarters = |ms| window_quarters(Duration::from_millis(ms));
        assert_eq!([0, 250, 251, 5_000, 1 << 40].map(quarters), [1, 1, 2, 20, 127]);
    }
}
