-- Schema version 5. Written so that any sqlite3 since 3.9 reads it (no STRICT, no generated columns).
-- Times are milliseconds since 1970-01-01 UTC; the views show them as text.

CREATE TABLE proxies (            -- intent now: restore reads only this
    kind       TEXT    NOT NULL,  -- pull, push, ffmpeg
    key        TEXT    NOT NULL,  -- as MediaServer returned it; of a pull vhost/app/stream
    args       TEXT    NOT NULL,  -- the call's arguments, one JSON object, without the secret; sealed with [journal] key_file
                                  -- {"sealed":{"xchacha20poly1305":nonce and ciphertext}}, bound to kind, a zero byte, key
    state      TEXT    NOT NULL,  -- enabled, disabled, dormant, quarantined
    seq        INTEGER PRIMARY KEY, -- the journal row that made it so; kind and key are in one row only, which has no index
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    crc        INTEGER NOT NULL   -- CRC-32 of all the above
);

CREATE TABLE journal (            -- every change, written in the transaction that made it
    seq    INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    op     TEXT    NOT NULL,      -- add, remove; enable, disable, sleep, quarantine: another state
    kind   TEXT    NOT NULL,
    key    TEXT    NOT NULL,
    args   TEXT,                  -- of the proxy afterwards, if there is one
    origin TEXT    NOT NULL,      -- who: ip:port, or zlm-journal or MediaServer by itself
    reason TEXT    NOT NULL,      -- which call, or why
    crc    INTEGER NOT NULL
);

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,       -- seq: of the last change; count, digest: rows of proxies and the XOR of their crc;
                                  -- schema: this version once more; key: the id of the key that arguments are sealed with
    value INTEGER NOT NULL
);

CREATE VIEW proxies_view AS
SELECT kind, key, state,
       coalesce(json_extract(args, '$.url'), json_extract(args, '$.src_url')) AS url,
       json_extract(args, '$.dst_url') AS dst_url,
       seq,
       strftime('%Y-%m-%d %H:%M:%f', created_at / 1000.0, 'unixepoch') AS created,
       strftime('%Y-%m-%d %H:%M:%f', updated_at / 1000.0, 'unixepoch') AS updated
FROM proxies
ORDER BY kind, key;

CREATE VIEW journal_view AS
SELECT seq,
       strftime('%Y-%m-%d %H:%M:%f', at / 1000.0, 'unixepoch') AS time,
       op, kind, key,
       coalesce(json_extract(args, '$.url'), json_extract(args, '$.src_url')) AS url,
       json_extract(args, '$.dst_url') AS dst_url,
       origin, reason
FROM journal
ORDER BY seq;

CREATE TABLE incidents (          -- what has happened to the journal itself: damage, failed writes, what was recovered
    at     INTEGER NOT NULL,
    report TEXT    NOT NULL,
    crc    INTEGER NOT NULL
);

CREATE VIEW incidents_view AS
SELECT strftime('%Y-%m-%d %H:%M:%f', at / 1000.0, 'unixepoch') AS time, report
FROM incidents
ORDER BY at;
