//! A recording as the rules saw it: the batches of the daemon's loop, as far as they are stored, and what it noted besides.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use plimsoll_trace::{
    AllocatorSample, Batch, Decision, DeviceId, DeviceSample, EngineSample, HostSample, LadderMark, Level,
    Loss, ProcessSample, Record, RunEnd, RunId, RunOutcome, Stamp, Traced, Work,
};

use crate::{Reader, Row, StoreError, Value, reader::DecisionRow};

/// So much time is read at once.
const STRETCH_NS: i64 = 3_600_000_000_000;
/// The row of a process holds for this long.
const PROCESS_HOLDS_NS: i64 = 61_000_000_000;

/// Plays the samples of a stretch of time, in the order in which rules see them.
pub struct Playback {
    reader: Reader,
    next_ns: i64,
    to_ns: i64,
    /// Who is on which device, by the rows so far: the run and what it holds.
    processes: Processes,
}

type Processes = BTreeMap<(DeviceId, u32), (Option<RunId>, Option<u64>)>;

/// Batches by instant; what is of devices comes first.
type Batches = BTreeMap<(i64, Kind), Vec<Record>>;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Devices,
    Host,
    Engine,
    RunEnd,
}

/// The texts that samples share.
#[derive(Default)]
struct Names(HashMap<String, Arc<str>>);

impl Names {
    fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(name) = self.0.get(text) {
            return Arc::clone(name);
        }
        let name: Arc<str> = text.into();
        self.0.insert(text.to_owned(), Arc::clone(&name));
        name
    }
}

impl Reader {
    /// Plays samples from one instant up to another, ns since the Unix epoch.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub async fn play(&self, from_ns: i64, to_ns: i64) -> Result<Playback, StoreError> {
        let mut playback = Playback {
            reader: self.clone(),
            next_ns: from_ns,
            to_ns,
            processes: Processes::new(),
        };
        for (_, row) in playback.process_rows(from_ns - PROCESS_HOLDS_NS, from_ns).await? {
            playback.follow(row);
        }
        Ok(playback)
    }

    /// The marks of an engine's ladder within a time, oldest first.
    ///
    /// # Errors
    /// When SQLite refuses, or a row holds a word that this program does not know.
    pub async fn ladder_marks(
        &self,
        engine: &str,
        from_ns: i64,
        to_ns: i64,
    ) -> Result<Vec<LadderMark>, StoreError> {
        let sql = "SELECT id, at_ns, kind, rules_hash, max_age_ns, run_id, devices, state FROM _ladder_mark
             WHERE engine = ? AND at_ns BETWEEN ? AND ? ORDER BY id";
        let values = [Value::from(engine), from_ns.into(), to_ns.into()];
        let engine = engine.to_owned();
        let state = (Vec::new(), None);
        let each = move |(marks, wrong): &mut (Vec<LadderMark>, Option<String>), row: &Row<'_>| match mark(
            &engine, row,
        ) {
            Ok(mark) => marks.push(mark),
            Err(problem) => *wrong = Some(problem),
        };
        match self.scan(sql, &values, state, each).await? {
            (marks, None) => Ok(marks),
            (_, Some(problem)) => Err(StoreError::Row {
                row: "a mark of a ladder".to_owned(),
                problem,
            }),
        }
    }

    /// The last mark of an engine's ladder at an instant or before.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub async fn ladder_mark_before(&self, engine: &str, at_ns: i64) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT max(at_ns) FROM _ladder_mark WHERE engine = ? AND at_ns <= ?";
        let table = self.query(sql, &[engine.into(), at_ns.into()]).await?;
        Ok(match table.rows.first().and_then(|row| row.first()) {
            Some(Value::Integer(at_ns)) => Some(*at_ns),
            _ => None,
        })
    }

    /// Recorded rules, JSON text, by their hash.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub async fn rule_set(&self, hash: &str) -> Result<Option<String>, StoreError> {
        let table = self
            .query("SELECT rules FROM _rule_set WHERE hash = ?", &[hash.into()])
            .await?;
        Ok(
            match table
                .rows
                .into_iter()
                .next()
                .and_then(|row| row.into_iter().next())
            {
                Some(Value::Text(rules)) => Some(rules),
                _ => None,
            },
        )
    }

    /// An engine's decisions within a time, oldest first.
    ///
    /// # Errors
    /// When SQLite refuses, or a row holds something that this program does not understand.
    pub async fn decisions(
        &self,
        engine: &str,
        from_ns: i64,
        to_ns: i64,
    ) -> Result<Vec<Decision>, StoreError> {
        let sql = "SELECT * FROM _decision WHERE engine = ? AND at_ns BETWEEN ? AND ? ORDER BY at_ns, id";
        let rows: Vec<DecisionRow> = self.rows_of(sql, engine, from_ns, to_ns).await?;
        rows.into_iter().map(DecisionRow::into_decision).collect()
    }
}

fn mark(engine: &str, row: &Row<'_>) -> Result<LadderMark, String> {
    let text = |column| row.text(column).unwrap_or_default().into_owned();
    let devices: Vec<String> = serde_json::from_str(&text(6)).map_err(|error| error.to_string())?;
    Ok(LadderMark {
        engine: engine.to_owned(),
        at_ns: row.int(1).unwrap_or(0),
        kind: text(2).parse().map_err(|error| format!("{error}"))?,
        rules_hash: text(3),
        rules: Arc::from(""),
        max_age_ns: row.int(4).unwrap_or(0),
        run: row.int(5).map(RunId),
        devices: devices.into_iter().map(Arc::from).collect(),
        state: text(7),
    })
}

impl Playback {
    /// The batches of the next stretch of time, in order; `None` at the end.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub async fn next(&mut self) -> Result<Option<Vec<Batch>>, StoreError> {
        if self.next_ns > self.to_ns {
            return Ok(None);
        }
        let from_ns = self.next_ns;
        let until_ns = self
            .to_ns
            .saturating_add(1)
            .min(from_ns.saturating_add(STRETCH_NS));
        self.next_ns = until_ns;
        let mut batches = self.devices(from_ns, until_ns).await?;
        self.others(from_ns, until_ns, &mut batches).await?;
        let processes = self.process_rows(from_ns, until_ns).await?;
        self.add_processes(&mut batches, processes);
        let batch = |((at_ns, _), records)| Batch {
            at: Stamp::recorded(at_ns),
            records,
        };
        Ok(Some(batches.into_iter().map(batch).collect()))
    }

    async fn devices(&self, from_ns: i64, until_ns: i64) -> Result<Batches, StoreError> {
        let sql = "SELECT at_ns, device, used_bytes, free_bytes, reserved_bytes, total_bytes, gpu_busy_ratio,
                 power_watts, temperature_celsius, throttle_reasons
             FROM device_samples WHERE at_ns >= ? AND at_ns < ?";
        let state = (Batches::new(), Names::default());
        let each = |(batches, names): &mut (Batches, Names), row: &Row<'_>| {
            let (Some(at_ns), Some(device)) = (row.int(0), row.text(1)) else {
                return;
            };
            let bytes = |column| row.int(column).and_then(|bytes| u64::try_from(bytes).ok());
            let sample = DeviceSample {
                used_bytes: bytes(2),
                free_bytes: bytes(3),
                reserved_bytes: bytes(4),
                total_bytes: bytes(5),
                gpu_busy_ratio: row.real(6),
                power_watts: row.real(7),
                temperature_celsius: row.real(8),
                throttle_reasons: row.int(9).map(i64::cast_unsigned),
                ..DeviceSample::unknown(names.get(&device))
            };
            let records = batches.entry((at_ns, Kind::Devices)).or_default();
            records.push(Record::Device(sample));
        };
        let (batches, _) = self.scan(sql, from_ns, until_ns, state, each).await?;
        Ok(batches)
    }

    /// What is of the host, of engines and their agents, ends of runs, and failed lists of processes.
    async fn others(&self, from_ns: i64, until_ns: i64, batches: &mut Batches) -> Result<(), StoreError> {
        let add = |batches: &mut Batches, at_ns: Option<i64>, kind, record| {
            if let Some(at_ns) = at_ns {
                batches.entry((at_ns, kind)).or_default().push(record);
            }
        };
        let sql = "SELECT at_ns, memory_available_bytes, swap_used_bytes FROM host_samples
             WHERE at_ns >= ? AND at_ns < ?";
        let each = move |batches: &mut Batches, row: &Row<'_>| {
            let bytes = |column| row.int(column).and_then(|bytes| u64::try_from(bytes).ok());
            let sample = HostSample {
                memory_available_bytes: bytes(1),
                swap_used_bytes: bytes(2),
                ..HostSample::default()
            };
            add(batches, row.int(0), Kind::Host, Record::Host(sample));
        };
        let taken = std::mem::take(batches);
        *batches = self.scan(sql, from_ns, until_ns, taken, each).await?;

        let sql = "SELECT at_ns, run_id, signal, value FROM engine_samples WHERE at_ns >= ? AND at_ns < ?";
        let each = move |(batches, names): &mut (Batches, Names), row: &Row<'_>| {
            if let (Some(run), Some(signal), Some(value)) = (row.int(1), row.text(2), row.real(3)) {
                let sample = EngineSample {
                    run: RunId(run),
                    signal: names.get(&signal),
                    value,
                };
                add(batches, row.int(0), Kind::Engine, Record::Engine(sample));
            }
        };
        let taken = (std::mem::take(batches), Names::default());
        (*batches, _) = self.scan(sql, from_ns, until_ns, taken, each).await?;

        let sql = "SELECT at_ns, run_id, device, pid, allocated_bytes, reserved_bytes, inactive_split_bytes
             FROM allocator_samples WHERE level = 'pytorch' AND at_ns >= ? AND at_ns < ?";
        let each = move |(batches, names): &mut (Batches, Names), row: &Row<'_>| {
            let bytes = |column| row.int(column).and_then(|bytes| u64::try_from(bytes).ok());
            let Some(run) = row.int(1) else { return };
            let sample = AllocatorSample {
                allocated_bytes: bytes(4),
                reserved_bytes: bytes(5),
                inactive_split_bytes: bytes(6),
                ..AllocatorSample::unknown(Level::PyTorch, "pytorch")
            };
            let traced = Traced {
                run: Some(RunId(run)),
                pid: row.int(3).and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
                device: row.text(2).map(|device| names.get(&device)),
                work: Work::Allocator(sample),
            };
            add(batches, row.int(0), Kind::Engine, Record::Traced(traced));
        };
        let taken = (std::mem::take(batches), Names::default());
        (*batches, _) = self.scan(sql, from_ns, until_ns, taken, each).await?;

        let sql = "SELECT ended_ns, id FROM runs WHERE ended_ns >= ? AND ended_ns < ?";
        let each = move |batches: &mut Batches, row: &Row<'_>| {
            let end = RunEnd {
                id: RunId(row.int(1).unwrap_or(0)),
                exit_code: None,
                outcome: RunOutcome::Ok,
            };
            add(batches, row.int(0), Kind::RunEnd, Record::RunEnd(end));
        };
        let taken = std::mem::take(batches);
        *batches = self.scan(sql, from_ns, until_ns, taken, each).await?;

        let sql = "SELECT at_ns, count FROM losses
             WHERE reason = 'processes_failed' AND at_ns >= ? AND at_ns < ?";
        let each = |batches: &mut Batches, row: &Row<'_>| {
            // Only where it is of a batch that is there.
            let Some(at_ns) = row.int(0) else { return };
            if let Some(records) = batches.get_mut(&(at_ns, Kind::Devices)) {
                records.push(Record::Loss(Loss::new("nvml", "processes_failed", 1)));
            }
        };
        let taken = std::mem::take(batches);
        *batches = self.scan(sql, from_ns, until_ns, taken, each).await?;
        Ok(())
    }

    async fn process_rows(
        &self,
        from_ns: i64,
        until_ns: i64,
    ) -> Result<Vec<(i64, ProcessSample)>, StoreError> {
        let sql = "SELECT at_ns, device, pid, run_id, used_bytes FROM process_samples
             WHERE at_ns >= ? AND at_ns < ? ORDER BY at_ns";
        let state = (Vec::new(), Names::default());
        let each = |(rows, names): &mut (Vec<(i64, ProcessSample)>, Names), row: &Row<'_>| {
            let (Some(at_ns), Some(device)) = (row.int(0), row.text(1)) else {
                return;
            };
            let Some(pid) = row.int(2).and_then(|pid| u32::try_from(pid).ok()) else {
                return;
            };
            let sample = ProcessSample {
                device: names.get(&device),
                pid,
                run: row.int(3).map(RunId),
                used_bytes: row.int(4).and_then(|bytes| u64::try_from(bytes).ok()),
                sm_busy_ratio: None,
                process: None,
                container: None,
            };
            rows.push((at_ns, sample));
        };
        let (rows, _) = self.scan(sql, from_ns, until_ns, state, each).await?;
        Ok(rows)
    }

    /// Rows are of changes; a batch lists whoever is there.
    fn add_processes(&mut self, batches: &mut Batches, rows: Vec<(i64, ProcessSample)>) {
        let mut rows = rows.into_iter().peekable();
        for ((at_ns, kind), records) in batches.iter_mut() {
            if *kind != Kind::Devices {
                continue;
            }
            while let Some((_, row)) = rows.next_if(|(row_ns, _)| row_ns <= at_ns) {
                self.follow(row);
            }
            let sampled: Vec<DeviceId> = records
                .iter()
                .filter_map(|record| match record {
                    Record::Device(sample) => Some(Arc::clone(&sample.device)),
                    _ => None,
                })
                .collect();
            let present = self
                .processes
                .iter()
                .filter(|((device, _), (run, _))| run.is_some() && sampled.contains(device));
            let listed = present.map(|((device, pid), (run, used_bytes))| {
                Record::Process(ProcessSample {
                    device: Arc::clone(device),
                    pid: *pid,
                    run: *run,
                    used_bytes: *used_bytes,
                    sm_busy_ratio: None,
                    process: None,
                    container: None,
                })
            });
            records.extend(listed.collect::<Vec<_>>());
        }
        rows.for_each(|(_, row)| self.follow(row));
    }

    fn follow(&mut self, row: ProcessSample) {
        let key = (row.device, row.pid);
        let was_known = matches!(self.processes.get(&key), Some((_, Some(_))));
        if row.used_bytes.is_none() && was_known {
            // How a process that is gone ends; also one that the driver says nothing more of, of which nothing is known.
            self.processes.remove(&key);
        } else {
            self.processes.insert(key, (row.run, row.used_bytes));
        }
    }

    async fn scan<S, F>(
        &self,
        sql: &str,
        from_ns: i64,
        until_ns: i64,
        state: S,
        each: F,
    ) -> Result<S, StoreError>
    where
        S: Send + 'static,
        F: FnMut(&mut S, &Row<'_>) + Send + 'static,
    {
        let values = [Value::from(from_ns), until_ns.into()];
        self.reader.scan(sql, &values, state, each).await
    }
}
