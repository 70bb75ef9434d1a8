//! A camera that takes its time before it answers.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::server;

/// The way to a camera that takes its time: each connection is accepted at once and passed on after the delay.
pub struct Slow {
    pub url: String,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Slow {
    pub fn to(url: &str, camera: SocketAddr, delay: Duration) -> Slow {
        let address = SocketAddr::from(([127, 0, 0, 1], server::free_port()));
        let listener = TcpListener::bind(address).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            for client in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                thread::spawn(move || {
                    thread::sleep(delay);
                    let _ = pass_on(client, camera);
                });
            }
        });
        Slow { url: url.replace(&camera.to_string(), &address.to_string()), address, stop }
    }
}

/// Both ways, until either side ends.
fn pass_on(client: TcpStream, camera: SocketAddr) -> io::Result<()> {
    let camera = TcpStream::connect(camera)?;
    let one_way = |mut from: TcpStream, mut to: TcpStream| {
        let _ = io::copy(&mut from, &mut to);
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    };
    let (back_from, back_to) = (camera.try_clone()?, client.try_clone()?);
    thread::spawn(move || one_way(back_from, back_to));
    one_way(client, camera);
    Ok(())
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}
