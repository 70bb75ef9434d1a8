//! Cameras that count who is connected to them, moment by moment. They speak RTSP to a MediaServer and the stand-in's words
//! to a stand-in.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::support::quiet::{sound, until_it_plays};
use crate::support::server::free_port;

/// Who came and went at each camera: how many play it since then.
type Log = BTreeMap<usize, Vec<(Instant, usize)>>;

pub struct Street {
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
    /// Cameras that end every connection but the first.
    alone: Arc<Mutex<BTreeSet<usize>>>,
    stop: Arc<AtomicBool>,
}

impl Street {
    pub fn new() -> Street {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let listener = TcpListener::bind(address).expect("the cameras' address");
        let street = Street { address, log: Arc::default(), alone: Arc::default(), stop: Arc::default() };
        let (log, alone, stop) = (street.log.clone(), street.alone.clone(), street.stop.clone());
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (log, alone, stop) = (log.clone(), alone.clone(), stop.clone());
                thread::spawn(move || serve(connection, &log, &alone, &stop));
            }
        });
        street
    }

    pub fn url(&self, camera: usize) -> String {
        format!("rtsp://{}/live/camera{camera}", self.address)
    }

    /// From now on, a camera ends every connection but the first.
    pub fn bears_one(&self, camera: usize) {
        self.alone.lock().insert(camera);
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

fn serve(connection: TcpStream, log: &Mutex<Log>, alone: &Mutex<BTreeSet<usize>>, stop: &AtomicBool) {
    let Some((camera, speaks_rtsp, mut connection)) = begin(connection) else { return };
    let is_played = || log.lock().get(&camera).and_then(|log| log.last()).is_some_and(|(_, count)| *count > 0);
    if alone.lock().contains(&camera) && is_played() {
        return;
    }
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

/// Answers a server up to where it plays: the camera, and whether it was asked for in RTSP.
fn begin(mut connection: TcpStream) -> Option<(usize, bool, TcpStream)> {
    connection.set_nodelay(true).ok()?;
    connection.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    // A stand-in's first word; RTSP begins with another one.
    let mut first = [0; 4];
    connection.peek(&mut first).ok()?;
    let speaks_rtsp = first != *b"PLAY";
    let url = if speaks_rtsp {
        let (url, playing) = until_it_plays(connection).ok()?;
        connection = playing;
        connection.set_nonblocking(false).ok()?;
        url
    } else {
        let mut line = String::new();
        BufReader::new(connection.try_clone().ok()?).read_line(&mut line).ok()?;
        line
    };
    Some((url.trim().rsplit("camera").next()?.parse().ok()?, speaks_rtsp, connection))
}
