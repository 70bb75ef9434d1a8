//! The main job, end to end: a MediaServer with the plugin is a stock one to its clients, except that its proxies are
//! back after it died.

#[path = "../support/mod.rs"]
mod support;

mod alerts;
mod api;
mod backups;
mod cameras;
mod capture;
mod crashes;
mod effects;
mod file;
mod flow;
mod glue;
mod hours;
mod kinds;
mod lifecycle;
mod operators;
mod others;
mod page;
mod races;
mod restore;
mod schedules;
mod secrets;
mod settings;
mod soak;
mod strangers;
mod trouble;
mod updates;

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use support::server::{self, Server, add_args};
use support::{HOST, Source};
use tempfile::TempDir;
use zlm_journal::model::Kind;

/// A patched server with a journal, in a directory of its own.
struct Fixture {
    dir: TempDir,
    server: Server,
}

impl Fixture {
    /// Prepared, not started; `more` are further lines of the [journal] section.
    fn prepare(more: &[(&str, &str)]) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::prepare(&HOST.patched, dir.path(), &[]);
        if HOST.is_old {
            // As docs/api.md says for such a one.
            server.settings.push(("http.maxReqSize".to_owned(), "10485760".to_owned()));
        }
        server.write_config(&Self::journal(&server, more));
        Self { dir, server }
    }

    fn start(more: &[(&str, &str)]) -> Fixture {
        let mut fixture = Self::prepare(more);
        fixture.server.start();
        let built_from = fixture.server.status()["build_id"].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            built_from,
            zlm_journal::BUILD_ID,
            "{} was linked from other sources than this tree's: relink it (see README.md)",
            HOST.patched.display()
        );
        fixture
    }

    fn journal<'a>(server: &Server, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let path: &'static str = server.journal_file().to_str().unwrap().to_owned().leak();
        [&[("enable", "1"), ("path", path)], more].concat()
    }

    fn source(&self) -> Source {
        Source::live(self.dir.path())
    }

    fn sqlite3(&self, sql: &str) -> String {
        support::sqlite3(&self.server.journal_file(), sql)
    }

    /// Writes a journal of proxies before the server starts: stream, url and further arguments.
    fn journaled<'a>(&self, proxies: impl IntoIterator<Item = (String, &'a str, &'a [(&'a str, &'a str)])>) {
        support::write_journal(&self.server.journal_file(), proxies);
    }

    /// kill -9, start again, wait until the restore is over.
    fn crash_and_restore(&mut self) -> Value {
        self.server.kill();
        self.server.start();
        self.server.wait_until_restored()
    }
}

fn key(stream: &str) -> String {
    format!("__defaultVhost__/live/{stream}")
}

fn add(server: &Server, stream: &str, url: &str, more: &[(&str, &str)]) -> Value {
    server.get("addStreamProxy", &add_args(stream, url, more))
}

/// The reply says yes, and that the journal has it.
fn assert_persisted(reply: &Value) -> u64 {
    assert_eq!(reply["code"], 0, "{reply}");
    assert_eq!(reply["journal"]["persisted"], true, "{reply}");
    reply["journal"]["seq"].as_u64().expect("a change number")
}

/// As the server refuses whoever has no secret, or a wrong one.
fn assert_refused(reply: &Value) {
    let lacks_one = || HOST.is_old && reply["msg"].as_str().is_some_and(|msg| msg.contains("\"secret\""));
    assert!(reply["code"] == -100 || lacks_one(), "{reply}");
}

/// Returns when the reconciler has begun a look at the server after this call, and has started what that found missing: shown by
/// a new pull that nobody answers, of which only such a look makes the second try. For `revive_sec=1`, `on_give_up=keep`.
fn wait_for_a_look(server: &Server) {
    let nobody = json!([{
        "vhost": "__defaultVhost__", "app": "looks", "stream": "nobody", "url": "rtsp://127.0.0.1:1/off",
        "retry_count": 0, "timeout_sec": 1,
    }]);
    let key = [("key", "__defaultVhost__/looks/nobody")];
    assert_persisted(&server.post_body("addStreamProxies", &[], &nobody));
    server.wait_for("the reconciler to look", || {
        server.get("getJournalStatus", &key)["data"]["now"]["proxies"][0]["attempts"].as_u64() >= Some(2)
    });
    assert_persisted(&server.get("delStreamProxy", &key));
}

fn keys(server: &Server) -> Vec<String> {
    server.proxies().into_iter().map(|(key, _)| key).collect()
}
