INSERT INTO meta (name, value) VALUES ('seq', ?1), ('count', ?2), ('digest', ?3)
ON CONFLICT (name) DO UPDATE SET value = excluded.value;
