-- Tables begin with an underscore and are private; views are the public interface, documented in the view `columns`.
-- Times are integer nanoseconds since the Unix epoch, stored as they are shown, so that a filter on a view reaches
-- the key. Tables of samples are keyed by time first: all rows of a commit land on the same few pages.

-- 'PLIM': how a store is told from any other SQLite file.
PRAGMA application_id = 1347176781;

-- Dictionaries: samples carry small numbers instead of long texts.

CREATE TABLE _device (
    id INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE,
    name TEXT,
    driver TEXT,
    total_bytes INTEGER,
    parent TEXT
);

CREATE TABLE _name (
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
);

-- What happened, what was decided, what was lost.

CREATE TABLE _run (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    engine TEXT,
    host TEXT NOT NULL,
    pid INTEGER,
    -- The boot and the start of the process: after a restart of the daemon, the same pid may be another process.
    process_key TEXT,
    command TEXT,
    started_ns INTEGER NOT NULL,
    ended_ns INTEGER,
    exit_code INTEGER,
    outcome TEXT NOT NULL,
    peak_used_bytes INTEGER,
    trace_tier TEXT NOT NULL
);

CREATE TABLE _event (
    id INTEGER PRIMARY KEY,
    run_id INTEGER,
    device_id INTEGER,
    at_ns INTEGER NOT NULL,
    kind TEXT NOT NULL,
    message TEXT NOT NULL,
    detail TEXT
);
CREATE INDEX _event_at ON _event (at_ns);

CREATE TABLE _decision (
    id INTEGER PRIMARY KEY,
    run_id INTEGER,
    engine TEXT NOT NULL,
    rule TEXT NOT NULL,
    at_ns INTEGER NOT NULL,
    mode TEXT NOT NULL,
    verdict TEXT NOT NULL,
    outcome TEXT NOT NULL,
    signal TEXT NOT NULL,
    value REAL,
    threshold REAL,
    explanation TEXT NOT NULL,
    detail TEXT
);
CREATE INDEX _decision_at ON _decision (at_ns);

CREATE TABLE _config_change (
    id INTEGER PRIMARY KEY,
    decision_id INTEGER NOT NULL,
    path TEXT NOT NULL,
    at_ns INTEGER NOT NULL,
    before_text TEXT NOT NULL,
    after_text TEXT NOT NULL,
    diff TEXT NOT NULL,
    outcome TEXT NOT NULL
);
CREATE INDEX _config_change_decision ON _config_change (decision_id);

CREATE TABLE _loss (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    reason TEXT NOT NULL,
    at_ns INTEGER NOT NULL,
    count INTEGER NOT NULL
);
CREATE INDEX _loss_at ON _loss (at_ns);

CREATE TABLE _engine_memo (
    engine TEXT PRIMARY KEY,
    state TEXT NOT NULL
) WITHOUT ROWID;

-- Samples. Ratios are parts per million and power is milliwatts: as integers they take a third of the space.

CREATE TABLE _device_raw (
    at_ns INTEGER NOT NULL,
    device_id INTEGER NOT NULL,
    memory_version INTEGER,
    used_bytes INTEGER,
    free_bytes INTEGER,
    reserved_bytes INTEGER,
    total_bytes INTEGER,
    bar1_used_bytes INTEGER,
    gpu_busy_ppm INTEGER,
    memory_busy_ppm INTEGER,
    temperature_celsius REAL,
    power_milliwatts INTEGER,
    sm_clock_mhz INTEGER,
    memory_clock_mhz INTEGER,
    throttle_reasons INTEGER,
    pcie_tx_bytes_per_sec INTEGER,
    pcie_rx_bytes_per_sec INTEGER,
    PRIMARY KEY (at_ns, device_id)
) WITHOUT ROWID;

CREATE TABLE _process_raw (
    at_ns INTEGER NOT NULL,
    device_id INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    run_id INTEGER,
    used_bytes INTEGER,
    sm_busy_ppm INTEGER,
    process_id INTEGER,
    container_id INTEGER,
    PRIMARY KEY (at_ns, device_id, pid)
) WITHOUT ROWID;

CREATE TABLE _host_raw (
    at_ns INTEGER PRIMARY KEY,
    cpu_busy_ratio REAL,
    memory_available_bytes INTEGER,
    memory_total_bytes INTEGER,
    swap_used_bytes INTEGER
);

CREATE TABLE _engine_raw (
    at_ns INTEGER NOT NULL,
    run_id INTEGER NOT NULL,
    signal_id INTEGER NOT NULL,
    value REAL,
    PRIMARY KEY (at_ns, run_id, signal_id)
) WITHOUT ROWID;

-- The public views. Only what SQLite 3.40 has. A computed ratio is welcome, a computed key is not.

CREATE VIEW runs AS
SELECT id, name, engine, host, pid, command, started_ns, ended_ns, exit_code, outcome, peak_used_bytes, trace_tier
FROM _run;

CREATE VIEW devices AS
SELECT uuid AS device, name, driver, total_bytes, parent
FROM _device;

CREATE VIEW device_samples AS
SELECT
    d.uuid AS device,
    s.at_ns AS at_ns,
    s.used_bytes AS used_bytes,
    s.free_bytes AS free_bytes,
    s.reserved_bytes AS reserved_bytes,
    s.total_bytes AS total_bytes,
    CASE WHEN s.total_bytes > coalesce(s.reserved_bytes, 0)
        THEN CAST(s.used_bytes AS REAL) / (s.total_bytes - coalesce(s.reserved_bytes, 0)) END AS used_ratio,
    s.gpu_busy_ppm / 1000000.0 AS gpu_busy_ratio,
    s.memory_busy_ppm / 1000000.0 AS memory_busy_ratio,
    s.temperature_celsius AS temperature_celsius,
    s.power_milliwatts / 1000.0 AS power_watts,
    s.sm_clock_mhz AS sm_clock_mhz,
    s.memory_clock_mhz AS memory_clock_mhz,
    s.throttle_reasons AS throttle_reasons,
    s.bar1_used_bytes AS bar1_used_bytes,
    s.pcie_tx_bytes_per_sec AS pcie_tx_bytes_per_sec,
    s.pcie_rx_bytes_per_sec AS pcie_rx_bytes_per_sec,
    s.memory_version AS memory_version
FROM _device_raw AS s JOIN _device AS d ON d.id = s.device_id;

CREATE VIEW process_samples AS
SELECT
    s.run_id AS run_id,
    d.uuid AS device,
    s.pid AS pid,
    s.at_ns AS at_ns,
    s.used_bytes AS used_bytes,
    s.sm_busy_ppm / 1000000.0 AS sm_busy_ratio,
    (SELECT text FROM _name WHERE id = s.process_id) AS process,
    (SELECT text FROM _name WHERE id = s.container_id) AS container
FROM _process_raw AS s JOIN _device AS d ON d.id = s.device_id;

CREATE VIEW host_samples AS
SELECT at_ns, cpu_busy_ratio, memory_available_bytes, memory_total_bytes, swap_used_bytes
FROM _host_raw;

CREATE VIEW engine_samples AS
SELECT s.run_id AS run_id, s.at_ns AS at_ns, n.text AS signal, s.value AS value
FROM _engine_raw AS s JOIN _name AS n ON n.id = s.signal_id;

CREATE VIEW events AS
SELECT
    id,
    run_id,
    (SELECT uuid FROM _device WHERE _device.id = _event.device_id) AS device,
    at_ns,
    kind,
    message,
    detail
FROM _event;

CREATE VIEW decisions AS
SELECT id, run_id, engine, rule, at_ns, mode, verdict, outcome, signal, value, threshold, explanation, detail
FROM _decision;

CREATE VIEW config_changes AS
SELECT id, decision_id, path, at_ns, before_text, after_text, diff, outcome
FROM _config_change;

CREATE VIEW losses AS
SELECT source, reason, at_ns, count
FROM _loss;

-- The documentation of the views, in the order of their columns.

CREATE TABLE _column (
    view TEXT NOT NULL,
    position INTEGER NOT NULL,
    "column" TEXT NOT NULL,
    unit TEXT NOT NULL,
    meaning TEXT NOT NULL,
    PRIMARY KEY (view, position)
) WITHOUT ROWID;

CREATE VIEW columns AS
SELECT view, "column", unit, meaning FROM _column ORDER BY view, position;

INSERT INTO _column (view, position, "column", unit, meaning) VALUES
('columns', 1, 'view', 'text', 'Name of a view.'),
('columns', 2, 'column', 'text', 'Name of one of its columns; they are listed in order.'),
('columns', 3, 'unit', 'text', 'Unit or form of the values. Times are ns since 1970-01-01 00:00 UTC. NULL is unknown everywhere, never zero.'),
('columns', 4, 'meaning', 'text', 'What the column says.'),

('runs', 1, 'id', 'id', 'Number of the run: one life of an engine, or one recorded command.'),
('runs', 2, 'name', 'text', 'The engine''s name in the configuration, or the name given when the command was recorded.'),
('runs', 3, 'engine', 'text', 'The configured engine; NULL when the run is not one.'),
('runs', 4, 'host', 'text', 'Host name of the machine.'),
('runs', 5, 'pid', 'id', 'Process id of the root process.'),
('runs', 6, 'command', 'text', 'Command line, as far as it is known.'),
('runs', 7, 'started_ns', 'ns', 'When it was first seen.'),
('runs', 8, 'ended_ns', 'ns', 'When it was seen to have ended; NULL while it runs.'),
('runs', 9, 'exit_code', 'count', 'Exit status 0..255, or 128 + n for signal n; NULL while it runs or when nobody saw it.'),
('runs', 10, 'outcome', 'word', 'running, ok, failed, killed, out_of_memory, lost.'),
('runs', 11, 'peak_used_bytes', 'bytes', 'Largest sum of device memory over the processes of the run at one instant, all devices together; also while it runs.'),
('runs', 12, 'trace_tier', 'word', 'What the agent recorded: off, memory, graph, kernels.'),

('devices', 1, 'device', 'uuid', 'UUID of a GPU (GPU-...) or MIG instance (MIG-...), the key of all device columns.'),
('devices', 2, 'name', 'text', 'Product name.'),
('devices', 3, 'driver', 'text', 'Version of the driver that last reported it.'),
('devices', 4, 'total_bytes', 'bytes', 'Physical memory.'),
('devices', 5, 'parent', 'uuid', 'For a MIG instance, the GPU it is a part of.'),

('device_samples', 1, 'device', 'uuid', 'The device, see devices.'),
('device_samples', 2, 'at_ns', 'ns', 'When it was read: a row for each device and tick, also when nothing changed; none while a device is lost.'),
('device_samples', 3, 'used_bytes', 'bytes', 'Memory in use as the driver answered; see memory_version.'),
('device_samples', 4, 'free_bytes', 'bytes', 'Memory free.'),
('device_samples', 5, 'reserved_bytes', 'bytes', 'Memory the driver keeps for itself; NULL when memory_version is 1.'),
('device_samples', 6, 'total_bytes', 'bytes', 'Physical memory.'),
('device_samples', 7, 'used_ratio', 'ratio', 'used_bytes / (total_bytes - reserved_bytes), with reserved_bytes taken as 0 when unknown.'),
('device_samples', 8, 'gpu_busy_ratio', 'ratio', 'Share of time in which a kernel ran; stored to 0.000001.'),
('device_samples', 9, 'memory_busy_ratio', 'ratio', 'Share of time in which memory was read or written, not how full it is; stored to 0.000001.'),
('device_samples', 10, 'temperature_celsius', 'celsius', 'Core temperature.'),
('device_samples', 11, 'power_watts', 'watts', 'Board power; stored to 0.001.'),
('device_samples', 12, 'sm_clock_mhz', 'MHz', 'Clock of the multiprocessors.'),
('device_samples', 13, 'memory_clock_mhz', 'MHz', 'Clock of the memory.'),
('device_samples', 14, 'throttle_reasons', 'bit mask', 'Why clocks are lowered, as the driver''s own bits (nvmlClocksEventReasons).'),
('device_samples', 15, 'bar1_used_bytes', 'bytes', 'Part of the BAR1 window in use.'),
('device_samples', 16, 'pcie_tx_bytes_per_sec', 'bytes/s', 'PCIe traffic towards the host; read more rarely than the rest.'),
('device_samples', 17, 'pcie_rx_bytes_per_sec', 'bytes/s', 'PCIe traffic from the host; read more rarely than the rest.'),
('device_samples', 18, 'memory_version', 'count', 'Which memory call answered: 2 (used_bytes leaves out what the driver reserves) or 1 (includes it). Where it changes, the series of used_bytes has a break: rows before and after it are not to be compared.'),

('process_samples', 1, 'run_id', 'id', 'The run the process belongs to, see runs; NULL when it belongs to none.'),
('process_samples', 2, 'device', 'uuid', 'The device, see devices.'),
('process_samples', 3, 'pid', 'id', 'Process id as the driver gave it.'),
('process_samples', 4, 'at_ns', 'ns', 'When it was read. Rows are stored when something changed and once a minute: a row holds until the next of the same device and pid, for 61 s at most.'),
('process_samples', 5, 'used_bytes', 'bytes', 'Device memory held. NULL when the driver does not say, and in the last row of a process that is no longer listed.'),
('process_samples', 6, 'sm_busy_ratio', 'ratio', 'Share of multiprocessor time; stored to 0.000001.'),
('process_samples', 7, 'process', 'text', 'Name of the process.'),
('process_samples', 8, 'container', 'text', 'Id of its container, from its cgroup.'),

('host_samples', 1, 'at_ns', 'ns', 'When it was read.'),
('host_samples', 2, 'cpu_busy_ratio', 'ratio', 'Share of the time of all cores in use.'),
('host_samples', 3, 'memory_available_bytes', 'bytes', 'Memory that can be had without swapping.'),
('host_samples', 4, 'memory_total_bytes', 'bytes', 'Memory of the machine.'),
('host_samples', 5, 'swap_used_bytes', 'bytes', 'Swap in use.'),

('engine_samples', 1, 'run_id', 'id', 'The run of the engine, see runs.'),
('engine_samples', 2, 'at_ns', 'ns', 'When it was read.'),
('engine_samples', 3, 'signal', 'text', 'Name of the signal, such as engine.kv_used_ratio or metric:NAME{label="v"}.'),
('engine_samples', 4, 'value', 'of the signal', 'Its value: *_ratio 0..1, *_bytes bytes, *_secs seconds, *_per_sec per second; metric:... as the engine exposes it.'),

('events', 1, 'id', 'id', 'Number of the event.'),
('events', 2, 'run_id', 'id', 'The run it belongs to, if any.'),
('events', 3, 'device', 'uuid', 'The device it belongs to, if any.'),
('events', 4, 'at_ns', 'ns', 'When it was seen.'),
('events', 5, 'kind', 'word', 'What happened: process_start, process_exit, engine_ready, engine_unhealthy, out_of_memory, xid, throttle, device_lost, device_back, driver_missing, driver_back, human_edit, config_reloaded, config_rejected, engine_file_left, sampling_gap, quarantine, agent_attached, agent_displaced. The list may grow.'),
('events', 6, 'message', 'text', 'One sentence for people.'),
('events', 7, 'detail', 'json', 'The figures behind it, an object.'),

('decisions', 1, 'id', 'id', 'Number of the decision; a row for each transition of a rule.'),
('decisions', 2, 'run_id', 'id', 'The run it acts on, see runs.'),
('decisions', 3, 'engine', 'text', 'The engine''s name in the configuration.'),
('decisions', 4, 'rule', 'text', 'The rule''s name.'),
('decisions', 5, 'at_ns', 'ns', 'When it was made.'),
('decisions', 6, 'mode', 'word', 'What the rule may do: observe, advise, act.'),
('decisions', 7, 'verdict', 'word', 'apply, release, revert.'),
('decisions', 8, 'outcome', 'word', 'observed, proposed, refused, applying, applied (written and reloaded, being verified), kept, rolled_back, failed, interrupted.'),
('decisions', 9, 'signal', 'text', 'The signal that decided.'),
('decisions', 10, 'value', 'of the signal', 'Its value then; NULL when it was unknown.'),
('decisions', 11, 'threshold', 'of the signal', 'The line it was held against.'),
('decisions', 12, 'explanation', 'text', 'Why, and what came of it, in a sentence or two.'),
('decisions', 13, 'detail', 'json', 'Clauses, expectation, steps and figures, an object.'),

('config_changes', 1, 'id', 'id', 'Number of the change; the row is stored before the file is touched.'),
('config_changes', 2, 'decision_id', 'id', 'The decision it belongs to, see decisions.'),
('config_changes', 3, 'path', 'text', 'The file that was really written, with symbolic links resolved.'),
('config_changes', 4, 'at_ns', 'ns', 'When it was about to be written.'),
('config_changes', 5, 'before_text', 'text', 'The whole file before.'),
('config_changes', 6, 'after_text', 'text', 'The whole file after.'),
('config_changes', 7, 'diff', 'text', 'Unified diff of the two.'),
('config_changes', 8, 'outcome', 'word', 'written, kept, rolled_back.'),

('losses', 1, 'source', 'text', 'Who lost it, such as nvml or store.'),
('losses', 2, 'reason', 'text', 'Why, as a short stable word.'),
('losses', 3, 'at_ns', 'ns', 'When it was counted.'),
('losses', 4, 'count', 'count', 'How many records or calls since the row before it.');
