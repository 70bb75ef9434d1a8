//! What one call with many items saves: against the stock API, one call an item.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use super::restore::with_journal;
use super::support::Host;
use super::support::server::{self, Server};
use super::table::{Table, median, progress};

const ITEMS: usize = 10_000;
const ROUNDS: usize = 3;

/// Seconds until the reply, and until the server lists all.
struct Took {
    reply: f64,
    listed: f64,
}

fn took(server: &Server, call: impl FnOnce(&Server)) -> Took {
    let began = Instant::now();
    call(server);
    let reply = began.elapsed().as_secs_f64();
    server.wait_for("all to be listed", || {
        let status = server.get("getJournalStatus", &[("limit", "0")]);
        status["data"]["now"]["waiting"] == 0
            && server.get_text("listStreamProxy", &[]).is_some_and(|list| list.matches("\"key\"").count() >= ITEMS)
    });
    Took { reply, listed: began.elapsed().as_secs_f64() }
}

fn items(url: &str, moved: usize) -> Value {
    let item = |n: usize| {
        let url = if n < moved { format!("{url}?moved") } else { url.to_owned() };
        json!({"vhost": "__defaultVhost__", "app": "live", "stream": format!("s{n}"), "url": url, "force": 1})
    };
    Value::Array((0..ITEMS).map(item).collect())
}

fn post(server: &Server, api: &str, body: &Value) {
    let reply = server.post_body(api, &[], body);
    assert_eq!(reply["journal"]["persisted"], true, "{}", reply["journal"]);
}

/// Makes each of so many calls, from 32 clients.
pub fn from_32_clients(count: usize, call: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    call(n);
                }
            });
        }
    });
}

/// One call for each proxy.
fn one_by_one(server: &Server, url: &str) {
    from_32_clients(ITEMS, |n| {
        let reply = server.get("addStreamProxy", &server::add_args(&format!("s{n}"), url, &[("force", "1")]));
        assert_eq!(reply["journal"]["persisted"], true, "{reply}");
    });
}

pub fn many(table: &mut Table, dir: &Path, host: &Host) {
    let mut ways: [(&str, Vec<Took>); 4] = [
        ("10,000 adds, stock API one by one, 32 clients", Vec::new()),
        ("10,000 adds, one addStreamProxies", Vec::new()),
        ("10,000 new, one syncJournal", Vec::new()),
        ("10,000 of which 10 have changed, one syncJournal", Vec::new()),
    ];
    for round in 0..ROUNDS {
        progress(&format!("many: round {} of {ROUNDS}", round + 1));
        let fresh = |name: &str| {
            let dir = dir.join(format!("{name}-{round}"));
            let mut server = with_journal(&host.patched, &dir, &[("restore_per_origin", "0")]);
            server.start();
            server
        };
        // Cameras that refuse: 10,000 that play would leave two cores nothing to measure with.
        let url = format!("rtsp://127.0.0.1:{}/camera", server::free_port());
        ways[0].1.push(took(&fresh("single"), |server| one_by_one(server, &url)));
        ways[1].1.push(took(&fresh("batch"), |server| post(server, "addStreamProxies", &items(&url, 0))));
        let server = fresh("sync");
        ways[2].1.push(took(&server, |server| post(server, "syncJournal", &items(&url, 0))));
        ways[3].1.push(took(&server, |server| post(server, "syncJournal", &items(&url, 10))));
    }
    for (what, times) in &ways {
        let [reply, listed] = [|took: &Took| took.reply, |took: &Took| took.listed]
            .map(|which| median(times.iter().map(which).collect()));
        table.note(
            what,
            &format!(
                "answered after {reply:.2} s ({:.0}/s), all listed after {listed:.2} s",
                ITEMS as f64 / reply
            ),
        );
    }
}
