//! A way to a member of etcd that can be cut, as a network is: what is sent is lost, and nobody is told.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::server::free_port;

#[derive(Clone)]
pub struct Wire {
    pub url: String,
    is_cut: Arc<AtomicBool>,
    delay_ms: Arc<AtomicU64>,
}

impl Wire {
    pub fn to(endpoint: &str) -> Wire {
        Self::at("127.0.0.1", endpoint)
    }

    /// From an address of this machine.
    pub fn at(from: &str, endpoint: &str) -> Wire {
        let to: SocketAddr = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
        let from = SocketAddr::new(from.parse().unwrap(), free_port());
        let listener = TcpListener::bind(from).expect("an end of a wire");
        let wire =
            Wire { url: format!("http://{from}"), is_cut: Arc::default(), delay_ms: Arc::new(AtomicU64::new(0)) };
        let within = wire.clone();
        thread::spawn(move || {
            for one in listener.incoming().map_while(Result::ok) {
                let within = within.clone();
                thread::spawn(move || {
                    while within.is_cut() {
                        thread::sleep(Duration::from_millis(50));
                    }
                    let Ok(other) = TcpStream::connect(to) else { return };
                    let (Ok(back), Ok(forth)) = (other.try_clone(), one.try_clone()) else { return };
                    let reverse = within.clone();
                    thread::spawn(move || reverse.carry(back, one));
                    within.carry(forth, other);
                });
            }
        });
        wire
    }

    pub fn cut(&self, cut: bool) {
        self.is_cut.store(cut, Ordering::SeqCst);
    }

    /// Each piece takes so long from now on.
    pub fn slow(&self, delay: Duration) {
        self.delay_ms.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let _ = from.set_read_timeout(Some(Duration::from_millis(50)));
        let _ = from.set_nodelay(true);
        let mut piece = [0; 65536];
        loop {
            while self.is_cut() {
                thread::sleep(Duration::from_millis(20));
            }
            match from.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => {
                    while self.is_cut() {
                        thread::sleep(Duration::from_millis(20));
                    }
                    thread::sleep(Duration::from_millis(self.delay_ms.load(Ordering::SeqCst)));
                    if to.write_all(&piece[..length]).is_err() {
                        break;
                    }
                }
                Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
        let _ = from.shutdown(std::net::Shutdown::Both);
    }
}
