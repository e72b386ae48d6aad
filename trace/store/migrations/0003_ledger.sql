-- Where a device's memory is: what is in use is what its processes hold and what nobody owns up to; what a process
-- holds is what it allocated and the rest. Nothing is made to add up: a rest may be negative, and what is unknown stays so.
--
-- For each run and device two moments: when the device was fullest while the run held memory on it, and the last one.

CREATE VIEW ledger AS
WITH held AS (
    -- Without an aggregate, columns beside a maximum are those of its row.
    SELECT r.id AS run_id, r.started_ns AS from_ns, r.ended_ns AS ended_ns, p.device_id AS device_id,
        max(p.at_ns) AS last_ns, p.used_bytes AS last_bytes, count(p.used_bytes) AS known
    FROM _run AS r CROSS JOIN _process_raw AS p
    WHERE p.at_ns BETWEEN r.started_ns AND coalesce(r.ended_ns, 9223372036854775807) AND p.run_id = r.id
    GROUP BY r.id, p.device_id, p.pid
),
-- A process that was known ends with a row in which nothing is; else its last row holds for 61 s.
life AS (
    SELECT run_id, device_id, from_ns,
        min(max(CASE WHEN last_bytes IS NULL AND known > 0 THEN last_ns - 1 ELSE last_ns + 61000000000 END),
            coalesce(max(ended_ns), 9223372036854775807)) AS to_ns
    FROM held GROUP BY run_id, device_id, from_ns
),
moment AS (
    SELECT run_id, device_id, 'peak' AS moment,
        (SELECT d.at_ns FROM _device_raw AS d
         WHERE d.at_ns BETWEEN life.from_ns AND life.to_ns AND d.device_id = life.device_id AND d.used_bytes IS NOT NULL
         ORDER BY d.used_bytes DESC, d.at_ns LIMIT 1) AS at_ns
    FROM life
    UNION ALL
    SELECT run_id, device_id, 'end',
        (SELECT d.at_ns FROM _device_raw AS d
         WHERE d.at_ns BETWEEN life.from_ns AND life.to_ns AND d.device_id = life.device_id
         ORDER BY d.at_ns DESC LIMIT 1)
    FROM life
),
-- Processes that the driver lists then. One that is gone has a known row before its last one.
present AS (
    SELECT m.run_id AS run_id, m.device_id AS device_id, m.moment AS moment, m.at_ns AS at_ns, p.pid AS pid,
        max(p.at_ns) AS told_ns, p.used_bytes AS used_bytes, p.process_id AS process_id, p.run_id AS owner_run_id,
        (SELECT count(e.used_bytes) FROM _process_raw AS e
         WHERE e.at_ns BETWEEN m.at_ns - 122000000000 AND m.at_ns AND e.device_id = m.device_id AND e.pid = p.pid) AS known
    FROM moment AS m CROSS JOIN _process_raw AS p
    WHERE p.at_ns BETWEEN m.at_ns - 61000000000 AND m.at_ns AND p.device_id = m.device_id
    GROUP BY m.run_id, m.device_id, m.moment, m.at_ns, p.pid
),
part AS (
    SELECT *,
        (SELECT a.allocated_bytes FROM _allocator_raw AS a
         WHERE a.at_ns BETWEEN present.at_ns - 62000000000 AND present.at_ns AND a.pid = present.pid
             AND a.device_id = present.device_id AND a.level = 'driver'
         ORDER BY a.at_ns DESC LIMIT 1) AS allocated_bytes
    FROM present WHERE used_bytes IS NOT NULL OR known = 0
)
SELECT
    m.run_id AS run_id,
    (SELECT uuid FROM _device WHERE id = m.device_id) AS device,
    m.moment AS moment,
    m.at_ns AS at_ns,
    'device' AS item,
    NULL AS pid,
    NULL AS process,
    NULL AS owner_run_id,
    d.used_bytes AS used_bytes,
    coalesce(p.sum_bytes, 0) AS parts_bytes,
    coalesce(p.unknown, 0) AS unknown_parts,
    CASE WHEN coalesce(p.unknown, 0) = 0 THEN d.used_bytes - coalesce(p.sum_bytes, 0) END AS unattributed_bytes,
    d.reserved_bytes AS reserved_bytes,
    d.total_bytes AS total_bytes
FROM moment AS m
    JOIN _device_raw AS d ON d.at_ns = m.at_ns AND d.device_id = m.device_id
    LEFT JOIN (
        SELECT run_id, device_id, moment, sum(used_bytes) AS sum_bytes, count(*) - count(used_bytes) AS unknown
        FROM part GROUP BY run_id, device_id, moment
    ) AS p ON p.run_id = m.run_id AND p.device_id = m.device_id AND p.moment = m.moment
UNION ALL
SELECT
    run_id,
    (SELECT uuid FROM _device WHERE id = device_id),
    moment,
    at_ns,
    'process',
    pid,
    (SELECT text FROM _name WHERE id = process_id),
    owner_run_id,
    used_bytes,
    allocated_bytes,
    allocated_bytes IS NULL,
    used_bytes - allocated_bytes,
    NULL,
    NULL
FROM part;

INSERT INTO _column (view, position, "column", unit, meaning) VALUES
('ledger', 1, 'run_id', 'id', 'The run, see runs.'),
('ledger', 2, 'device', 'uuid', 'A device that the run held memory on, see devices.'),
('ledger', 3, 'moment', 'word', 'peak: when the most was in use on the device while the run lived; end: the last sample while it held memory there.'),
('ledger', 4, 'at_ns', 'ns', 'When that was.'),
('ledger', 5, 'item', 'word', 'device: the parts are its processes; process: the parts are its live allocations.'),
('ledger', 6, 'pid', 'id', 'The process, of any run; NULL for the device.'),
('ledger', 7, 'process', 'text', 'Its name.'),
('ledger', 8, 'owner_run_id', 'id', 'The run that the process belongs to; NULL when it belongs to none.'),
('ledger', 9, 'used_bytes', 'bytes', 'What is in use on the device, or held by the process.'),
('ledger', 10, 'parts_bytes', 'bytes', 'The parts together: what the processes hold, as far as it is known; or what the process allocated through the driver and did not give back, NULL when it was not traced.'),
('ledger', 11, 'unknown_parts', 'count', 'Parts whose size is not known.'),
('ledger', 12, 'unattributed_bytes', 'bytes', 'used_bytes - parts_bytes: of the device, what no process owns up to; of a process, its context, its modules and what CUPTI takes. Negative where the parts claim more; NULL when a part is not known.'),
('ledger', 13, 'reserved_bytes', 'bytes', 'What the driver keeps for itself beside used_bytes; NULL when it does not say, and for processes.'),
('ledger', 14, 'total_bytes', 'bytes', 'The size of the device; NULL for processes.');
