//! A fleet on this machine: three members of etcd, MediaServers, a program beside each, and ways to hurt them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::street::Street;
use crate::support::server::{SECRET, Server, free_port};
use crate::support::{HOST, cargo_dir, root, run};
use crate::wire::Wire;

/// Seconds, as configured.
pub const LEASE: u64 = 6;
pub const FENCE: u64 = 2;
/// For how long nobody may play a camera whose node died.
pub const LOST: Duration = Duration::from_secs(LEASE + 5);
/// For how long two may: while the server that must stop does so.
pub const DOUBLE: Duration = Duration::from_secs(1);

/// What most tests want, and four nodes with room for 200 each have.
pub const CAMERAS: usize = 400;

/// The program: `$ZLMJ_FLEET`, or as it is built now.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    if let Some(program) = std::env::var_os("ZLMJ_FLEET") {
        return program.into();
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "--package", "zlm-journal-fleet"]).current_dir(root());
    run(cargo.env("CARGO_TARGET_DIR", cargo_dir()));
    cargo_dir().join("debug/zlm-journal-fleet")
});

pub fn program() -> &'static Path {
    &PROGRAM
}

pub struct Etcd {
    pub members: Vec<Member>,
}

pub struct Member {
    name: String,
    dir: PathBuf,
    pub client: String,
    peer: String,
    cluster: String,
    child: Option<Child>,
}

impl Etcd {
    pub fn start(dir: &Path) -> Etcd {
        let ports: Vec<(u16, u16)> = (0..3).map(|_| (free_port(), free_port())).collect();
        let cluster: Vec<String> =
            ports.iter().enumerate().map(|(n, (_, peer))| format!("m{n}=http://127.0.0.1:{peer}")).collect();
        let cluster = cluster.join(",");
        let members = ports.iter().enumerate().map(|(n, (client, peer))| {
            let mut member = Member {
                name: format!("m{n}"),
                dir: dir.join(format!("etcd-{n}")),
                client: format!("http://127.0.0.1:{client}"),
                peer: format!("http://127.0.0.1:{peer}"),
                cluster: cluster.clone(),
                child: None,
            };
            member.start();
            member
        });
        let etcd = Etcd { members: members.collect() };
        wait_for("etcd", Duration::from_secs(30), || etcd.leader().is_some());
        etcd
    }

    /// The number of the member that leads.
    pub fn leader(&self) -> Option<usize> {
        let status = |member: &Member| -> Option<(String, String)> {
            let mut reply = ureq::post(format!("{}/v3/maintenance/status", member.client)).send("{}").ok()?;
            let reply: Value = reply.body_mut().read_json().ok()?;
            Some((reply["leader"].as_str()?.to_owned(), reply["header"]["member_id"].as_str()?.to_owned()))
        };
        let is_leader = |member: &Member| status(member).is_some_and(|(leader, id)| leader == id);
        self.members.iter().position(is_leader)
    }
}

impl Member {
    pub fn start(&mut self) {
        let mut etcd = Command::new("etcd");
        etcd.args(["--name", &self.name, "--data-dir"])
            .arg(&self.dir)
            .args(["--listen-client-urls", &self.client, "--advertise-client-urls", &self.client])
            .args(["--listen-peer-urls", &self.peer, "--initial-advertise-peer-urls", &self.peer])
            .args(["--initial-cluster", &self.cluster])
            // The disk of a machine that runs tests is slow.
            .args(["--heartbeat-interval", "100", "--election-timeout", "1000"]);
        self.child = Some(started(&mut etcd, &self.dir.with_extension("log")));
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How a node is connected.
pub struct Way {
    /// The URLs by which it reaches etcd.
    pub etcd: Vec<String>,
    /// The address of its program.
    pub host: String,
    /// Where it finds its server, if not on loopback.
    pub gate: Option<String>,
    /// A command that runs another one: the program.
    pub by: Vec<String>,
    /// Variables for its program and its server.
    pub env: Vec<(String, String)>,
}

impl Way {
    pub fn to(etcd: &[String]) -> Way {
        Way { etcd: etcd.to_vec(), host: "127.0.0.1".to_owned(), gate: None, by: Vec::new(), env: Vec::new() }
    }
}

pub struct Node {
    pub id: String,
    pub server: Server,
    dir: PathBuf,
    config: PathBuf,
    pub api: String,
    by: Vec<String>,
    program: Option<Child>,
}

impl Node {
    pub fn pid(&self) -> u32 {
        self.program.as_ref().expect("a running program").id()
    }

    /// The program's guard.
    pub fn guard(&self) -> Option<u32> {
        let children = Command::new("pgrep").args(["-P", &self.pid().to_string()]).output().ok()?;
        String::from_utf8_lossy(&children.stdout).lines().next()?.parse().ok()
    }

    pub fn start_program(&mut self) {
        let mut words = self.by.iter().map(OsStr::new).chain([program().as_os_str()]);
        let mut program = Command::new(words.next().unwrap());
        program.args(words).envs(self.server.env.iter().cloned()).arg("--config").arg(&self.config).arg("serve");
        self.program = Some(started(&mut program, &self.dir.join("fleet.log")));
    }

    /// The program alone: its guard goes on.
    pub fn kill_program_alone(&mut self) {
        if let Some(mut program) = self.program.take() {
            let _ = program.kill();
            let _ = program.wait();
        }
    }

    /// The program and its guard.
    pub fn kill_program(&mut self) {
        let guard = self.program.as_ref().and_then(|_| self.guard());
        self.kill_program_alone();
        if let Some(guard) = guard {
            Server::signal(guard, "KILL");
        }
    }

    /// Sends a signal that ends it, and waits for that.
    pub fn end_program(&mut self, signal: &str) {
        if let Some(mut program) = self.program.take() {
            Server::signal(program.id(), signal);
            let _ = program.wait();
        }
    }

    /// As if its machine had lost power.
    pub fn kill(&mut self) {
        self.kill_program();
        self.server.kill();
        let _ = fs::remove_dir_all(self.dir.join("state"));
    }

    pub fn start(&mut self) {
        self.start_server();
        self.start_program();
    }

    pub fn restart_server(&mut self) {
        self.server.kill();
        self.start_server();
    }

    fn start_server(&mut self) {
        self.server.start();
        fs::write(self.dir.join("server.pid"), self.server.pid().to_string()).unwrap();
    }

    /// What a supervisor does: a server that was ended is started again.
    pub fn supervise(&mut self) {
        if self.server.has_ended() {
            self.restart_server();
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("fleet.log")).unwrap_or_default()
    }

    pub fn get(&self, path: &str) -> Value {
        let read = || ureq::get(format!("{}{path}", self.api)).call().ok()?.body_mut().read_json().ok();
        read().unwrap_or(Value::Null)
    }

    /// The keys that its server was given.
    pub fn given(&self) -> usize {
        let status = self.server.status();
        usize::try_from(status["proxies"]["enabled"].as_u64().unwrap_or(0)).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(program) = &self.program {
            // It may be stopped.
            let _ = Command::new("kill").args(["-CONT", &program.id().to_string()]).status();
        }
        self.kill_program();
        if let Some(server) = self.server.running_pid() {
            let _ = Command::new("kill").args(["-CONT", &server.to_string()]).status();
        }
        if thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(12).collect();
            eprintln!("{}:\n{}", self.id, last.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

pub struct Fleet {
    pub nodes: Vec<Node>,
    pub etcd: Etcd,
    pub street: Street,
    pub dir: TempDir,
    config: PathBuf,
}

impl Fleet {
    /// Nodes a, b, … with room for so many cameras each; a and c in the zone north, b and d in the zone south.
    pub fn start(count: usize, capacity: usize) -> Fleet {
        Self::start_with(count, capacity, |_, etcd| Way::to(etcd))
    }

    /// `way` says how a node is connected, by the URLs of etcd.
    pub fn start_with(count: usize, capacity: usize, way: impl Fn(usize, &[String]) -> Way) -> Fleet {
        let dir = tempfile::tempdir().unwrap();
        let etcd = Etcd::start(dir.path());
        let endpoints: Vec<String> = etcd.members.iter().map(|member| member.client.clone()).collect();
        let key = dir.path().join("key");
        fs::write(&key, "5a".repeat(32)).unwrap();
        fs::write(dir.path().join("secret"), SECRET).unwrap();
        let common = |endpoints: &[String]| {
            format!(
                "fleet = \"test\"\nkey_file = {:?}\n[etcd]\nendpoints = {endpoints:?}\n[pace]\nmoves_at_once = 20\n\
                 moves_per_sec = 40\nmove_timeout_sec = 10\n",
                key
            )
        };
        let config = dir.path().join("client.toml");
        fs::write(&config, common(&endpoints)).unwrap();
        let nodes = (0..count).map(|n| {
            let id = char::from(b'a' + n as u8).to_string();
            let own = dir.path().join(&id);
            let mut server = Server::prepare(&HOST.patched, &own, &[]);
            let Way { etcd, host, gate, by, env } = way(n, &endpoints);
            server.env.extend(env);
            let api = format!("http://{host}:{}", free_port());
            let beside = format!("http://127.0.0.1:{}", server.port);
            let beside = gate.map_or(beside.clone(), |gate| Wire::at(&gate, &beside).url);
            // What it does not have it pulls from who has it (docs/fleet.md); a stand-in cannot.
            let origin = format!("{api}/%s/%s.live.flv");
            server.settings.push(("cluster.origin_url".to_owned(), origin));
            let journal = server.journal_file();
            if HOST.is_old {
                server.settings.push(("http.maxReqSize".to_owned(), "10485760".to_owned()));
            }
            server.write_config(&[("enable", "1"), ("path", journal.to_str().unwrap()), ("restore", "off")]);
            let text = format!(
                "{}[node]\nid = {id:?}\nzone = {:?}\ncapacity = {capacity}\nserver = {beside:?}\n\
                 public = \"http://127.0.0.1:{}\"\nsecret_file = {:?}\nlisten = {:?}\napi = {api:?}\n\
                 lease_sec = {LEASE}\nfence_sec = {FENCE}\nserver_timeout_sec = {LEASE}\n\
                 fence_command = [\"sh\", \"-c\", \"kill -9 $(cat {}/server.pid)\"]\nstate_dir = {:?}\n",
                common(&etcd),
                if n % 2 == 0 { "north" } else { "south" },
                server.port,
                dir.path().join("secret"),
                api.trim_start_matches("http://"),
                own.display(),
                own.join("state"),
            );
            let config = own.join("fleet.toml");
            fs::write(&config, text).unwrap();
            let mut node = Node { id, server, dir: own, config, api, by, program: None };
            node.start();
            node
        });
        let nodes: Vec<Node> = nodes.collect();
        let fleet = Fleet { nodes, etcd, street: Street::new(), dir, config };
        wait_for("all nodes to join", Duration::from_secs(30), || {
            fleet.status()["nodes"].as_object().is_some_and(|nodes| nodes.len() == count)
        });
        fleet
    }

    /// So many cameras, of which every third bears two connections, twenty to an NVR.
    pub fn items(&self, count: usize) -> Vec<Value> {
        let item = |n: usize| {
            json!({
                "vhost": "__defaultVhost__", "app": "live", "stream": format!("c{n}"), "url": self.street.url(n),
                "fleet_group": format!("nvr-{}", n / 20), "fleet_overlap": u8::from(n.is_multiple_of(3)),
                "retry_count": -1,
            })
        };
        (0..count).map(item).collect()
    }

    /// With all cameras wanted, and played.
    pub fn playing(mut self) -> Fleet {
        self.sync(&self.items(CAMERAS), &[]);
        self.wait_until_all_play(CAMERAS, Duration::from_secs(60));
        self
    }

    /// A command of the program.
    pub fn prepared(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&*PROGRAM);
        command.arg("--config").arg(&self.config).args(args);
        command
    }

    /// Runs a command of the program; its output, or its error.
    pub fn try_command(&self, args: &[&str]) -> Result<String, String> {
        let output = self.prepared(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    pub fn command(&self, args: &[&str]) -> String {
        self.try_command(args).unwrap_or_else(|error| panic!("{args:?}: {error}"))
    }

    pub fn sync(&self, items: &[Value], more: &[&str]) -> Value {
        let file = self.dir.path().join("cameras.json");
        fs::write(&file, json!(items).to_string()).unwrap();
        let args = [&["sync", file.to_str().unwrap()], more].concat();
        serde_json::from_str(&self.command(&args)).unwrap()
    }

    /// What the leader tells; null where there is none just now.
    pub fn status(&self) -> Value {
        let told = self.nodes.iter().map(|node| node.get("/leading"));
        told.into_iter().find(|told| !told.is_null()).unwrap_or(Value::Null)
    }

    pub fn cameras_on(&self, node: &str) -> usize {
        usize::try_from(self.status()["nodes"][node]["cameras"].as_u64().unwrap_or(0)).unwrap()
    }

    /// Where a camera is.
    pub fn place(&self, camera: usize) -> String {
        let place = self.nodes[0].get(&format!("/where?key=__defaultVhost__/live/c{camera}"));
        place["node"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until each of so many cameras is played by exactly one, and servers that were ended run again.
    pub fn wait_until_all_play(&mut self, cameras: usize, within: Duration) {
        let began = Instant::now();
        loop {
            self.nodes.iter_mut().for_each(Node::supervise);
            let playing = self.street.played_by_one(cameras);
            if playing == cameras {
                return;
            }
            if began.elapsed() > within {
                let wrong: Vec<(usize, usize, String)> = (0..cameras)
                    .filter(|n| self.street.now(*n) != 1)
                    .map(|n| (n, self.street.now(n), self.place(n)))
                    .take(5)
                    .collect();
                panic!(
                    "{playing} of {cameras} cameras are played by one after {within:?}; wrong (camera, connections, \
                     place): {wrong:?}; {}",
                    self.status()
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Lets time pass, as a supervisor sees it.
    pub fn pass(&mut self, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            self.nodes.iter_mut().for_each(Node::supervise);
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// No camera was played by two for longer than the bound.
    pub fn never_two(&self, since: Instant) {
        let (time, camera) = self.street.longest_double(since);
        assert!(time <= DOUBLE, "camera {camera} was played by two for {time:?}");
    }
}

/// What it says goes to the end of a file.
fn started(command: &mut Command, log: &Path) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap_or_else(|why| panic!("{command:?} (etcd: see README.md, what tests need): {why}"))
}

pub fn wait_for(what: &str, within: Duration, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < within, "{what}: not within {within:?}");
        thread::sleep(Duration::from_millis(50));
    }
}
