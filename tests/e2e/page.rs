//! The journal's page as it is served, and what it needs of the API: calls without the secret in their URL.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;

/// A client that keeps cookies as a browser does, and never has the secret in a URL.
struct Client {
    http: ureq::Agent,
    base: String,
    cookies: BTreeMap<String, String>,
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }
}

impl Client {
    fn of(server: &Server) -> Client {
        let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
        let http = ureq::Agent::new_with_config(config.max_idle_connections(0).build());
        Client { http, base: format!("http://{}:{}", server.ip, server.port), cookies: BTreeMap::new() }
    }

    /// `None` if the server ends the connection instead of answering.
    fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Answer> {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = match body {
            [] => self.http.run(request.body(()).unwrap()),
            body => self.http.run(request.body(body).unwrap()),
        };
        let mut answer = answer.ok()?;
        for cookie in answer.headers().get_all("set-cookie") {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        let headers =
            answer.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        let headers = headers.collect();
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(u64::MAX).read_to_vec().ok()?;
        Some(Answer { status, headers, body })
    }

    fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", path, headers, b"").expect(path)
    }

    fn call(&mut self, api: &str, body: &Value) -> Option<Value> {
        let json = [("content-type", "application/json"), ("X-Journal", "1")];
        let body = serde_json::to_vec(body).unwrap();
        self.send("POST", &format!("/index/api/{api}"), &json, &body).map(|answer| answer.json())
    }

    /// What the page does with what was typed.
    fn sign_in(&mut self, secret: &str) -> Value {
        let challenge = self.call("getJournalStatus", &json!({})).unwrap();
        assert_eq!(challenge["code"], -100, "{challenge}");
        let cookie = challenge["cookie"].as_str().unwrap();
        let digest = format!("digest={:x}", md5::compute(format!("zlmediakit:{secret}:{cookie}")));
        let form = [("content-type", "application/x-www-form-urlencoded")];
        self.send("POST", "/index/api/login", &form, digest.as_bytes()).unwrap().json()
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn page_comes_with_the_plugin_and_leaves_other_paths_to_the_server() {
    let fixture = Fixture::start(&[]);
    let live = fixture.source();
    let mut client = Client::of(&fixture.server);

    let page = client.get("/journal/", &[]);
    assert_eq!((page.status, page.headers["content-type"].as_str()), (200, "text/html; charset=utf-8"));
    assert!(page.body[..15].eq_ignore_ascii_case(b"<!doctype html>"), "{}", String::from_utf8_lossy(&page.body));
    assert!(page.headers["content-security-policy"].starts_with("default-src 'none'"));
    let etag = &page.headers["etag"];
    let again = client.get("/journal/?lang=zh", &[("if-none-match", etag)]);
    assert_eq!((again.status, again.body.len(), &again.headers["etag"]), (304, 0, etag));
    let redirect = client.get("/journal", &[]);
    assert_eq!((redirect.status, redirect.headers["location"].as_str()), (302, "journal/"));

    assert_eq!(client.get("/journal/none.js", &[]).status, 404);
    assert_eq!(client.send("POST", "/journal/", &[], b"x").unwrap().status, 404);
    // Nor does it take the streams of an app that has its name.
    let args = [("vhost", "__defaultVhost__"), ("app", "journal"), ("stream", "cam"), ("url", &live.url)];
    assert_persisted(&fixture.server.get("addStreamProxy", &args));
    fixture.server.wait_for_stream("cam");
    let mut player = TcpStream::connect((fixture.server.ip, fixture.server.port)).unwrap();
    player.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    player.write_all(b"GET /journal/cam.live.flv HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
    let mut head = [0; 12];
    player.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn page_is_not_there_without_a_journal_nor_for_addresses_that_may_not_call() {
    for (journal, setting) in [(("enable", "0"), "127.0.0.1"), (("enable", "1"), "127.0.0.2")] {
        let mut fixture = Fixture::prepare(&[journal]);
        fixture.server.settings.push(("http.allow_ip_range".to_owned(), setting.to_owned()));
        // Another test's stream of the app `journal` may have left files where all servers have theirs.
        let www = fixture.dir.path().join("www").to_str().unwrap().to_owned();
        fixture.server.settings.push(("http.rootPath".to_owned(), www));
        fixture.server.write_config(&Fixture::journal(&fixture.server, &[journal]));
        fixture.server.start();
        // As for any file that is not there. Newer servers hide those from such an address.
        let status = Client::of(&fixture.server).get("/journal/", &[]).status;
        assert_eq!(
            status,
            if HOST.real && !HOST.is_old && setting != "127.0.0.1" { 401 } else { 404 },
            "{journal:?}"
        );
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn signing_in_with_the_right_secret_lets_all_calls_through() {
    if support::is_left_out_on_old("signing in") {
        return;
    }
    let fixture = Fixture::start(&[]);
    let mut client = Client::of(&fixture.server);
    let refused = client.sign_in("wrong");
    assert_eq!(refused["code"], -100, "{refused}");
    assert_eq!(client.call("listJournal", &json!({})).unwrap()["code"], -100);
    assert_eq!(client.sign_in(server::SECRET)["code"], 0);
    for api in zlm_journal::api::names() {
        let json = ("content-type", "application/json");
        let path = format!("/index/api/{api}");
        let reply = client.send("POST", &path, &[json, ("x-journal", "1")], b"{}").unwrap();
        let reply = String::from_utf8(reply.body).unwrap();
        assert!(!reply.contains("\"code\":-100") && !reply.contains("\"cookie\""), "{api}: {reply}");
        // What another site can make a browser send.
        for body in ["{}", "[]", &format!("[{}", " ".repeat(70_000))] {
            let reply = client.send("POST", &path, &[("content-type", "text/plain")], body.as_bytes()).unwrap();
            assert_eq!(reply.json()["code"], -100, "{api}");
        }
        assert_eq!(client.get(&path, &[]).json()["code"], -100, "{api}");
    }
    let off = "rtsp://127.0.0.1:1/off";
    let item =
        |n: usize| json!({"vhost": "__defaultVhost__", "app": "live", "stream": format!("c{n:04}"), "url": off});
    let items: Value = (0..1000).map(item).collect();
    assert_eq!(assert_persisted(&client.call("addStreamProxies", &items).unwrap()), 1000);
    assert_eq!(client.call("logout", &json!({})).unwrap()["code"], 0);
    assert_eq!(client.call("addStreamProxies", &json!([])).unwrap()["code"], -100);
    assert!(client.call("addStreamProxies", &items).is_none(), "a stranger's body was read");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn secret_in_a_header_is_enough_also_on_a_server_without_sign_in() {
    let mut fixture = Fixture::prepare(&[]);
    fixture.server.env.push(("STANDIN_LACKS".to_owned(), "login".to_owned()));
    fixture.server.start();
    let mut client = Client::of(&fixture.server);
    let off = "rtsp://127.0.0.1:1/off";
    let item =
        |n: usize| json!({"vhost": "__defaultVhost__", "app": "live", "stream": format!("c{n:04}"), "url": off});
    let items = serde_json::to_vec(&(0..1000).map(item).collect::<Value>()).unwrap();
    for (secret, is_answered) in [(server::SECRET, true), ("wrong", HOST.is_old)] {
        let headers = [("content-type", "application/json"), ("secret", secret)];
        let reply = client.send("POST", "/index/api/addStreamProxies", &headers, &items);
        assert_eq!(reply.is_some(), is_answered, "{secret}");
        let code = reply.map_or(json!(-100), |reply| reply.json()["code"].clone());
        assert_eq!(code == 0, secret == server::SECRET, "{secret}: {code}");
    }
    assert_eq!(fixture.sqlite3("select count(*) from proxies"), "1000\n");
}
