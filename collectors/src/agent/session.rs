//! One agent: its ring, and how far it was read.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use plimsoll_trace::wire::ring::{Next, Reader};
use plimsoll_trace::wire::{Frame, LossReason, Process, Tell};
use plimsoll_trace::{Record, RunId, Stamp};

use super::dictionary::{Dictionary, Learned, items};
use super::figures::{Figures, Values};
use super::memory::Memory;
use super::peer::Peer;
use super::receipts::Receipts;
use super::standing::Standing;
use super::translate::{Now, Translator};
use super::{AgentId, Progress};

/// A frame waits so long for the names in it; an agent that begins to speak to another daemon tells them again.
const HOLD: Duration = Duration::from_secs(5);
/// So much may wait; more than a ring of the usual size holds.
const MOST_HELD: usize = 131_072;

/// An agent that was taken.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: AgentId,
    pub(super) stream: UnixStream,
    pub(super) peer: Peer,
    /// The run that its records belong to. Until it is known nothing is read: the ring keeps it.
    pub(super) run: Option<RunId>,
    /// The other end is closed; what is in the ring is all that ever will be.
    pub(super) ended: bool,
    pub(super) process: Option<Process>,
    standing: Standing,
    is_standing_told: bool,
    memory: Memory,
    buffer: Vec<u8>,
    words: Dictionary,
    held: VecDeque<Frame>,
    held_items: usize,
    held_since: Option<Stamp>,
    /// Something was learned since the held frames were last looked at.
    learned: bool,
    translator: Translator,
    figures: Figures,
    /// The newest figures, and when.
    pub(super) latest: Option<(Stamp, Values)>,
    receipts: Receipts,
    /// The agent's last word was read.
    has_finished: bool,
    /// Bytes that were read after the end. A ring that somebody goes on filling is not read for ever.
    read_after_end: usize,
}

impl Session {
    /// Takes an agent's ring, if it is one.
    pub(super) fn new(
        id: AgentId,
        stream: UnixStream,
        peer: Peer,
        memory: Memory,
    ) -> Result<Self, super::refused::Refused> {
        Reader::open(memory.words())?;
        let mut translator = Translator::new(peer.pid.unwrap_or(0));
        let unconfirmed = Receipts::unconfirmed(memory.words());
        translator.lose(LossReason::Unconfirmed.as_str(), unconfirmed);
        Ok(Self {
            id,
            stream,
            peer,
            run: None,
            ended: false,
            process: None,
            standing: Standing {
                pid: peer.pid,
                ..Standing::default()
            },
            is_standing_told: false,
            memory,
            buffer: Vec::new(),
            words: Dictionary::default(),
            held: VecDeque::new(),
            held_items: 0,
            held_since: None,
            learned: false,
            translator,
            receipts: Receipts::default(),
            figures: Figures::default(),
            latest: None,
            has_finished: false,
            read_after_end: 0,
        })
    }

    /// Looks whether the other end is still there. It says nothing after its hello; what it says is thrown away.
    pub(super) fn look(&mut self) {
        let mut rest = [0; 256];
        for _ in 0..16 {
            match (&self.stream).read(&mut rest) {
                Ok(0) => self.ended = true,
                Ok(_) => continue,
                Err(error) => match error.kind() {
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted => {}
                    _ => self.ended = true,
                },
            }
            return;
        }
    }

    /// Reads at most `room` records into `out`. Says whether nothing is left, for now.
    pub(super) fn drain(&mut self, at: Stamp, mut room: usize, last: bool, out: &mut Vec<Record>) -> bool {
        let Some(run) = self.run else { return true };
        let now = Now { at, run };
        loop {
            let fits = self.translator.ready.len().min(room);
            out.extend(self.translator.ready.drain(..fits));
            room -= fits;
            if room == 0 {
                return false;
            }
            match self.next_frame() {
                Some(frame) => self.take(frame, now),
                None if self.release(now, last || self.ended) => {}
                None if self.ended && !self.has_finished => {
                    self.has_finished = true;
                    self.translator.cut_off(now);
                }
                None if self.translator.ready.is_empty() => break,
                None => {}
            }
        }
        let values = self.figures.take(last || self.ended);
        if values.iter().any(Option::is_some) {
            self.latest = Some((at, values));
            self.standing.figures(&values);
            self.is_standing_told = false;
        }
        true
    }

    /// What was read is with the store, but for what waits here.
    pub(super) fn delivered(&mut self, progress: Progress) {
        if self.held.is_empty() {
            self.receipts.deliver(self.translator.ready.len(), progress);
        }
    }

    /// Tells the ring what of it is stored.
    pub(super) fn confirm(&mut self, progress: Progress) {
        self.receipts.confirm(self.memory.words(), progress);
    }

    /// What was lost since this was last asked.
    pub(super) fn take_losses(&mut self) -> super::translate::Losses {
        let losses = std::mem::take(&mut self.translator.losses);
        if !losses.is_empty() {
            self.standing.lost(&losses);
            self.is_standing_told = false;
        }
        losses
    }

    /// How the agent stands, if something of that is new.
    pub(super) fn take_standing(&mut self) -> Option<Standing> {
        let is_told = std::mem::replace(&mut self.is_standing_told, true);
        (!is_told).then(|| self.standing.clone())
    }

    /// Says a word to the agent. The socket of one that reads nothing is full after a while; then it is not said.
    pub(super) fn tell(&mut self, tell: Tell) {
        if let Err(error) = (&self.stream).write_all(&[tell.to_byte()]) {
            tracing::debug!(pid = self.peer.pid, %error, "an agent cannot be told");
        }
    }

    /// The next frame that can be read; what cannot be is counted.
    fn next_frame(&mut self) -> Option<Frame> {
        loop {
            if self.ended && self.read_after_end > self.memory.words().len() * size_of::<u64>() {
                return None;
            }
            // The header is looked at anew each time: it is the other process's to spoil.
            let Ok(mut reader) = Reader::open(self.memory.words()) else {
                if !self.ended {
                    self.translator.lose(LossReason::Malformed.as_str(), 1);
                    self.ended = true;
                }
                return None;
            };
            let kind = match reader.next(&mut self.buffer) {
                Next::Frame(kind) => kind,
                Next::Empty => return None,
                Next::Garbage => {
                    self.translator.lose(LossReason::Malformed.as_str(), 1);
                    self.read_after_end += 1;
                    continue;
                }
            };
            self.read_after_end += if self.ended { self.buffer.len() + 8 } else { 0 };
            match Frame::decode(kind, &self.buffer) {
                Ok(Some(frame)) => return Some(frame),
                // Of a kind that only newer agents write.
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(pid = self.peer.pid, %error, "an agent's frame is skipped");
                    self.translator.lose(LossReason::Malformed.as_str(), 1);
                }
            }
        }
    }

    fn take(&mut self, frame: Frame, now: Now) {
        self.receipts.take(self.memory.words(), &frame);
        if self.words.renames(&frame) {
            // What is held was said with the old meaning.
            while self.release(now, true) {}
        }
        match self.words.learn(&frame) {
            Learned::Nothing => {}
            Learned::Known => {
                self.learned = true;
                return;
            }
            Learned::ClockStepped => {
                self.learned = true;
                return self.translator.lose("clock_stepped", 1);
            }
            Learned::Full => return self.translator.lose(LossReason::NamesFull.as_str(), 1),
        }
        if matches!(frame, Frame::Process(_) | Frame::State { .. } | Frame::Cost(_)) {
            self.standing.take(&frame);
            self.is_standing_told = false;
        }
        match &frame {
            Frame::Kernels(kernels) => self.figures.kernels(kernels),
            Frame::Cost(cost) => self.figures.cost(cost),
            Frame::Process(process) => self.process = Some(process.clone()),
            Frame::Finished => self.has_finished = true,
            _ => {}
        }
        if self.words.knows(&frame) {
            return self.translator.translate(frame, &self.words, now);
        }
        self.held_items += items(&frame);
        self.held_since.get_or_insert(now.at);
        self.held.push_back(frame);
        if self.held_items > MOST_HELD {
            self.release(now, true);
        }
    }

    /// Lets go of held frames whose words are known by now; of all when it is the last chance, or they waited long
    /// enough. Says whether there were any.
    fn release(&mut self, now: Now, last: bool) -> bool {
        let Some(since) = self.held_since else {
            return false;
        };
        let give_up = last || now.at.since(since) >= HOLD;
        if !give_up && !std::mem::take(&mut self.learned) {
            return false;
        }
        let mut kept = VecDeque::new();
        let before = self.held.len();
        for frame in std::mem::take(&mut self.held) {
            if give_up || self.words.knows(&frame) {
                self.held_items -= items(&frame);
                self.translator.translate(frame, &self.words, now);
            } else {
                kept.push_back(frame);
            }
        }
        self.held = kept;
        if self.held.is_empty() {
            self.held_since = None;
        }
        self.held.len() < before
    }
}
