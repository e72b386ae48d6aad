-- What rounding costs, and what is free in which pieces. Raw figures are stored; shares and bounds are made when they are
-- read.

ALTER TABLE _allocator_raw ADD COLUMN rounding_bytes INTEGER;
ALTER TABLE _allocator_raw ADD COLUMN free_blocks_bytes INTEGER;

DROP VIEW allocator_samples;
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
    largest_free_bytes,
    CASE WHEN rounding_bytes IS NOT NULL THEN rounding_bytes
        WHEN requested_bytes <= allocated_bytes THEN allocated_bytes - requested_bytes END AS rounding_bytes,
    CASE WHEN active_bytes + inactive_split_bytes <= reserved_bytes
        THEN reserved_bytes - active_bytes - inactive_split_bytes END AS reclaimable_bytes,
    free_blocks_bytes,
    CASE WHEN free_blocks_bytes > 0 AND largest_free_bytes <= free_blocks_bytes
        THEN CAST(free_blocks_bytes - largest_free_bytes AS REAL) / free_blocks_bytes END AS external_fragmentation_ratio,
    -- Unknown as soon as one of the two is.
    CASE WHEN largest_free_bytes IS NOT NULL THEN max(largest_free_bytes, (
        SELECT d.free_bytes FROM _device_raw AS d
        WHERE d.at_ns BETWEEN a.at_ns - 10000000000 AND a.at_ns AND d.device_id = a.device_id
        ORDER BY d.at_ns DESC LIMIT 1)) END AS largest_new_block_bytes
FROM _allocator_raw AS a;

UPDATE _column SET meaning = 'The largest free block that could be handed out without asking the level below; measured on demand only (plimsoll show RUN --allocator).'
WHERE view = 'allocator_samples' AND "column" = 'largest_free_bytes';

INSERT INTO _column (view, position, "column", unit, meaning) VALUES
('allocator_samples', 16, 'rounding_bytes', 'bytes', 'What rounding costs: for pytorch, allocated_bytes - requested_bytes; for driver, at most so much, if each piece were rounded up to 2 MiB.'),
('allocator_samples', 17, 'reclaimable_bytes', 'bytes', 'What the allocator could give back now: reserved_bytes - active_bytes - inactive_split_bytes.'),
('allocator_samples', 18, 'free_blocks_bytes', 'bytes', 'All free blocks together; measured with largest_free_bytes.'),
('allocator_samples', 19, 'external_fragmentation_ratio', 'ratio', '1 - largest_free_bytes / free_blocks_bytes: how much of what is free cannot be had in one piece.'),
('allocator_samples', 20, 'largest_new_block_bytes', 'bytes', 'The largest block that can be had in one piece: largest_free_bytes, or what is free on the device if that is more. NULL when one of them is unknown.');
