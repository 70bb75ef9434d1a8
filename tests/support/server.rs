//! A MediaServer process on free loopback ports, and its HTTP API as a client sees it. Shared by the end-to-end tests,
//! the benchmark and the quickstart.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

pub const SECRET: &str = "zlmj-test-0123456789abcdef0123456789";

/// A server, running or killed, and the directory with all that it keeps.
pub struct Server {
    pub binary: PathBuf,
    pub dir: PathBuf,
    /// What it listens on, of the loopback range; in the next config that is written.
    pub ip: IpAddr,
    pub port: u16,
    pub rtmp_port: u16,
    /// How long nobody may watch a stream before that is an event; in the next config that is written.
    pub none_reader_ms: u64,
    /// How long a player waits for a stream; likewise.
    pub max_stream_wait_ms: u64,
    /// Further lines of config.ini, by `section.key`; in the next config that is written.
    pub settings: Vec<(String, String)>,
    /// What the process gets besides ours.
    pub env: Vec<(String, String)>,
    /// A command that runs another, put before it.
    pub within: Vec<String>,
    daemon: bool,
    child: Option<Child>,
    http: ureq::Agent,
}

/// What takes longer will not come. Of a crash on the only poller everything that it was given of late is a suspect, and what
/// is one for the second time is started alone, seconds after the one before.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// A field of a process's status that is in KiB, in bytes.
pub fn status_field(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// A port that nobody listens on just now. Below those that the system gives to clients: none of theirs can take it
/// before we do, and nobody who connects to it can meet himself. Each port is given once until all have been.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static BEGINNING: LazyLock<u32> = LazyLock::new(|| fastrand::u32(0..COUNT));
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    (0..COUNT)
        .map(|_| BEGINNING.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % COUNT + FIRST)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free loopback port")
}

/// How many poller threads a server has: `ZLMJ_THREADS`, or 4. With one, no race shows.
fn threads() -> String {
    std::env::var("ZLMJ_THREADS").unwrap_or_else(|_| "4".to_owned())
}

/// A client that keeps so many connections for its next calls. MediaServer hangs up on whom it refuses, so a kept one may
/// be gone by then.
fn client(kept: usize) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(40)))
        .max_idle_connections(kept)
        .max_idle_connections_per_host(kept);
    ureq::Agent::new_with_config(config.build())
}

/// The arguments of an addStreamProxy call, with `more` after them.
pub fn add_args<'a>(stream: &'a str, url: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("vhost", "__defaultVhost__"), ("app", "live"), ("stream", stream), ("url", url)], more].concat()
}

impl Server {
    /// Writes the config (`journal` are lines of its section) but starts nothing yet.
    pub fn prepare(binary: &Path, dir: &Path, journal: &[(&str, &str)]) -> Server {
        fs::create_dir_all(dir).expect("the server's directory");
        let server = Server {
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            ip: IpAddr::from([127, 0, 0, 1]),
            port: free_port(),
            rtmp_port: free_port(),
            none_reader_ms: 3_600_000,
            max_stream_wait_ms: 15_000,
            settings: Vec::new(),
            env: Vec::new(),
            within: Vec::new(),
            daemon: false,
            child: None,
            http: client(0),
        };
        server.write_config(journal);
        server
    }

    pub fn write_config(&self, journal: &[(&str, &str)]) {
        let mut ini = format!(
            "[api]\napiDebug=0\nsecret={SECRET}\n\
             [general]\nlisten_ip={}\nstreamNoneReaderDelayMS={}\nmaxStreamWaitMS={}\n\
             [hook]\nenable=0\n\
             [http]\nport={}\nsslport=0\nallow_ip_range=127.0.0.1\n\
             [rtmp]\nport={}\nsslport=0\n\
             [rtsp]\nport=0\nsslport=0\n\
             [rtp_proxy]\nport=0\n[rtc]\nport=0\ntcpPort=0\nsignalingPort=0\nicePort=0\niceTcpPort=0\n\
             [srt]\nport=0\n[shell]\nport=0\n[onvif]\nport=0\n",
            self.ip, self.none_reader_ms, self.max_stream_wait_ms, self.port, self.rtmp_port
        );
        if !journal.is_empty() {
            ini.push_str("[journal]\n");
            for (name, value) in journal {
                ini.push_str(&format!("{name}={value}\n"));
            }
        }
        for (name, value) in &self.settings {
            let (section, key) = name.split_once('.').expect("section.key");
            ini.push_str(&format!("[{section}]\n{key}={value}\n"));
        }
        fs::write(self.dir.join("config.ini"), ini).expect("config.ini");
    }

    /// With these lines of config.ini, too; see [`Server::settings`].
    pub fn with_settings<'a>(mut self, settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> Server {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        self.settings.extend(settings.into_iter().map(owned));
        self
    }

    /// With clients that keep their connections, as a business system's do: for measuring.
    pub fn with_kept_connections(mut self) -> Server {
        // More than there are clients in any benchmark. With fewer each call of the others would be one for a new
        // connection as well, and the longer calls take, the more.
        self.http = client(64);
        self
    }

    pub fn daemonized(mut self) -> Server {
        self.daemon = true;
        self
    }

    /// Starts the process and waits until it answers.
    pub fn start(&mut self) {
        self.spawn();
        self.wait_until_up();
    }

    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the server runs already");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path()).expect("server.log");
        let words: Vec<&OsStr> = self.within.iter().map(OsStr::new).chain([self.binary.as_os_str()]).collect();
        let (program, before) = words.split_first().expect("the server's program");
        let mut command = Command::new(program);
        command
            .args(before)
            .envs(self.env.iter().cloned())
            .arg("-c")
            .arg(self.dir.join("config.ini"))
            .args(["-l", "1", "-t", &threads()])
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("server.log"))
            .stderr(log);
        if let Some(pem) = self.binary.parent().map(|dir| dir.join("default.pem")).filter(|pem| pem.exists()) {
            command.arg("-s").arg(pem);
        }
        if self.daemon {
            command.arg("-d");
        }
        self.child = Some(command.spawn().expect("the server starts"));
    }

    /// Waits until API calls are answered.
    pub fn wait_until_up(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect((self.ip, self.port)).is_err() || self.try_get("listStreamProxy", &[]).is_none() {
            if let Some(child) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "the server does not answer:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn pid(&self) -> u32 {
        self.running_pid().expect("a running server")
    }

    pub fn running_pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Sends a signal by name to a process.
    pub fn signal(pid: u32, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().expect("kill");
        assert!(sent.success(), "no process {pid} to send SIG{name} to");
    }

    /// kill -9, and all that was only in memory is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Whether the process has ended by itself, or by somebody else's signal.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    /// Waits for the process to end by itself, and returns how it did.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a running server");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().expect("its status") {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end:\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Bytes that it occupies now.
    pub fn memory(&self) -> u64 {
        status_field(self.pid(), "VmRSS:")
    }

    /// A player over HTTP-FLV: its connection once it gets the stream, none where the server refuses.
    pub fn play(&self, stream: &str) -> Option<TcpStream> {
        let mut player = TcpStream::connect((self.ip, self.port)).ok()?;
        player.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        write!(player, "GET /live/{stream}.live.flv HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").ok()?;
        let mut head = [0; 12];
        player.read_exact(&mut head).ok()?;
        (&head == b"HTTP/1.1 200").then_some(player)
    }

    pub fn journal_file(&self) -> PathBuf {
        self.dir.join("journal/proxies.db")
    }

    /// What the server said: its standard output.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    // ---- its API

    fn url(&self, api: &str) -> String {
        format!("http://{}:{}/index/api/{api}", self.ip, self.port)
    }

    /// None where the server cannot be reached or ends before it has answered.
    pub fn try_get(&self, api: &str, args: &[(&str, &str)]) -> Option<Value> {
        self.get_text(api, args).and_then(|text| serde_json::from_str(&text).ok())
    }

    /// The reply as it came, with the secret given.
    pub fn get_text(&self, api: &str, args: &[(&str, &str)]) -> Option<String> {
        let call = self.http.get(self.url(api)).query("secret", SECRET).query_pairs(args.iter().copied());
        let mut reply = call.call().ok()?;
        let kind = reply.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        let text = reply.body_mut().read_to_string().ok()?;
        // Whoever has made it.
        let is_json = kind.as_deref().is_some_and(|kind| kind.starts_with("application/json"));
        assert_eq!(is_json, text.starts_with('{'), "{api} is answered as {kind:?}: {text}");
        Some(text)
    }

    /// The reply, or none after that time: some calls the server never answers.
    pub fn try_get_within(&self, limit: Duration, api: &str, args: &[(&str, &str)]) -> Option<Value> {
        let call = self.http.get(self.url(api)).query("secret", SECRET).query_pairs(args.iter().copied());
        let call = call.config().timeout_global(Some(limit)).build();
        // ureq reads 10 MB at the most if not told otherwise; the lists of some thousand streams are longer.
        call.call().ok()?.body_mut().with_config().limit(u64::MAX).read_json().ok()
    }

    /// The reply to a body of any sort; none where the server ends the connection instead.
    pub fn post_raw(&self, api: &str, content_type: &str, body: &[u8]) -> Option<Value> {
        let mut reply = self
            .http
            .post(self.url(api))
            .query("secret", SECRET)
            .header("content-type", content_type)
            .send(body)
            .ok()?;
        reply.body_mut().read_json().ok()
    }

    /// A call with its options in the URL and a JSON body.
    pub fn post_body(&self, api: &str, args: &[(&str, &str)], body: &Value) -> Value {
        self.try_post_body(api, args, body).unwrap_or_else(|| panic!("no reply to {api}:\n{}", self.log()))
    }

    /// None where the server ends before it has answered.
    pub fn try_post_body(&self, api: &str, args: &[(&str, &str)], body: &Value) -> Option<Value> {
        let call = self.http.post(self.url(api)).query("secret", SECRET).query_pairs(args.iter().copied());
        call.send_json(body).ok()?.body_mut().read_json().ok()
    }

    pub fn get_without_secret(&self, api: &str) -> Value {
        self.get_as_stranger(api, &[])
    }

    /// With these arguments and no others: no secret, if it is not among them. On a connection of its own, since the
    /// server hangs up on strangers.
    pub fn get_as_stranger(&self, api: &str, args: &[(&str, &str)]) -> Value {
        let call = self.http.get(self.url(api)).header("connection", "close").query_pairs(args.iter().copied());
        call.call().expect("a reply").body_mut().read_json().expect("JSON")
    }

    /// Returns when every poller thread has done what was queued on it before: the server answers this one when each has
    /// been through. Twice, for what those tasks have queued on others.
    pub fn wait_for_pollers(&self) {
        for _ in 0..2 {
            let reply = self.get("getThreadsLoad", &[]);
            assert_eq!(reply["code"], 0, "{reply}");
        }
    }

    pub fn get(&self, api: &str, args: &[(&str, &str)]) -> Value {
        self.try_get(api, args).unwrap_or_else(|| panic!("no reply to {api}:\n{}", self.log()))
    }

    /// With arguments in headers, where MediaServer looks for what is not in the URL.
    pub fn get_with_headers(&self, api: &str, args: &[(&str, &str)], headers: &[(&str, &str)]) -> Value {
        let call = self.http.get(self.url(api)).query("secret", SECRET).query_pairs(args.iter().copied());
        let call = headers.iter().fold(call, |call, (name, value)| call.header(*name, *value));
        call.call().expect("a reply").body_mut().read_json().expect("JSON")
    }

    pub fn post_form(&self, api: &str, args: &[(&str, &str)]) -> Value {
        let mut reply = self
            .http
            .post(self.url(api))
            .query("secret", SECRET)
            .send_form(args.iter().copied())
            .expect("a reply");
        reply.body_mut().read_json().expect("JSON")
    }

    pub fn post_json(&self, api: &str, args: &[(&str, &str)]) -> Value {
        let mut body: serde_json::Map<String, Value> =
            args.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
        body.insert("secret".to_owned(), Value::from(SECRET));
        let mut reply = self.http.post(self.url(api)).send_json(Value::Object(body)).expect("a reply");
        reply.body_mut().read_json().expect("JSON")
    }

    /// Keys and urls of all pull proxies, sorted.
    pub fn proxies(&self) -> Vec<(String, String)> {
        self.listed("listStreamProxy", "url")
    }

    /// The key of each of a list, with its member of that name, sorted.
    pub fn listed(&self, list: &str, member: &str) -> Vec<(String, String)> {
        let reply = self.get(list, &[]);
        let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
        let mut found: Vec<(String, String)> = reply["data"]
            .as_array()
            .map(|items| items.iter().map(|item| (text(item, "key"), text(item, member))).collect())
            .unwrap_or_default();
        found.sort();
        found
    }

    pub fn status(&self) -> Value {
        let reply = self.get("getJournalStatus", &[]);
        assert_eq!(reply["code"], 0, "{reply}");
        reply["data"].clone()
    }

    /// Waits until every journaled proxy has been started and answered for.
    pub fn wait_until_restored(&self) -> Value {
        self.wait_for_status("the restore to end", |status| status["restore"]["phase"] == "done")
    }

    /// Waits until every journaled proxy is in the server's list, whether it plays or not.
    pub fn wait_until_started(&self) -> Value {
        self.wait_for_status("the restore to start all", |status| {
            let restore = &status["restore"];
            restore["phase"] == "done"
                || (restore["phase"] == "running" && restore["waiting"] == 0 && restore["total"] != 0)
        })
    }

    /// Waits until a stream is there.
    pub fn wait_for_stream(&self, stream: &str) {
        self.wait_for(&format!("{stream} to play"), || self.has_stream(stream));
    }

    pub fn has_stream(&self, stream: &str) -> bool {
        self.get("getMediaList", &[("stream", stream)])["data"].is_array()
    }

    pub fn wait_for(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}: {}\n{}",
                self.get("getJournalStatus", &[]),
                self.log()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn wait_for_status(&self, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if done(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}: {status}\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.daemon
            && let Some(child) = &mut self.child
        {
            // The guardian takes its child along when it is asked to end, not when it is shot.
            let _ = Command::new("kill").arg("-INT").arg(child.id().to_string()).status();
            let deadline = Instant::now() + Duration::from_secs(5);
            while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
                thread::sleep(Duration::from_millis(20));
            }
        }
        self.kill();
    }
}
