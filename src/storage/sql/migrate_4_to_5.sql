-- In version 5 the rowid of a row of `proxies` is the number of its change: new rows are appended, and no index has to
-- be written.
DROP VIEW proxies_view;
ALTER TABLE proxies RENAME TO proxies_before;

CREATE TABLE proxies (
    kind       TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    args       TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    seq        INTEGER PRIMARY KEY,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    crc        INTEGER NOT NULL
);

INSERT INTO proxies (kind, key, args, state, seq, created_at, updated_at, crc)
SELECT kind, key, args, state, seq, created_at, updated_at, crc FROM proxies_before;

DROP TABLE proxies_before;

CREATE VIEW proxies_view AS
SELECT kind, key, state,
       coalesce(json_extract(args, '$.url'), json_extract(args, '$.src_url')) AS url,
       json_extract(args, '$.dst_url') AS dst_url,
       seq,
       strftime('%Y-%m-%d %H:%M:%f', created_at / 1000.0, 'unixepoch') AS created,
       strftime('%Y-%m-%d %H:%M:%f', updated_at / 1000.0, 'unixepoch') AS updated
FROM proxies
ORDER BY kind, key;
