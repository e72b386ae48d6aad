//! How traced work becomes rows. Totals are added up over one commit before they are stored, so that a name costs one
//! row of a statement, however many processes launched it how often.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use plimsoll_trace::{Allocation, AllocatorSample, CopyWindow, KernelSpan, KernelWindow, Traced, Work};
use sqlx::SqliteConnection;

use crate::kernels::{Kernels, Key};
use crate::rows::{Blocks, number};
use crate::script::Script;

/// How long a row of `_kernel_minute` is.
const MINUTE_NS: i64 = 60_000_000_000;
/// Totals end here, launches and ns; see [`KERNEL`].
pub(crate) const MOST_IN_ALL: i64 = 1 << 56;
pub(crate) const MOST_IN_A_BUCKET: i64 = 1 << 48;

static WINDOW: LazyLock<Blocks> = LazyLock::new(|| Blocks::new("_kernel_window", 8));
static SPAN: LazyLock<Blocks> = LazyLock::new(|| Blocks::new("_kernel_span", 5));
static COPY_WINDOW: LazyLock<Blocks> = LazyLock::new(|| Blocks::new("_copy_window", 9));
static ALLOCATION: LazyLock<Blocks> = LazyLock::new(|| {
    Blocks::new(
        "_allocation (at_ns, run_id, device_id, pid, operation, kind, address, bytes)",
        8,
    )
});
static ALLOCATOR: LazyLock<Blocks> = LazyLock::new(|| Blocks::new("_allocator_raw", 15));

// Totals end at 2^56 (of ns, two years of one kernel) and buckets at 2^48: beyond 64 bits SQLite's sums are errors, and one
// row like that would make every query over all runs fail.
static KERNEL: LazyLock<Blocks> = LazyLock::new(|| {
    Blocks::adding(
        "_kernel (id, run_id, device_id, name_id, count, total_ns, min_ns, max_ns)",
        8,
        " ON CONFLICT DO UPDATE SET count = min(count + excluded.count, 72057594037927936),
              total_ns = min(total_ns + excluded.total_ns, 72057594037927936),
              min_ns = min(coalesce(min_ns, excluded.min_ns), excluded.min_ns),
              max_ns = max(coalesce(max_ns, excluded.max_ns), excluded.max_ns)",
    )
});
static BUCKET: LazyLock<Blocks> = LazyLock::new(|| {
    Blocks::adding(
        "_kernel_bucket",
        3,
        " ON CONFLICT DO UPDATE SET count = min(count + excluded.count, 281474976710656)",
    )
});
static MINUTE: LazyLock<Blocks> = LazyLock::new(|| {
    Blocks::adding(
        "_kernel_minute",
        9,
        " ON CONFLICT DO UPDATE SET first_ns = min(first_ns, excluded.first_ns), end_ns = max(end_ns, excluded.end_ns),
              count = min(count + excluded.count, 72057594037927936),
              total_ns = min(total_ns + excluded.total_ns, 72057594037927936),
              min_ns = min(min_ns, excluded.min_ns), max_ns = max(max_ns, excluded.max_ns)",
    )
});
const ADD_COPIES: &str = "INSERT INTO _copy VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET count = min(count + excluded.count, 72057594037927936),
        bytes = min(bytes + excluded.bytes, 72057594037927936),
        total_ns = min(total_ns + excluded.total_ns, 72057594037927936)";

/// What is to be stored with one commit.
#[derive(Default)]
pub(crate) struct Rows<'a> {
    kernels: BTreeMap<i64, (Key, Sums)>,
    buckets: BTreeMap<(i64, u8), i64>,
    copies: BTreeMap<(i64, i64, &'static str), [i64; 3]>,
    /// By start, kernel and process: names that were cut may have become one.
    windows: BTreeMap<[i64; 3], Sums>,
    /// The same by minute, kernel and process.
    minutes: BTreeMap<[i64; 3], Sums>,
    spans: Vec<[i64; 5]>,
    copy_windows: Vec<Owned<&'a CopyWindow>>,
    allocations: Vec<Owned<&'a Allocation>>,
    allocators: Vec<(i64, Owned<&'a AllocatorSample>)>,
}

/// Windows of one kernel taken together.
#[derive(Clone, Copy)]
struct Sums {
    first_ns: i64,
    end_ns: i64,
    count: i64,
    total_ns: i64,
    min_ns: i64,
    max_ns: i64,
}

/// Work with the numbers of those whose it is.
struct Owned<T> {
    run: Option<i64>,
    device: i64,
    pid: u32,
    work: T,
}

impl<'a> Rows<'a> {
    /// Takes a record in. Kernels and copies of no run have no place; whoever labels records counts them.
    pub(crate) async fn take(
        &mut self,
        connection: &mut SqliteConnection,
        (known, begun): (&mut Kernels, &mut bool),
        at_ns: i64,
        device: Option<i64>,
        traced: &'a Traced,
    ) -> Result<(), sqlx::Error> {
        let (run, device, pid) = (traced.run, device.unwrap_or(0), traced.pid);
        match (&traced.work, run) {
            (Work::Kernels(window), Some(run)) => {
                let kernel = known.of(connection, begun, (run, device, &window.name)).await?;
                self.window(kernel, pid, window);
            }
            (Work::Span(span), Some(run)) => {
                let kernel = known.of(connection, begun, (run, device, &span.name)).await?;
                self.span(kernel.0, pid, span);
            }
            (Work::Copies(window), Some(run)) => {
                let key = (run.0, device, window.direction.as_str());
                let total = self.copies.entry(key).or_default();
                for (total, more) in total
                    .iter_mut()
                    .zip([window.count, window.bytes, window.total_ns])
                {
                    *total = total.saturating_add(signed(more));
                }
                self.copy_windows.push(owned(traced, device, window));
            }
            (Work::Allocation(allocation), _) => self.allocations.push(owned(traced, device, allocation)),
            (Work::Allocator(sample), _) => {
                let at_ns = sample.at_ns.unwrap_or(at_ns);
                self.allocators.push((at_ns, owned(traced, device, sample)));
            }
            // A signal is stored with the engine's.
            (Work::Kernels(_) | Work::Span(_) | Work::Copies(_), None) | (Work::Signal { .. }, _) => {}
        }
        Ok(())
    }

    fn window(&mut self, (kernel, key): (i64, Key), pid: u32, window: &KernelWindow) {
        let sums = Sums::of(window);
        for (bucket, more) in &window.buckets {
            let sum = self.buckets.entry((kernel, *bucket)).or_default();
            *sum = sum.saturating_add(signed(*more));
        }
        let total = self.kernels.entry(kernel);
        total
            .and_modify(|(_, total)| total.add(&sums))
            .or_insert((key, sums));
        let minute_ns = window
            .start_ns
            .saturating_sub(window.start_ns.rem_euclid(MINUTE_NS));
        for (parts, start_ns) in [
            (&mut self.windows, window.start_ns),
            (&mut self.minutes, minute_ns),
        ] {
            let part = parts.entry([start_ns, kernel, pid.into()]);
            part.and_modify(|part| part.add(&sums)).or_insert(sums);
        }
    }

    fn span(&mut self, kernel: i64, pid: u32, span: &KernelSpan) {
        self.spans
            .push([span.start_ns, kernel, pid.into(), span.stream.into(), span.end_ns]);
    }

    pub(crate) fn store(self, script: &mut Script) {
        let kernel = |(&id, (key, sums)): (&i64, &(Key, Sums))| sums.of_kernel(id, *key);
        let kernels: Vec<[i64; 8]> = self.kernels.iter().map(kernel).collect();
        KERNEL.store(script, &kernels, numbers);
        let bucket = |(&(kernel, bucket), &count): (&(i64, u8), &i64)| {
            [kernel, bucket.into(), count.min(MOST_IN_A_BUCKET)]
        };
        let buckets: Vec<[i64; 3]> = self.buckets.iter().map(bucket).collect();
        BUCKET.store(script, &buckets, numbers);
        for ((run, device, direction), sums) in &self.copies {
            script.usual(ADD_COPIES).bind(*run).bind(*device).bind(*direction);
            numbers(script, sums);
        }
        let windows = self.windows.iter().map(|(key, sums)| sums.of_window(*key));
        WINDOW.store(script, &windows.collect::<Vec<_>>(), numbers);
        let minutes = self.minutes.iter().map(|(key, sums)| sums.of_minute(*key));
        MINUTE.store(script, &minutes.collect::<Vec<_>>(), numbers);
        SPAN.store(script, &self.spans, numbers);
        COPY_WINDOW.store(script, &self.copy_windows, copy_window);
        ALLOCATION.store(script, &self.allocations, allocation);
        ALLOCATOR.store(script, &self.allocators, allocator);
    }
}

impl Sums {
    fn of(window: &KernelWindow) -> Self {
        Self {
            first_ns: window.start_ns,
            end_ns: window.end_ns,
            count: signed(window.count),
            total_ns: signed(window.total_ns),
            min_ns: signed(window.min_ns),
            max_ns: signed(window.max_ns),
        }
    }

    fn add(&mut self, more: &Self) {
        self.first_ns = self.first_ns.min(more.first_ns);
        self.end_ns = self.end_ns.max(more.end_ns);
        self.count = self.count.saturating_add(more.count);
        self.total_ns = self.total_ns.saturating_add(more.total_ns);
        self.min_ns = self.min_ns.min(more.min_ns);
        self.max_ns = self.max_ns.max(more.max_ns);
    }

    const fn of_kernel(&self, id: i64, [run, device, name]: Key) -> [i64; 8] {
        let (count, total_ns) = (self.count, self.total_ns);
        [id, run, device, name, count, total_ns, self.min_ns, self.max_ns]
    }

    const fn of_window(&self, [start_ns, kernel, pid]: [i64; 3]) -> [i64; 8] {
        let (count, total_ns) = (self.count, self.total_ns);
        let (end_ns, min_ns, max_ns) = (self.end_ns, self.min_ns, self.max_ns);
        [start_ns, kernel, pid, end_ns, count, total_ns, min_ns, max_ns]
    }

    const fn of_minute(&self, [start_ns, kernel, pid]: [i64; 3]) -> [i64; 9] {
        let (first_ns, end_ns) = (self.first_ns, self.end_ns);
        let (count, total_ns, min_ns, max_ns) = (self.count, self.total_ns, self.min_ns, self.max_ns);
        [
            start_ns, kernel, pid, first_ns, end_ns, count, total_ns, min_ns, max_ns,
        ]
    }
}

fn owned<T>(traced: &Traced, device: i64, work: T) -> Owned<T> {
    Owned {
        run: traced.run.map(|run| run.0),
        device,
        pid: traced.pid,
        work,
    }
}

fn numbers<const N: usize>(script: &mut Script, row: &[i64; N]) {
    for number in row {
        script.bind(*number);
    }
}

fn copy_window(script: &mut Script, row: &Owned<&CopyWindow>) {
    let copies = row.work;
    script
        .bind(copies.start_ns)
        .bind(row.run)
        .bind(row.device)
        .bind(copies.direction.as_str())
        .bind(row.pid)
        .bind(copies.end_ns)
        .bind(signed(copies.count))
        .bind(signed(copies.bytes))
        .bind(signed(copies.total_ns));
}

fn allocation(script: &mut Script, row: &Owned<&Allocation>) {
    let allocation = row.work;
    script
        .bind(allocation.at_ns)
        .bind(row.run)
        .bind(row.device)
        .bind(row.pid)
        .bind(allocation.operation.as_str())
        .bind(allocation.kind.as_str())
        .bind(allocation.address.cast_signed())
        .bind(number(allocation.bytes));
}

fn allocator(script: &mut Script, (at_ns, row): &(i64, Owned<&AllocatorSample>)) {
    let sample = row.work;
    script
        .bind(*at_ns)
        .bind(row.pid)
        .bind(row.device)
        .bind(sample.level.as_str())
        .bind(row.run)
        .bind(number(sample.allocated_bytes))
        .bind(number(sample.active_bytes))
        .bind(number(sample.reserved_bytes))
        .bind(number(sample.inactive_split_bytes))
        .bind(number(sample.requested_bytes))
        .bind(number(sample.segments))
        .bind(number(sample.largest_free_bytes))
        .bind(sample.source)
        .bind(number(sample.rounding_bytes))
        .bind(number(sample.free_blocks_bytes));
}

/// A count as SQLite holds it; collectors refuse what is beyond anything that can be meant.
fn signed(value: u64) -> i64 {
    i64::try_from(value).map_or(MOST_IN_ALL, |value| value.min(MOST_IN_ALL))
}
