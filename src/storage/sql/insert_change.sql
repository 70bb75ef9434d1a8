INSERT INTO journal (seq, at, op, kind, key, args, origin, reason, crc)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9);
