//! Cameras for a real server: they speak RTSP and send a word of sound every four seconds, so that thousands of them play at
//! hardly any cost. And whoever pushes such a camera into a server.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::server::free_port;

/// The server takes a camera for dead that is silent for five seconds (`media_timeout_ms`).
const SILENCE: Duration = Duration::from_secs(4);
/// A camera speaks at once when it is played, and from then on once in so many turns.
const TURNS: usize = 40;
const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=control:*\r\n\
                   m=audio 0 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000/1\r\na=control:trackID=0\r\n";

/// Many cameras at some addresses, until they are dropped. Any path at one of them is one.
pub struct Quiet {
    addresses: Vec<SocketAddr>,
    listeners: Vec<SocketAddr>,
    rota: Arc<Mutex<Rota>>,
    is_off: Arc<AtomicBool>,
    is_mute: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

/// A camera that somebody plays.
struct Playing {
    path: String,
    connection: TcpStream,
}

impl Playing {
    /// False where nobody listens any more.
    fn speak(&mut self, turn: usize) -> bool {
        drain(&mut self.connection).and_then(|()| self.connection.write_all(&sound(turn as u32))).is_ok()
    }
}

/// Who speaks when.
struct Rota {
    turn: usize,
    by_turn: [Vec<Playing>; TURNS],
}

impl Rota {
    fn now(&mut self) -> &mut Vec<Playing> {
        &mut self.by_turn[self.turn % TURNS]
    }
}

impl Quiet {
    /// Each address has a port of its own, the cameras are spread over them.
    pub fn at(addresses: impl IntoIterator<Item = IpAddr>) -> Quiet {
        let addresses = addresses.into_iter().map(|ip| SocketAddr::new(ip, free_port())).collect::<Vec<_>>();
        Quiet::new(addresses.clone(), addresses)
    }

    /// Each of so many cameras has an address of its own, 127.84.0.1 and on, with one port and one listener for all.
    pub fn each_at_its_own(count: usize) -> Quiet {
        let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), free_port());
        let first = u32::from(Ipv4Addr::new(127, 84, 0, 1));
        let addresses =
            (first..).take(count).map(|ip| SocketAddr::new(Ipv4Addr::from(ip).into(), everywhere.port()));
        Quiet::new(addresses.collect(), vec![everywhere])
    }

    fn new(addresses: Vec<SocketAddr>, listeners: Vec<SocketAddr>) -> Quiet {
        let [stop, is_off, is_mute] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
        let rota = Arc::new(Mutex::new(Rota { turn: 0, by_turn: std::array::from_fn(|_| Vec::new()) }));
        for address in &listeners {
            let listener = TcpListener::bind(address).expect("an address of a camera");
            let (stop, rota) = (Arc::clone(&stop), Arc::clone(&rota));
            let (is_off, is_mute) = (Arc::clone(&is_off), Arc::clone(&is_mute));
            thread::spawn(move || {
                for connection in listener.incoming().map_while(Result::ok) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let is_of_this_machine = connection.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
                    if is_off.load(Ordering::Relaxed) || !is_of_this_machine {
                        continue;
                    }
                    let (is_off, is_mute, rota) = (Arc::clone(&is_off), Arc::clone(&is_mute), Arc::clone(&rota));
                    // Nobody waits for one who says nothing.
                    thread::spawn(move || {
                        // A server that hangs up in between is none that plays.
                        let Ok((path, connection)) = until_it_plays(connection) else { return };
                        let mut camera = Playing { path, connection };
                        let mut rota = rota.lock().expect("the cameras");
                        if !is_off.load(Ordering::Relaxed)
                            && (is_mute.load(Ordering::Relaxed) || camera.speak(rota.turn))
                        {
                            rota.now().push(camera);
                        }
                    });
                }
            });
        }
        let (stopped, mute, speaking) = (Arc::clone(&stop), Arc::clone(&is_mute), Arc::clone(&rota));
        thread::spawn(move || {
            let begin = Instant::now();
            for turn in 1.. {
                // Whoever is late catches up.
                thread::sleep(
                    (begin + SILENCE / TURNS as u32 * turn as u32).saturating_duration_since(Instant::now()),
                );
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let mut rota = speaking.lock().expect("the cameras");
                rota.turn = turn;
                if !mute.load(Ordering::Relaxed) {
                    rota.now().retain_mut(|camera| camera.speak(turn));
                }
            }
        });
        Quiet { addresses, listeners, rota, is_off, is_mute, stop }
    }

    pub fn url(&self, n: usize) -> String {
        format!("rtsp://{}/camera{n}", self.addresses[n % self.addresses.len()])
    }

    /// Off: all hang up, at once on whoever connects.
    pub fn switch(&self, on: bool) {
        let mut rota = self.rota.lock().expect("the cameras");
        self.is_off.store(!on, Ordering::Relaxed);
        if !on {
            rota.by_turn.iter_mut().for_each(Vec::clear);
        }
    }

    /// Mute: all go on to let whoever asks connect, and none says anything.
    pub fn mute(&self, on: bool) {
        self.is_mute.store(on, Ordering::Relaxed);
    }

    /// The numbers of those that somebody plays.
    pub fn playing(&self) -> HashSet<usize> {
        let rota = self.rota.lock().expect("the cameras");
        rota.by_turn
            .iter()
            .flatten()
            .filter_map(|camera| camera.path.rsplit("/camera").next()?.parse().ok())
            .collect()
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Each is waiting for somebody.
        for address in &self.listeners {
            let _ = TcpStream::connect(address);
        }
    }
}

/// Answers a server's requests up to PLAY; its URL without a slash at the end.
pub fn until_it_plays(connection: TcpStream) -> io::Result<(String, TcpStream)> {
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection);
    loop {
        let (mut method, mut url, mut sequence) = (String::new(), String::new(), String::new());
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end() {
                "" => break,
                header if header.starts_with("CSeq:") => header.clone_into(&mut sequence),
                first if method.is_empty() => {
                    let mut words = first.split(' ').map(str::to_owned);
                    (method, url) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                }
                _ => {}
            }
        }
        let more = match &*method {
            "OPTIONS" => "Public: OPTIONS, DESCRIBE, SETUP, PLAY\r\n\r\n".to_owned(),
            "DESCRIBE" => {
                format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{SDP}", SDP.len())
            }
            "SETUP" => "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n".to_owned(),
            _ => "Session: 1\r\n\r\n".to_owned(),
        };
        reader.get_mut().write_all(format!("RTSP/1.0 200 OK\r\n{sequence}\r\n{more}").as_bytes())?;
        if method == "PLAY" {
            let connection = reader.into_inner();
            connection.set_nonblocking(true)?;
            return Ok((url.trim_end_matches('/').to_owned(), connection));
        }
    }
}

/// Takes what the server has said meanwhile: that it is still there.
fn drain(connection: &mut TcpStream) -> io::Result<()> {
    let mut said = [0; 1024];
    loop {
        match connection.read(&mut said) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// An RTP packet with 20 ms of G.711, interleaved (RFC 2326, 10.12).
pub fn sound(n: u32) -> Vec<u8> {
    const SAMPLES: u32 = 160;
    let mut packet = vec![b'$', 0, 0, 12 + SAMPLES as u8, 0x80, 0];
    packet.extend((n as u16).to_be_bytes());
    packet.extend(n.wrapping_mul(SAMPLES).to_be_bytes());
    packet.extend(1_u32.to_be_bytes());
    packet.resize(packet.len() + SAMPLES as usize, 0xFF);
    packet
}

/// Pushes a stream into a server, says a word, and is gone: its sources come and go.
pub fn come_and_go(server: SocketAddr, stream: &str) -> io::Result<()> {
    let mut connection = TcpStream::connect(server)?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    connection.set_nodelay(true)?;
    let url = format!("rtsp://{server}/live/{stream}");
    let body = format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{SDP}", SDP.len());
    let mut session = String::new();
    for (n, (method, path, more)) in [
        ("ANNOUNCE", "", body.as_str()),
        ("SETUP", "/trackID=0", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=record\r\n\r\n"),
        ("RECORD", "", "\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let request = format!("{method} {url}{path} RTSP/1.0\r\nCSeq: {n}\r\n{session}{more}");
        connection.write_all(request.as_bytes())?;
        let mut reply = Vec::new();
        let mut piece = [0; 1024];
        while !reply.windows(4).any(|end| end == b"\r\n\r\n") {
            let read = connection.read(&mut piece)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            reply.extend_from_slice(&piece[..read]);
        }
        let reply = String::from_utf8_lossy(&reply).into_owned();
        if !reply.starts_with("RTSP/1.0 200") {
            return Err(io::Error::other(reply));
        }
        if let Some(line) = reply.lines().find(|line| line.starts_with("Session:")) {
            session = format!("{}\r\n", line.split(';').next().unwrap_or(line));
        }
    }
    for n in 0..3 {
        connection.write_all(&sound(n))?;
    }
    Ok(())
}
