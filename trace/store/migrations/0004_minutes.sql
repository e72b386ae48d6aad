-- Kernels by the minute: what a day's picture needs of the windows, which are some fifty times as many rows.
--
-- The writer adds to a minute with each commit, so it is exact at any time, and what an agent tells late still finds
-- its place. Minutes outlive the windows that they are made of.

CREATE TABLE _kernel_minute (
    start_ns INTEGER NOT NULL,
    kernel_id INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    first_ns INTEGER NOT NULL,
    end_ns INTEGER NOT NULL,
    count INTEGER NOT NULL,
    total_ns INTEGER NOT NULL,
    min_ns INTEGER NOT NULL,
    max_ns INTEGER NOT NULL,
    PRIMARY KEY (start_ns, kernel_id, pid)
) WITHOUT ROWID;

-- total() does not end in an error where sum() leaves 64 bits.
INSERT INTO _kernel_minute
SELECT start_ns - start_ns % 60000000000, kernel_id, pid, min(start_ns), max(end_ns),
    CAST(min(total(count), 72057594037927936) AS INTEGER), CAST(min(total(total_ns), 72057594037927936) AS INTEGER),
    min(min_ns), max(max_ns)
FROM _kernel_window
GROUP BY start_ns - start_ns % 60000000000, kernel_id, pid;

-- Totals had no end before, and became fractions beyond 64 bits: one of them kept a whole view from being read.
UPDATE _kernel SET count = CAST(min(count, 72057594037927936) AS INTEGER),
    total_ns = CAST(min(total_ns, 72057594037927936) AS INTEGER)
WHERE count > 72057594037927936 OR total_ns > 72057594037927936;
UPDATE _kernel_bucket SET count = CAST(min(count, 281474976710656) AS INTEGER) WHERE count > 281474976710656;
UPDATE _copy SET count = CAST(min(count, 72057594037927936) AS INTEGER),
    bytes = CAST(min(bytes, 72057594037927936) AS INTEGER),
    total_ns = CAST(min(total_ns, 72057594037927936) AS INTEGER)
WHERE count > 72057594037927936 OR bytes > 72057594037927936 OR total_ns > 72057594037927936;

CREATE VIEW kernel_minutes AS
SELECT
    k.run_id AS run_id,
    d.uuid AS device,
    n.name AS name,
    m.start_ns AS start_ns,
    m.first_ns AS first_ns,
    m.end_ns AS end_ns,
    m.count AS count,
    m.total_ns AS total_ns,
    m.max_ns AS max_ns,
    m.min_ns AS min_ns,
    m.pid AS pid
FROM _kernel_minute AS m CROSS JOIN _kernel AS k CROSS JOIN _kernel_name AS n LEFT JOIN _device AS d ON d.id = k.device_id
WHERE k.id = m.kernel_id AND n.id = k.name_id;

INSERT INTO _column (view, position, "column", unit, meaning) VALUES
('kernel_minutes', 1, 'run_id', 'id', 'The run, see runs.'),
('kernel_minutes', 2, 'device', 'uuid', 'The device, see devices.'),
('kernel_minutes', 3, 'name', 'text', 'The kernel, see kernels.'),
('kernel_minutes', 4, 'start_ns', 'ns', 'The whole minute in which these windows began, see kernel_windows. Kept as long as samples that come once a second.'),
('kernel_minutes', 5, 'first_ns', 'ns', 'When the first of them began.'),
('kernel_minutes', 6, 'end_ns', 'ns', 'When the last of them ended; that may be a little after the minute.'),
('kernel_minutes', 7, 'count', 'count', 'Launches that ended in them.'),
('kernel_minutes', 8, 'total_ns', 'ns', 'Sum of their durations, exact.'),
('kernel_minutes', 9, 'max_ns', 'ns', 'The longest.'),
('kernel_minutes', 10, 'min_ns', 'ns', 'The shortest.'),
('kernel_minutes', 11, 'pid', 'id', 'The process.');
