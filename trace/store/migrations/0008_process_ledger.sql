-- What a process allocated is told again after a minute and a flush, and the longest flush is a minute too: until then the
-- last word holds. What else may be unattributed is said.

DROP VIEW process_ledger;

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
-- Processes that the driver lists then, by their last rows. One that is gone has a known row before that. What they
-- allocated is told again after a minute and a flush, and the longest flush is a minute too.
part AS NOT MATERIALIZED (
    SELECT DISTINCT m.run_id AS run_id, m.device_id AS device_id, m.moment AS moment, m.at_ns AS at_ns, p.pid AS pid,
        p.used_bytes AS used_bytes, p.process_id AS process_id, p.run_id AS owner_run_id,
        (SELECT a.allocated_bytes FROM _allocator_raw AS a
         WHERE a.at_ns BETWEEN m.at_ns - 122000000000 AND m.at_ns AND a.pid = p.pid AND a.device_id = p.device_id
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

UPDATE _column SET meaning = 'used_bytes - allocated_bytes: its context, its modules, managed memory, what is free in the driver''s pools, and what CUPTI takes. Negative where more was allocated than the driver says that it holds.'
WHERE view = 'process_ledger' AND "column" = 'unattributed_bytes';
