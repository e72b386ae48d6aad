-- Whose a loss was, so that a run does not answer for what others lost at the same time.

ALTER TABLE _loss ADD COLUMN run_id INTEGER;
CREATE INDEX _loss_run ON _loss (run_id) WHERE run_id IS NOT NULL;

DROP VIEW losses;
CREATE VIEW losses AS
SELECT source, reason, at_ns, count, run_id
FROM _loss;

INSERT INTO _column (view, position, "column", unit, meaning) VALUES
('losses', 5, 'run_id', 'id', 'The run whose it was, see runs; NULL when it was nobody''s in particular, or is not known.');
