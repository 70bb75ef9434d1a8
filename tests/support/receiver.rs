//! A receiver of alerts.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use super::server;

/// One call.
#[derive(Clone)]
pub struct Post {
    pub signature: Option<String>,
    pub body: Vec<u8>,
}

#[derive(Default)]
struct State {
    stop: AtomicBool,
    /// The status to answer with; 0: none, for as long as it is so.
    status: AtomicU16,
    calls: AtomicUsize,
    /// What was answered with success.
    posts: Mutex<Vec<Post>>,
}

pub struct Receiver {
    pub address: SocketAddr,
    state: Arc<State>,
}

impl Receiver {
    /// Answers with this status.
    pub fn start(status: u16) -> Receiver {
        let address = SocketAddr::from(([127, 0, 0, 1], server::free_port()));
        let listener = TcpListener::bind(address).unwrap();
        let state = Arc::new(State::default());
        state.status.store(status, Ordering::SeqCst);
        let its = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                if its.stop.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), its) = (client, Arc::clone(&its)) else { continue };
                thread::spawn(move || drop(take(client, &its)));
            }
        });
        Receiver { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}/alerts", self.address)
    }

    pub fn answer_with(&self, status: u16) {
        self.state.status.store(status, Ordering::SeqCst);
    }

    /// How often it was called, whatever it answered.
    pub fn calls(&self) -> usize {
        self.state.calls.load(Ordering::SeqCst)
    }

    pub fn posts(&self) -> Vec<Post> {
        self.state.posts.lock().unwrap().clone()
    }

    /// All alerts in the order of their arrival.
    pub fn alerts(&self) -> Vec<Value> {
        let bodies = self.posts().into_iter().map(|post| serde_json::from_slice::<Value>(&post.body).unwrap());
        bodies.flat_map(|body| body["alerts"].as_array().unwrap().clone()).collect()
    }
}

fn take(client: TcpStream, state: &State) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut length, mut signature) = (0, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap_or(0),
            "x-zlm-journal-signature" => signature = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    state.calls.fetch_add(1, Ordering::SeqCst);
    let status = loop {
        match state.status.load(Ordering::SeqCst) {
            0 if state.stop.load(Ordering::SeqCst) => return Ok(()),
            0 => thread::sleep(std::time::Duration::from_millis(20)),
            status => break status,
        }
    };
    if status == 200 {
        state.posts.lock().unwrap().push(Post { signature, body });
    }
    let reply = format!("HTTP/1.1 {status} Told\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    (&client).write_all(reply.as_bytes())
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}
