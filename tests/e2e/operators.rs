//! The page in a browser, as operators use it.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::support::browser::{self, Browser, ENTER, Request, TAB, named};

/// Nobody answers there.
const OFF: &str = "rtsp://127.0.0.1:1/off";

fn origin(server: &Server) -> String {
    format!("http://{}:{}", server.ip, server.port)
}

/// A browser with the page, before anybody has signed in.
fn visitor(fixture: &Fixture) -> Option<Browser> {
    let browser = browser::open()?;
    browser.go(&format!("{}/journal/", origin(&fixture.server)));
    browser.wait_for(&named("secret"));
    Some(browser)
}

fn sign_in(browser: &Browser) {
    browser.fill(&named("secret"), server::SECRET);
    browser.click(&named("sign-in"));
    browser.wait_for(&named("tab-proxies"));
}

fn operator(fixture: &Fixture) -> Option<Browser> {
    let browser = visitor(fixture)?;
    sign_in(&browser);
    Some(browser)
}

fn leave(browser: Browser, fixture: &Fixture) {
    browser.close(&origin(&fixture.server), server::SECRET, |_| false);
    assert!(!fixture.server.log().contains(server::SECRET), "the secret is in the log");
}

fn row(stream: &str) -> String {
    format!("[data-test=\"row\"][data-id=\"pull/{}\"]", key(stream))
}

fn within(selector: &str, name: &str) -> String {
    format!("{selector} {}", named(name))
}

fn add_all(server: &Server, streams: &[&str]) {
    let item = |stream: &&str| json!({"vhost": "__defaultVhost__", "app": "live", "stream": stream, "url": OFF});
    let items: Value = streams.iter().map(item).collect();
    assert_persisted(&server.post_body("addStreamProxies", &[], &items));
}

/// What the journal has of it.
fn listed(server: &Server, stream: &str) -> Value {
    let reply = server.get("listJournal", &[("prefix", &key(stream)), ("live", "1")]);
    reply["data"][0].clone()
}

fn confirm(browser: &Browser) {
    browser.click(&format!("{}:enabled", named("confirm")));
    browser.wait_until("the review to end", |browser| browser.count(&named("dialog-review")) == 0);
}

fn calls<'a>(requests: &'a [Request], api: &str) -> Vec<&'a Request> {
    let of = |request: &&Request| request.url.split(['?', '/']).any(|part| part == api);
    requests.iter().filter(of).collect()
}

#[test]
#[ignore = "slow: just test-e2e"]
fn operator_signs_in_adds_edits_filters_disables_and_goes_back() {
    let fixture = Fixture::start(&[]);
    let (server, live) = (&fixture.server, fixture.source());
    let Some(browser) = visitor(&fixture) else { return };
    // Wrong, then right.
    browser.fill(&named("secret"), "wrong");
    browser.press(ENTER);
    browser.wait_until("the refusal", |browser| !browser.text(&named("login-error")).is_empty());
    assert_eq!(browser.count(&named("tab-proxies")), 0);
    sign_in(&browser);

    browser.click(&named("tab-proxies"));
    browser.click(&named("add"));
    browser.fill(&named("field-url"), &live.url);
    browser.fill(&named("field-stream"), "gate");
    browser.click(&named("preview"));
    browser.wait_for(&named("review-added"));
    assert!(listed(server, "gate").is_null(), "nothing is done before it is confirmed");
    confirm(&browser);
    let gate = row("gate");
    browser.wait_for(&gate);
    server.wait_for_stream("gate");
    browser.wait_until("the list to show that it plays", |browser| {
        browser.text(&within(&gate, "doing")) == "playing"
    });

    browser.click(&within(&gate, "edit"));
    browser.wait_for(&format!("{}:enabled", named("field-journal_label")));
    browser.fill(&named("field-journal_label"), "site 1");
    browser.click(&named("preview"));
    confirm(&browser);
    assert_eq!(listed(server, "gate")["args"]["journal_label"], "site 1");
    assert!(server.has_stream("gate"));

    add_all(server, &["yard", "hall"]);
    browser.fill(&named("filter-text"), "YARD");
    browser.wait_until("the filter to count", |browser| browser.count(&named("row")) == 1);
    browser.wait_for(&row("yard"));
    browser.fill(&named("filter-text"), "site 1");
    browser.wait_for(&gate);
    assert_eq!(browser.count(&named("row")), 1);

    browser.click(&within(&gate, "choose"));
    browser.click(&named("disable"));
    browser.wait_for(&named("review-changed"));
    confirm(&browser);
    browser.wait_until("the list to show it", |browser| browser.text(&within(&gate, "doing")) == "disabled");
    assert_eq!(listed(server, "gate")["state"], "disabled");
    server.wait_for("it to be ended", || !keys(server).contains(&key("gate")));

    // The last event is the first of the timeline. Going back before it enables; undoing that disables.
    browser.click(&named("tab-history"));
    browser.wait_until("the newest event", |browser| browser.text(&named("reason")) == "setJournalState");
    browser.click(&named("back-before"));
    browser.wait_for(&named("review-changed"));
    assert_eq!(listed(server, "gate")["state"], "disabled");
    confirm(&browser);
    assert_eq!(listed(server, "gate")["state"], "enabled");
    server.wait_for_stream("gate");
    browser.click(&named("notice-action"));
    confirm(&browser);
    assert_eq!(listed(server, "gate")["state"], "disabled");
    browser.click(&named("sign-out"));
    browser.wait_for(&named("secret"));
    leave(browser, &fixture);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn import_shows_bad_lines_and_is_done_as_one_change() {
    let fixture = Fixture::start(&[]);
    let Some(browser) = operator(&fixture) else { return };
    let file = fixture.dir.path().join("cameras.csv");
    let good = |name: &str| format!("__defaultVhost__,live,{name},{OFF}\n");
    let table = |lines: &[&str]| format!("vhost,app,stream,url\n{}", lines.concat());
    fs::write(&file, table(&[&good("a"), "__defaultVhost__,live,b\n", &good("c"), &good("a")])).unwrap();
    browser.click(&named("tab-transfer"));
    browser.upload(&named("file"), &file);
    browser.wait_for(&named("bad-lines"));
    let bad = browser.texts(&named("bad-line"));
    assert_eq!(bad.len(), 2, "{bad:?}");
    assert!(bad[0].contains("__defaultVhost__,live,b") && bad[1].contains("__defaultVhost__,live,a"), "{bad:?}");
    assert_eq!(browser.count(&format!("{}:enabled", named("import-apply"))), 0);

    let names: Vec<String> = (0..300).map(|n| good(&format!("c{n:03}"))).collect();
    fs::write(&file, table(&names.iter().map(String::as_str).collect::<Vec<_>>())).unwrap();
    browser.upload(&named("file"), &file);
    browser.wait_for(&named("import-preview"));
    assert_eq!(browser.count(&named("bad-lines")), 0);
    assert_eq!(fixture.server.status()["seq"], 0, "a preview changes nothing");
    browser.click(&named("import-apply"));
    browser.wait_for(&named("import-progress"));
    assert_eq!(fixture.sqlite3("select count(*), count(distinct at) from journal"), "300|1\n");
    leave(browser, &fixture);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn operators_do_not_overwrite_each_other_unseen() {
    let fixture = Fixture::start(&[]);
    let server = &fixture.server;
    add_all(server, &["gate", "yard"]);
    let Some(browser) = operator(&fixture) else { return };
    let by_another = |label: &str| {
        let args = [("key", key("gate")), ("journal_label", label.to_owned())];
        assert_persisted(
            &server.get("updateStreamProxy", &args.each_ref().map(|(name, value)| (*name, value.as_str()))),
        );
    };
    browser.click(&named("tab-proxies"));
    let gate = row("gate");
    browser.click(&within(&gate, "choose"));
    browser.click(&within(&row("yard"), "choose"));
    browser.click(&named("delete"));
    browser.wait_for(&named("review-removed"));
    by_another("first");
    browser.click(&format!("{}:enabled", named("confirm")));
    browser.wait_for(&named("conflict"));
    assert_eq!(fixture.sqlite3("select count(*) from proxies"), "2\n", "all or nothing");
    assert_eq!(browser.count(&format!("{}:enabled", named("confirm"))), 0);
    // Who has seen it may do it.
    browser.click(&named("look-again"));
    browser.wait_until("the new state", |browser| browser.count(&format!("{}:enabled", named("confirm"))) == 1);
    browser.click(&named("cancel"));

    // The same for one that is edited.
    browser.click(&within(&gate, "edit"));
    browser.wait_for(&format!("{}:enabled", named("field-url")));
    browser.fill(&named("field-url"), "rtsp://127.0.0.1:1/other");
    by_another("second");
    browser.click(&named("preview"));
    browser.wait_for(&named("conflict"));
    assert_eq!(listed(server, "gate")["args"]["url"], OFF);
    browser.click(&named("look-again"));
    confirm(&browser);
    let entry = listed(server, "gate");
    assert_eq!(
        (&entry["args"]["url"], &entry["args"]["journal_label"]),
        (&json!("rtsp://127.0.0.1:1/other"), &json!("second"))
    );
    leave(browser, &fixture);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn page_says_that_the_server_is_gone_and_goes_on_when_it_is_back() {
    let mut fixture = Fixture::start(&[]);
    add_all(&fixture.server, &["gate"]);
    let Some(browser) = operator(&fixture) else { return };
    browser.click(&named("tab-proxies"));
    browser.wait_for(&row("gate"));
    fixture.server.kill();
    browser.wait_for(&named("gone"));
    assert_eq!(browser.count(&row("gate")), 1, "what was seen stays");
    fixture.server.start();
    if !HOST.is_old {
        // The server has forgotten who was signed in.
        browser.wait_for(&named("secret"));
        sign_in(&browser);
    }
    browser.wait_until("the page to go on", |browser| browser.count(&named("gone")) == 0);
    add_all(&fixture.server, &["yard"]);
    browser.wait_for(&row("yard"));
    let is_expected = |error: &str| error.contains("net::ERR_");
    browser.close(&origin(&fixture.server), server::SECRET, is_expected);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn ten_thousand_proxies_are_a_page_at_a_time_and_are_changed_in_one_call() {
    let mut fixture = Fixture::prepare(&[("restore", "off")]);
    fixture.journaled((0..10_000).map(|n| (format!("c{n:05}"), OFF, &[][..])));
    fixture.server.start();
    let Some(mut browser) = browser::open() else { return };
    browser.go(&format!("{}/journal/#proxies", origin(&fixture.server)));
    browser.fill(&named("secret"), server::SECRET);
    browser.run(
        "const now = () => performance.now(); \
         addEventListener('click', () => { window.signedIn = now() }, { capture: true, once: true }); \
         new MutationObserver(() => { if (document.querySelector(arguments[0])) window.listed ??= now() }) \
             .observe(document, { subtree: true, childList: true })",
        json!([named("row")]),
    );
    browser.click(&named("sign-in"));
    browser.wait_for(&named("row"));
    let took = browser.run("return Math.round(window.listed - window.signedIn)", json!([]));
    support::say(&format!("the first of 10,000 proxies are listed {took} ms after the click on Sign in"));
    assert_eq!(browser.count(&named("row")), 100);
    let lists = calls(browser.requests(), "listJournal");
    assert!(!lists.is_empty() && lists.iter().all(|call| call.body.contains("\"limit\":100")), "{lists:?}");

    browser.fill(&named("filter-text"), "c0777");
    browser.wait_until("ten of them", |browser| browser.count(&named("row")) == 10);
    browser.click(&named("filter-none"));
    browser.wait_until("all of them", |browser| browser.count(&named("row")) == 100);
    browser.click(&named("choose-all"));
    browser.wait_until("all to be chosen", |browser| browser.text(&named("chosen")).contains("10,000"));
    browser.click(&named("disable"));
    confirm(&browser);
    assert_eq!(fixture.server.status()["proxies"]["disabled"], 10_000);
    // What is shown before is asked for, and then done, in one call each.
    let changes = calls(browser.requests(), "setJournalState");
    let dry: Vec<bool> = changes.iter().map(|request| request.url.contains("dry_run=1")).collect();
    assert_eq!(dry, [true, false]);
    leave(browser, &fixture);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn hostile_names_are_shown_as_they_are() {
    let fixture = Fixture::start(&[]);
    let names = [
        "<img src=x onerror=window.hit=1>".to_owned(),
        "\"quotes' &amp; <b>bold</b>".to_owned(),
        "x".repeat(2000),
        "\u{202e}gpj.esrever \u{5e9}\u{5dc}\u{5d5}\u{5dd}".to_owned(),
        "{{constructor}} ${7*7} %3Cb%3E".to_owned(),
        "\u{76d1}\u{63a7} \u{1f4f7}".to_owned(),
    ];
    let item = |name: &String| {
        json!({"vhost": "__defaultVhost__", "app": "live", "stream": name, "url": format!("{OFF}/{name}"),
            "journal_label": name})
    };
    assert_persisted(&fixture.server.post_body("addStreamProxies", &[], &names.iter().map(item).collect()));
    let Some(browser) = operator(&fixture) else { return };
    let shown = |browser: &Browser, selector: &str| {
        for name in &names {
            let texts = browser.texts(selector);
            assert!(texts.iter().any(|text| text.contains(&key(name))), "{name} is not among {texts:?}");
        }
        let made =
            browser.run("return [window.hit ?? null, document.querySelectorAll('img, b > b').length]", json!([]));
        assert_eq!(made, json!([null, 0]));
    };
    browser.click(&named("tab-proxies"));
    browser.wait_until("all rows", |browser| browser.count(&named("row")) == names.len());
    shown(&browser, &named("key"));
    let urls = browser.texts(&named("url"));
    assert!(names.iter().all(|name| urls.iter().any(|url| url.contains(name))), "{urls:?}");
    browser.click(&named("choose-page"));
    browser.click(&named("delete"));
    browser.wait_for(&named("review-removed"));
    shown(&browser, &within(&named("review-removed"), "no").replace(&named("no"), ".name"));
    browser.click(&named("cancel"));
    browser.click(&named("tab-history"));
    browser.wait_for(&named("event"));
    shown(&browser, &format!("{} .name", named("timeline")));
    browser.click(&named("tab-now"));
    browser.wait_for(&named("card-fleet"));
    // A long name does not push the rest out of sight.
    let is_wide = "return document.documentElement.scrollWidth > innerWidth";
    for tab in ["now", "proxies", "history"] {
        browser.click(&named(&format!("tab-{tab}")));
        browser.wait_for(&named(&format!("view-{tab}")));
        assert_eq!(browser.run(is_wide, json!([])), false, "{tab}");
    }
    leave(browser, &fixture);
}

/// Those of a kind that the journal has.
fn of_kind(server: &Server, kind: &str) -> Vec<Value> {
    let reply = server.get("listJournal", &[("kind", kind), ("live", "1")]);
    reply["data"].as_array().unwrap().clone()
}

#[test]
#[ignore = "slow: just test-e2e"]
fn operator_adds_and_edits_pushes_and_processes_and_deletes_them_all() {
    let fixture = Fixture::start(&[]);
    let server = &fixture.server;
    let Some(browser) = operator(&fixture) else { return };
    browser.click(&named("tab-proxies"));
    let forms: [(&str, &[(&str, &str)]); 2] = [
        ("push", &[("dst_url", "rtmp://127.0.0.1:1/live/x"), ("stream", "gate")]),
        ("ffmpeg", &[("src_url", OFF), ("dst_url", "rtmp://127.0.0.1:1/live/y"), ("timeout_ms", "9000")]),
    ];
    for (kind, fields) in forms {
        browser.click(&named("add"));
        browser.choose(&named("field-kind"), kind);
        if kind == "push" {
            browser.choose(&named("field-schema"), "rtmp");
        }
        for (name, value) in fields {
            browser.fill(&named(&format!("field-{name}")), value);
        }
        browser.click(&named("preview"));
        browser.wait_for(&named("review-added"));
        assert_eq!(of_kind(server, kind), [] as [Value; 0], "nothing is done before it is confirmed");
        confirm(&browser);
        let entry = of_kind(server, kind)[0].clone();
        for (name, value) in fields {
            assert_eq!(entry["args"][name], *value, "{entry}");
        }
        let row = format!("[data-test=\"row\"][data-id=\"{kind}/{}\"]", entry["key"].as_str().unwrap());
        browser.wait_for(&row);
        browser.click(&within(&row, "edit"));
        browser.wait_for(&format!("{}:enabled", named("field-journal_label")));
        assert_eq!(browser.count(&format!("{}:disabled", named("field-dst_url"))), 1, "it is of the key");
        browser.fill(&named("field-journal_label"), "site 1");
        browser.click(&named("preview"));
        browser.wait_for(&named("review-changed"));
        confirm(&browser);
        assert_eq!(of_kind(server, kind)[0]["args"]["journal_label"], "site 1");
    }
    browser.wait_until("both", |browser| browser.count(&named("row")) == 2);
    browser.click(&named("choose-page"));
    browser.click(&named("delete"));
    browser.wait_for(&named("review-removed"));
    confirm(&browser);
    browser.wait_for(&named("list-empty"));
    assert_eq!(fixture.sqlite3("select count(*) from proxies"), "0\n");
    browser.click(&named("notice-action"));
    browser.wait_for(&named("review-added"));
    confirm(&browser);
    browser.wait_until("both again", |browser| browser.count(&named("row")) == 2);
    assert_eq!(of_kind(server, "push")[0]["args"]["journal_label"], "site 1");
    leave(browser, &fixture);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn operator_starts_what_the_server_has_given_up() {
    let fixture = Fixture::start(&[("revive_sec", "0")]);
    let (server, source) = (&fixture.server, fixture.source());
    let address = source.address();
    let once = [("retry_count", "0"), ("timeout_sec", "2")];
    assert_persisted(&add(server, "gate", &source.url, &once));
    server.wait_for_stream("gate");
    drop(source);
    server.wait_for("it to be given up", || listed(server, "gate")["now"]["state"] == "down");
    let Some(browser) = operator(&fixture) else { return };
    browser.click(&named("tab-proxies"));
    let gate = row("gate");
    browser.wait_for(&gate);
    assert_ne!(browser.text(&within(&gate, "why")), "", "why it does not play");
    let _source = Source::live_at(fixture.dir.path(), address);
    browser.click(&within(&gate, "choose"));
    browser.click(&named("start"));
    browser.wait_for(&named("review-started"));
    assert_eq!(listed(server, "gate")["now"]["state"], "down", "nothing is done before it is confirmed");
    confirm(&browser);
    server.wait_for_stream("gate");
    browser.wait_until("the list to show that it plays", |browser| {
        browser.text(&within(&gate, "doing")) == "playing"
    });
    leave(browser, &fixture);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_file_that_is_dropped_takes_the_place_of_all_and_exports_have_passwords_only_if_asked() {
    let fixture = Fixture::start(&[]);
    let server = &fixture.server;
    add_all(server, &["gate", "yard"]);
    let Some(browser) = operator(&fixture) else { return };
    browser.click(&named("tab-transfer"));
    browser.click(&named("mode-replace"));
    let with_password = "rtsp://admin:geheim@127.0.0.1:1/off";
    let table = format!(
        "vhost,app,stream,url\n__defaultVhost__,live,gate,{OFF}\n__defaultVhost__,live,roof,{with_password}\n"
    );
    browser.wait_for(&named("drop"));
    browser.run(
        "const dataTransfer = new DataTransfer();
         dataTransfer.items.add(new File([arguments[1]], 'cameras.csv', { type: 'text/csv' }));
         const event = new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true });
         document.querySelector(arguments[0]).dispatchEvent(event)",
        json!([named("drop"), table]),
    );
    browser.wait_for(&named("import-preview"));
    for part in ["review-added", "review-removed"] {
        assert_eq!(browser.count(&format!("{} .line", named(part))), 1, "{part}");
    }
    assert!(browser.text(&named("review-added")).contains("***@127.0.0.1"), "the password is not shown");
    // Another one changes something meanwhile: nothing is done until it has been seen.
    add_all(server, &["hall"]);
    browser.click(&named("import-apply"));
    browser.wait_for(&named("conflict"));
    assert_eq!(fixture.sqlite3("select count(*) from proxies"), "3\n");
    browser.click(&named("import-again"));
    let two_go = |browser: &Browser| browser.count(&format!("{} .line", named("review-removed"))) == 2;
    browser.wait_until("the difference anew", two_go);
    browser.click(&format!("{}:enabled", named("import-apply")));
    browser.wait_for(&named("import-progress"));
    let keys = "select group_concat(key) from (select key from proxies order by key)";
    assert_eq!(fixture.sqlite3(keys), format!("{},{}\n", key("gate"), key("roof")));

    for (name, url) in [("export-reveal", with_password), ("export-hidden", "rtsp://***@127.0.0.1:1/off")] {
        let dir = fixture.dir.path().join(name);
        fs::create_dir(&dir).unwrap();
        browser.cdp("Browser.setDownloadBehavior", json!({"behavior": "allow", "downloadPath": dir}));
        browser.click(&named(name));
        let file = || {
            let files = fs::read_dir(&dir).unwrap().map(|file| file.unwrap().path());
            files.filter(|path| path.extension().is_some_and(|ending| ending == "json")).last()
        };
        browser.wait_until("the download", |_| file().is_some());
        let exported: Value = serde_json::from_slice(&fs::read(file().unwrap()).unwrap()).unwrap();
        let urls: Vec<&Value> =
            exported["entries"].as_array().unwrap().iter().map(|entry| &entry["args"]["url"]).collect();
        assert_eq!(urls, [OFF, url], "{name}");
    }
    leave(browser, &fixture);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn every_text_is_there_in_both_languages() {
    let fixture = Fixture::start(&[]);
    let Some(browser) = operator(&fixture) else { return };
    let problems = browser.run(
        "return (async () => {
            const { TEXTS } = await import('/journal/text.js');
            const problems = [];
            const holes = (text) => [...new Set(text.match(/\\{\\w+\\}/g))].sort().join();
            for (const [key, texts] of Object.entries(TEXTS)) {
                if (texts.length !== 2 || texts.some((text) => !text.trim())) problems.push(`${key} is not in both`);
                else if (holes(texts[0]) !== holes(texts[1])) problems.push(`${key}: ${holes(texts[0])} or ${holes(texts[1])}`);
                // A word of English that is not a name, and nothing Chinese beside it.
                const isWord = /[a-z]{3}/.test(texts[0].replace(/\\{\\w+\\}|zlm-journal/g, ''));
                if (isWord && !/\\p{Script=Han}/u.test(texts[1])) problems.push(`${key} is not Chinese: ${texts[1]}`);
            }
            for (const file of arguments[0]) {
                const code = await (await fetch(`/journal/${file}`)).text();
                for (const [, key] of code.matchAll(/\\bt\\('([^']+)'/g)) {
                    if (!Object.hasOwn(TEXTS, key)) problems.push(`${file} uses ${key}`);
                }
            }
            return [Object.keys(TEXTS).length, ...problems];
        })()",
        json!([scripts()]),
    );
    assert!(problems[0].as_u64() > Some(100) && problems.as_array().unwrap().len() == 1, "{problems:#}");

    // Chosen by hand, and kept.
    assert_eq!(browser.run("return document.documentElement.lang", json!([])), "en");
    let english = browser.text(&named("tab-now"));
    browser.choose(&named("language"), "zh");
    browser.wait_until("the other language", |browser| browser.text(&named("tab-now")) != english);
    browser.run("location.reload()", json!([]));
    if HOST.is_old {
        // There is no login that outlives the page.
        sign_in(&browser);
    }
    browser.wait_for(&named("tab-now"));
    assert_eq!(browser.run("return document.documentElement.lang.slice(0, 2)", json!([])), "zh");
    leave(browser, &fixture);
}

fn scripts() -> Vec<String> {
    let files = fs::read_dir(support::root().join("src/page")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".js")).collect()
}

#[test]
#[ignore = "slow: just test-e2e"]
fn page_asks_once_a_second_at_most_and_not_at_all_out_of_sight() {
    let fixture = Fixture::start(&[]);
    add_all(&fixture.server, &["gate"]);
    let Some(mut browser) = operator(&fixture) else { return };
    browser.wait_for(&named("card-fleet"));
    let all = |browser: &mut Browser| {
        let requests = browser.requests().iter().filter(|request| request.url.contains("/index/api/"));
        requests.map(|request| request.at).collect::<Vec<f64>>()
    };
    let asked = |browser: &mut Browser| all(browser).len();
    // The list and the timeline follow what changes, by the same call a second.
    for (tab, there, news) in [("now", "card-fleet", 4), ("proxies", "row", 8), ("history", "event", 8)] {
        browser.click(&named(&format!("tab-{tab}")));
        browser.wait_for(&named(there));
        // What the click has asked for is over.
        let shown = asked(&mut browser);
        while asked(&mut browser) < shown + 2 {
            thread::sleep(Duration::from_millis(100));
        }
        let before = asked(&mut browser) - 1;
        for n in 0.. {
            add_all(&fixture.server, &[&format!("{tab}{n}")]);
            thread::sleep(Duration::from_millis(500));
            if asked(&mut browser) > before + news {
                break;
            }
        }
        let times = all(&mut browser).split_off(before);
        assert!(times.windows(2).all(|two| two[1] - two[0] > 0.9), "{tab}: {times:?}");
        browser.wait_until("the news", |browser| tab == "now" || browser.shown().contains(&format!("{tab}1")));
    }
    // Another tab is in front. A timer of the page's own shows that what the page might have had pending was due before.
    let passes = |browser: &mut Browser, pauses: u32| {
        browser.run(
            "window.isDue = false; setTimeout(() => { window.isDue = true }, arguments[0])",
            json!([pauses * 1000]),
        );
        browser.wait_until("the timer", |browser| browser.run("return window.isDue", json!([])) == true);
        asked(browser)
    };
    browser.run(
        "Object.defineProperty(document, 'hidden', { get: () => window.isAway ?? false }); \
         window.isAway = true; document.dispatchEvent(new Event('visibilitychange'))",
        json!([]),
    );
    let before = passes(&mut browser, 1);
    assert_eq!(passes(&mut browser, 6), before, "it asks though nobody looks");
    browser.run("window.isAway = false; document.dispatchEvent(new Event('visibilitychange'))", json!([]));
    while asked(&mut browser) == before {
        thread::sleep(Duration::from_millis(50));
    }
    leave(browser, &fixture);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn keyboard_alone_and_a_narrow_phone_suffice() {
    let fixture = Fixture::start(&[]);
    add_all(&fixture.server, &["gate"]);
    let Some(browser) = visitor(&fixture) else { return };
    // The field for the secret has the focus.
    browser.press(server::SECRET);
    browser.press(ENTER);
    browser.wait_for(&named("tab-proxies"));
    let focus_on = |wanted: &str| {
        for _ in 0..200 {
            let is_there =
                browser.run("return document.activeElement?.matches(arguments[0]) ?? false", json!([wanted]));
            if is_there == true {
                let outline = browser.run(
                    "const style = getComputedStyle(document.activeElement); \
                     return style.outlineStyle !== 'none' || style.boxShadow !== 'none'",
                    json!([]),
                );
                assert_eq!(outline, true, "{wanted} does not show that it has the focus");
                return;
            }
            browser.press(TAB);
        }
        panic!("{wanted} is not reached by the tab key:\n{}", browser.shown());
    };
    focus_on(&named("tab-proxies"));
    browser.press(ENTER);
    browser.wait_for(&row("gate"));
    focus_on(&within(&row("gate"), "choose"));
    browser.press(" ");
    focus_on(&named("disable"));
    browser.press(ENTER);
    browser.wait_until("the review", |browser| browser.count(&format!("{}:enabled", named("confirm"))) == 1);
    focus_on(&named("confirm"));
    browser.press(ENTER);
    browser.wait_until("it to be done", |browser| browser.count(&named("dialog-review")) == 0);
    assert_eq!(listed(&fixture.server, "gate")["state"], "disabled");

    browser.resize(360, 740);
    for tab in ["now", "proxies", "history", "transfer"] {
        browser.click(&named(&format!("tab-{tab}")));
        browser.wait_for(&named(&format!("view-{tab}")));
        let widths = browser.run("return [document.documentElement.scrollWidth, innerWidth]", json!([]));
        assert!(widths[0].as_u64() <= widths[1].as_u64(), "{tab}: {widths}");
    }
    leave(browser, &fixture);
}

/// The version, and the checksum that npm has of it.
const AXE: (&str, &str) =
    ("4.14.1", "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==");

/// axe-core's script, fetched once; `None`, said or an error, where it cannot be had.
fn axe() -> Option<String> {
    let (version, sum) = AXE;
    let dir = support::build_dir("axe-core");
    let archive: PathBuf = dir.join(format!("axe-core-{version}.tgz"));
    if !archive.exists() {
        let mut npm = std::process::Command::new("npm");
        npm.args(["pack", "--silent", &format!("axe-core@{version}"), "--pack-destination"])
            .arg(&dir)
            .current_dir(&dir);
        let done = npm.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).status();
        if !done.is_ok_and(|status| status.success()) {
            support::skip("the page with axe-core, which npm cannot fetch");
            return None;
        }
    }
    use sha2::Digest;
    let its = sha2::Sha512::digest(fs::read(&archive).unwrap());
    assert_eq!(its.as_slice(), browser::base64(sum), "{} is another one", archive.display());
    let script =
        support::run(std::process::Command::new("tar").arg("-xzOf").arg(&archive).arg("package/axe.min.js"));
    Some(script)
}

#[test]
#[ignore = "slow: just test-e2e"]
fn axe_finds_nothing_serious() {
    let fixture = Fixture::start(&[]);
    add_all(&fixture.server, &["gate", "yard"]);
    assert_persisted(&fixture.server.get("setJournalState", &[("state", "disabled"), ("key", &key("yard"))]));
    let Some(axe) = axe() else { return };
    let Some(browser) = visitor(&fixture) else { return };
    let check = |what: &str| {
        browser.run(&axe, json!([]));
        let found = browser.run(
            "return axe.run().then(({ violations }) => violations
                .filter(({ impact }) => impact === 'serious' || impact === 'critical')
                .map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.slice(0, 3).map(({ html }) => html).join(' ')}`))",
            json!([]),
        );
        assert_eq!(found, json!([]), "{what}");
    };
    check("sign-in");
    sign_in(&browser);
    for theme in ["light", "dark"] {
        browser.choose(&named("theme"), theme);
        for (tab, there) in [("now", "card-fleet"), ("proxies", "row"), ("history", "event"), ("transfer", "drop")]
        {
            browser.click(&named(&format!("tab-{tab}")));
            browser.wait_for(&named(there));
            check(&format!("{tab}, {theme}"));
        }
        browser.click(&named("tab-proxies"));
        browser.click(&within(&row("gate"), "edit"));
        browser.wait_for(&format!("{}:enabled", named("field-url")));
        check(&format!("the editor, {theme}"));
        browser.fill(&named("field-url"), "rtsp://127.0.0.1:1/other");
        browser.click(&named("preview"));
        browser.wait_for(&named("review-changed"));
        check(&format!("a review, {theme}"));
        browser.click(&named("cancel"));
        browser.click(&named("editor-cancel"));
        browser.click(&named("editor-discard"));

        let file = fixture.dir.path().join("cameras.csv");
        let line = |stream: &str, url: &str| format!("__defaultVhost__,live,{stream},{url}\n");
        browser.click(&named("tab-transfer"));
        fs::write(&file, format!("vhost,app,stream,url\n{}", line("hall", ""))).unwrap();
        browser.upload(&named("file"), &file);
        browser.wait_for(&named("bad-lines"));
        check(&format!("bad lines, {theme}"));
        fs::write(
            &file,
            format!("vhost,app,stream,url\n{}{}", line("hall", OFF), line("gate", "rtsp://127.0.0.1:1/x")),
        )
        .unwrap();
        browser.upload(&named("file"), &file);
        browser.wait_for(&named("import-preview"));
        check(&format!("the preview of a file, {theme}"));
        add_all(&fixture.server, &[&format!("other-{theme}")]);
        browser.click(&named("import-apply"));
        browser.wait_for(&named("conflict"));
        check(&format!("a conflict, {theme}"));
        browser.click(&named("import-cancel"));
    }
    leave(browser, &fixture);
}

/// A picture for docs/, where `ZLMJ_SCREENSHOTS` asks for one.
fn picture(browser: &Browser, name: &str) {
    if std::env::var_os("ZLMJ_SCREENSHOTS").is_some() {
        // Nothing moves any more.
        thread::sleep(Duration::from_millis(500));
        browser.screenshot(&support::root().join(format!("docs/page-{name}.png")));
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn restore_is_followed_and_the_past_is_a_timeline() {
    const ALL: usize = 300;
    // The restore begins when the page is open.
    let mut fixture = Fixture::prepare(&[("restore", "off"), ("restore_rate", "25"), ("restore_per_origin", "0")]);
    let live = fixture.source();
    let places = ["north gate", "south gate", "warehouse", "car park", "loading dock"];
    let url = |n: usize| match n % 12 {
        5 => format!("rtsp://admin:secret@127.0.0.{}:1/Streaming/Channels/101", 20 + n % 3),
        _ => live.url.clone(),
    };
    let cameras: Vec<(String, String, String)> = (0..ALL)
        .map(|n| (format!("{} {:03}", places[n % places.len()], n), url(n), format!("site {}", n / 60 + 1)))
        .collect();
    let labels: Vec<[(&str, &str); 1]> =
        cameras.iter().map(|(.., label)| [("journal_label", label.as_str())]).collect();
    let proxies =
        cameras.iter().zip(&labels).map(|((name, url, _), more)| (name.clone(), url.as_str(), &more[..]));
    fixture.journaled(proxies);
    fixture.server.start();
    let server = &fixture.server;
    let Some(browser) = operator(&fixture) else { return };
    browser.resize(1160, 760);
    assert_eq!(server.get("restoreJournal", &[])["data"]["wanted"], ALL);
    browser.wait_for(&named("restore-eta"));
    let done = |browser: &Browser| {
        let text = browser.texts(&named("restore-done")).join("");
        let digits: String =
            text.split('/').next().unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
        digits.parse::<usize>().ok()
    };
    // It is over if the figure has gone.
    browser.wait_until("half of it", |browser| done(browser).is_none_or(|done| done > ALL / 2));
    assert!(done(&browser).is_some_and(|done| done <= ALL), "the restore was not seen under way");
    picture(&browser, "restore");
    browser.wait_for(&named("restore-result"));

    // What happened, for the timeline.
    let state = |state: &str, names: &[&str]| {
        let keys: Value = names.iter().map(|name| json!(key(name))).collect();
        assert_persisted(&server.post_body("setJournalState", &[("state", state)], &keys));
    };
    state("disabled", &["warehouse 002", "car park 003"]);
    assert_persisted(&server.get("delStreamProxy", &[("key", &key("loading dock 004"))]));
    let moved = [("key", key("north gate 005")), ("url", live.url.clone())];
    assert_persisted(
        &server.get("updateStreamProxy", &moved.each_ref().map(|(name, value)| (*name, value.as_str()))),
    );
    add_all(server, &["roof 301", "roof 302"]);
    let before = server.status()["seq"].as_u64().unwrap();
    server.wait_for("the new ones to be tried", || {
        listed(server, "roof 302")["now"]["attempts"].as_u64() >= Some(1)
    });

    browser.click(&named("tab-proxies"));
    browser.wait_for(&named("row"));
    browser.fill(&named("filter-text"), "00");
    browser.wait_until("the filter to count", |browser| browser.count(&named("row")) < 20);
    browser.wait_for(&row("warehouse 002"));
    browser.click(&within(&row("north gate 000"), "choose"));
    browser.click(&within(&row("south gate 001"), "choose"));
    picture(&browser, "list");

    browser.click(&named("tab-history"));
    browser.wait_until("all that happened", |browser| browser.count(&named("event")) >= 5);
    let reasons = browser.texts(&named("reason"));
    let expected = ["addStreamProxies", "updateStreamProxy", "delStreamProxy", "setJournalState"];
    assert_eq!(reasons[..4], expected, "{reasons:?}");
    picture(&browser, "timeline");

    // Back to where it was after the restore: one that was added goes, one comes back, three are as they were.
    let oldest = browser.count(&named("back-before"));
    assert!(oldest >= 4);
    let target = format!("{} [data-id=\"{}\"]", named("timeline"), before - 4);
    browser.click(&within(&target, "back-before"));
    for (part, count) in [("review-added", 1), ("review-changed", 3), ("review-removed", 2)] {
        browser.wait_for(&named(part));
        assert_eq!(browser.count(&format!("{} .line", named(part))), count, "{part}");
    }
    picture(&browser, "diff");
    confirm(&browser);
    let status = server.status();
    assert_eq!((&status["proxies"]["enabled"], &status["proxies"]["disabled"]), (&json!(ALL), &json!(0)));
    leave(browser, &fixture);
}
