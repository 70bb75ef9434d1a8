INSERT INTO incidents (at, report, crc) VALUES (?1, ?2, ?3);
