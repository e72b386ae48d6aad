//! One agent: its ring, and how far it was read.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use plimsoll_trace::wire::ring::{Next, Reader};
use plimsoll_trace::wire::{Frame, LossReason, Malformed, Process, Tell};
use plimsoll_trace::{DeviceId, Record, RunId, Stamp};

use super::accounts::Accounts;
use super::dictionary::{Dictionary, Learned, items};
use super::figures::{Figures, Values};
use super::holding::{Holding, Pool};
use super::memory::Memory;
use super::peer::Peer;
use super::quota::{self, Account, Share};
use super::receipts::Receipts;
use super::standing::Standing;
use super::translate::{Now, Translator};
use super::{AgentId, Progress};
use crate::proc;

/// A frame waits so long for the names in it; an agent that begins to speak to another daemon tells them again.
const HOLD: Duration = Duration::from_secs(5);
/// So many bytes may wait: more than a ring of the usual size holds.
const MOST_HELD: usize = 5 << 20;
/// So much is read of one agent in one pass, so that none has to wait long for the others.
const IN_A_PASS: u64 = 4_096;
/// So many records of held frames are made at a time.
const MOST_READY: usize = 4_096;
/// How long a process may have lived of which it cannot be seen any more.
const UNSEEN: Duration = Duration::from_secs(3_600);

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
    /// The frame that was read last, and of which kind it is.
    buffer: Vec<u8>,
    kind: u16,
    words: Dictionary,
    /// Frames as they came, which is smaller than what they say.
    held: VecDeque<(u16, Box<[u8]>)>,
    holding: Holding,
    held_since: Option<Stamp>,
    /// What was read last, and waits until records of held frames have been delivered.
    postponed: Option<Frame>,
    /// Something was learned since the held frames were last looked at.
    learned: bool,
    translator: Translator,
    figures: Figures,
    /// The newest figures, and when.
    pub(super) latest: Option<(Stamp, Values)>,
    /// With them, for which share of the time each device was busy.
    pub(super) busy: Vec<(Option<DeviceId>, f64)>,
    receipts: Receipts,
    /// The agent's last word was read.
    has_finished: bool,
    share: Share,
    /// Words that were read so far.
    read: u64,
    /// Bytes that were read after the end. A ring that somebody goes on filling is not read for ever.
    read_after_end: usize,
}

/// What a pass left in an agent's ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing, for now.
    Nothing,
    /// Some; the others come first.
    More,
    /// What is beyond the agent's share.
    BeyondItsShare,
}

/// What looking for a frame found.
enum Found {
    Frame(Frame),
    Nothing,
    /// What may be read in this pass is used up.
    Spent,
}

impl Session {
    /// Takes an agent's ring, if it is one.
    pub(super) fn new(
        id: AgentId,
        stream: UnixStream,
        peer: Peer,
        memory: Memory,
        pool: &Pool,
        accounts: &mut Accounts,
        now: Stamp,
    ) -> Result<Self, super::refused::Refused> {
        Reader::open(memory.words())?;
        let process = peer.pid.and_then(proc::identity);
        let unseen = i64::try_from(UNSEEN.as_nanos()).unwrap_or(0);
        let account = process.map_or_else(
            || Rc::new(RefCell::new(Account::new(now.before(unseen)))),
            |process| accounts.of(process, now),
        );
        let mut translator = Translator::new(peer.pid.unwrap_or(0), account);
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
            kind: 0,
            words: Dictionary::new(pool),
            held: VecDeque::new(),
            holding: Holding::new(pool.clone(), MOST_HELD),
            held_since: None,
            postponed: None,
            learned: false,
            translator,
            receipts: Receipts::default(),
            figures: Figures::default(),
            latest: None,
            busy: Vec::new(),
            has_finished: false,
            share: Share::new(now),
            read: 0,
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

    /// Reads at most `room` records into `out`, and no more than the agent's share. Says what is left in the ring.
    pub(super) fn drain(&mut self, at: Stamp, mut room: usize, last: bool, out: &mut Vec<Record>) -> Left {
        let Some(run) = self.run else {
            return Left::Nothing;
        };
        let now = Now { at, run };
        // What one that has ended left behind is no more than a ring, and nobody would read it later.
        let share = if self.ended { u64::MAX } else { self.share.left(at) };
        let mut units = share.min(IN_A_PASS);
        loop {
            let fits = self.translator.ready.len().min(room);
            out.extend(self.translator.ready.drain(..fits));
            room -= fits;
            if room == 0 {
                return Left::More;
            }
            if let Some(frame) = self.postponed.take() {
                self.understand(frame, now);
                continue;
            }
            match self.next_frame(&mut units) {
                Found::Frame(frame) => self.take(frame, now),
                Found::Spent if !self.translator.ready.is_empty() => {}
                Found::Spent if share < IN_A_PASS => return Left::BeyondItsShare,
                Found::Spent => return Left::More,
                Found::Nothing if self.release(now, last || self.ended) => {}
                Found::Nothing if self.ended && !self.has_finished => {
                    self.has_finished = true;
                    self.translator.cut_off(now);
                }
                Found::Nothing if self.translator.ready.is_empty() => break,
                Found::Nothing => {}
            }
        }
        let values = self.figures.take(last || self.ended);
        if values.iter().any(Option::is_some) {
            self.latest = Some((at, values));
            let named = |(index, share): &(u32, f64)| (self.words.device(*index), *share);
            self.busy = self.figures.busy_ratios().iter().map(named).collect();
            self.standing.figures(&values);
            self.is_standing_told = false;
        }
        Left::Nothing
    }

    /// How far it was read, in words since it was taken.
    pub(super) const fn read(&self) -> u64 {
        self.read
    }

    /// Whether nothing waits of what was read.
    pub(super) fn is_delivered(&self) -> bool {
        self.translator.ready.is_empty() && self.postponed.is_none()
    }

    /// How far it must be read until all is that has been written by now.
    pub(super) fn written(&self) -> u64 {
        let waiting = Reader::open(self.memory.words()).map_or(0, |reader| reader.waiting());
        self.read.saturating_add(waiting)
    }

    /// What was read is with the store, but for what waits here.
    pub(super) fn delivered(&mut self, progress: Progress) {
        if self.held.is_empty() && self.postponed.is_none() {
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

    /// The next frame that can be read; what cannot be is counted. Whatever is found uses `units` up: a ring that says
    /// nothing at great length is not read for ever.
    fn next_frame(&mut self, units: &mut u64) -> Found {
        while *units > 0 {
            if self.ended && self.read_after_end > self.memory.words().len() * size_of::<u64>() {
                return Found::Nothing;
            }
            // The header is looked at anew each time: it is the other process's to spoil.
            let Ok(mut reader) = Reader::open(self.memory.words()) else {
                if !self.ended {
                    self.translator.lose(LossReason::Malformed.as_str(), 1);
                    self.ended = true;
                }
                return Found::Nothing;
            };
            let waiting = reader.waiting();
            let next = reader.next(&mut self.buffer);
            let (words, decoded) = match next {
                Next::Empty => return Found::Nothing,
                Next::Garbage => (waiting, Err(Malformed("no frame"))),
                Next::Frame(kind) => (
                    1 + self.buffer.len().div_ceil(8) as u64,
                    Frame::decode(kind, &self.buffer),
                ),
            };
            self.read = self.read.saturating_add(words);
            self.read_after_end += if self.ended { self.buffer.len() + 8 } else { 0 };
            let count = decoded
                .as_ref()
                .map_or(0, |frame| frame.as_ref().map_or(0, items));
            let cost = quota::units(count, self.buffer.len());
            self.share.spend(cost);
            *units = units.saturating_sub(cost);
            match (decoded, next) {
                (Ok(Some(frame)), Next::Frame(kind)) => {
                    self.kind = kind;
                    return Found::Frame(frame);
                }
                // Of a kind that only newer agents write.
                (Ok(_), _) => {}
                (Err(error), _) => {
                    tracing::debug!(pid = self.peer.pid, %error, "an agent's frame is skipped");
                    self.translator.lose(LossReason::Malformed.as_str(), 1);
                }
            }
        }
        Found::Spent
    }

    fn take(&mut self, frame: Frame, now: Now) {
        self.receipts.take(self.memory.words(), &frame);
        self.understand(frame, now);
    }

    /// Takes in the frame that was read last, or postpones it.
    fn understand(&mut self, frame: Frame, now: Now) {
        // What is held was said with the old meaning of a name, or must make room.
        while self.words.renames(&frame)
            || !(self.words.knows(&frame) || self.holding.fits(self.buffer.len()))
        {
            if self.translator.ready.len() >= MOST_READY {
                self.postponed = Some(frame);
                return;
            }
            if !self.release(now, true) {
                break;
            }
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
        if !self.holding.take(self.buffer.len()) {
            return self.translator.translate(frame, &self.words, now);
        }
        self.held_since.get_or_insert(now.at);
        self.held.push_back((self.kind, self.buffer.as_slice().into()));
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
        while let Some((kind, bytes)) = self.held.pop_front() {
            // What was read once can be read again.
            let Ok(Some(frame)) = Frame::decode(kind, &bytes) else {
                continue;
            };
            if give_up || self.words.knows(&frame) {
                self.holding.give_back(bytes.len());
                self.translator.translate(frame, &self.words, now);
            } else {
                kept.push_back((kind, bytes));
            }
            // Records are larger than frames: the rest follows when these are delivered.
            if self.translator.ready.len() >= MOST_READY {
                self.learned = true;
                break;
            }
        }
        let after = kept.len() + self.held.len();
        kept.append(&mut self.held);
        self.held = kept;
        if self.held.is_empty() {
            self.held_since = None;
        }
        after < before
    }
}
