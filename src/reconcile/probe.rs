//! Asks the servers of URLs whether they answer, so that a pull that was moved to a backup can go back to its first URL.
//! Knows nothing of proxies or of the plan.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ureq::tls::TlsConfig;

use crate::model::redact_value;
use crate::model::url::{Server, server_of};

/// For connect and reply, over all addresses of the host.
const PATIENCE: Duration = Duration::from_secs(3);
const MOST_THREADS: usize = 16;
/// Where MediaServer connects over TCP.
const SCHEMES: [&str; 8] = ["rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "ws", "wss"];
const USER_AGENT: &str = "zlm-journal";
const BUG: &str = "the server was not asked because of a bug in zlm-journal";

/// The error is for operators, and names no user, password or path.
type Answer = Result<(), String>;
type Told = Box<dyn Fn(u64, Answer) + Send>;

/// Asks on threads of its own, which end when nothing is left to ask. Dropping it does not wait for what is under way, but
/// nothing is told any more once it is dropped.
pub struct Prober(Arc<Shared>);

struct Shared {
    ask: Box<dyn Fn(&str) -> Answer + Send + Sync>,
    queue: Mutex<Queue>,
    /// `None` once the prober is dropped. Locked while it is told.
    told: Mutex<Option<Told>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(u64, String)>,
    threads: usize,
}

impl Prober {
    /// `told` gets the ticket of each probe and its answer, one at a time: on a thread of the prober, or in `probe` if no
    /// thread can be started. It must not block, nor call or drop the prober.
    pub fn new(told: impl Fn(u64, Answer) + Send + 'static) -> Prober {
        Prober::asking(|url| ask(url, PATIENCE), told)
    }

    fn asking(
        ask: impl Fn(&str) -> Answer + Send + Sync + 'static,
        told: impl Fn(u64, Answer) + Send + 'static,
    ) -> Prober {
        let told = Mutex::new(Some(Box::new(told) as Told));
        Prober(Arc::new(Shared { ask: Box::new(ask), queue: Mutex::default(), told }))
    }

    /// Returns at once. Not to be called on a poller of MediaServer, whose real-time priority a new thread would inherit.
    /// The queue has no limit: the caller has at most one probe of each proxy under way.
    pub fn probe(&self, ticket: u64, url: String) {
        let mut queue = self.0.queue.lock();
        queue.waiting.push_back((ticket, url));
        if queue.threads == MOST_THREADS {
            return;
        }
        let shared = Arc::clone(&self.0);
        let started = thread::Builder::new().name("zlmj-probe".to_owned()).spawn(move || shared.work());
        match started {
            Ok(_) => queue.threads += 1,
            // The others take it.
            Err(_) if queue.threads > 0 => {}
            Err(error) => {
                queue.waiting.pop_back();
                drop(queue);
                self.0.tell(ticket, Err(format!("the server was not asked: cannot start a thread: {error}")));
            }
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.0.queue.lock().waiting.clear();
        *self.0.told.lock() = None;
    }
}

impl Shared {
    fn work(&self) {
        while let Some((ticket, url)) = self.next() {
            let answer = catch_unwind(AssertUnwindSafe(|| (self.ask)(&url)));
            self.tell(ticket, answer.unwrap_or_else(|_| Err(BUG.to_owned())));
        }
    }

    /// `None` ends the thread. Under the same lock, so that no probe is left behind.
    fn next(&self) -> Option<(u64, String)> {
        let mut queue = self.queue.lock();
        let next = queue.waiting.pop_front();
        queue.threads -= usize::from(next.is_none());
        next
    }

    fn tell(&self, ticket: u64, answer: Answer) {
        let told = self.told.lock();
        let tell = || told.as_ref().map(|told| told(ticket, answer));
        if catch_unwind(AssertUnwindSafe(tell)).is_err() {
            log::error!("journal: the answer of a server was lost because of a bug in zlm-journal");
        }
    }
}

/// Whether MediaServer would find a server behind this URL. Blocks for the lookup of the name, and then for `patience` at
/// most.
fn ask(url: &str, patience: Duration) -> Answer {
    let url = url.trim();
    let server = server_of(url).filter(|server| SCHEMES.contains(&server.scheme.as_str()));
    let server = server.ok_or("a URL of this kind has no server that can be asked")?;
    if url.contains(char::is_control) {
        return Err("the URL has a control character".to_owned());
    }
    ask_server(url, &server, patience).map_err(|what| format!("{} {what}", shown(url)))
}

fn ask_server(url: &str, server: &Server, patience: Duration) -> Answer {
    // For HTTP, too: ureq looks it up on one more thread, which it leaves behind if that takes long.
    let found = (server.host.as_str(), server.port).to_socket_addrs();
    let addresses: Vec<SocketAddr> = found.map_err(|error| format!("is not found: {error}"))?.collect();
    let scheme = server.scheme.as_str();
    if matches!(scheme, "http" | "https") {
        return ask_http(url, patience);
    }
    let deadline = Instant::now() + patience;
    let socket = connect(&addresses, deadline).map_err(silent)?;
    match scheme {
        "rtsp" => ask_rtsp(&socket, server, deadline),
        "rtmp" => ask_rtmp(&socket, deadline),
        // Behind TLS or an upgrade to WebSocket: it is enough that it listens.
        _ => Ok(()),
    }
}

/// Host and port for operators, without what may be a part of a password, even where MediaServer connects to it.
fn shown(url: &str) -> String {
    server_of(&redact_value(url)).map_or("the server".to_owned(), |server| server.to_string())
}

fn silent(error: io::Error) -> String {
    format!("does not answer: {error}")
}

/// Each address gets its share of the time that is left.
fn connect(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut failed = io::ErrorKind::AddrNotAvailable.into();
    for (address, left) in addresses.iter().zip((1..=addresses.len() as u32).rev()) {
        match TcpStream::connect_timeout(address, until(deadline)? / left) {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Sockets do not take a timeout of zero.
fn until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left < Duration::from_millis(1) { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Sends a request and reads the first bytes of the reply.
fn exchange<const N: usize>(mut socket: &TcpStream, request: &[u8], deadline: Instant) -> io::Result<[u8; N]> {
    socket.set_write_timeout(Some(until(deadline)?))?;
    socket.write_all(request)?;
    let (mut reply, mut read) = ([0; N], 0);
    while let Some(rest) = reply.get_mut(read..).filter(|rest| !rest.is_empty()) {
        socket.set_read_timeout(Some(until(deadline)?))?;
        match socket.read(rest) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closes the connection")),
            Ok(more) => read += more,
            // That it timed out is found at the top.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(reply)
}

/// The first request of MediaServer's own player. It goes on with these answers and with no other (`handleResponse`,
/// Rtsp/RtspPlayer.cpp:183-203). Cameras ask for a password, which is not shown to them here.
fn ask_rtsp(socket: &TcpStream, server: &Server, deadline: Instant) -> Answer {
    let target = &server.target;
    let request =
        format!("OPTIONS rtsp://{server}{target} RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: {USER_AGENT}\r\n\r\n");
    let reply: [u8; 12] = exchange(socket, request.as_bytes(), deadline).map_err(silent)?;
    let line = String::from_utf8_lossy(&reply);
    match line.strip_prefix("RTSP/1.").and_then(|rest| rest.split_once(' ')).map(|(_, status)| status) {
        Some("200" | "301" | "302" | "401") => Ok(()),
        Some(status) if status.parse::<u16>().is_ok() => Err(format!("answers with status {status}")),
        _ => Err("does not answer in RTSP".to_owned()),
    }
}

/// The first half of the handshake: version 3 and 1536 bytes of any content. The reply begins with the version.
fn ask_rtmp(socket: &TcpStream, deadline: Instant) -> Answer {
    const VERSION: u8 = 3;
    let mut hello = [0; 1537];
    hello[0] = VERSION;
    let reply: [u8; 1] = exchange(socket, &hello, deadline).map_err(silent)?;
    if reply == [VERSION] { Ok(()) } else { Err("does not answer in RTMP".to_owned()) }
}

/// With the user and password of the URL, as MediaServer does. It follows redirects, which is not done here. The stream is
/// not read.
fn ask_http(url: &str, patience: Duration) -> Answer {
    // MediaServer does not verify the certificates of cameras, which have signed their own.
    let tls = TlsConfig::builder().disable_verification(true).build();
    // It does not use the proxy of the environment, either.
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(patience))
        .tls_config(tls)
        .proxy(None)
        .user_agent(USER_AGENT)
        .max_redirects(0)
        .http_status_as_error(false);
    match config.build().new_agent().get(url).call().map(|reply| reply.status().as_u16()) {
        Ok(200..=399) => Ok(()),
        Ok(status) => Err(format!("answers with status {status}")),
        Err(ureq::Error::Timeout(_)) => Err(silent(io::ErrorKind::TimedOut.into())),
        Err(ureq::Error::Io(error)) => Err(silent(error)),
        // Others may show parts of the URL.
        Err(_) => Err("cannot be asked over HTTP".to_owned()),
    }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
