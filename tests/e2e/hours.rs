//! Proxies with hours, by the clock of the machine.

use std::time::{SystemTime, UNIX_EPOCH};

use super::restore::playing;
use super::*;

fn now_sec() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Hours of two minutes of the day, counted from 1970.
fn hours(from: u64, to: u64) -> String {
    let time = |minute: u64| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
    format!("{}-{} @ UTC", time(from), time(to))
}

#[test]
#[ignore = "slow: just test-e2e"]
fn pulls_end_and_start_with_their_hours_and_are_off_after_a_restart_outside_of_them() {
    let mut fixture = Fixture::start(&[]);
    let source = fixture.source();
    // Far enough for a restart before it.
    let turn = (now_sec() + 20).div_ceil(60);
    let (before, after) = (hours(turn - 60, turn), hours(turn, turn + 60));
    assert_persisted(&add(&fixture.server, "day", &source.url, &[("journal_hours", &before)]));
    // Every way to add one knows of hours.
    assert_persisted(&add(&fixture.server, "night", &source.url, &[("journal_hours", &after)]));
    let item = |stream: &str, hours: &str| json!([{"vhost": "__defaultVhost__", "app": "live", "stream": stream, "url": source.url, "journal_hours": hours}]);
    assert_persisted(&fixture.server.post_body("addStreamProxies", &[], &item("late", &after)));
    assert_eq!(keys(&fixture.server), [key("day")], "what is off is not started");

    for unfit in ["always", "08:00-18:00 @ Peking"] {
        let refused = add(&fixture.server, "unfit", &source.url, &[("journal_hours", unfit)]);
        assert!(
            refused["code"] != 0 && refused["msg"].as_str().unwrap().contains("mon-fri 08:00-18:00"),
            "{refused}"
        );
        let reply = fixture.server.post_body("syncJournal", &[("label", "x")], &item("unfit", unfit));
        assert!(reply["code"] == -300 && reply["msg"].as_str().unwrap().contains("item 0"), "{reply}");
    }
    assert_eq!(fixture.sqlite3("SELECT count(*) FROM proxies").trim(), "3");

    let is_day = |status: &Value| playing(status) == 1 && status["now"]["off_hours"] == 2;
    fixture.server.wait_for_status("the one within its hours to play", is_day);
    fixture.crash_and_restore();
    if now_sec() < turn * 60 {
        let status = fixture.server.wait_for_status("the same after a restart", is_day);
        let off = &status["now"]["proxies"][0];
        assert_eq!(
            (&off["state"], &off["next_try_at"]),
            (&"off_hours".into(), &(turn * 60_000).into()),
            "{status}"
        );
        let listed = fixture.server.get("listJournal", &[("prefix", &key("day"))]);
        assert_eq!(listed["data"][0]["hours"], json!({"open": true, "next_change_at": turn * 60_000}));
    }
    while now_sec() < turn * 60 {
        thread::sleep(Duration::from_millis(200));
    }
    let is_night = |status: &Value| playing(status) == 2 && status["now"]["off_hours"] == 1;
    fixture.server.wait_for_status("the hours to turn", is_night);
    fixture.server.wait_for("the day to end", || keys(&fixture.server) == [key("late"), key("night")]);
    assert_persisted(&fixture.server.get("delStreamProxy", &[("key", &key("night"))]));
    assert_eq!(fixture.sqlite3("SELECT count(*) FROM proxies").trim(), "2");
}
