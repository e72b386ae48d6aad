-- What a replay of the rules needs besides samples: the rules as they were, and where their ladder stood whenever something
-- other than an evaluation changed that.

CREATE TABLE _rule_set (
    hash TEXT PRIMARY KEY,
    engine TEXT NOT NULL,
    first_ns INTEGER NOT NULL,
    rules TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE _ladder_mark (
    id INTEGER PRIMARY KEY,
    engine TEXT NOT NULL,
    at_ns INTEGER NOT NULL,
    kind TEXT NOT NULL,
    rules_hash TEXT NOT NULL,
    max_age_ns INTEGER NOT NULL,
    run_id INTEGER,
    devices TEXT NOT NULL,
    state TEXT NOT NULL
);
CREATE INDEX _ladder_mark_at ON _ladder_mark (engine, at_ns);

CREATE VIEW rule_sets AS
SELECT hash, engine, first_ns, rules FROM _rule_set;

CREATE VIEW ladder_marks AS
SELECT id, engine, at_ns, kind, rules_hash, max_age_ns, run_id, devices, state FROM _ladder_mark;

INSERT INTO _column (view, position, "column", unit, meaning) VALUES
('rule_sets', 1, 'hash', 'text', 'SHA-256 of rules, in hexadecimal digits; decisions have it in detail.rules_hash.'),
('rule_sets', 2, 'engine', 'text', 'The engine''s name in the configuration.'),
('rule_sets', 3, 'first_ns', 'ns', 'When they were first evaluated.'),
('rule_sets', 4, 'rules', 'json', 'The rules as the configuration had them, with the engine''s limits and what its reload costs, an object.'),
('ladder_marks', 1, 'id', 'id', 'Number of the mark.'),
('ladder_marks', 2, 'engine', 'text', 'The engine''s name in the configuration.'),
('ladder_marks', 3, 'at_ns', 'ns', 'The evaluation that it speaks of.'),
('ladder_marks', 4, 'kind', 'word', 'start (first evaluation by a daemon), change (something besides evaluation changed the state before it), instead (what it came to was given up), held (not evaluated until the next mark).'),
('ladder_marks', 5, 'rules_hash', 'text', 'The rules in force, see rule_sets.'),
('ladder_marks', 6, 'max_age_ns', 'ns', 'How long a value stood for the present.'),
('ladder_marks', 7, 'run_id', 'id', 'The engine''s run then, see runs.'),
('ladder_marks', 8, 'devices', 'json', 'The devices that it ran on, a list.'),
('ladder_marks', 9, 'state', 'json', 'The state of all rules, as the tuner remembers it; its form may change.');

UPDATE _column
SET meaning = 'What it rested on and what was done, an object: clauses (what was read), actor, applied_by and resolved_by (who), rules_hash (see rule_sets), state_before and state_after (each rule''s rung), guards, file (hashes before and after, reload), ready, effect, steps.'
WHERE view = 'decisions' AND "column" = 'detail';
