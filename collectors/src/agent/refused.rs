//! Why a connection is not taken.

use std::io;

use plimsoll_trace::wire::HelloError;
use plimsoll_trace::wire::ring::RingError;
use thiserror::Error;

/// Why a connection is not taken. The other end sees it closed; it is counted and logged here.
#[derive(Debug, Error)]
pub(super) enum Refused {
    #[error("it belongs to user {uid}; agents of other users need `[agent] group`")]
    Stranger { uid: u32 },
    #[error("{0} agents are connected already, and no other user may take the last places")]
    TooMany(usize),
    #[error("it hung up, or fell silent, after {got} bytes of its hello")]
    Cut { got: usize },
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error("{0} file descriptors came with its hello; one is expected, the ring's")]
    Descriptors(usize),
    #[error("its ring's memory cannot be used: {0}")]
    NoMemory(io::Error),
    #[error("its ring's memory is not sealed against shrinking (F_SEAL_SHRINK)")]
    Unsealed,
    #[error("it says that its ring has {said} bytes; its memory has {found}")]
    Size { said: u64, found: i64 },
    #[error("its ring is too large: {said} bytes")]
    TooLarge { said: u64 },
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error("the socket fails: {0}")]
    Socket(#[from] io::Error),
}
