//! A Chromium without a window, driven over WebDriver (chromedriver) as somebody at a desk drives it. What the page does
//! that it must not do (an error in the console, a request to somebody else) fails the test that ends it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::HOST;
use super::server::PATIENCE;

/// How WebDriver names an element in JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub const ENTER: &str = "\u{e007}";
pub const TAB: &str = "\u{e004}";

pub struct Browser {
    driver: Child,
    /// `http://127.0.0.1:port/session/id`
    session: String,
    http: ureq::Agent,
    /// All requests and console messages so far.
    requests: Vec<Request>,
    errors: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Request {
    pub url: String,
    pub method: String,
    pub body: String,
    headers: String,
    /// Seconds, on a clock of the browser.
    pub at: f64,
}

/// The selector of what the page calls so for tests.
pub fn named(name: &str) -> String {
    format!("[data-test=\"{name}\"]")
}

/// `None`, said or an error, where there is no Chromium.
pub fn open() -> Option<Browser> {
    let missing = ["chromium", "chromedriver"].into_iter().find(|tool| {
        let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        !found.is_ok_and(|status| status.success())
    });
    match missing {
        Some(tool) => super::skip(&format!("the page in a browser: there is no {tool}")),
        None => return Some(Browser::start()),
    }
    None
}

impl Browser {
    fn start() -> Browser {
        let mut driver = Command::new("chromedriver")
            .args(["--port=0", "--log-level=SEVERE"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver");
        let lines = BufReader::new(driver.stdout.take().expect("its output")).lines();
        let port = lines.map_while(Result::ok).find_map(|line| {
            let number = line.split_once("successfully on port ")?.1;
            number.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.expect("chromedriver says its port");
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
        let http = ureq::Agent::new_with_config(config.build());
        let mut args =
            vec!["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"];
        // Its sandbox needs rights that root in a container does not have. It only sees pages of ours.
        args.push("--no-sandbox");
        let mut browser =
            Browser { driver, session: String::new(), http, requests: Vec::new(), errors: Vec::new() };
        let base = format!("http://127.0.0.1:{port}/session");
        let asked = browser.send(
            "POST",
            &base,
            &json!({"capabilities": {"alwaysMatch": {
                "browserName": "chrome",
                "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": args, "prefs": {"intl.accept_languages": "en"}},
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }}}),
        );
        let id = asked.expect("a session")["sessionId"].as_str().expect("its id").to_owned();
        browser.session = format!("{base}/{id}");
        browser
    }

    /// The value of the reply, or what is wrong.
    fn send(&self, method: &str, url: &str, body: &Value) -> Result<Value, String> {
        let request =
            ureq::http::Request::builder().method(method).uri(url).header("content-type", "application/json");
        let answer = match method {
            "POST" => self.http.run(request.body(body.to_string()).map_err(|error| error.to_string())?),
            _ => self.http.run(request.body(()).map_err(|error| error.to_string())?),
        };
        let mut answer = answer.map_err(|error| format!("chromedriver: {error}"))?;
        let body = answer.body_mut().with_config().limit(u64::MAX).read_json::<Value>();
        let value = body.map_err(|error| format!("chromedriver: {error}"))?["value"].take();
        match value["error"].as_str() {
            Some(error) if answer.status() != 200 => Err(format!("{error}: {}", value["message"])),
            _ => Ok(value),
        }
    }

    fn command(&self, path: &str, body: &Value) -> Result<Value, String> {
        self.send("POST", &format!("{}/{path}", self.session), body)
    }

    pub fn go(&self, url: &str) {
        self.command("url", &json!({"url": url})).expect(url);
    }

    pub fn resize(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.cdp("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// A command of Chromium's own.
    pub fn cdp(&self, command: &str, params: Value) -> Value {
        self.command("goog/cdp/execute", &json!({"cmd": command, "params": params})).expect(command)
    }

    /// What a function body returns; `arguments` are the given ones. A promise is waited for.
    pub fn run(&self, script: &str, args: Value) -> Value {
        self.try_run(script, args).unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    fn try_run(&self, script: &str, args: Value) -> Result<Value, String> {
        self.command("execute/sync", &json!({"script": script, "args": args}))
    }

    /// Tries until it works: the page may be busy, or replace just now what is acted on.
    fn act<T>(&self, what: &str, act: impl Fn() -> Result<T, String>) -> T {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match act() {
                Ok(done) => return done,
                Err(error) if Instant::now() > deadline => panic!("{what}: {error}\n{}", self.shown()),
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// What the page shows, as text.
    pub fn shown(&self) -> String {
        self.try_run("return document.body.innerText", json!([]))
            .map_or_else(|error| error, |text| text.as_str().unwrap_or_default().to_owned())
    }

    fn find(&self, selector: &str) -> Result<String, String> {
        let found = self.command("element", &json!({"using": "css selector", "value": selector}))?;
        Ok(found[ELEMENT].as_str().unwrap_or_default().to_owned())
    }

    pub fn click(&self, selector: &str) {
        self.act(&format!("clicking {selector}"), || {
            let element = self.find(selector)?;
            self.command(&format!("element/{element}/click"), &json!({}))
        });
    }

    /// Replaces what a field has.
    pub fn fill(&self, selector: &str, text: &str) {
        self.act(&format!("filling {selector}"), || {
            let element = self.find(selector)?;
            // As a person does: the page is told of each key. All is selected, and then typed over or removed.
            let keys = if text.is_empty() { "\u{e003}" } else { text };
            let all = format!("\u{e009}a\u{e000}{keys}");
            self.command(&format!("element/{element}/value"), &json!({"text": all}))
        });
    }

    /// Chooses the option with this value, as a person does: the page is told.
    pub fn choose(&self, selector: &str, value: &str) {
        self.click(&format!("{selector} option[value=\"{value}\"]"));
    }

    /// A file for a field that takes one, which may be hidden.
    pub fn upload(&self, selector: &str, file: &Path) {
        self.act(&format!("giving {selector} a file"), || {
            let element = self.find(selector)?;
            self.command(&format!("element/{element}/value"), &json!({"text": file.to_str().expect("UTF-8")}))
        });
    }

    /// Keys for whatever has the focus.
    pub fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|what| json!({"type": what, "value": key.to_string()})))
            .collect();
        let keyboard = json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]});
        self.command("actions", &keyboard).expect("the keyboard");
    }

    pub fn wait_for(&self, selector: &str) {
        self.wait_until(&format!("{selector} to be there"), |browser| browser.count(selector) > 0);
    }

    pub fn wait_until(&self, what: &str, is_so: impl Fn(&Browser) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}:\n{}", self.shown());
            thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn count(&self, selector: &str) -> usize {
        self.texts(selector).len()
    }

    /// The text of each, whether it can be seen or not.
    pub fn texts(&self, selector: &str) -> Vec<String> {
        let all = self.run(
            "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)",
            json!([selector]),
        );
        all.as_array().into_iter().flatten().map(|text| text.as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The text of the first one.
    pub fn text(&self, selector: &str) -> String {
        self.wait_for(selector);
        self.texts(selector).into_iter().next().unwrap_or_default()
    }

    /// Writes what is shown as a PNG.
    pub fn screenshot(&self, file: &Path) {
        let picture = self.send("GET", &format!("{}/screenshot", self.session), &Value::Null).expect("a picture");
        std::fs::write(file, base64(picture.as_str().expect("a picture"))).expect("the picture's file");
    }

    /// Takes in what the browser has noted since the last time.
    fn read_logs(&mut self) {
        for kind in ["browser", "performance"] {
            let Ok(entries) = self.command("se/log", &json!({"type": kind})) else { continue };
            for entry in entries.as_array().into_iter().flatten() {
                let message = entry["message"].as_str().unwrap_or_default();
                if kind == "browser" {
                    if entry["level"] == "SEVERE" || entry["level"] == "WARNING" {
                        self.errors.push(message.to_owned());
                    }
                    continue;
                }
                let message: Value = serde_json::from_str(message).unwrap_or_default();
                let (method, params) = (&message["message"]["method"], &message["message"]["params"]);
                if method == "Network.requestWillBeSent" {
                    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    self.requests.push(Request {
                        url: text(&params["request"]["url"]),
                        method: text(&params["request"]["method"]),
                        body: text(&params["request"]["postData"]),
                        headers: params["request"]["headers"].to_string(),
                        at: params["timestamp"].as_f64().unwrap_or_default(),
                    });
                }
            }
        }
    }

    /// All requests since the beginning.
    pub fn requests(&mut self) -> &[Request] {
        self.read_logs();
        &self.requests
    }

    /// Ends it. The page must have asked nobody but `origin`, never with the secret in clear, and there must be no error or
    /// warning in the console but those that `is_expected` knows.
    pub fn close(mut self, origin: &str, secret: &str, is_expected: impl Fn(&str) -> bool) {
        self.read_logs();
        let unexpected: Vec<&String> = self.errors.iter().filter(|error| !is_expected(error)).collect();
        assert!(unexpected.is_empty(), "the console has {unexpected:#?}");
        assert!(!self.requests.is_empty(), "no request was noted");
        for Request { url, body, headers, .. } in &self.requests {
            let is_inner = ["data:", "blob:", "about:", "chrome:"].iter().any(|scheme| url.starts_with(scheme));
            assert!(is_inner || url.starts_with(&format!("{origin}/")), "a request to {url}");
            assert!(!url.contains(secret) && !body.contains(secret), "the secret is in a request: {url} {body}");
            // Only a server without a login gets it as it is.
            assert!(HOST.is_old || !headers.contains(secret), "the secret is a header of {url}");
        }
        let kept = self.run("return JSON.stringify([{...localStorage}, {...sessionStorage}])", json!([]));
        assert!(!kept.as_str().unwrap_or_default().contains(secret), "the browser keeps the secret: {kept}");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ = self.send("DELETE", &self.session, &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// RFC 4648.
pub fn base64(text: &str) -> Vec<u8> {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter_map(|sign| SIGNS.iter().position(|its| *its == sign));
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for digit in digits {
        bits = bits << 6 | digit as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}
