DELETE FROM proxies WHERE seq = ?1;
