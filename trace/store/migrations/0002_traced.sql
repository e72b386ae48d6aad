-- What the agent in a process tells about its GPU work: kernels, copies, allocations, allocators.
--
-- Totals are kept as long as their run. What they are made of (windows, spans, allocations, samples of allocators) is
-- kept like other raw samples. In the keys of private tables device 0 is the unknown device.

CREATE TABLE _kernel_name (
    id INTEGER PRIMARY KEY,
    raw TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL
);

CREATE TABLE _kernel (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL,
    device_id INTEGER NOT NULL,
    name_id INTEGER NOT NULL,
    count INTEGER NOT NULL DEFAULT 0,
    total_ns INTEGER NOT NULL DEFAULT 0,
    min_ns INTEGER,
    max_ns INTEGER,
    UNIQUE (run_id, device_id, name_id)
);

-- How many durations fell into which bucket: four buckets to each doubling, see plimsoll_trace::sketch.
CREATE TABLE _kernel_bucket (
    kernel_id INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (kernel_id, bucket)
) WITHOUT ROWID;

CREATE TABLE _kernel_window (
    start_ns INTEGER NOT NULL,
    kernel_id INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    end_ns INTEGER NOT NULL,
    count INTEGER NOT NULL,
    total_ns INTEGER NOT NULL,
    min_ns INTEGER NOT NULL,
    max_ns INTEGER NOT NULL,
    PRIMARY KEY (start_ns, kernel_id, pid)
) WITHOUT ROWID;

CREATE TABLE _kernel_span (
    start_ns INTEGER NOT NULL,
    kernel_id INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    stream INTEGER NOT NULL,
    end_ns INTEGER NOT NULL,
    PRIMARY KEY (start_ns, kernel_id, pid, stream)
) WITHOUT ROWID;

CREATE TABLE _copy (
    run_id INTEGER NOT NULL,
    device_id INTEGER NOT NULL,
    direction TEXT NOT NULL,
    count INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    total_ns INTEGER NOT NULL,
    PRIMARY KEY (run_id, device_id, direction)
) WITHOUT ROWID;

CREATE TABLE _copy_window (
    start_ns INTEGER NOT NULL,
    run_id INTEGER NOT NULL,
    device_id INTEGER NOT NULL,
    direction TEXT NOT NULL,
    pid INTEGER NOT NULL,
    end_ns INTEGER NOT NULL,
    count INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    total_ns INTEGER NOT NULL,
    PRIMARY KEY (start_ns, run_id, device_id, direction, pid)
) WITHOUT ROWID;

-- No key but the row's number: two allocations may happen at one instant, and each counts.
CREATE TABLE _allocation (
    id INTEGER PRIMARY KEY,
    at_ns INTEGER NOT NULL,
    run_id INTEGER,
    device_id INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    operation TEXT NOT NULL,
    kind TEXT NOT NULL,
    address INTEGER NOT NULL,
    bytes INTEGER
);
CREATE INDEX _allocation_at ON _allocation (at_ns);

CREATE TABLE _allocator_raw (
    at_ns INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    device_id INTEGER NOT NULL,
    level TEXT NOT NULL,
    run_id INTEGER,
    allocated_bytes INTEGER,
    active_bytes INTEGER,
    reserved_bytes INTEGER,
    inactive_split_bytes INTEGER,
    requested_bytes INTEGER,
    segments INTEGER,
    largest_free_bytes INTEGER,
    source TEXT NOT NULL,
    PRIMARY KEY (at_ns, pid, device_id, level)
) WITHOUT ROWID;

-- Nearest rank: the first bucket up to which the share of all lies. Its middle stands for it, inside of what was seen.
CREATE VIEW kernels AS
SELECT
    k.run_id AS run_id,
    (SELECT uuid FROM _device WHERE id = k.device_id) AS device,
    n.name AS name,
    k.count AS count,
    k.total_ns AS total_ns,
    CASE WHEN k.count > 0 THEN CAST(k.total_ns AS REAL) / k.count END AS mean_ns,
    k.min_ns AS min_ns,
    k.max_ns AS max_ns,
    min(max((
        SELECT CASE WHEN bucket < 4 THEN bucket
            ELSE ((4 + bucket % 4) << (bucket / 4 - 1)) + ((1 << (bucket / 4 - 1)) / 2) END
        FROM (SELECT bucket, sum(count) OVER (ORDER BY bucket) AS upto, sum(count) OVER () AS whole
              FROM _kernel_bucket WHERE kernel_id = k.id)
        WHERE upto * 2 >= whole ORDER BY bucket LIMIT 1), k.min_ns), k.max_ns) AS p50_ns,
    min(max((
        SELECT CASE WHEN bucket < 4 THEN bucket
            ELSE ((4 + bucket % 4) << (bucket / 4 - 1)) + ((1 << (bucket / 4 - 1)) / 2) END
        FROM (SELECT bucket, sum(count) OVER (ORDER BY bucket) AS upto, sum(count) OVER () AS whole
              FROM _kernel_bucket WHERE kernel_id = k.id)
        WHERE upto * 100 >= whole * 99 ORDER BY bucket LIMIT 1), k.min_ns), k.max_ns) AS p99_ns,
    n.raw AS raw_name
FROM _kernel AS k JOIN _kernel_name AS n ON n.id = k.name_id
WHERE k.count > 0;

CREATE VIEW kernel_windows AS
SELECT
    k.run_id AS run_id,
    d.uuid AS device,
    n.name AS name,
    w.start_ns AS start_ns,
    w.end_ns AS end_ns,
    w.count AS count,
    w.total_ns AS total_ns,
    w.max_ns AS max_ns,
    w.min_ns AS min_ns,
    w.pid AS pid
FROM _kernel_window AS w CROSS JOIN _kernel AS k CROSS JOIN _kernel_name AS n LEFT JOIN _device AS d ON d.id = k.device_id
WHERE k.id = w.kernel_id AND n.id = k.name_id;

CREATE VIEW kernel_spans AS
SELECT
    k.run_id AS run_id,
    s.pid AS pid,
    d.uuid AS device,
    s.stream AS stream,
    n.name AS name,
    s.start_ns AS start_ns,
    s.end_ns AS end_ns
FROM _kernel_span AS s CROSS JOIN _kernel AS k CROSS JOIN _kernel_name AS n LEFT JOIN _device AS d ON d.id = k.device_id
WHERE k.id = s.kernel_id AND n.id = k.name_id;

CREATE VIEW copies AS
SELECT
    run_id,
    (SELECT uuid FROM _device WHERE id = device_id) AS device,
    direction,
    count,
    bytes,
    total_ns
FROM _copy;

CREATE VIEW copy_windows AS
SELECT
    run_id,
    (SELECT uuid FROM _device WHERE id = device_id) AS device,
    direction,
    start_ns,
    end_ns,
    count,
    bytes,
    total_ns,
    pid
FROM _copy_window;

CREATE VIEW allocations AS
SELECT
    run_id,
    (SELECT uuid FROM _device WHERE _device.id = device_id) AS device,
    at_ns,
    operation,
    address,
    bytes,
    kind,
    pid
FROM _allocation;

CREATE VIEW allocator_samples AS
SELECT
    run_id,
    (SELECT uuid FROM _device WHERE id = device_id) AS device,
    at_ns,
    level,
    allocated_bytes,
    active_bytes,
    reserved_bytes,
    inactive_split_bytes,
    CASE WHEN reserved_bytes > 0 AND allocated_bytes <= reserved_bytes
        THEN CAST(reserved_bytes - allocated_bytes AS REAL) / reserved_bytes END AS slack_ratio,
    CASE WHEN reserved_bytes > 0 AND inactive_split_bytes <= reserved_bytes
        THEN CAST(inactive_split_bytes AS REAL) / reserved_bytes END AS stuck_ratio,
    source,
    pid,
    requested_bytes,
    segments,
    largest_free_bytes
FROM _allocator_raw;

INSERT INTO _column (view, position, "column", unit, meaning) VALUES
('kernels', 1, 'run_id', 'id', 'The run, see runs.'),
('kernels', 2, 'device', 'uuid', 'The device, see devices.'),
('kernels', 3, 'name', 'text', 'The kernel as people write it: C++ names are demangled. A whole CUDA graph is one row where graphs are not looked into.'),
('kernels', 4, 'count', 'count', 'Launches that ended, all that CUPTI delivered; what it did not deliver is in losses.'),
('kernels', 5, 'total_ns', 'ns', 'Sum of their durations, exact.'),
('kernels', 6, 'mean_ns', 'ns', 'total_ns / count.'),
('kernels', 7, 'min_ns', 'ns', 'The shortest.'),
('kernels', 8, 'max_ns', 'ns', 'The longest.'),
('kernels', 9, 'p50_ns', 'ns', 'The median, from a histogram of four buckets to each doubling: within an eighth.'),
('kernels', 10, 'p99_ns', 'ns', 'What 99 of 100 launches did not exceed, likewise.'),
('kernels', 11, 'raw_name', 'text', 'The name as CUPTI gave it; bytes that are not UTF-8 are replaced.'),

('kernel_windows', 1, 'run_id', 'id', 'The run, see runs.'),
('kernel_windows', 2, 'device', 'uuid', 'The device, see devices.'),
('kernel_windows', 3, 'name', 'text', 'The kernel, see kernels.'),
('kernel_windows', 4, 'start_ns', 'ns', 'When the period began in which these launches ended: about a second, one flush of the agent.'),
('kernel_windows', 5, 'end_ns', 'ns', 'When it ended.'),
('kernel_windows', 6, 'count', 'count', 'Launches that ended in it.'),
('kernel_windows', 7, 'total_ns', 'ns', 'Sum of their durations; kernels may run side by side, so it can exceed the period.'),
('kernel_windows', 8, 'max_ns', 'ns', 'The longest.'),
('kernel_windows', 9, 'min_ns', 'ns', 'The shortest.'),
('kernel_windows', 10, 'pid', 'id', 'The process.'),

('kernel_spans', 1, 'run_id', 'id', 'The run, see runs.'),
('kernel_spans', 2, 'pid', 'id', 'The process.'),
('kernel_spans', 3, 'device', 'uuid', 'The device, see devices.'),
('kernel_spans', 4, 'stream', 'id', 'The CUDA stream, as CUPTI numbers it in the process.'),
('kernel_spans', 5, 'name', 'text', 'The kernel, see kernels.'),
('kernel_spans', 6, 'start_ns', 'ns', 'When it began. Single kernels are kept only while a window is open.'),
('kernel_spans', 7, 'end_ns', 'ns', 'When it ended.'),

('copies', 1, 'run_id', 'id', 'The run, see runs.'),
('copies', 2, 'device', 'uuid', 'The device, see devices.'),
('copies', 3, 'direction', 'word', 'htod, dtoh, dtod, ptop, htoh: from and to host, device or peer.'),
('copies', 4, 'count', 'count', 'How many copies.'),
('copies', 5, 'bytes', 'bytes', 'How much was copied.'),
('copies', 6, 'total_ns', 'ns', 'Sum of their durations.'),

('copy_windows', 1, 'run_id', 'id', 'The run, see runs.'),
('copy_windows', 2, 'device', 'uuid', 'The device, see devices.'),
('copy_windows', 3, 'direction', 'word', 'See copies.'),
('copy_windows', 4, 'start_ns', 'ns', 'When the period began in which these copies ended.'),
('copy_windows', 5, 'end_ns', 'ns', 'When it ended.'),
('copy_windows', 6, 'count', 'count', 'How many copies.'),
('copy_windows', 7, 'bytes', 'bytes', 'How much was copied.'),
('copy_windows', 8, 'total_ns', 'ns', 'Sum of their durations.'),
('copy_windows', 9, 'pid', 'id', 'The process.'),

('allocations', 1, 'run_id', 'id', 'The run, see runs; NULL when the process belongs to none.'),
('allocations', 2, 'device', 'uuid', 'The device, see devices.'),
('allocations', 3, 'at_ns', 'ns', 'When it happened.'),
('allocations', 4, 'operation', 'word', 'alloc, free.'),
('allocations', 5, 'address', 'address', 'Where the memory begins; for physical memory its handle. As a signed number, as SQLite has them.'),
('allocations', 6, 'bytes', 'bytes', 'How large it is; NULL for a release of what was taken before the agent looked.'),
('allocations', 7, 'kind', 'word', 'device, pool (stream-ordered), physical (cuMemCreate), managed, pinned (of the host).'),
('allocations', 8, 'pid', 'id', 'The process.'),

('allocator_samples', 1, 'run_id', 'id', 'The run, see runs; NULL when the process belongs to none.'),
('allocator_samples', 2, 'device', 'uuid', 'The device, see devices.'),
('allocator_samples', 3, 'at_ns', 'ns', 'When it was counted.'),
('allocator_samples', 4, 'level', 'word', 'Whose view it is: driver (what was taken through it), pools (stream-ordered), vmm (reserved addresses and what is mapped), pytorch. Fragmentation without its level means nothing.'),
('allocator_samples', 5, 'allocated_bytes', 'bytes', 'In use: by the program (driver, pools), mapped (vmm), by tensors (pytorch).'),
('allocator_samples', 6, 'active_bytes', 'bytes', 'In blocks that are in use.'),
('allocator_samples', 7, 'reserved_bytes', 'bytes', 'Taken from the level below; for vmm, addresses, which cost no memory.'),
('allocator_samples', 8, 'inactive_split_bytes', 'bytes', 'Free, but in blocks that cannot be given back.'),
('allocator_samples', 9, 'slack_ratio', 'ratio', '1 - allocated_bytes / reserved_bytes.'),
('allocator_samples', 10, 'stuck_ratio', 'ratio', 'inactive_split_bytes / reserved_bytes: the figure to alarm on.'),
('allocator_samples', 11, 'source', 'word', 'Who says so: cupti, pytorch.'),
('allocator_samples', 12, 'pid', 'id', 'The process.'),
('allocator_samples', 13, 'requested_bytes', 'bytes', 'Asked for before rounding.'),
('allocator_samples', 14, 'segments', 'count', 'Pieces taken from the level below.'),
('allocator_samples', 15, 'largest_free_bytes', 'bytes', 'The largest free block; measured on demand only.');

UPDATE _column SET meaning = replace(meaning, 'agent_displaced.', 'agent_displaced, agent_degraded.')
WHERE view = 'events' AND "column" = 'kind';
