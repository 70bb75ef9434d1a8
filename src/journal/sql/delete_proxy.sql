DELETE FROM proxies WHERE kind = ?1 AND key = ?2;
