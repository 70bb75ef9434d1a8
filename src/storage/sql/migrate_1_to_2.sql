CREATE TABLE incidents (          -- what has happened to the journal itself: damage, failed writes, what was recovered
    at     INTEGER NOT NULL,
    report TEXT    NOT NULL,
    crc    INTEGER NOT NULL
);

CREATE VIEW incidents_view AS
SELECT strftime('%Y-%m-%d %H:%M:%f', at / 1000.0, 'unixepoch') AS time, report
FROM incidents
ORDER BY at;
