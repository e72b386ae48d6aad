//! The thread: carries orders out, sleeps on the agents' sockets, and reads their rings.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_trace::wire::Tell;
use plimsoll_trace::{Batch, DeviceId, Event, EventKind, Loss, Record, RunId, Stamp, Traced, Work};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde_json::json;

use super::accounts::Accounts;
use super::figures::{self, BUSY_RATIO, SIGNALS, Values};
use super::greeting::Greeting;
use super::holding::Pool;
use super::memory::Memory;
use super::orders::{Order, Orders};
use super::peer::{Peer, has_place, lineage};
use super::refused::Refused;
use super::session::{Left, Session};
use super::{AgentId, AgentReport, Arrival, DeliverAgents, Room, Stored};
use crate::proc;
use crate::processes::{Lookout, ProcessId};

/// The most agents at a time; each has a ring mapped.
const MOST: usize = 256;
/// Records of one agent in one pass, so that none has to wait long for the others.
const MOST_AT_ONCE: usize = 4_096;
/// Losses are told this often at most.
const LOSSES_EVERY: Duration = Duration::from_secs(1);
/// Rings are read at least this often.
const EVERY: Duration = Duration::from_secs(1);
/// How long the thread waits for the store to make room, or for the rest of a hello.
const SOON: Duration = Duration::from_millis(20);
/// How often a refusal is told.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Figures of a process that says nothing new for so long are left out of its run's.
const FRESH: Duration = Duration::from_secs(5);

/// Somebody waits until what was written by then is delivered.
struct Flush {
    /// Whose, and how far they must be read; of those who had not said their hello, that is not known.
    owed: BTreeMap<AgentId, Option<u64>>,
    done: Box<dyn FnOnce() + Send>,
}

/// Everybody who is connected.
pub(super) struct Sessions {
    deliver: DeliverAgents,
    room: Room,
    stored: Stored,
    greetings: Vec<Greeting>,
    sessions: Vec<Session>,
    last_id: u64,
    own_uid: u32,
    /// By run and reason.
    losses: BTreeMap<(Option<RunId>, &'static str), u64>,
    losses_told: Option<Stamp>,
    events: Vec<Event>,
    refusal_told: Option<Stamp>,
    signals: [Arc<str>; SIGNALS.len()],
    flushes: Vec<Flush>,
    pool: Pool,
    accounts: Accounts,
    /// Somebody takes in what is delivered. What nobody does stays in the rings, or counts as not confirmed.
    is_heard: bool,
    /// Nothing more will come: what was held back for a name goes without.
    last: bool,
}

impl Flush {
    /// Takes note that a ring was read, and how far.
    fn read(&mut self, session: &Session, rest: Left) {
        let Some(goal) = self.owed.get_mut(&session.id) else {
            return;
        };
        let goal = *goal.get_or_insert_with(|| session.written());
        // What is beyond an agent's share comes later.
        if rest != Left::More || (session.read() >= goal && session.is_delivered()) {
            self.owed.remove(&session.id);
        }
    }
}

impl Sessions {
    pub(super) fn new(deliver: DeliverAgents, room: Room, stored: Stored) -> Self {
        Self {
            deliver,
            room,
            stored,
            greetings: Vec::new(),
            sessions: Vec::new(),
            last_id: 0,
            own_uid: rustix::process::geteuid().as_raw(),
            losses: BTreeMap::new(),
            events: Vec::new(),
            refusal_told: None,
            signals: SIGNALS.map(Arc::from),
            flushes: Vec::new(),
            pool: Pool::default(),
            accounts: Accounts::default(),
            losses_told: None,
            is_heard: true,
            last: false,
        }
    }

    /// Until it is told to stop.
    pub(super) fn run(mut self, orders: &Orders) {
        let mut wait = EVERY;
        loop {
            self.sleep(orders, wait);
            let mut at = None;
            for order in orders.take() {
                match order {
                    Order::Stop => return self.confirm(),
                    Order::Tick(stamp) => at = Some(stamp),
                    Order::Take(stream, peer) => self.meet(stream, peer),
                    Order::Refuse(peer) => self.refuse(peer, &Refused::Stranger { uid: peer.uid }),
                    Order::Bind(agent, run) => self.bind(agent, run),
                    Order::Tell(agents, tell) => self.tell(&agents, tell),
                    Order::Flush { last, done } => {
                        self.last |= last;
                        self.begin_flush(done);
                    }
                }
            }
            let at = at.unwrap_or_else(Stamp::now);
            self.greet(at);
            let is_empty = self.pass(at);
            wait = if is_empty && self.greetings.is_empty() {
                EVERY
            } else {
                SOON
            };
        }
    }

    /// Until something is to be done, or for so long.
    fn sleep(&mut self, orders: &Orders, wait: Duration) {
        let mut descriptors = vec![PollFd::from_borrowed_fd(orders.wake(), PollFlags::IN)];
        let greetings = self.greetings.iter().map(|greeting| greeting.stream.as_fd());
        // One that ended and waits for its run has nothing more to say.
        let alive = self.sessions.iter().filter(|session| !session.ended);
        let streams = greetings.chain(alive.map(|session| session.stream.as_fd()));
        descriptors.extend(streams.map(|stream| PollFd::from_borrowed_fd(stream, PollFlags::IN)));
        let timeout = Timespec::try_from(wait).unwrap_or_default();
        match poll(&mut descriptors, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                tracing::warn!(%error, "the agents' sockets cannot be watched");
                std::thread::sleep(EVERY);
            }
        }
        let first = 1 + self.greetings.len();
        let said: Vec<bool> = descriptors[first..]
            .iter()
            .map(|descriptor| !descriptor.revents().is_empty())
            .collect();
        drop(descriptors);
        let alive = self.sessions.iter_mut().filter(|session| !session.ended);
        for (session, said) in alive.zip(said) {
            if said {
                session.look();
            }
        }
    }

    fn meet(&mut self, stream: UnixStream, peer: Peer) {
        let sessions = self.sessions.iter().map(|session| session.peer.uid);
        let greetings = self.greetings.iter().map(|greeting| greeting.peer.uid);
        let users: Vec<u32> = sessions.chain(greetings).collect();
        if !has_place(&users, peer.uid, self.own_uid, MOST) {
            return self.refuse(peer, &Refused::TooMany(users.len()));
        }
        self.last_id += 1;
        match Greeting::new(AgentId(self.last_id), stream, peer, Stamp::now()) {
            Ok(greeting) => self.greetings.push(greeting),
            Err(error) => self.refuse(peer, &Refused::Socket(error)),
        }
    }

    /// Each refusal is counted; one a minute is told at length, because whoever knocks may do so for ever.
    fn refuse(&mut self, peer: Peer, why: &Refused) {
        *self.losses.entry((None, "refused")).or_default() += 1;
        let now = Stamp::now();
        if self.refusal_told.is_some_and(|told| now.since(told) < TELL_EVERY) {
            return;
        }
        self.refusal_told = Some(now);
        tracing::warn!(pid = peer.pid, uid = peer.uid, "an agent is not taken: {why}");
        let of = peer
            .pid
            .map_or_else(|| "another namespace".to_owned(), |pid| format!("process {pid}"));
        let event = Event::new(
            EventKind::AgentDegraded,
            format!("the agent of {of} is not taken: {why}"),
        );
        let detail = json!({ "pid": peer.pid, "uid": peer.uid, "state": "refused" });
        self.events.push(event.with_detail(detail));
    }

    /// Listens to those who have not said their whole hello.
    fn greet(&mut self, now: Stamp) {
        for mut greeting in std::mem::take(&mut self.greetings) {
            let peer = greeting.peer;
            match greeting.receive(now) {
                Ok(None) => self.greetings.push(greeting),
                Ok(Some((hello, descriptor))) => {
                    let id = greeting.id;
                    let session = Memory::map(&descriptor, hello).and_then(|memory| {
                        let (pool, accounts) = (&self.pool, &mut self.accounts);
                        Session::new(id, greeting.stream, peer, memory, pool, accounts, now)
                    });
                    match session {
                        Ok(session) => {
                            self.sessions.push(session);
                            self.deliver(AgentReport::Arrived(arrival(id, peer)));
                        }
                        Err(why) => self.refuse(peer, &why),
                    }
                }
                Err(why) => self.refuse(peer, &why),
            }
        }
    }

    fn tell(&mut self, agents: &[AgentId], tell: Tell) {
        let told = self
            .sessions
            .iter_mut()
            .filter(|session| agents.contains(&session.id));
        told.for_each(|session| session.tell(tell));
    }

    fn bind(&mut self, agent: AgentId, run: RunId) {
        if let Some(session) = self.sessions.iter_mut().find(|session| session.id == agent) {
            session.run = Some(run);
        }
    }

    /// Says whether it was taken in.
    fn deliver(&mut self, report: AgentReport) -> bool {
        self.is_heard = (self.deliver)(report) && self.is_heard;
        self.is_heard
    }

    /// Tells rings what of them is stored.
    fn confirm(&mut self) {
        let progress = (self.stored)();
        for session in &mut self.sessions {
            session.confirm(progress);
        }
    }

    /// Reads every ring once, as far as there is room. Says whether nothing is left that may be read soon.
    fn pass(&mut self, at: Stamp) -> bool {
        self.confirm();
        if !self.is_heard {
            // Nothing more will come, so nobody need wait for it.
            self.flushes.drain(..).for_each(|flush| (flush.done)());
            return true;
        }
        let room = (self.room)();
        let mut batch = Batch::new(at);
        let mut is_empty = true;
        let mut left = Vec::new();
        let mut standings = Vec::new();
        let mut introduced = Vec::new();
        for session in self.sessions.iter_mut().filter(|session| session.run.is_some()) {
            let room = room.saturating_sub(batch.records.len()).min(MOST_AT_ONCE);
            let rest = session.drain(at, room, self.last, &mut batch.records);
            is_empty &= rest != Left::More;
            for (reason, count) in session.take_losses() {
                let sum = self.losses.entry((session.run, reason)).or_default();
                *sum = sum.saturating_add(count);
            }
            if let (Some(run), Some(process)) = (session.run, session.process.take()) {
                introduced.push(AgentReport::Introduced { run, process });
            }
            standings.extend(session.take_standing().map(|standing| (session.id, standing)));
            if rest == Left::Nothing && session.ended {
                left.push(session.id);
            }
            for flush in &mut self.flushes {
                flush.read(session, rest);
            }
        }
        for report in introduced {
            self.deliver(report);
        }
        // Whoever was served first is last the next time.
        if !self.sessions.is_empty() {
            self.sessions.rotate_left(1);
        }
        self.add_signals(at, &mut batch);
        batch.records.extend(self.events.drain(..).map(Record::Event));
        let is_due = |told: Stamp| at.since(told) >= LOSSES_EVERY;
        if !left.is_empty() || !self.flushes.is_empty() || self.losses_told.is_none_or(is_due) {
            self.tell_losses(&mut batch);
        }
        if !batch.records.is_empty() {
            if !self.deliver(AgentReport::Work(batch)) {
                return true;
            }
            let progress = (self.stored)();
            self.sessions
                .iter_mut()
                .for_each(|session| session.delivered(progress));
        }
        if !standings.is_empty() {
            self.deliver(AgentReport::Standings(standings));
        }
        self.sessions.retain(|session| !left.contains(&session.id));
        for agent in left {
            self.deliver(AgentReport::Left(agent));
        }
        self.end_flushes();
        is_empty
    }

    fn tell_losses(&mut self, batch: &mut Batch) {
        if self.losses.is_empty() {
            return;
        }
        self.losses_told = Some(batch.at);
        for ((run, reason), count) in std::mem::take(&mut self.losses) {
            let loss = Loss::new("agent", reason, count).in_run(run);
            batch.records.push(Record::Loss(loss));
        }
    }

    fn begin_flush(&mut self, done: Box<dyn FnOnce() + Send>) {
        let greetings = self.greetings.iter().map(|greeting| (greeting.id, None));
        let sessions = self
            .sessions
            .iter()
            .map(|session| (session.id, Some(session.written())));
        let owed = greetings.chain(sessions).collect();
        self.flushes.push(Flush { owed, done });
    }

    fn end_flushes(&mut self) {
        let (greetings, sessions) = (&self.greetings, &self.sessions);
        let is_here = |id: &AgentId| {
            greetings.iter().any(|greeting| greeting.id == *id)
                || sessions.iter().any(|session| session.id == *id)
        };
        for flush in &mut self.flushes {
            flush.owed.retain(|id, _| is_here(id));
        }
        let done = self.flushes.extract_if(.., |flush| flush.owed.is_empty());
        done.for_each(|flush| (flush.done)());
    }

    /// The figures of each run of which an agent told something new.
    fn add_signals(&self, at: Stamp, batch: &mut Batch) {
        let mut runs: BTreeMap<RunId, (u32, Vec<Values>, bool)> = BTreeMap::new();
        let mut busy: BTreeMap<RunId, Vec<(Option<DeviceId>, f64)>> = BTreeMap::new();
        for session in &self.sessions {
            if let (Some(run), Some((then, values))) = (session.run, session.latest)
                && at.since(then) <= FRESH
            {
                let (_, all, is_new) = runs
                    .entry(run)
                    .or_insert_with(|| (session.peer.pid.unwrap_or(0), Vec::new(), false));
                all.push(values);
                busy.entry(run).or_default().extend(session.busy.iter().cloned());
                *is_new |= then == at;
            }
        }
        for (run, (pid, all, is_new)) in runs {
            if !is_new {
                continue;
            }
            let mut values = figures::merged(all.into_iter());
            values[BUSY_RATIO] = figures::busiest(busy.remove(&run).into_iter().flatten());
            for (signal, value) in self.signals.iter().zip(values) {
                if let Some(value) = value {
                    batch.records.push(Record::Traced(Traced {
                        pid,
                        run: Some(run),
                        device: None,
                        work: Work::Signal {
                            signal: Arc::clone(signal),
                            value,
                        },
                    }));
                }
            }
        }
    }
}

/// Who arrived, as far as it can be seen while it lives.
fn arrival(agent: AgentId, peer: Peer) -> Arrival {
    let lineage = peer.pid.map(lineage).unwrap_or_default();
    let executable = |process: &ProcessId| proc::executable(process.pid).ok();
    let own = lineage.first().and_then(executable);
    let root = lineage
        .iter()
        .take_while(|process| own.is_some() && executable(process) == own)
        .last()
        .or(lineage.first())
        .copied();
    Arrival {
        agent,
        pid: peer.pid,
        uid: peer.uid,
        command: root.and_then(|root| proc::command(root.pid)),
        executable: own,
        lookout: root.map(Lookout::new),
        root,
        lineage,
    }
}
