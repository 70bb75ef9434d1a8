SELECT NULL, at, op, kind, key, args, origin, reason, crc, seq
FROM journal
WHERE seq < ?1 AND seq > ?7 AND at >= ?2 AND at <= ?3
  AND (?4 IS NULL OR kind = ?4)
  AND (?8 = 0 OR origin IN ('zlm-journal', 'MediaServer'))
  AND substr(key, 1, length(?5)) = ?5
ORDER BY seq DESC
LIMIT ?6
