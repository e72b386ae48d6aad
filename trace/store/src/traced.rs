//! How traced work becomes rows. Totals are added up over one commit before they are stored, so that a name costs one
//! row of a statement, however many processes launched it how often.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use plimsoll_trace::{
    Allocation, AllocatorSample, CopyWindow, KernelSpan, KernelWindow, RunId, Traced, Work,
};
use sqlx::SqliteConnection;

use crate::demangle::demangled;
use crate::rows::{Blocks, number};
use crate::script::{self, Script};

/// Kernels and their names that are remembered; more than the programs of a host have.
const KERNELS: usize = 65_536;

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

static KERNEL: LazyLock<Blocks> = LazyLock::new(|| {
    Blocks::adding(
        "_kernel (id, run_id, device_id, name_id, count, total_ns, min_ns, max_ns)",
        8,
        " ON CONFLICT DO UPDATE SET count = count + excluded.count, total_ns = total_ns + excluded.total_ns,
              min_ns = min(coalesce(min_ns, excluded.min_ns), excluded.min_ns),
              max_ns = max(coalesce(max_ns, excluded.max_ns), excluded.max_ns)",
    )
});
static BUCKET: LazyLock<Blocks> = LazyLock::new(|| {
    Blocks::adding(
        "_kernel_bucket",
        3,
        " ON CONFLICT DO UPDATE SET count = count + excluded.count",
    )
});
const ADD_COPIES: &str = "INSERT INTO _copy VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET count = count + excluded.count, bytes = bytes + excluded.bytes,
        total_ns = total_ns + excluded.total_ns";

/// Numbers that the database gave to kernels and their names, as far as they are committed.
#[derive(Default)]
pub(crate) struct Kernels {
    names: HashMap<Arc<str>, i64>,
    kernels: HashMap<Key, i64>,
}

/// Run, device and name of a kernel.
type Key = [i64; 3];

/// What is to be stored with one commit.
#[derive(Default)]
pub(crate) struct Rows<'a> {
    kernels: BTreeMap<i64, Total>,
    buckets: BTreeMap<(i64, u8), i64>,
    copies: BTreeMap<(i64, i64, &'static str), [i64; 3]>,
    /// By start, kernel and process: names that were cut may have become one.
    windows: BTreeMap<[i64; 3], Window>,
    spans: Vec<[i64; 5]>,
    copy_windows: Vec<Owned<&'a CopyWindow>>,
    allocations: Vec<Owned<&'a Allocation>>,
    allocators: Vec<(i64, Owned<&'a AllocatorSample>)>,
}

struct Total {
    key: Key,
    count: i64,
    total_ns: i64,
    min_ns: i64,
    max_ns: i64,
}

/// One kernel in one period of one process.
struct Window {
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

impl Kernels {
    /// The number of a kernel of one run on one device.
    async fn of(
        &mut self,
        connection: &mut SqliteConnection,
        begun: &mut bool,
        (run, device, name): (RunId, i64, &Arc<str>),
    ) -> Result<(i64, Key), sqlx::Error> {
        let name = self.name(connection, begun, name).await?;
        let key = [run.0, device, name];
        if let Some(id) = self.kernels.get(&key) {
            return Ok((*id, key));
        }
        script::begin(connection, begun).await?;
        sqlx::query(
            "INSERT INTO _kernel (run_id, device_id, name_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(key[0])
        .bind(key[1])
        .bind(key[2])
        .execute(&mut *connection)
        .await?;
        let id =
            sqlx::query_scalar("SELECT id FROM _kernel WHERE run_id = ? AND device_id = ? AND name_id = ?")
                .bind(key[0])
                .bind(key[1])
                .bind(key[2])
                .fetch_one(connection)
                .await?;
        if self.kernels.len() >= KERNELS {
            self.kernels.clear();
        }
        self.kernels.insert(key, id);
        Ok((id, key))
    }

    async fn name(
        &mut self,
        connection: &mut SqliteConnection,
        begun: &mut bool,
        raw: &Arc<str>,
    ) -> Result<i64, sqlx::Error> {
        if let Some(id) = self.names.get(raw) {
            return Ok(*id);
        }
        script::begin(connection, begun).await?;
        sqlx::query("INSERT INTO _kernel_name (raw, name) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(&**raw)
            .bind(&*demangled(raw))
            .execute(&mut *connection)
            .await?;
        let id = sqlx::query_scalar("SELECT id FROM _kernel_name WHERE raw = ?")
            .bind(&**raw)
            .fetch_one(connection)
            .await?;
        if self.names.len() >= KERNELS {
            self.names.clear();
        }
        self.names.insert(Arc::clone(raw), id);
        Ok(id)
    }
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
        let (count, total_ns) = (signed(window.count), signed(window.total_ns));
        let (min_ns, max_ns) = (signed(window.min_ns), signed(window.max_ns));
        let total = self.kernels.entry(kernel).or_insert(Total {
            key,
            count: 0,
            total_ns: 0,
            min_ns,
            max_ns,
        });
        total.count = total.count.saturating_add(count);
        total.total_ns = total.total_ns.saturating_add(total_ns);
        total.min_ns = total.min_ns.min(min_ns);
        total.max_ns = total.max_ns.max(max_ns);
        for (bucket, more) in &window.buckets {
            let sum = self.buckets.entry((kernel, *bucket)).or_default();
            *sum = sum.saturating_add(signed(*more));
        }
        let key = [window.start_ns, kernel, pid.into()];
        let sum = self.windows.entry(key).or_insert(Window {
            end_ns: window.end_ns,
            count: 0,
            total_ns: 0,
            min_ns,
            max_ns,
        });
        sum.end_ns = sum.end_ns.max(window.end_ns);
        sum.count = sum.count.saturating_add(count);
        sum.total_ns = sum.total_ns.saturating_add(total_ns);
        sum.min_ns = sum.min_ns.min(min_ns);
        sum.max_ns = sum.max_ns.max(max_ns);
    }

    fn span(&mut self, kernel: i64, pid: u32, span: &KernelSpan) {
        self.spans
            .push([span.start_ns, kernel, pid.into(), span.stream.into(), span.end_ns]);
    }

    pub(crate) fn store(self, script: &mut Script) {
        let kernels: Vec<[i64; 8]> = self.kernels.iter().map(|(id, total)| total.row(*id)).collect();
        KERNEL.store(script, &kernels, numbers);
        let bucket = |(&(kernel, bucket), &count): (&(i64, u8), &i64)| [kernel, bucket.into(), count];
        let buckets: Vec<[i64; 3]> = self.buckets.iter().map(bucket).collect();
        BUCKET.store(script, &buckets, numbers);
        for ((run, device, direction), sums) in &self.copies {
            script.usual(ADD_COPIES).bind(*run).bind(*device).bind(*direction);
            numbers(script, sums);
        }
        let windows: Vec<[i64; 8]> = self
            .windows
            .iter()
            .map(|(key, window)| window.row(*key))
            .collect();
        WINDOW.store(script, &windows, numbers);
        SPAN.store(script, &self.spans, numbers);
        COPY_WINDOW.store(script, &self.copy_windows, copy_window);
        ALLOCATION.store(script, &self.allocations, allocation);
        ALLOCATOR.store(script, &self.allocators, allocator);
    }
}

impl Total {
    const fn row(&self, id: i64) -> [i64; 8] {
        let [run, device, name] = self.key;
        [
            id,
            run,
            device,
            name,
            self.count,
            self.total_ns,
            self.min_ns,
            self.max_ns,
        ]
    }
}

impl Window {
    const fn row(&self, [start_ns, kernel, pid]: [i64; 3]) -> [i64; 8] {
        [
            start_ns,
            kernel,
            pid,
            self.end_ns,
            self.count,
            self.total_ns,
            self.min_ns,
            self.max_ns,
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
    i64::try_from(value).unwrap_or(i64::MAX)
}
