INSERT INTO proxies (kind, key, args, state, seq, created_at, updated_at, crc)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8);
