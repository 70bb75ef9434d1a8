//! Living with business systems that have a recovery scheme of their own; see docs/living-with-others.md.

use super::restore::{journaled, playing};
use super::*;

const CAMERAS: usize = 100;

fn streams() -> impl Iterator<Item = String> {
    (0..CAMERAS).map(|n| format!("s{n}"))
}

/// Four clients share the work.
fn by_four<T: Send>(work: impl Fn(&str) -> T + Sync) -> Vec<T> {
    let all: Vec<String> = streams().collect();
    thread::scope(|scope| {
        let clients: Vec<_> = all
            .chunks(CAMERAS.div_ceil(4))
            .map(|mine| {
                let work = &work;
                scope.spawn(move || mine.iter().map(|stream| work(stream)).collect::<Vec<_>>())
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

/// The server has what the journal says, all of it plays, and a restart leaves it so.
fn assert_settled(fixture: &mut Fixture, url: &str) {
    fixture.server.wait_for_status("all to play", |status| playing(status) == CAMERAS as u64);
    for _ in 0..2 {
        let proxies = fixture.server.proxies();
        assert_eq!(proxies, journaled(fixture));
        assert_eq!(proxies.len(), CAMERAS);
        assert!(proxies.iter().all(|(_, theirs)| theirs == url), "{proxies:?}");
        let status = fixture.crash_and_restore();
        assert_eq!(status["restore"]["live"], CAMERAS, "{status}");
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_client_that_adds_everything_again_when_the_server_has_started_changes_nothing() {
    // Slow, so that the two meet.
    let mut fixture = Fixture::prepare(&[("restore_rate", "20")]);
    let live = fixture.source();
    fixture.journaled(streams().map(|stream| (stream, live.url.as_str(), [].as_slice())));
    fixture.server.start();
    let replies = by_four(|stream| add(&fixture.server, stream, &live.url, &[]));
    let added = replies.iter().filter(|reply| reply["code"] == 0).map(assert_persisted).count();
    let refused = replies.iter().filter(|reply| reply["msg"].to_string().contains("already exists")).count();
    assert_eq!(added + refused, CAMERAS, "{replies:?}");
    println!("the business system was first for {added} of {CAMERAS}");
    assert!(added > 0, "the two never met");
    assert_eq!(fixture.sqlite3("select count(*) from journal"), format!("{CAMERAS}\n"), "nothing new in it");
    fixture.server.write_config(&Fixture::journal(&fixture.server, &[]));
    assert_settled(&mut fixture, &live.url);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_client_that_closes_and_then_adds_gets_each_of_its_own() {
    // Slow, so that the two meet.
    let mut fixture = Fixture::prepare(&[("restore_rate", "100")]);
    let (old, new) = (fixture.source(), fixture.source());
    fixture.journaled(streams().map(|stream| (stream, old.url.as_str(), [].as_slice())));
    fixture.server.start();
    let server = &fixture.server;
    by_four(|stream| {
        let tuple = [("vhost", "__defaultVhost__"), ("app", "live"), ("stream", stream), ("force", "1")];
        server.get("close_streams", &tuple);
        assert_eq!(server.get("delStreamProxy", &[("key", &key(stream))])["code"], 0);
        // From here on nobody else wants it: the restore must not have come between.
        assert_persisted(&add(server, stream, &new.url, &[]));
    });
    fixture.server.write_config(&Fixture::journal(&fixture.server, &[]));
    assert_settled(&mut fixture, &new.url);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_client_that_takes_already_exists_for_a_failure_restores_by_itself_and_is_healed_all_the_same() {
    let settings = [("restore", "off"), ("revive_sec", "1")];
    let mut fixture = Fixture::prepare(&settings);
    fixture.server.start();
    let source = fixture.source();
    let address = source.address();
    for _ in 0..2 {
        let replies = by_four(|stream| add(&fixture.server, stream, &source.url, &[("retry_count", "0")]));
        assert!(replies.iter().all(|reply| reply["code"] == 0), "{replies:?}");
        assert_eq!(keys(&fixture.server).len(), CAMERAS);
        fixture.server.kill();
        fixture.server.start();
        assert_eq!(keys(&fixture.server), [""; 0], "nothing is restored");
    }
    by_four(|stream| assert_persisted(&add(&fixture.server, stream, &source.url, &[("retry_count", "0")])));
    fixture.server.wait_for_status("all to be seen", |status| playing(status) == CAMERAS as u64);
    drop(source);
    fixture.server.wait_for_status("all to be given up", |status| status["now"]["playing"] == 0);
    let _on_again = Source::live_at(fixture.dir.path(), address);
    fixture.server.wait_for_status("all to play again", |status| playing(status) == CAMERAS as u64);
    fixture.server.wait_for_stream("s0");
}

/// On the stand-in, whose pollers can be held up: starts lie in their queues when the deletes come.
#[test]
#[ignore = "slow: just test-e2e"]
fn with_restore_off_a_proxy_that_is_added_again_alike_is_looked_after_from_then_on() {
    let args = [("retry_count", "0"), ("timeout_sec", "2")];
    let mut fixture = Fixture::prepare(&[("restore", "off"), ("revive_sec", "5")]);
    let source = fixture.source();
    let (url, address) = (source.url.clone(), source.address());
    fixture.journaled(["a", "b"].map(|stream| (stream.to_owned(), url.as_str(), args.as_slice())));
    fixture.server.start();
    fixture.server.wait_for_status("the first look", |status| status["restore"]["phase"] == "off");
    assert_persisted(&add(&fixture.server, "a", &url, &args));
    // Lost and given up before the server is next looked at.
    drop(source);
    fixture.server.wait_for("the server to give it up", || keys(&fixture.server).is_empty());
    let _on_again = Source::live_at(fixture.dir.path(), address);
    fixture.server.wait_for("it to be started again", || keys(&fixture.server) == [key("a")]);
    assert_eq!(fixture.sqlite3("select count(*) from journal"), "2\n");
    assert!(!keys(&fixture.server).contains(&key("b")), "nobody has asked for that one");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn what_is_deleted_while_its_start_waits_in_the_server_is_not_started() {
    if HOST.real {
        return;
    }
    let mut fixture = Fixture::prepare(&[("restore", "off")]);
    let live = fixture.source();
    fixture.journaled(streams().map(|stream| (stream, live.url.as_str(), [].as_slice())));
    fixture.server.start();
    let server = &fixture.server;
    thread::scope(|scope| {
        // Three of its four pollers.
        for _ in 0..3 {
            scope.spawn(|| server.get("holdPoller", &[("ms", "3000")]));
        }
        thread::sleep(Duration::from_millis(500));
        // One of these gets through at once, wherever its connection is.
        for _ in 0..4 {
            scope.spawn(|| {
                server.get("restoreJournal", &[]);
                // Long enough for the reconciler to hand out all starts.
                thread::sleep(Duration::from_millis(500));
                for stream in streams() {
                    assert_eq!(server.get("delStreamProxy", &[("key", &key(&stream))])["code"], 0);
                }
            });
        }
    });
    let status = fixture.server.wait_for_status("every start to be answered", |status| {
        status["restore"]["phase"] != "running" && status["now"]["connecting"] == 0
    });
    assert_eq!(status["proxies"]["enabled"], 0, "{status}");
    assert_eq!(fixture.server.proxies(), []);
    assert!(!fixture.server.log().contains("panic"), "{}", fixture.server.log());
}
