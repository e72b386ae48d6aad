-- Where a device's memory is: what is in use is what its processes hold and what nobody owns up to; what a process
-- holds is what it allocated and the rest. Nothing is made to add up: a rest may be negative, and what is unknown stays so.
--
-- For each run and device two moments: when the device was fullest while the run held memory on it, and the last one.
-- The work is in subqueries that are DISTINCT, though no two rows are alike, and nothing is grouped: so SQLite evaluates
-- each once, and brings a condition on run_id down to the tables. A question about one run reads that run's time.

CREATE VIEW ledger AS
WITH last AS NOT MATERIALIZED (
    SELECT DISTINCT r.id AS run_id, v.id AS device_id, r.started_ns AS from_ns,
        coalesce(r.ended_ns, 9223372036854775807) AS ended_ns,
        (SELECT p.at_ns FROM _process_raw AS p
         WHERE p.at_ns BETWEEN r.started_ns AND coalesce(r.ended_ns, 9223372036854775807) AND p.run_id = r.id
             AND p.device_id = v.id
         ORDER BY p.at_ns DESC LIMIT 1) AS last_ns,
        (SELECT p.at_ns FROM _process_raw AS p
         WHERE p.at_ns BETWEEN r.started_ns AND coalesce(r.ended_ns, 9223372036854775807) AND p.run_id = r.id
             AND p.device_id = v.id AND p.used_bytes IS NOT NULL
         ORDER BY p.at_ns DESC LIMIT 1) AS known_ns
    FROM _run AS r CROSS JOIN _device AS v
),
-- A process that was known ends with a row in which nothing is; else its last row holds for 61 s.
life AS NOT MATERIALIZED (
    SELECT DISTINCT run_id, device_id, from_ns,
        min(ended_ns, CASE WHEN last_ns > known_ns THEN last_ns - 1 ELSE last_ns + 61000000000 END) AS to_ns
    FROM last WHERE last_ns IS NOT NULL
),
moment AS NOT MATERIALIZED (
    SELECT DISTINCT run_id, device_id, 'peak' AS moment,
        (SELECT d.at_ns FROM _device_raw AS d
         WHERE d.at_ns BETWEEN life.from_ns AND life.to_ns AND d.device_id = life.device_id AND d.used_bytes IS NOT NULL
         ORDER BY d.used_bytes DESC, d.at_ns LIMIT 1) AS at_ns
    FROM life
    UNION ALL
    SELECT DISTINCT run_id, device_id, 'end',
        (SELECT d.at_ns FROM _device_raw AS d
         WHERE d.at_ns BETWEEN life.from_ns AND life.to_ns AND d.device_id = life.device_id
         ORDER BY d.at_ns DESC LIMIT 1)
    FROM life
),
whole AS NOT MATERIALIZED (
    SELECT DISTINCT m.run_id AS run_id, m.device_id AS device_id, m.moment AS moment, m.at_ns AS at_ns,
        (SELECT coalesce(sum(p.used_bytes), 0) FROM _process_raw AS p
         WHERE p.at_ns BETWEEN m.at_ns - 61000000000 AND m.at_ns AND p.device_id = m.device_id
            AND NOT EXISTS (
                SELECT 1 FROM _process_raw AS n
                WHERE n.at_ns > p.at_ns AND n.at_ns <= m.at_ns AND n.device_id = p.device_id AND n.pid = p.pid)) AS sum_bytes,
        (SELECT count(*) FROM _process_raw AS p
         WHERE p.at_ns BETWEEN m.at_ns - 61000000000 AND m.at_ns AND p.device_id = m.device_id AND p.used_bytes IS NULL
            AND NOT EXISTS (
                SELECT 1 FROM _process_raw AS n
                WHERE n.at_ns > p.at_ns AND n.at_ns <= m.at_ns AND n.device_id = p.device_id AND n.pid = p.pid)
            AND NOT EXISTS (
                SELECT 1 FROM _process_raw AS e
                WHERE e.at_ns BETWEEN p.at_ns - 61000000000 AND p.at_ns AND e.device_id = p.device_id AND e.pid = p.pid
                    AND e.used_bytes IS NOT NULL)) AS unknown_processes,
        d.used_bytes AS used_bytes, d.reserved_bytes AS reserved_bytes, d.total_bytes AS total_bytes
    FROM moment AS m CROSS JOIN _device_raw AS d
    WHERE d.at_ns = m.at_ns AND d.device_id = m.device_id
)
SELECT
    run_id,
    (SELECT uuid FROM _device WHERE id = device_id) AS device,
    moment,
    at_ns,
    used_bytes,
    sum_bytes AS processes_bytes,
    unknown_processes,
    CASE WHEN unknown_processes = 0 THEN used_bytes - sum_bytes END AS unattributed_bytes,
    reserved_bytes,
    total_bytes
FROM whole;

CREATE VIEW process_ledger AS
WITH last AS NOT MATERIALIZED (
    SELECT DISTINCT r.id AS run_id, v.id AS device_id, r.started_ns AS from_ns,
        coalesce(r.ended_ns, 9223372036854775807) AS ended_ns,
        (SELECT p.at_ns FROM _process_raw AS p
         WHERE p.at_ns BETWEEN r.started_ns AND coalesce(r.ended_ns, 9223372036854775807) AND p.run_id = r.id
             AND p.device_id = v.id
         ORDER BY p.at_ns DESC LIMIT 1) AS last_ns,
        (SELECT p.at_ns FROM _process_raw AS p
         WHERE p.at_ns BETWEEN r.started_ns AND coalesce(r.ended_ns, 9223372036854775807) AND p.run_id = r.id
             AND p.device_id = v.id AND p.used_bytes IS NOT NULL
         ORDER BY p.at_ns DESC LIMIT 1) AS known_ns
    FROM _run AS r CROSS JOIN _device AS v
),
-- A process that was known ends with a row in which nothing is; else its last row holds for 61 s.
life AS NOT MATERIALIZED (
    SELECT DISTINCT run_id, device_id, from_ns,
        min(ended_ns, CASE WHEN last_ns > known_ns THEN last_ns - 1 ELSE last_ns + 61000000000 END) AS to_ns
    FROM last WHERE last_ns IS NOT NULL
),
moment AS NOT MATERIALIZED (
    SELECT DISTINCT run_id, device_id, 'peak' AS moment,
        (SELECT d.at_ns FROM _device_raw AS d
         WHERE d.at_ns BETWEEN life.from_ns AND life.to_ns AND d.device_id = life.device_id AND d.used_bytes IS NOT NULL
         ORDER BY d.used_bytes DESC, d.at_ns LIMIT 1) AS at_ns
    FROM life
    UNION ALL
    SELECT DISTINCT run_id, device_id, 'end',
        (SELECT d.at_ns FROM _device_raw AS d
         WHERE d.at_ns BETWEEN life.from_ns AND life.to_ns AND d.device_id = life.device_id
         ORDER BY d.at_ns DESC LIMIT 1)
    FROM life
),
-- Processes that the driver lists then, by their last rows. One that is gone has a known row before that.
part AS NOT MATERIALIZED (
    SELECT DISTINCT m.run_id AS run_id, m.device_id AS device_id, m.moment AS moment, m.at_ns AS at_ns, p.pid AS pid,
        p.used_bytes AS used_bytes, p.process_id AS process_id, p.run_id AS owner_run_id,
        (SELECT a.allocated_bytes FROM _allocator_raw AS a
         WHERE a.at_ns BETWEEN m.at_ns - 62000000000 AND m.at_ns AND a.pid = p.pid AND a.device_id = p.device_id
             AND a.level = 'driver'
         ORDER BY a.at_ns DESC LIMIT 1) AS allocated_bytes
    FROM moment AS m CROSS JOIN _process_raw AS p
    WHERE p.at_ns BETWEEN m.at_ns - 61000000000 AND m.at_ns AND p.device_id = m.device_id
        AND NOT EXISTS (
            SELECT 1 FROM _process_raw AS n
            WHERE n.at_ns > p.at_ns AND n.at_ns <= m.at_ns AND n.device_id = p.device_id AND n.pid = p.pid)
        AND (p.used_bytes IS NOT NULL OR NOT EXISTS (
            SELECT 1 FROM _process_raw AS e
            WHERE e.at_ns BETWEEN p.at_ns - 61000000000 AND p.at_ns AND e.device_id = p.device_id AND e.pid = p.pid
                AND e.used_bytes IS NOT NULL))
)
SELECT
    run_id,
    (SELECT uuid FROM _device WHERE id = device_id) AS device,
    moment,
    at_ns,
    pid,
    (SELECT text FROM _name WHERE id = process_id) AS process,
    owner_run_id,
    used_bytes,
    allocated_bytes,
    used_bytes - allocated_bytes AS unattributed_bytes
FROM part;

INSERT INTO _column (view, position, "column", unit, meaning) VALUES
('ledger', 1, 'run_id', 'id', 'The run, see runs.'),
('ledger', 2, 'device', 'uuid', 'A device that the run held memory on, see devices.'),
('ledger', 3, 'moment', 'word', 'peak: when the most was in use on the device while the run held memory there; end: the last sample of that time.'),
('ledger', 4, 'at_ns', 'ns', 'When that was.'),
('ledger', 5, 'used_bytes', 'bytes', 'What is in use on the device.'),
('ledger', 6, 'processes_bytes', 'bytes', 'What its processes hold together, of any run, as far as it is known; see process_ledger.'),
('ledger', 7, 'unknown_processes', 'count', 'Processes of which it is not known what they hold.'),
('ledger', 8, 'unattributed_bytes', 'bytes', 'used_bytes - processes_bytes: what no process owns up to. Negative where they claim more than is in use; NULL when it is not known of all what they hold.'),
('ledger', 9, 'reserved_bytes', 'bytes', 'What the driver keeps for itself beside used_bytes; NULL when it does not say.'),
('ledger', 10, 'total_bytes', 'bytes', 'The size of the device.'),

('process_ledger', 1, 'run_id', 'id', 'The run in whose ledger this is, see ledger.'),
('process_ledger', 2, 'device', 'uuid', 'The device, see devices.'),
('process_ledger', 3, 'moment', 'word', 'See ledger.'),
('process_ledger', 4, 'at_ns', 'ns', 'When that was.'),
('process_ledger', 5, 'pid', 'id', 'A process that held memory on the device then, of any run.'),
('process_ledger', 6, 'process', 'text', 'Its name.'),
('process_ledger', 7, 'owner_run_id', 'id', 'The run that the process belongs to; NULL when it belongs to none.'),
('process_ledger', 8, 'used_bytes', 'bytes', 'What it holds, as the driver says.'),
('process_ledger', 9, 'allocated_bytes', 'bytes', 'What it allocated through the driver and did not give back; NULL when it was not traced.'),
('process_ledger', 10, 'unattributed_bytes', 'bytes', 'used_bytes - allocated_bytes: its context, its modules, and what CUPTI takes. Negative where more was allocated than the driver says that it holds.');
