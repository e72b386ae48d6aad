//! What the caching allocator holds, told once a second over the daemon's socket in the words of Plimsoll's helper for PyTorch.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::memory::Memory;

const INTERVAL: Duration = Duration::from_secs(1);
/// No answer is longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Has a thread of its own, so that the engine never waits for the daemon.
pub(super) struct Reporter {
    latest: Arc<Mutex<Memory>>,
}

impl Reporter {
    /// Begins to report; `None` when there is no thread to be had.
    pub(super) fn start(socket: PathBuf, uuid: &str) -> Option<Self> {
        let latest = Arc::new(Mutex::new(Memory::default()));
        let (read, uuid) = (Arc::clone(&latest), uuid.to_owned());
        let run = move || {
            loop {
                // No daemon, or none any more: one that comes later is told.
                let _ended = report(&socket, &uuid, &read);
                std::thread::sleep(INTERVAL);
            }
        };
        let thread = std::thread::Builder::new().name("pytorch".to_owned());
        thread.spawn(run).ok().map(|_| Self { latest })
    }

    pub(super) fn tell(&self, memory: &Memory) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = *memory;
    }
}

fn report(socket: &Path, uuid: &str, latest: &Mutex<Memory>) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    let mut wants_largest = false;
    loop {
        let memory = *latest.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.weights_bytes > 0 {
            let sample = sample(&memory, uuid, wants_largest);
            writeln!(stream, "{sample}")?;
            line.clear();
            if answers.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let answer: Value = serde_json::from_str(&line).unwrap_or_default();
            wants_largest = answer["snapshot"] == json!(true);
        }
        std::thread::sleep(INTERVAL);
    }
}

/// In PyTorch's words the weights are tensors too.
fn sample(memory: &Memory, uuid: &str, wants_largest: bool) -> Value {
    let allocated = memory.weights_bytes + memory.allocated_bytes();
    let reserved = allocated + memory.allocator_slack_bytes;
    let mut sample = json!({
        "request": "allocator",
        "pid": std::process::id(),
        "device": uuid,
        "allocated_bytes": allocated,
        "active_bytes": allocated,
        "reserved_bytes": reserved,
        "inactive_split_bytes": memory.stuck_bytes,
    });
    if wants_largest {
        // The cache that can be given back is whole segments; what is stuck lies in many small pieces.
        sample["largest_free_bytes"] = json!(memory.allocator_slack_bytes - memory.stuck_bytes);
    }
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_pytorchs() {
        let memory = Memory {
            context_bytes: 1 << 30,
            weights_bytes: 1000,
            kv_bytes: 200,
            activation_bytes: 50,
            leaked_bytes: 0,
            allocator_slack_bytes: 100,
            stuck_bytes: 40,
        };
        let told = sample(&memory, "GPU-1", true);
        let figures = [
            "allocated_bytes",
            "reserved_bytes",
            "inactive_split_bytes",
            "largest_free_bytes",
        ];
        let figures = figures.map(|name| told[name].as_u64());
        assert_eq!(figures, [1250, 1350, 40, 60].map(Some));
        assert_eq!(sample(&memory, "GPU-1", false).get("largest_free_bytes"), None);
    }
}
