//! What the agent in an engine's process tells the daemon, and how it travels.
//!
//! The agent writes [`Frame`]s into a [`ring`] that both sides have mapped. The ring is a memfd of the agent's; it reaches
//! the daemon over the daemon's Unix socket with a [`Hello`]. So whatever was written is readable after the engine was
//! killed, a daemon that is stopped costs the engine nothing, and one that restarts goes on where the last one read.
//!
//! Both sides treat the other's bytes as hostile: every length is checked, a frame that does not decode is skipped and
//! counted, and a frame of an unknown kind is skipped (newer agents may send more).

mod codec;
mod encoding;
mod frame;
mod hello;
pub mod ring;

pub use codec::Malformed;
pub use frame::{
    AllocationEvent, Clock, Copies, CopyStats, Cost, Direction, Frame, KernelStats, Kernels, Levels,
    LossReason, MAX_NAME, MemoryKind, MemoryOperation, Process, Span, Spans, State,
};
pub use hello::{HELLO_LENGTH, Hello, HelloError, Tell, VERSION, window_quarters};
