//! One thread of the CUDA program: launches on its own stream, and takes, fills, reads and gives back memory in between.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use plimsoll_sim_cuda::{Cuda, CudaError, Direction, Function, Graph, Stream};

use super::account::{Account, Histogram, Tally};

/// A kernel by name.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) name: String,
    pub(super) function: Function,
    pub(super) duration_ns: u64,
}

/// What is launched: each in turn.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Kernels(Vec<Kernel>),
    /// Graphs with the places of their kernels.
    Graphs(Vec<Kernel>, Vec<(Graph, Vec<usize>)>),
}

/// What one thread has to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    pub(super) place: u32,
    pub(super) launches: u64,
    pub(super) allocations: u64,
    pub(super) keep: u64,
    pub(super) rate: Option<u64>,
    pub(super) latency: bool,
}

/// Pieces that a thread holds at once; beyond it the oldest goes back.
const HELD: usize = 8;
/// How often the others get to know how many launches were made.
const TOLD_EVERY: u64 = 64;

struct Piece {
    address: u64,
    bytes: u64,
    is_pooled: bool,
}

/// One thread at work.
pub(super) struct Worker<'a> {
    cuda: Cuda,
    work: &'a Work,
    launched: &'a AtomicU64,
    stream: Stream,
    /// How often each kernel was launched, or each graph.
    counts: Vec<u64>,
    held: VecDeque<Piece>,
    account: Account,
    latency: Option<Histogram>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(cuda: Cuda, work: &'a Work, launched: &'a AtomicU64) -> Result<Self, CudaError> {
        let things = match work {
            Work::Kernels(kernels) => kernels.len(),
            Work::Graphs(_, graphs) => graphs.len(),
        };
        Ok(Self {
            cuda,
            work,
            launched,
            stream: cuda.stream()?,
            counts: vec![0; things],
            held: VecDeque::new(),
            account: Account::default(),
            latency: None,
        })
    }

    /// Does all of it. Answers what was done.
    pub(super) fn run(mut self, task: &Task) -> Result<(Account, Option<Histogram>), CudaError> {
        self.latency = task.latency.then(Histogram::new);
        let begin = Instant::now();
        let mut allocated = 0;
        let mut told = 0;
        for number in 0..task.launches {
            if let Some(rate) = task.rate {
                keep_pace(begin, number, rate);
            }
            self.launch(number + u64::from(task.place))?;
            // Spread evenly over the launches.
            while allocated < task.allocations * (number + 1) / task.launches {
                self.allocate(allocated)?;
                allocated += 1;
            }
            if (number + 1) % TOLD_EVERY == 0 || task.rate.is_some() {
                self.launched.fetch_add(number + 1 - told, Ordering::Relaxed);
                told = number + 1;
            }
        }
        self.launched.fetch_add(task.launches - told, Ordering::Relaxed);
        for number in allocated..task.allocations {
            self.allocate(number)?;
        }
        while self.held.len() as u64 > task.keep {
            self.give_back()?;
        }
        self.cuda.synchronize_stream(self.stream)?;
        self.close(task.launches);
        Ok((self.account, self.latency))
    }

    #[inline]
    fn launch(&mut self, number: u64) -> Result<(), CudaError> {
        let things = self.counts.len() as u64;
        let place = usize::try_from(number % things).unwrap_or(0);
        self.counts[place] += 1;
        let before = self.latency.as_ref().map(|_| Instant::now());
        match self.work {
            Work::Kernels(kernels) => self.cuda.launch(kernels[place].function, self.stream)?,
            Work::Graphs(_, graphs) => self.cuda.launch_graph(graphs[place].0, self.stream)?,
        }
        if let (Some(before), Some(latency)) = (before, &mut self.latency) {
            latency.add(u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    /// Takes a piece, copies to it and from it, and gives back the oldest one.
    fn allocate(&mut self, number: u64) -> Result<(), CudaError> {
        let bytes = (1 + number % 8) * (1 << 20) + (number % 5) * 512;
        let is_pooled = number % 4 == 3;
        let address = if is_pooled {
            self.cuda.alloc_async(bytes, self.stream)?
        } else {
            self.cuda.alloc(bytes)?
        };
        self.held.push_back(Piece {
            address,
            bytes,
            is_pooled,
        });
        self.account.allocations.taken += 1;
        self.account.allocations.taken_bytes += bytes;
        self.account.allocations.live_bytes += bytes;
        self.copy("htod", Direction::HostToDevice, bytes)?;
        self.copy("dtoh", Direction::DeviceToHost, 4096)?;
        if self.held.len() > HELD {
            self.give_back()
        } else {
            Ok(())
        }
    }

    fn give_back(&mut self) -> Result<(), CudaError> {
        let Some(piece) = self.held.pop_front() else {
            return Ok(());
        };
        if piece.is_pooled {
            self.cuda.free_async(piece.address, self.stream)?;
        } else {
            self.cuda.free(piece.address)?;
        }
        self.account.allocations.freed += 1;
        self.account.allocations.live_bytes -= piece.bytes;
        Ok(())
    }

    fn copy(&mut self, name: &str, direction: Direction, bytes: u64) -> Result<(), CudaError> {
        self.cuda.copy(direction, bytes, Some(self.stream))?;
        let copies = self.account.copies.entry(name.to_owned()).or_default();
        copies.count += 1;
        copies.bytes += bytes;
        copies.total_ns += self.cuda.copy_duration_ns(direction, bytes);
        Ok(())
    }

    /// Makes the counts an account.
    fn close(&mut self, launches: u64) {
        let account = &mut self.account;
        account.launches = launches;
        let mut ran = |kernel: &Kernel, times: u64| {
            let tally = account.kernels.entry(kernel.name.clone()).or_default();
            *tally = Tally {
                count: tally.count + times,
                total_ns: tally.total_ns + times * kernel.duration_ns,
            };
        };
        match self.work {
            Work::Kernels(kernels) => {
                for (kernel, times) in kernels.iter().zip(&self.counts) {
                    ran(kernel, *times);
                }
            }
            Work::Graphs(kernels, graphs) => {
                let mut total_ns = 0;
                for ((_, nodes), times) in graphs.iter().zip(&self.counts) {
                    for node in nodes {
                        ran(&kernels[*node], *times);
                        total_ns += times * kernels[*node].duration_ns;
                    }
                }
                account.graphs = Tally {
                    count: launches,
                    total_ns,
                };
            }
        }
    }
}

/// Waits until it is time for the next launch; what was missed is made up for.
fn keep_pace(begin: Instant, number: u64, rate: u64) {
    let due = Duration::from_nanos(number.saturating_mul(1_000_000_000) / rate.max(1));
    if let Some(wait) = due.checked_sub(begin.elapsed()) {
        std::thread::sleep(wait);
    }
}
