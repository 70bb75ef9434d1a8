//! What each API call replies, the status and the metrics, word for word as tests/golden has it.
//! `ZLMJ_UPDATE_GOLDEN=1 cargo test --lib golden` writes that anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Reply, Request, answer, history, names};
use crate::BUILD_ID;
use crate::capture::{HostFacts, Server};
use crate::model::{Kind, ProxyKey};
use crate::plugin::Plugin;
use crate::reconcile::{Add, Added, PhaseCounts};

const UPDATE: &str = "ZLMJ_UPDATE_GOLDEN";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn compare(file: &str, is: &str) {
    let path = folder().join(file);
    if env::var(UPDATE).is_ok_and(|value| value == "1") {
        fs::create_dir_all(folder()).unwrap();
        return fs::write(path, is).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    let differs = is.lines().zip(golden.lines()).position(|(is, golden)| is != golden);
    let line = differs.unwrap_or(is.lines().count().min(golden.lines().count()));
    assert!(
        is == golden,
        "{file} is another from line {} on:\n  is     {:?}\n  golden {:?}\n{UPDATE}=1 writes it anew. All of it is:\n{is}",
        line + 1,
        is.lines().nth(line),
        golden.lines().nth(line),
    );
}

fn compare_json(file: &str, is: &Value) {
    compare(file, &format!("{}\n", serde_json::to_string_pretty(is).unwrap()));
}

// ---- what is never the same

/// Of a reply, whatever differs between two runs, machines or versions: times, paths, builds.
struct Fixed {
    dir: String,
}

/// 2023-11-14, for any time of now.
const THEN: i64 = 1_700_000_000_000;
/// What is measured.
const MEASURED: [&str; 5] = ["seconds", "rate", "to_50_sec", "to_95_sec", "to_100_sec"];
const BUILDS: [&str; 3] = ["version", "build_id", "sqlite"];
const MEASURED_METRICS: [&str; 6] = [
    "commit_seconds_bucket",
    "commit_seconds_sum",
    "ack_lag_seconds",
    "file_bytes",
    "restore_seconds",
    "snapshot_age_seconds",
];

impl Fixed {
    fn text(&self, text: &str) -> String {
        let text = text.replace(&self.dir, "/opt/zlm").replace(BUILD_ID, "<build_id>");
        // Times stand in the names of snapshots as well.
        let mut fixed = String::new();
        let mut digits = String::new();
        for sign in text.chars().map(Some).chain([None]) {
            match sign {
                Some(digit) if digit.is_ascii_digit() => digits.push(digit),
                other => {
                    let is_time = digits.len() == THEN.to_string().len();
                    fixed.push_str(if is_time { "1700000000000" } else { &digits });
                    digits.clear();
                    fixed.extend(other);
                }
            }
        }
        fixed
    }

    fn json(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::from(self.text(&text)),
            Value::Number(number) if number.as_i64().is_some_and(|number| number > THEN) => Value::from(THEN),
            Value::Array(items) => items.into_iter().map(|item| self.json(item)).collect(),
            Value::Object(members) => members
                .into_iter()
                .map(|(name, value)| match name.as_str() {
                    measured if MEASURED.contains(&measured) && value.is_number() => (name, Value::from(0.0)),
                    "eta_sec" => (name, Value::Null),
                    build if BUILDS.contains(&build) && value.is_string() => {
                        let fixed = format!("<{name}>");
                        (name, Value::from(fixed))
                    }
                    _ => (name, self.json(value)),
                })
                .collect(),
            other => other,
        }
    }

    fn metrics(&self, page: &str) -> String {
        let line = |line: &str| {
            let sample = line.strip_prefix("zlm_journal_").and_then(|line| line.rsplit_once(' '));
            let name = sample.and_then(|(name, _)| name.split('{').next());
            match (name, sample) {
                (Some(name), Some((sample, _))) if MEASURED_METRICS.contains(&name) => {
                    format!("zlm_journal_{sample} 0\n")
                }
                _ => format!("{}\n", self.text(line)),
            }
        };
        let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
        page.replace(&version, "version=\"<version>\"").lines().map(line).collect()
    }
}

// ---- a server

struct Bench {
    plugin: Plugin,
    handed: Arc<Mutex<Vec<(u64, Kind, String)>>>,
    fixed: Fixed,
    _dir: tempfile::TempDir,
}

/// Takes all that it is handed, and answers when it is told to.
struct Silent(Arc<Mutex<Vec<(u64, Kind, String)>>>);

impl Server for Silent {
    fn add(&self, call: u64, add: &Add) {
        self.0.lock().push((call, add.key.0, add.key.1.to_string()));
    }
    fn can_update(&self) -> bool {
        true
    }
    fn update(&self, call: u64, add: &Add) {
        self.add(call, add);
    }
    fn remove(&self, _: u64, _: &ProxyKey) {}
}

/// Three cameras: the second is disabled, the third marked, and a snapshot has all.
const CAMERAS: &str = r#"[
    {"vhost":"__defaultVhost__","app":"live","stream":"gate","url":"rtsp://admin:geheim@10.0.0.1/1"},
    {"vhost":"__defaultVhost__","app":"live","stream":"yard","url":"rtsp://10.0.0.2/1"},
    {"vhost":"__defaultVhost__","app":"live","stream":"hall","url":"rtsp://10.0.0.3/1","journal_label":"site 1"}]"#;

impl Bench {
    fn open(more: &[(&str, &str)]) -> Bench {
        Self::prepared(more, |_| {})
    }

    fn prepared(more: &[(&str, &str)], prepare: impl FnOnce(&Path)) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal/proxies.db");
        prepare(&path);
        let pairs = [("enable", "1"), ("path", path.to_str().unwrap()), ("snapshot_sec", "2592000")];
        let pairs = [&pairs[..], more].concat();
        let plugin = Plugin::open(pairs, dir.path(), 1, HostFacts::default()).unwrap();
        let fixed = Fixed { dir: dir.path().to_str().unwrap().to_owned() };
        Bench { plugin, handed: Arc::default(), fixed, _dir: dir }
    }

    fn with_cameras() -> Bench {
        let bench = Self::open(&[]);
        for (name, args, body) in [
            ("addStreamProxies", &[][..], CAMERAS),
            ("setJournalState", &[("key", "__defaultVhost__/live/yard"), ("state", "disabled")], ""),
        ] {
            let reply = bench.call(name, args, body);
            assert!(reply.body.contains(r#""persisted":true"#), "{}", reply.body);
        }
        bench.plugin.journal().take_snapshot().unwrap();
        bench.plugin.journal().checkpoint().unwrap();
        bench
    }

    /// A journal whose place is taken.
    fn unavailable() -> Bench {
        Self::prepared(&[], |path| fs::create_dir_all(path).unwrap())
    }

    fn start(&self) {
        self.plugin.start(Box::new(Silent(Arc::clone(&self.handed))));
    }

    fn call(&self, name: &str, args: &[(&str, &str)], body: &str) -> Reply {
        let args: Vec<(String, String)> =
            args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        answer(&self.plugin, name, &Request { args: &args, body: body.as_bytes(), caller: "10.0.0.9:40000" })
    }

    fn json(&self, name: &str, args: &[(&str, &str)], body: &str) -> Value {
        let reply = self.call(name, args, body);
        assert_eq!(reply.content_type, "application/json; charset=utf-8");
        self.fixed.json(serde_json::from_str(&reply.body).unwrap())
    }

    /// Request and reply.
    fn ask(&self, name: &str, args: &[(&str, &str)], body: &str) -> Value {
        let reply = self.json(name, args, body);
        let body = match body.len() {
            0..1000 => serde_json::from_str(body).unwrap_or(Value::from(body)),
            many => Value::from(format!("{many} bytes")),
        };
        json!({"args": args.iter().copied().collect::<BTreeMap<_, _>>(), "body": body, "reply": reply})
    }

    /// Waits for a fact.
    fn wait_for(&self, fact: impl Fn(&Bench) -> bool) {
        let began = Instant::now();
        while !fact(self) {
            assert!(began.elapsed() < Duration::from_secs(60), "{}", self.call("getJournalStatus", &[], "").body);
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn metrics(&self) -> String {
        let reply = self.call("getJournalMetrics", &[], "");
        assert_eq!(reply.content_type, "text/plain; version=0.0.4; charset=utf-8");
        self.fixed.metrics(&reply.body)
    }
}

/// A server without a proxy.
fn empty() -> Bench {
    let bench = Bench::open(&[]);
    bench.start();
    bench.wait_for(|bench| bench.plugin.reconciler().is_some_and(|reconciler| reconciler.shown(None, 0).finished));
    bench
}

/// A restore that is under way, with proxies in every state, and a setting that is no good.
fn busy() -> Bench {
    const PROXIES: &str = "kind,vhost,app,stream,url,schema,src_url,dst_url,timeout_ms\n\
        pull,__defaultVhost__,live,gate,rtsp://admin:geheim@10.0.0.1/1,,,,\n\
        pull,__defaultVhost__,live,hall,rtsp://10.0.0.2/1,,,,\n\
        pull,__defaultVhost__,live,yard,rtsp://10.0.0.3/1,,,,\n\
        push,__defaultVhost__,live,gone,,rtmp,,rtmp://cdn/live/gone,\n\
        ffmpeg,,,,,,rtsp://10.0.0.4/1,rtmp://127.0.0.1/live/one,10000\n\
        ffmpeg,,,,,,rtsp://10.0.0.5/1,rtmp://127.0.0.1/live/two,10000\n";
    let bench = Bench::open(&[
        ("revive_sec", "1800"),
        ("restore_ffmpeg_parallel", "1"),
        ("on_give_up", "sometimes"),
        ("colour", "blue"),
    ]);
    let added = bench.call("importJournal", &[], PROXIES);
    assert!(added.body.contains(r#""persisted":true"#), "{}", added.body);
    let asleep = r#"{"format":"zlm-journal","version":1,"entries":[
        {"kind":"pull","state":"disabled","args":{"vhost":"v","app":"live","stream":"off","url":"rtsp://10.0.0.6/1"}},
        {"kind":"pull","state":"dormant","args":{"vhost":"v","app":"live","stream":"idle","url":"rtsp://10.0.0.6/2"}},
        {"kind":"pull","state":"quarantined","args":{"vhost":"v","app":"live","stream":"bad","url":"rtsp://10.0.0.6/3"}}]}"#;
    let added = bench.call("importJournal", &[], asleep);
    assert!(added.body.contains(r#""persisted":true"#), "{}", added.body);
    bench.plugin.journal().take_snapshot().unwrap();
    bench.plugin.journal().checkpoint().unwrap();
    bench.start();
    // The second process waits for the first.
    bench.wait_for(|bench| bench.handed.lock().len() == 5);
    let capture = bench.plugin.capture();
    for (call, kind, key) in bench.handed.lock().iter() {
        let made = || assert_eq!(capture.made(*kind, key), *call);
        match key.rsplit('/').next().unwrap() {
            "gate" => {
                made();
                capture.started(*call, Added::Accepted);
            }
            "hall" => capture.started(*call, Added::Failed("404 Not Found".into())),
            "yard" => {
                made();
                capture.failed(*kind, key, "Connection refused");
                capture.started(*call, Added::Accepted);
            }
            _ if *kind == Kind::Push => {
                capture.started(*call, Added::Blocked("the stream that it takes is not there".into()));
            }
            _ => {}
        }
    }
    let all = PhaseCounts { playing: 1, retrying: 1, connecting: 1, waiting: 1, down: 1, blocked: 1 };
    bench.wait_for(|bench| {
        bench.plugin.reconciler().is_some_and(|reconciler| reconciler.shown(None, 0).now == all)
    });
    bench
}

// ---- the replies

/// What each call of the table replies: when all is well, and the refusals that its callers meet.
fn replies(name: &str) -> Vec<Value> {
    let bench = Bench::with_cameras();
    let ask = |args: &[(&str, &str)], body: &str| bench.ask(name, args, body);
    let (gate, yard) = ("__defaultVhost__/live/gate", "__defaultVhost__/live/yard");
    let camera = |stream: &str, url: &str| {
        format!(r#"{{"vhost":"__defaultVhost__","app":"live","stream":"{stream}","url":"{url}"}}"#)
    };
    match name {
        "addStreamProxies" => vec![
            ask(&[("dry_run", "1")], &format!("[{}]", camera("door", "rtsp://10.0.0.4/1"))),
            ask(
                &[],
                &format!(
                    r#"[{},{},{{"app":"live"}},7,{{"vhost":"v","app":"a","stream":"s","url":["x"]}}]"#,
                    camera("door", "rtsp://10.0.0.4/1"),
                    camera("gate", "rtsp://10.0.0.5/1")
                ),
            ),
            ask(&[("if_seq", "4")], &format!("[{}]", camera("door", "rtsp://10.0.0.4/1"))),
            ask(&[], &format!("[{}]", camera("hall", "rtsp://***@10.0.0.6/1"))),
            ask(&[], r#"{"vhost":"v"}"#),
            ask(&[], &format!("[{}]", vec!["0"; 10_001].join(","))),
        ],
        "delStreamProxies" => vec![
            ask(&[("dry_run", "1"), ("if_seq", "4")], &format!(r#"["{gate}"]"#)),
            ask(&[], &format!(r#"["{gate}",{{"key":"{yard}"}},"no/such/key",{{"name":"x"}}]"#)),
            ask(&[("if_seq", "4")], &format!(r#"["{gate}"]"#)),
            ask(&[], &format!(r#"[{{"key":"{gate}","kind":"push"}},{{"key":"{gate}","kind":"tape"}}]"#)),
            ask(&[], "gate"),
        ],
        "exportJournal" => vec![
            ask(&[], ""),
            ask(&[("kind", "pull"), ("reveal", "1")], ""),
            ask(&[("kind", "push")], ""),
            ask(&[("kind", "tape")], ""),
            ask(&[("reveal", "2")], ""),
        ],
        "getJournalHistory" => vec![
            ask(&[], ""),
            ask(&[("limit", "2"), ("before", "4"), ("reveal", "1")], ""),
            ask(&[("prefix", "__defaultVhost__/live/y"), ("kind", "pull")], ""),
            ask(&[("group", "1")], ""),
            ask(&[("group", "1"), ("limit", "1"), ("text", "ADDSTREAM")], ""),
            ask(&[("text", "10.0.0.2"), ("limit", "1")], ""),
            ask(&[("text", "geheim")], ""),
            ask(&[("until", "0")], ""),
            ask(&[("limit", "0")], ""),
            ask(&[("since", "yesterday")], ""),
        ],
        "getJournalStatus" => vec![ask(&[("limit", "1"), ("key", gate)], ""), ask(&[("limit", "all")], "")],
        "importJournal" => {
            let document = format!(
                r#"{{"format":"zlm-journal","version":1,"entries":[{{"kind":"pull","args":{}}}]}}"#,
                camera("door", "rtsp://10.0.0.4/1")
            );
            vec![
                ask(&[("dry_run", "1"), ("mode", "replace")], &document),
                ask(&[("dry_run", "1"), ("mode", "replace"), ("detail", "1")], &document),
                ask(&[("if_seq", "3")], &document),
                ask(&[("if_seq", "4")], &document),
                ask(&[], "__defaultVhost__/live/gate,rtsp://10.0.0.9/1\n"),
                ask(&[("mode", "replace")], &document),
                ask(&[("mode", "swap")], &document),
                ask(&[], &document.replace(r#""version":1"#, r#""version":2"#)),
                ask(&[], &document.replace("rtsp://", "rtsp://***@")),
                ask(&[], document.trim_end_matches('}')),
                ask(&[], "v/live/a,x\nv/live/a,y"),
                ask(&[("dry_run", "1")], "key,url\nv/live/a,x\nv/live/b\nv/b,y\nv/live/a,z\n"),
                ask(&[("dry_run", "1")], &document.replace("door", "")),
                ask(&[], "v/live/a"),
                ask(&[], ""),
            ]
        }
        "listJournal" => {
            let mut all = vec![
                ask(&[], ""),
                ask(&[("limit", "2"), ("reveal", "1")], ""),
                ask(&[("limit", "2"), ("after", "pull/__defaultVhost__/live/hall")], ""),
                ask(
                    &[
                        ("label", "site 1"),
                        ("prefix", "__defaultVhost__/"),
                        ("state", "enabled"),
                        ("kind", "pull"),
                    ],
                    "",
                ),
                ask(&[("state", "on")], ""),
                ask(&[("kind", "tape")], ""),
                ask(&[("after", "gate")], ""),
                ask(&[("limit", "10001")], ""),
                ask(&[("text", "10.0.0.2")], ""),
                ask(&[("text", "SITE")], ""),
                ask(&[("text", "geheim"), ("reveal", "1"), ("live", "1")], ""),
                ask(&[("text", "geheim")], ""),
                ask(&[("doing", "sleeping")], ""),
            ];
            bench.start();
            bench.wait_for(|bench| bench.handed.lock().len() == 2);
            all.push(ask(&[("live", "1")], ""));
            all.push(ask(&[("doing", "connecting"), ("limit", "1")], ""));
            all.push(ask(&[("doing", "playing")], ""));
            all
        }
        "listJournalSnapshots" => vec![ask(&[], "")],
        "restoreJournal" => {
            let early = ask(&[], "");
            bench.start();
            vec![early, ask(&[], ""), ask(&[("key", gate)], ""), ask(&[("key", yard)], "")]
        }
        "rollbackJournal" => vec![
            ask(&[("to_seq", "2"), ("dry_run", "1")], ""),
            ask(&[("to_seq", "2"), ("dry_run", "1"), ("detail", "5"), ("if_seq", "4")], ""),
            ask(&[("to_seq", "2"), ("if_seq", "3")], ""),
            ask(&[("to_seq", "2")], ""),
            ask(&[("to_snapshot", "4")], ""),
            ask(&[("to_time", "0"), ("dry_run", "true")], ""),
            ask(&[("to_seq", "99")], ""),
            ask(&[("to_snapshot", "3")], ""),
            ask(&[], ""),
            ask(&[("to_seq", "-1")], ""),
        ],
        "setJournalState" => vec![
            ask(&[("state", "disabled"), ("dry_run", "1"), ("if_seq", "4")], &format!(r#"["{gate}","{yard}"]"#)),
            ask(&[("state", "enabled"), ("if_seq", "3")], &format!(r#"["{yard}"]"#)),
            ask(&[("state", "disabled"), ("if_seq", "3"), ("dry_run", "1")], &format!(r#"["{gate}"]"#)),
            ask(&[("state", "disabled"), ("key", gate), ("kind", "pull")], ""),
            ask(&[("state", "enabled")], &format!(r#"["{gate}",{{"key":"{yard}","kind":"push"}},3]"#)),
            ask(&[("state", "dormant"), ("key", gate)], ""),
            ask(&[("state", "enabled")], ""),
        ],
        "syncJournal" => {
            let gate = camera("gate", "rtsp://10.0.0.9/1");
            let both = format!("[{gate},{}]", camera("door", "rtsp://10.0.0.4/1"));
            vec![
                ask(&[("dry_run", "1"), ("if_seq", "4")], &both),
                ask(&[("dry_run", "1"), ("detail", "1")], &both),
                ask(&[("if_seq", "4")], &both),
                ask(&[("prune", "0")], &format!("[{gate}]")),
                ask(&[("if_seq", "4")], &both),
                ask(&[("app", "other")], &both),
                ask(&[], &format!("[{gate},{gate}]")),
                ask(&[("label", "site 2"), ("dry_run", "1")], &format!("[{gate}]")),
                ask(&[("dry_run", "yes")], &both),
                ask(&[], &format!("[{}]", camera("hall", "rtsp://10.0.0.6/1?token=***"))),
                ask(&[], &gate),
            ]
        }
        "takeJournalSnapshot" => {
            bench.call("delStreamProxies", &[], &format!(r#"["{gate}"]"#));
            vec![ask(&[], ""), ask(&[], "")]
        }
        "updateStreamProxy" => vec![
            ask(&[("key", gate), ("url", "rtsp://10.0.0.9/1"), ("timeout_sec", "5"), ("dry_run", "1")], ""),
            ask(&[("key", gate), ("url", "rtsp://10.0.0.9/1"), ("timeout_sec", "5"), ("if_seq", "4")], ""),
            ask(&[("key", gate), ("url", "rtsp://10.0.0.9/1"), ("Timeout_Sec", "")], ""),
            ask(&[("vhost", "__defaultVhost__"), ("app", "live"), ("stream", "gate"), ("timeout_sec", "5")], ""),
            ask(&[("key", gate), ("url", "rtsp://10.0.0.8/1"), ("if_seq", "4")], ""),
            ask(&[("key", "no/such/key"), ("url", "rtsp://10.0.0.9/1")], ""),
            ask(&[("key", gate), ("stream", "yard")], ""),
            ask(&[("key", gate), ("url", "")], ""),
            ask(&[("key", gate), ("url", "rtsp://\u{fffd}")], ""),
            ask(&[("key", gate), ("url", "rtsp://***@10.0.0.9/1")], ""),
            ask(&[("key", gate), ("rtsp_pwd", "***")], ""),
            ask(&[("key", gate), ("journal_hours", "always")], ""),
            ask(&[("url", "rtsp://10.0.0.9/1")], ""),
        ],
        _ => panic!("{name} has no golden replies: add some here"),
    }
}

#[test]
fn golden_replies_of_every_call() {
    let unavailable = Bench::unavailable();
    for name in names().filter(|name| *name != "getJournalMetrics") {
        let mut all = replies(name);
        let (args, body) = (all[0]["args"].as_object().unwrap(), &all[0]["body"]);
        let args: Vec<(&str, &str)> =
            args.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
        let body = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
        let reply = unavailable.json(name, &args, &body);
        all.push(json!({"where": "the journal cannot be opened", "reply": reply}));
        let is_good = |case: &Value| case["reply"]["code"] == 0;
        assert!(all.iter().any(is_good), "{name} has no success");
        compare_json(&format!("{name}.json"), &Value::from(all));
    }
    compare_json("noSuchCall.json", &Value::from(vec![unavailable.ask("noSuchCall", &[], "")]));
}

#[test]
fn golden_status_and_metrics() {
    for (name, bench) in [("empty", empty()), ("busy", busy())] {
        compare_json(&format!("getJournalStatus.{name}.json"), &bench.json("getJournalStatus", &[], ""));
        compare(&format!("getJournalMetrics.{name}.txt"), &bench.metrics());
        bench.plugin.close();
    }
}

#[test]
fn a_group_that_is_longer_than_one_look_says_that_it_goes_on() {
    let bench = empty();
    let items: Vec<Value> = (0..1500)
        .map(|n| json!({"vhost": "v", "app": "a", "stream": format!("s{n}"), "url": "rtsp://10.0.0.1/1"}))
        .collect();
    bench.call("addStreamProxies", &[], &json!(items).to_string());
    let page = |before: Option<u64>| {
        let before = before.map(|before| ("before".to_owned(), before.to_string()));
        let args: Vec<_> = [("group".to_owned(), "1".to_owned())].into_iter().chain(before).collect();
        let reply = history::read(&bench.plugin, &Request { args: &args, body: b"", caller: "" }, 1000).unwrap();
        serde_json::from_str::<Value>(&reply.body).unwrap()
    };
    let first = page(None);
    assert_eq!((&first["data"][0]["count"], &first["data"][0]["more"]), (&json!(1000), &json!(true)), "{first}");
    let rest = page(first["next"].as_u64());
    assert_eq!((&rest["data"][0]["count"], rest["data"][0].get("more")), (&json!(500), None), "{rest}");
    bench.plugin.close();
}

#[test]
fn each_golden_file_is_of_a_test() {
    let of_call = |name: &str| match name {
        "getJournalMetrics" => vec![format!("{name}.busy.txt"), format!("{name}.empty.txt")],
        "getJournalStatus" => ["json", "busy.json", "empty.json"].map(|ending| format!("{name}.{ending}")).into(),
        _ => vec![format!("{name}.json")],
    };
    let expected: BTreeSet<String> = names().flat_map(of_call).chain(["noSuchCall.json".to_owned()]).collect();
    let there = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(there.collect::<BTreeSet<_>>(), expected);
}
