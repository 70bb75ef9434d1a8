//! Cameras that count who is connected to them, moment by moment. They speak RTSP to a MediaServer and the stand-in's words
//! to a stand-in.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::support::server::free_port;

const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=control:*\r\n\
                   m=audio 0 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000/1\r\na=control:trackID=0\r\n";

/// Who came and went at each camera: how many play it since then.
type Log = BTreeMap<usize, Vec<(Instant, usize)>>;

pub struct Street {
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
    stop: Arc<AtomicBool>,
}

impl Street {
    pub fn new() -> Street {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let listener = TcpListener::bind(address).expect("the cameras' address");
        let (log, stop) = (Arc::new(Mutex::new(Log::new())), Arc::new(AtomicBool::new(false)));
        let street = Street { address, log: Arc::clone(&log), stop: Arc::clone(&stop) };
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (log, stop) = (Arc::clone(&log), Arc::clone(&stop));
                thread::spawn(move || serve(connection, &log, &stop));
            }
        });
        street
    }

    pub fn url(&self, camera: usize) -> String {
        format!("rtsp://{}/live/camera{camera}", self.address)
    }

    /// How many play a camera now.
    pub fn now(&self, camera: usize) -> usize {
        self.log.lock().get(&camera).and_then(|log| log.last()).map_or(0, |(_, count)| *count)
    }

    /// How many of the first so many cameras are played by exactly one.
    pub fn played_by_one(&self, cameras: usize) -> usize {
        (0..cameras).filter(|camera| self.now(*camera) == 1).count()
    }

    /// The longest time since then for which a camera was played by two or more, and which one.
    pub fn longest_double(&self, since: Instant) -> (Duration, usize) {
        self.longest(since, |count| count > 1)
    }

    /// The longest time since then for which a camera was played by nobody.
    pub fn longest_gap(&self, since: Instant) -> (Duration, usize) {
        self.longest(since, |count| count == 0)
    }

    /// Whether nobody played a camera for a moment since then.
    pub fn gap(&self, camera: usize, since: Instant) -> bool {
        self.log.lock().get(&camera).is_none_or(|log| log.iter().any(|(at, count)| *at >= since && *count == 0))
    }

    /// How many connections have come to these cameras since then.
    pub fn arrivals(&self, since: Instant, cameras: impl IntoIterator<Item = usize>) -> usize {
        let log = self.log.lock();
        cameras
            .into_iter()
            .filter_map(|camera| log.get(&camera))
            .map(|log| log.windows(2).filter(|two| two[1].0 >= since && two[1].1 > two[0].1).count())
            .sum()
    }

    fn longest(&self, since: Instant, counts: impl Fn(usize) -> bool) -> (Duration, usize) {
        let now = Instant::now();
        let mut longest = (Duration::ZERO, usize::MAX);
        for (camera, log) in self.log.lock().iter() {
            let ends = log.iter().skip(1).map(|(at, _)| *at).chain([now]);
            let mut begin: Option<Instant> = None;
            for ((at, count), end) in log.iter().zip(ends) {
                if !counts(*count) {
                    begin = None;
                    continue;
                }
                let from = *begin.get_or_insert((*at).max(since));
                let time = end.saturating_duration_since(from.max(since));
                if time > longest.0 {
                    longest = (time, *camera);
                }
            }
        }
        longest
    }
}

impl Drop for Street {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(connection: TcpStream, log: &Mutex<Log>, stop: &AtomicBool) {
    let _ = connection.set_nodelay(true);
    let _ = connection.set_read_timeout(Some(Duration::from_secs(10)));
    let mut reader = BufReader::new(connection);
    let Some((camera, speaks_rtsp)) = until_it_plays(&mut reader) else { return };
    let mut connection = reader.into_inner();
    let change = |by: isize| {
        let mut log = log.lock();
        let log = log.entry(camera).or_default();
        let now = log.last().map_or(0, |(_, count)| *count);
        log.push((Instant::now(), now.saturating_add_signed(by)));
    };
    change(1);
    let _ = connection.set_read_timeout(Some(Duration::from_millis(100)));
    let mut n = 0_u32;
    let mut said = [0; 1024];
    while !stop.load(Ordering::Relaxed) {
        // A word of sound every two seconds: a server takes a camera for dead that is silent for five.
        if n.is_multiple_of(20) {
            let word = if speaks_rtsp { sound(n / 20) } else { vec![b'.'] };
            if connection.write_all(&word).is_err() {
                break;
            }
        }
        n += 1;
        let began = Instant::now();
        match connection.read(&mut said) {
            Ok(0) => break,
            Ok(_) => thread::sleep(Duration::from_millis(100).saturating_sub(began.elapsed())),
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    change(-1);
}

/// Answers a server's requests up to the one to play: the camera, and whether it was asked for in RTSP.
fn until_it_plays(reader: &mut BufReader<TcpStream>) -> Option<(usize, bool)> {
    let number = |url: &str| url.trim_end_matches('/').rsplit("camera").next()?.parse().ok();
    loop {
        let (mut method, mut url, mut sequence) = (String::new(), String::new(), String::new());
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                header if header.starts_with("CSeq:") => header.clone_into(&mut sequence),
                first if method.is_empty() => {
                    let mut words = first.split(' ').map(str::to_owned);
                    (method, url) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                    // The stand-in says this line alone.
                    if method == "PLAY" && words.next().is_none() {
                        return Some((number(&url)?, false));
                    }
                }
                _ => {}
            }
        }
        let more = match &*method {
            "OPTIONS" => "Public: OPTIONS, DESCRIBE, SETUP, PLAY\r\n\r\n".to_owned(),
            "DESCRIBE" => format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{SDP}", SDP.len()),
            "SETUP" => "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n".to_owned(),
            _ => "Session: 1\r\n\r\n".to_owned(),
        };
        let answer = format!("RTSP/1.0 200 OK\r\n{sequence}\r\n{more}");
        reader.get_mut().write_all(answer.as_bytes()).ok()?;
        if method == "PLAY" {
            return Some((number(&url)?, true));
        }
    }
}

/// An RTP packet with 20 ms of G.711, interleaved (RFC 2326, 10.12).
fn sound(n: u32) -> Vec<u8> {
    const SAMPLES: u32 = 160;
    let mut packet = vec![b'$', 0, 0, 12 + SAMPLES as u8, 0x80, 0];
    packet.extend((n as u16).to_be_bytes());
    packet.extend(n.wrapping_mul(SAMPLES).to_be_bytes());
    packet.extend(1_u32.to_be_bytes());
    packet.resize(packet.len() + SAMPLES as usize, 0xFF);
    packet
}
