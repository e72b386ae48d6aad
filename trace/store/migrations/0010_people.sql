-- What people order, and what becomes of rules that fail, are events of their own.

UPDATE _column SET meaning = replace(meaning, 'sampling_gap, quarantine,', 'sampling_gap, rolled_back (a change was taken back, and its rule rests), quarantine (a rule failed again and is not tried for an hour or longer), paused and resumed (by a person; detail.actor),')
WHERE view = 'events' AND "column" = 'kind';
