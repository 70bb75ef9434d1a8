//! Pulls that are given other arguments while they run.

use std::io::Read;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::restore::playing;
use super::*;

/// Somebody who watches a stream and counts what comes, until it is dropped.
pub struct Viewer {
    what: &'static str,
    bytes: Arc<AtomicUsize>,
    is_gone: Arc<AtomicBool>,
    player: Option<Child>,
    connection: Option<TcpStream>,
}

impl Viewer {
    fn of(what: &'static str, mut from: impl Read + Send + 'static) -> Viewer {
        let (bytes, is_gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, gone) = (Arc::clone(&bytes), Arc::clone(&is_gone));
        thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut some) {
                count.fetch_add(read, Ordering::SeqCst);
            }
            gone.store(true, Ordering::SeqCst);
        });
        Viewer { what, bytes, is_gone, player: None, connection: None }
    }

    fn http_flv(server: &Server, stream: &str) -> Viewer {
        let connection = server.play(stream).expect("the stream");
        let reader = connection.try_clone().unwrap();
        let mut viewer = Viewer::of("HTTP-FLV", reader);
        viewer.connection = Some(connection);
        viewer
    }

    fn rtmp(server: &Server, stream: &str) -> Viewer {
        let url = format!("rtmp://{}:{}/live/{stream}", server.ip, server.rtmp_port);
        let mut player = Command::new("ffmpeg")
            .args(["-v", "quiet", "-i", &url, "-c", "copy", "-f", "flv", "-flush_packets", "1", "pipe:1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ffmpeg: install it, see README.md");
        let said = player.stdout.take().unwrap();
        let mut viewer = Viewer::of("RTMP", said);
        viewer.player = Some(player);
        viewer
    }

    /// One of each protocol that this host has.
    pub fn all(server: &Server, stream: &str) -> Vec<Viewer> {
        let mut viewers = vec![Viewer::http_flv(server, stream)];
        if HOST.real {
            viewers.push(Viewer::rtmp(server, stream));
        }
        for viewer in &viewers {
            viewer.goes_on(server);
        }
        viewers
    }

    /// Waits until more has come, on the connection that it has had from the beginning.
    pub fn goes_on(&self, server: &Server) {
        // What was on its way is not counted, nor the metadata of a new beginning.
        let more = if HOST.real { self.bytes.load(Ordering::SeqCst) + 20_000 } else { 0 };
        server.wait_for("the viewer to get more", || {
            assert!(!self.is_gone.load(Ordering::SeqCst), "the viewer by {} was cut off", self.what);
            self.bytes.load(Ordering::SeqCst) >= more
        });
        assert!(!self.is_gone.load(Ordering::SeqCst), "the viewer by {} was cut off", self.what);
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
        if let Some(player) = &mut self.player {
            let _ = player.kill();
            let _ = player.wait();
        }
    }
}

/// The URL of a pull in the server, and how often that has connected anew since it was added.
pub fn in_server(server: &Server, stream: &str) -> (String, u64) {
    let list = server.get("listStreamProxy", &[]);
    let pulls = list["data"].as_array().cloned().unwrap_or_default();
    let pull = pulls.iter().find(|pull| pull["key"].as_str() == Some(&key(stream)));
    pull.map_or((String::new(), 0), |pull| {
        (pull["url"].as_str().unwrap().to_owned(), pull["rePullCount"].as_u64().unwrap_or_default())
    })
}

pub fn wait_to_play(server: &Server, count: u64) {
    server.wait_for_status("all to play", |status| playing(status) == count);
}

/// A server that keeps the viewers of a pull that connects anew, not started. What it passes on directly ends with the
/// connection.
pub fn keeping_viewers(more: &[(&str, &str)]) -> Fixture {
    let mut fixture = Fixture::prepare(more);
    for name in ["general.resetWhenRePlay", "rtmp.directProxy"] {
        fixture.server.settings.push((name.to_owned(), "0".to_owned()));
    }
    fixture.server.write_config(&Fixture::journal(&fixture.server, more));
    fixture
}

/// What this host calls a change of the URL.
fn in_place() -> &'static str {
    if HOST.is_old { "replaced" } else { "in_place" }
}

#[test]
fn another_url_goes_to_the_running_pull_and_its_viewers_stay() {
    let mut fixture = keeping_viewers(&[]);
    fixture.server.start();
    let (first, second) = (fixture.source(), fixture.source());
    let server = &fixture.server;
    let before = assert_persisted(&add(server, "s", &first.url, &[("journal_label", "a")]));
    wait_to_play(server, 1);
    let viewers = Viewer::all(server, "s");

    let dry = server.get("updateStreamProxy", &[("key", &key("s")), ("url", &second.url), ("dry_run", "1")]);
    assert_eq!(dry["data"], json!({"key": key("s"), "change": in_place(), "dry_run": true}));
    assert_eq!(in_server(server, "s").0, first.url);
    let seq = before.to_string();
    let reply = server.get("updateStreamProxy", &[("key", &key("s")), ("url", &second.url), ("if_seq", &seq)]);
    assert_eq!(reply["data"], json!({"key": key("s"), "change": in_place(), "dry_run": false}), "{reply}");
    assert_persisted(&reply);
    server.wait_for("the new URL", || in_server(server, "s").0 == second.url);
    wait_to_play(server, 1);
    if !HOST.is_old {
        assert_eq!(in_server(server, "s").1, 1, "it has connected anew");
        viewers.iter().for_each(|viewer| viewer.goes_on(server));
    }
    assert_eq!(server.get("updateStreamProxy", &[("key", &key("s")), ("if_seq", &seq)])["conflict"], true);

    // The same change by others.
    let rolled = server.get("rollbackJournal", &[("to_seq", &seq)]);
    let name = json!([{"kind": "pull", "key": key("s")}]);
    assert_eq!(rolled["data"]["updated"], name, "{rolled}");
    assert_eq!(rolled["data"]["in_place"], if HOST.is_old { json!([]) } else { name }, "{rolled}");
    server.wait_for("the first URL", || in_server(server, "s").0 == first.url);
    wait_to_play(server, 1);
    let item =
        json!([{"vhost": "__defaultVhost__", "app": "live", "stream": "s", "url": second.url, "timeout_sec": 3}]);
    let synced = server.post_body("syncJournal", &[("label", "a")], &item);
    let in_place = if HOST.is_old { json!([]) } else { json!([key("s")]) };
    assert_eq!((&synced["data"]["updated"], &synced["data"]["in_place"]), (&json!([key("s")]), &in_place));
    server.wait_for("the second URL", || in_server(server, "s").0 == second.url);
    wait_to_play(server, 1);
    if !HOST.is_old {
        viewers.iter().for_each(|viewer| viewer.goes_on(server));
    }
    drop(viewers);

    fixture.crash_and_restore();
    wait_to_play(&fixture.server, 1);
    assert_eq!(in_server(&fixture.server, "s").0, second.url);
    let history = fixture.server.get("getJournalHistory", &[]);
    let reasons: Vec<_> =
        history["data"].as_array().unwrap().iter().map(|row| row["reason"].as_str().unwrap()).collect();
    assert!(reasons.contains(&"updateStreamProxy"), "{history}");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_pull_that_is_down_is_given_another_url_at_once() {
    let fixture = Fixture::start(&[]);
    let source = fixture.source();
    let server = &fixture.server;
    let hole = Source::black_hole();
    for (stream, url) in [("refused", "rtmp://127.0.0.1:1/live/off"), ("silent", hole.url.as_str())] {
        let item = json!([{"vhost": "__defaultVhost__", "app": "live", "stream": stream, "url": url}]);
        assert_persisted(&server.post_body("addStreamProxies", &[], &item));
    }
    server.wait_for_status("both to be tried", |status| {
        let now = |state: &str| status["now"][state].as_u64().unwrap();
        // 8.0 keeps none that could not connect.
        now("retrying") + now("down") >= 1 && now("retrying") + now("down") + now("connecting") == 2
    });
    for stream in ["refused", "silent"] {
        let args = add_args(stream, &source.url, &[]);
        let reply = server.get("updateStreamProxy", &args);
        // It is another protocol for one of them, and 8.0 does not have the other.
        assert!(
            ["in_place", "replaced", "not_running"].contains(&reply["data"]["change"].as_str().unwrap()),
            "{reply}"
        );
    }
    wait_to_play(server, 2);
    assert_eq!(
        [in_server(server, "refused").0, in_server(server, "silent").0],
        [source.url.clone(), source.url.clone()]
    );
}

#[test]
fn what_cannot_change_in_place_is_replaced_and_what_is_wrong_is_refused() {
    let fixture = Fixture::start(&[]);
    let source = fixture.source();
    let server = &fixture.server;
    assert_persisted(&add(server, "s", &source.url, &[("journal_label", "a")]));
    wait_to_play(server, 1);
    let update = |more: &[(&str, &str)]| {
        server.get("updateStreamProxy", &[&[("key", key("s").as_str())][..], more].concat())
    };
    let change = |more: &[(&str, &str)]| {
        let reply = update(more);
        assert_persisted(&reply);
        reply["data"]["change"].as_str().unwrap().to_owned()
    };
    assert_eq!(change(&[]), "unchanged");
    assert_eq!(change(&[("url", &source.url)]), "unchanged");
    assert_eq!(change(&[("journal_label", "b")]), "in_place", "MediaServer does not know of labels");
    assert_eq!(change(&[("enable_mp4", "0"), ("auto_close", "0")]), "replaced");
    wait_to_play(server, 1);
    assert_eq!(in_server(server, "s").1, 0, "it was added anew");
    assert_eq!(change(&[("auto_close", "")]), "replaced", "an empty one is removed");
    wait_to_play(server, 1);
    let listed = || server.get("listJournal", &[])["data"][0]["args"].clone();
    assert_eq!((&listed()["auto_close"], &listed()["enable_mp4"]), (&Value::Null, &"0".into()));

    for (args, part) in [
        (vec![("key", "v/live/none"), ("url", "rtsp://1")], "no pull"),
        (vec![("url", "rtsp://1")], "which pull"),
        (vec![("key", &key("s")), ("stream", "t")], "make the key"),
        (vec![("key", &key("s")), ("url", "")], "cannot be removed"),
        (vec![("key", &key("s")), ("journal_hours", "always")], "08:00-18:00"),
    ] {
        let reply = server.get("updateStreamProxy", &args);
        assert!(reply["code"] != 0 && reply["msg"].as_str().unwrap().contains(part), "{reply}");
    }
    assert_persisted(&server.get("setJournalState", &[("key", &key("s")), ("state", "disabled")]));
    server.wait_for("it to end", || keys(server).is_empty());
    assert_eq!(change(&[("url", "rtsp://127.0.0.1:1/other")]), "not_running");
    assert_eq!(server.get("listJournal", &[])["data"][0]["state"], "disabled");
    assert_eq!(listed()["url"], "rtsp://127.0.0.1:1/other");
}
