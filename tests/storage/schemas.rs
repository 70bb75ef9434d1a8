//! Old files: every schema that was ever written is in `tests/fixtures`, as a clean stop leaves it and as a kill does.

use super::*;

/// What `fixtures/schema-*.db` hold, whatever the schema.
fn expected() -> model::State {
    [
        ("v/live/plain", r#"{"retry_count":"-1","url":"rtsp://10.0.0.1/1"}"#.to_owned()),
        ("v/live/gbk", r#"{"url":{"hex":"727473703a2f2f31302e302e302e332fc4e3"}}"#.to_owned()),
        ("v/live/long", format!(r#"{{"url":"{}"}}"#, "x".repeat(9000))),
    ]
    .map(|(key, args)| (key.to_owned(), args))
    .into()
}

fn query(sim: &Sim, sql: &str) -> Vec<String> {
    use zlm_journal::storage::env::Env;
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let file = rusqlite::Connection::open_with_flags_and_vfs(path(), flags, sim.vfs().unwrap()).unwrap();
    let mut statement = file.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

/// The schema as SQLite keeps it, without comments and layout.
fn schema(sim: &Sim) -> Vec<String> {
    let plain = |sql: String| {
        let lines = sql.lines().map(|line| line.split("--").next().unwrap().trim_end());
        lines.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let mut all: Vec<String> =
        query(sim, "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL").into_iter().map(plain).collect();
    all.sort();
    all
}

#[test]
fn every_old_schema_is_migrated_and_equals_a_fresh_one() {
    let fresh = Sim::new();
    drop(open(&fresh, &[]));
    for version in 1..=zlm_journal::journal::SCHEMA_VERSION {
        let (stopped, killed) = (format!("schema-{version}.db"), format!("schema-{version}-killed.db"));
        for files in [vec![stopped.clone()], vec![killed.clone(), format!("{killed}-wal")]] {
            let names: Vec<&str> = files.iter().map(String::as_str).collect();
            let sim = Sim::with(fixture(&names));
            let journal = open(&sim, &[]);
            assert_eq!(journal.report().last_error, None, "{files:?}");
            assert_eq!((model::state(&journal), journal.report().seq), (expected(), 5), "{files:?}");
            assert_eq!(schema(&sim), schema(&fresh), "{files:?}");
            assert_eq!(
                query(&sim, "SELECT value || '' FROM meta WHERE name = 'schema'"),
                [zlm_journal::journal::SCHEMA_VERSION.to_string()]
            );
            assert_eq!(query(&sim, "SELECT count(*) || '' FROM journal"), ["5"], "history is kept");
            assert!(record(&journal, Op::Remove, "v/live/plain", "").result.is_ok());
            drop(journal);
            let journal = open(&sim, &[]);
            assert_eq!((journal.report().last_error, journal.report().seq), (None, 6), "{files:?}");
        }
    }
}
