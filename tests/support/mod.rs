//! What the end-to-end tests stand on: which MediaServer they run against, and sources for its proxies to pull.
//! Not every test uses all of it.
#![allow(dead_code)]

pub mod browser;
pub mod network;
pub mod quiet;
pub mod receiver;
pub mod server;
pub mod slow;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::thread;
use std::time::Duration;
use std::{env, fs, io};

use serde_json::Value;
use server::Server;
use zlm_journal::journal::{Call, Cause, Done, Journal};
use zlm_journal::model::{Args, Kind, Op};
use zlm_journal::settings::Settings;

/// The binaries under test.
pub struct Host {
    pub patched: PathBuf,
    pub pristine: PathBuf,
    /// A real MediaServer, not the stand-in.
    pub real: bool,
    /// As release 8.0 it has no `force`, so that it keeps no pull whose first connect fails; takes no longer bodies than its
    /// config says; and says "required parameter" to who gives no secret.
    pub is_old: bool,
}

/// Where the binaries of a real MediaServer are looked for.
fn real_host() -> Host {
    let cache = PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/zlm-journal");
    let find = |variable: &str, name: &str| env::var_os(variable).map_or_else(|| cache.join(name), PathBuf::from);
    let patched = find("ZLMJ_MEDIASERVER", "MediaServer");
    let pristine = find("ZLMJ_PRISTINE", "MediaServer.pristine");
    let real = patched.exists() && pristine.exists();
    let is_old = real && !has_name(&patched, b"kBroadcastPlayerProxyFailed");
    Host { patched, pristine, real, is_old }
}

/// Whether a name stands in a binary.
fn has_name(binary: &Path, name: &[u8]) -> bool {
    let bytes = fs::read(binary).unwrap_or_default();
    bytes.windows(name.len()).any(|window| window == name)
}

/// Says so where a test makes no sense on an old MediaServer.
pub fn is_left_out_on_old(what: &str) -> bool {
    if HOST.is_old {
        say(&format!("!!! {what}: left out on a MediaServer that cannot do it (8.0)"));
    }
    HOST.is_old
}

/// The real MediaServer where there is one, else the stand-in, which is built first.
pub static HOST: LazyLock<Host> = LazyLock::new(|| host("dev"));

/// The same with a stand-in that is built for speed.
pub fn host_for_benchmarks() -> Host {
    host("release")
}

/// `profile` is cargo's, of the plugin in the stand-in.
fn host(profile: &str) -> Host {
    let host = real_host();
    if host.real {
        return host;
    }
    say(&format!(
        "!!! NO REAL MEDIASERVER at {} and {}: what follows runs against the stand-in, which proves nothing about \
         ZLMediaKit",
        host.patched.display(),
        host.pristine.display()
    ));
    standin::build(profile)
}

/// One line that the test runner does not swallow.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "\n{line}");
}

/// Says what is not tested for want of a tool or a right; where nothing may be skipped (`ZLMJ_NO_SKIP`, as in CI), fails.
pub fn skip(what: &str) {
    assert!(env::var_os("ZLMJ_NO_SKIP").is_none(), "{what}: not tested, and ZLMJ_NO_SKIP is set");
    say(&format!("!!! {what}: not tested"));
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command; its whole output in the panic when it fails.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}. Is it installed? See README.md, \"See it work, and test it\"")
    });
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A place for what tests build, that survives from one run to the next.
pub fn build_dir(name: &str) -> PathBuf {
    let dir = cargo_dir().join("tmp").join(name);
    fs::create_dir_all(&dir).expect("a directory to build in");
    dir
}

/// Where cargo builds these tests. What they have it build in turn lies there too, and shares the dependencies: SQLite is
/// compiled once.
pub fn cargo_dir() -> &'static Path {
    static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
        if let Some(tmp) = option_env!("CARGO_TARGET_TMPDIR") {
            return Path::new(tmp).parent().expect("tmp is a directory in it").to_owned();
        }
        // An example lies in <that>/<profile>/examples.
        let program = env::current_exe().expect("this program");
        program.ancestors().nth(3).expect("cargo's directory").to_owned()
    });
    &DIR
}

/// Has a build with other flags link the SQLite of these tests instead of compiling its own. A sanitizer misses nothing by
/// that: its flags go to the Rust compiler alone.
pub fn link_our_sqlite(cargo: &mut Command) -> &mut Command {
    let built = run(Command::new(env!("CARGO"))
        .args(["build", "--locked", "--package", "zlm-journal", "--lib", "--message-format=json"])
        .env("CARGO_TARGET_DIR", cargo_dir())
        .current_dir(root()));
    let out_dir = built.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_sqlite = message["package_id"].as_str()?.contains("libsqlite3-sys");
        (is_sqlite && message["reason"] == "build-script-executed")
            .then(|| message["out_dir"].as_str().unwrap().to_owned())
    });
    cargo.env("SQLITE3_LIB_DIR", out_dir.expect("the output of libsqlite3-sys")).envs([
        ("LIBSQLITE3_SYS_USE_PKG_CONFIG", "1"),
        ("SQLITE3_NO_PKG_CONFIG", "1"),
        ("SQLITE3_STATIC", "1"),
    ])
}

/// What has a server preload the library that tests/e2e/NAME.c makes.
pub fn preload(name: &str) -> (String, String) {
    let dir = build_dir(name);
    let library = dir.join(format!("{name}.so"));
    let source = root().join(format!("tests/e2e/{name}.c"));
    // Servers of other tests may be starting with it just now: it is there at each moment, and whole.
    let fresh = tempfile::NamedTempFile::new_in(&dir).unwrap();
    run(Command::new("cc")
        .args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"])
        .arg(fresh.path())
        .arg(source)
        .arg("-ldl"));
    fs::rename(fresh.path(), &library).unwrap();
    ("LD_PRELOAD".to_owned(), library.to_str().unwrap().to_owned())
}

pub mod standin {
    use super::*;

    /// The stand-in's tree, patched as a user patches ZLMediaKit's, and built with and without the plugin.
    pub fn build(profile: &str) -> Host {
        let dir = build_dir(&format!("standin-{profile}"));
        let tree = dir.join("tree");
        copy_tree(&root().join("tests/standin"), &tree);
        let configure = |build: &Path, source: &Path, with: &[String]| {
            run(Command::new("cmake").arg("-S").arg(source).arg("-B").arg(build).args(with));
            run(Command::new("cmake").arg("--build").arg(build));
        };
        configure(&dir.join("stock"), &root().join("tests/standin"), &[]);
        apply_patches(&tree);
        let plugin = [
            format!("-DCMAKE_PROJECT_ZLMediaKit_INCLUDE={}/cpp/zlmediakit.cmake", root().display()),
            format!("-DZLM_JOURNAL_PROFILE={profile}"),
            format!("-DZLM_JOURNAL_CARGO_DIR={}", cargo_dir().display()),
        ];
        configure(&dir.join("patched"), &tree, &plugin);
        Host {
            patched: dir.join("patched/MediaServer"),
            pristine: dir.join("stock/MediaServer"),
            real: false,
            is_old: false,
        }
    }

    pub fn apply_patches(tree: &Path) {
        run(Command::new(root().join("patches/apply")).arg(tree));
    }

    pub fn copy_tree(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy_tree(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
}

/// A camera on a loopback port of its own.
pub struct Source {
    pub url: String,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    connects: Arc<AtomicUsize>,
    // For a real server: the stock one that serves the stream, and what pushes into it.
    server: Option<Server>,
    _push: Option<Killed>,
}

/// Somebody who pushes a stream into a server, until it is dropped.
pub enum Publisher {
    Real(Killed),
    Standin(TcpStream),
}

impl Publisher {
    /// Into `live/stream` of that server. Returns when the stream is there.
    pub fn to(server: &Server, stream: &str) -> Publisher {
        let publisher = if real_host().real {
            Publisher::Real(push_test_picture(&format!("rtmp://{}:{}/live/{stream}", server.ip, server.rtmp_port)))
        } else {
            let mut connection = TcpStream::connect((server.ip, server.rtmp_port)).expect("the stand-in");
            writeln!(connection, "PUBLISH live/{stream}").expect("the stand-in");
            Publisher::Standin(connection)
        };
        server.wait_for_stream(stream);
        publisher
    }
}

/// A process that goes with us.
pub struct Killed(Child);

fn push_test_picture(url: &str) -> Killed {
    let push = Command::new("ffmpeg")
        .args(["-v", "error", "-re", "-f", "lavfi", "-i", "testsrc=size=160x120:rate=10"])
        .args(["-f", "lavfi", "-i", "sine", "-c:v", "libx264", "-preset", "ultrafast", "-g", "10"])
        .args(["-pix_fmt", "yuv420p", "-c:a", "aac", "-f", "flv", url])
        .stdin(Stdio::null())
        .spawn()
        .expect("ffmpeg: install it, see README.md");
    Killed(push)
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Source {
    /// One that plays. For a real MediaServer: a stock one into which ffmpeg pushes a picture and a tone.
    pub fn live(dir: &Path) -> Source {
        Self::live_at(dir, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// One that accepts and never answers.
    pub fn black_hole() -> Source {
        Self::socket(b".", 0, SocketAddr::from(([127, 0, 0, 1], server::free_port())))
    }

    /// One that says something at once and goes on to, which is a picture only to a stand-in.
    pub fn talking() -> Source {
        Self::talking_at(SocketAddr::from(([127, 0, 0, 1], server::free_port())))
    }

    /// The same at this address.
    pub fn talking_at(address: SocketAddr) -> Source {
        Self::socket(b".", 100, address)
    }

    /// A stand-in's camera that lets whoever asks connect, and sends no media.
    pub fn mute(address: SocketAddr) -> Source {
        Self::socket(b",", 1, address)
    }

    /// One that plays at an address, port 0 for any: the same camera again, after it was off.
    pub fn live_at(dir: &Path, before: SocketAddr) -> Source {
        let port = if before.port() == 0 { server::free_port() } else { before.port() };
        let address = SocketAddr::new(before.ip(), port);
        if real_host().real { Self::real(dir, address) } else { Self::socket(b".", 1, address) }
    }

    /// Where a push to it goes.
    pub fn takes(&self, stream: &str) -> String {
        format!("rtmp://{}/live/{stream}", self.address)
    }

    /// Whether a push to it as that stream has come.
    pub fn gets(&self, stream: &str) -> bool {
        self.server.as_ref().map_or_else(|| self.connects() > 0, |server| server.has_stream(stream))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// That of a real server: from now on it says nothing, while its connections stay open and the kernel makes new ones.
    pub fn freeze(&self) {
        if let Some(server) = &self.server {
            Server::signal(server.pid(), "STOP");
        }
    }

    /// The url of the same camera at an address that takes so long before it answers.
    pub fn slow(&self, delay: Duration) -> slow::Slow {
        slow::Slow::to(&self.url, self.address, delay)
    }

    /// How many watch it now; `None` if it is a socket, which counts connects.
    pub fn viewers(&self) -> Option<usize> {
        let list = self.server.as_ref()?.get("getMediaList", &[]);
        let counts =
            list["data"].as_array().into_iter().flatten().filter_map(|one| one["totalReaderCount"].as_u64());
        usize::try_from(counts.max().unwrap_or(0)).ok()
    }

    /// How many have connected so far; 0 for the source of a real server.
    pub fn connects(&self) -> usize {
        self.connects.load(Ordering::SeqCst)
    }

    /// Says so many words, a tenth of a second apart, to each that connects.
    fn socket(word: &'static [u8; 1], words: usize, address: SocketAddr) -> Source {
        let listener = TcpListener::bind(address).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let connects = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connects);
        thread::spawn(move || {
            let (mut connections, mut sweep_at) = (Vec::new(), 64);
            loop {
                let connection = listener.accept();
                if stopped.load(Ordering::SeqCst) {
                    // The port is free by the time at which whoever has stopped it sees its own connection close.
                    drop(listener);
                    return;
                }
                let Ok((mut connection, _)) = connection else { continue };
                counted.fetch_add(1, Ordering::SeqCst);
                if words > 0 {
                    let _ = connection.write_all(word);
                }
                if words > 1
                    && let Ok(mut more) = connection.try_clone()
                {
                    thread::spawn(move || {
                        (1..words).all(|_| {
                            thread::sleep(Duration::from_millis(100));
                            more.write_all(word).is_ok()
                        })
                    });
                }
                // Those whose proxy is gone are let go, or a long test runs out of descriptors.
                let _ = connection.set_nonblocking(true);
                if connections.len() >= sweep_at {
                    connections.retain_mut(is_open);
                    sweep_at = 2 * connections.len() + 64;
                }
                connections.push(connection);
            }
        });
        Source { url: format!("rtsp://{address}/live"), address, stop, connects, server: None, _push: None }
    }

    fn real(dir: &Path, address: SocketAddr) -> Source {
        let name = format!("source-{}-{}", address.ip(), address.port());
        let mut server = Server::prepare(&real_host().pristine, &dir.join(name), &[]);
        (server.ip, server.rtmp_port) = (address.ip(), address.port());
        server.write_config(&[]);
        server.start();
        let url = format!("rtmp://{address}/live/source");
        let push = push_test_picture(&url);
        for _ in 0..200 {
            if server.get("getMediaList", &[("app", "live")])["data"].is_array() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        Source {
            url,
            address,
            stop: Arc::new(AtomicBool::new(false)),
            connects: Arc::default(),
            server: Some(server),
            _push: Some(push),
        }
    }
}

/// Takes what the other side has said.
fn is_open(connection: &mut TcpStream) -> bool {
    let mut said = [0; 256];
    loop {
        match connection.read(&mut said) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

/// Cameras that accept and never answer, each at a loopback address of its own.
pub struct Holes(Vec<TcpListener>);

impl Holes {
    pub fn new(count: usize) -> Holes {
        let address = |n: usize| format!("127.77.{}.{}:0", n / 250, n % 250 + 1);
        // The kernel accepts for us.
        Holes((0..count).map(|n| TcpListener::bind(address(n)).unwrap()).collect())
    }

    pub fn urls(&self) -> Vec<String> {
        self.0.iter().map(|hole| format!("rtsp://{}/live", hole.local_addr().unwrap())).collect()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // Wakes the listening thread, which then closes the port and every connection.
        self.stop.store(true, Ordering::SeqCst);
        if self.server.is_none()
            && let Ok(mut connection) = TcpStream::connect(self.address)
        {
            let _ = connection.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = connection.read(&mut [0; 1]);
        }
    }
}

/// Writes a journal of pull proxies: stream, url and further arguments of each.
pub fn write_journal<'a>(
    file: &Path,
    proxies: impl IntoIterator<Item = (String, &'a str, &'a [(&'a str, &'a str)])>,
) {
    let proxies: Vec<_> = proxies.into_iter().collect();
    let records = proxies.iter().map(|(stream, url, more)| {
        (Kind::Pull, format!("__defaultVhost__/live/{stream}"), server::add_args(stream, url, more))
    });
    write_records(file, records);
}

/// Adds proxies to a journal: kind, key and arguments of each.
pub fn write_records<'a>(file: &Path, proxies: impl IntoIterator<Item = (Kind, String, Vec<(&'a str, &'a str)>)>) {
    let pairs = [("enable", "1"), ("path", file.to_str().expect("a plain path"))];
    let journal = Journal::open(&Settings::read(pairs, Path::new("/")).0).expect("a journal");
    let (told, acks) = mpsc::channel();
    let mut untold = 0;
    for (kind, key, args) in proxies {
        let args = Args::from_pairs(args.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        let args = Some(args.expect("good arguments"));
        let told = told.clone();
        let done = Done::new(move |ack| drop(told.send(ack.result)));
        journal.record(
            Call { op: Op::Add, kind, key: &key, args, already_exists: false, cause: Cause::default() },
            done,
        );
        untold += 1;
        // No more at once than the queue takes.
        if untold > 10_000 {
            acks.recv().expect("an answer").expect("written");
            untold -= 1;
        }
    }
    acks.iter().take(untold).for_each(|ack| assert!(ack.is_ok(), "{ack:?}"));
}

/// What an operator's tool says about the journal.
pub fn sqlite3(file: &Path, sql: &str) -> String {
    run(Command::new("sqlite3").arg(file).arg(sql))
}
