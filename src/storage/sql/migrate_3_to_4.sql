-- Version 4 has pushes and FFmpeg sources, which version 3 would take for damage, and shows their targets.
DROP VIEW proxies_view;
DROP VIEW journal_view;

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
