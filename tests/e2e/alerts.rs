//! What the receiver of alerts is told.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::support::receiver::Receiver;
use super::*;

fn find(receiver: &Receiver, event: &str) -> Option<Value> {
    receiver.alerts().into_iter().find(|alert| alert["event"] == event)
}

/// The keys with this event, in the order of their arrival.
fn told(receiver: &Receiver, event: &str) -> Vec<String> {
    let alerts = receiver.alerts().into_iter().filter(|alert| alert["event"] == event);
    alerts.map(|alert| alert["key"].as_str().unwrap_or_default().to_owned()).collect()
}

fn wait_for(fixture: &Fixture, receiver: &Receiver, event: &str) -> Value {
    fixture.server.wait_for(&format!("{event} among {:?}", receiver.alerts()), || find(receiver, event).is_some());
    find(receiver, event).unwrap()
}

/// Adds a pull from where nobody listens, also on a server that keeps none whose first connect fails.
fn add_off(server: &Server, stream: &str) -> Value {
    let url = "rtsp://127.0.0.1:1/off";
    let item = json!([{"vhost": "__defaultVhost__", "app": "live", "stream": stream, "url": url}]);
    server.post_body("addStreamProxies", &[], &item)
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_camera_that_is_off_for_long_is_told_signed_and_without_its_password() {
    let receiver = Receiver::start(200);
    let url = receiver.url();
    let settings = [
        ("alert_url", url.as_str()),
        ("alert_secret", "our secret"),
        ("alert_after_sec", "3"),
        ("revive_sec", "1"),
    ];
    let mut fixture = Fixture::prepare(&settings);
    fixture.server.settings.push(("general.mediaServerId".to_owned(), "edge 1".to_owned()));
    fixture.server.write_config(&Fixture::journal(&fixture.server, &settings));
    fixture.server.start();
    let source = fixture.source();
    let address = source.address();
    let with_password = source.url.replace("rtsp://", "rtsp://admin:geheim@");
    let arguments = [("journal_label", "site 7"), ("force", "1")];
    assert_persisted(&add(&fixture.server, "gate", &with_password, &arguments));
    fixture.server.wait_for_status("it to play", |status| restore::playing(status) == 1);
    drop(source);
    let down = wait_for(&fixture, &receiver, "proxy_down");
    assert_eq!((&down["kind"], &down["key"]), (&"pull".into(), &key("gate").into()), "{down}");
    assert_eq!(down["label"], "site 7", "{down}");
    let (since, at) = (down["since"].as_i64().unwrap(), down["at"].as_i64().unwrap());
    assert!((3000..60_000).contains(&(at - since)), "{down}");
    assert!(HOST.is_old || !down["why"].as_str().unwrap().is_empty(), "{down}");
    let _source = Source::live_at(fixture.dir.path(), address);
    let up = wait_for(&fixture, &receiver, "proxy_up");
    assert_eq!((&up["key"], &up["since"]), (&key("gate").into(), &since.into()), "{up}");

    fixture.crash_and_restore();
    let done = wait_for(&fixture, &receiver, "restore_done");
    assert_eq!((&done["count"], &done["restore"]["total"]), (&1.into(), &1.into()), "{done}");
    for post in receiver.posts() {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"our secret").unwrap();
        mac.update(&post.body);
        let expected: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(post.signature, Some(format!("sha256={expected}")));
        let body = String::from_utf8(post.body).unwrap();
        assert!(!body.contains("geheim"), "{body}");
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["mediaServerId"], "edge 1");
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn what_is_given_up_is_told_once_and_what_a_client_deletes_is_not() {
    let receiver = Receiver::start(200);
    let url = receiver.url();
    let settings = [("alert_url", url.as_str()), ("alert_after_sec", "2"), ("on_give_up", "forget")];
    let mut fixture = Fixture::start(&settings);
    let source = fixture.source();
    // Delete by a client, then what is given up: the one is there before the other.
    assert_persisted(&add(&fixture.server, "mine", &source.url, &[]));
    assert_persisted(&fixture.server.get("delStreamProxy", &[("key", &key("mine"))]));
    assert_persisted(&add(&fixture.server, "gone", &source.url, &[("retry_count", "0"), ("journal_label", "x")]));
    fixture.server.wait_for_status("it to play", |status| restore::playing(status) == 1);
    drop(source);
    let gone = wait_for(&fixture, &receiver, "proxy_given_up");
    assert_eq!((&gone["key"], &gone["label"]), (&key("gone").into(), &"x".into()), "{gone}");
    assert!(gone["why"].as_str().unwrap().contains("gave it up"), "{gone}");
    // What has been told is not told again after a restart, which ends with a proxy that is down.
    assert_persisted(&add_off(&fixture.server, "off"));
    fixture.server.wait_for("it to be told as down", || told(&receiver, "proxy_down").contains(&key("off")));
    fixture.crash_and_restore();
    fixture.server.wait_for("it to be told again", || {
        told(&receiver, "proxy_down").iter().filter(|its| **its == key("off")).count() == 2
    });
    assert_eq!(told(&receiver, "proxy_given_up"), [key("gone")]);
    assert!(receiver.alerts().iter().all(|alert| alert["key"] != key("mine")), "{:#?}", receiver.alerts());
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_receiver_that_is_off_fails_or_never_answers_costs_nothing_but_alerts() {
    let receiver = Receiver::start(500);
    let url = receiver.url();
    let fixture = Fixture::start(&[("alert_url", &url), ("alert_after_sec", "0")]);
    let add_dead = |stream: &str| assert_persisted(&add_off(&fixture.server, stream));
    let alerts = |fixture: &Fixture| fixture.server.status()["alerts"].clone();
    add_dead("first");
    fixture.server.wait_for("calls that fail", || receiver.calls() >= 2);
    fixture.server.wait_for("the status to say so", || {
        let alerts = alerts(&fixture);
        alerts["failed"].as_u64() >= Some(2)
            && alerts["last_error"].as_str().is_some_and(|why| why.contains("500"))
    });
    // A redirect is not followed: its body might be lost.
    receiver.answer_with(302);
    fixture.server.wait_for("that to be told", || {
        alerts(&fixture)["last_error"].as_str().is_some_and(|why| why.contains("302"))
    });
    // It never answers: calls to the server do.
    receiver.answer_with(0);
    let before = receiver.calls();
    fixture.server.wait_for("a call that is not answered", || receiver.calls() > before);
    add_dead("second");
    receiver.answer_with(200);
    fixture.server.wait_for("all to arrive", || {
        let keys: Vec<Value> = receiver.alerts().into_iter().map(|alert| alert["key"].clone()).collect();
        keys.contains(&key("first").into()) && keys.contains(&key("second").into())
    });
    fixture
        .server
        .wait_for("none to wait", || alerts(&fixture)["waiting"] == 0 && alerts(&fixture)["last_error"].is_null());
    let firsts = receiver.alerts().into_iter().filter(|alert| alert["key"] == key("first")).count();
    assert_eq!(firsts, 1, "what has arrived is not sent again");
    let metrics = fixture.server.get_text("getJournalMetrics", &[]).unwrap();
    assert!(metrics.contains("\nzlm_journal_alerts_dropped_total 0\n"), "{metrics}");
    drop(receiver);
    add_dead("third");
    fixture.server.wait_for("a receiver that is off to be told", || !alerts(&fixture)["last_error"].is_null());
}
