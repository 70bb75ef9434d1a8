INSERT INTO proxies (kind, key, args, state, seq, created_at, updated_at, crc)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
ON CONFLICT (kind, key) DO UPDATE SET
    args = excluded.args, state = excluded.state, seq = excluded.seq,
    created_at = excluded.created_at, updated_at = excluded.updated_at, crc = excluded.crc;
