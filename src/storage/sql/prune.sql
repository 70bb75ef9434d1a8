DELETE FROM journal WHERE seq IN (
    SELECT seq FROM journal WHERE seq <= ?1 AND at < ?2 ORDER BY seq LIMIT ?3
);
