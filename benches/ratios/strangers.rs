//! P12: how fast callers without the secret are turned away, beside a stock server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Instant;

use super::batch::from_32_clients;
use super::restore::with_journal;
use super::support::Host;
use super::support::server::{self, Server};
use super::table::{Pairs, Table, median, progress};

const PROXIES: usize = 2000;
const ROUNDS: usize = 9;
const CALLERS: usize = 4;
/// Of each caller, by each name, in each round: half of them with the name alone, half with arguments that fit.
const CALLS: usize = 100;
const NAMES: [&str; 8] = [
    "addStreamProxy",
    "addStreamPusherProxy",
    "addFFmpegSource",
    "delStreamProxy",
    "delStreamPusherProxy",
    "delFFmpegSource",
    "close_stream",
    "close_streams",
];

/// Forced ones whose camera refuses: each server gets them over its API, as the stock one must.
fn fill(server: &Server) {
    let url = format!("rtsp://127.0.0.1:{}/camera", server::free_port());
    from_32_clients(PROXIES, |n| {
        server.get("addStreamProxy", &server::add_args(&format!("s{n}"), &url, &[("force", "1")]));
    });
    assert_eq!(server.proxies().len(), PROXIES);
}

/// The server hangs up on a stranger: each call is a connection of its own.
fn turned_away(server: &Server, request: &str) {
    let mut connection = TcpStream::connect((server.ip, server.port)).expect("the server");
    connection.write_all(request.as_bytes()).expect("the server");
    let mut reply = Vec::with_capacity(1024);
    connection.read_to_end(&mut reply).expect("a reply");
    assert!(reply.windows(4).any(|window| window == b"-100"), "{}", String::from_utf8_lossy(&reply));
}

/// Seconds that all callers take for all their calls by that name.
fn seconds(server: &Server, name: &str) -> f64 {
    let request = |args: &str| {
        format!("GET /index/api/{name}{args} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    };
    let requests = [
        request(""),
        request("?vhost=__defaultVhost__&app=live&stream=s1&schema=rtsp&key=__defaultVhost__/live/s1&force=1"),
    ];
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| requests.iter().cycle().take(CALLS).for_each(|request| turned_away(server, request)));
        }
    });
    began.elapsed().as_secs_f64()
}

pub fn turned_away_a_second(table: &mut Table, dir: &Path, host: &Host) {
    progress(&format!("P12: {PROXIES} proxies each"));
    let mut stock = Server::prepare(&host.pristine, &dir.join("p12-stock"), &[]).with_kept_connections();
    let mut plugin = with_journal(&host.patched, &dir.join("p12"), &[]);
    for server in [&mut stock, &mut plugin] {
        server.start();
        fill(server);
        // Not counted: what is slow only once.
        for name in NAMES {
            seconds(server, name);
        }
    }
    let mut by_name: Vec<(&str, Vec<f64>)> = NAMES.iter().map(|name| (*name, Vec::new())).collect();
    let mut pairs = Pairs::default();
    for round in 0..ROUNDS {
        progress(&format!("P12 round {} of {ROUNDS}", round + 1));
        let (mut with, mut without) = (0.0, 0.0);
        for (n, (name, theirs)) in by_name.iter_mut().enumerate() {
            // Who is first changes, so that neither gains by it.
            let (a, b) = if (round + n) % 2 == 0 { (&stock, &plugin) } else { (&plugin, &stock) };
            let (a, b) = (seconds(a, name), seconds(b, name));
            let (of_stock, of_plugin) = if (round + n) % 2 == 0 { (a, b) } else { (b, a) };
            theirs.push(of_stock / of_plugin);
            with += of_plugin;
            without += of_stock;
        }
        let calls = (NAMES.len() * CALLERS * CALLS) as f64;
        pairs.push(calls / with, calls / without);
    }
    let ratio = pairs.ratio();
    let names: Vec<(f64, &str)> = by_name.into_iter().map(|(name, ratios)| (median(ratios), name)).collect();
    let (lowest, name) = names.iter().copied().min_by(|a, b| a.0.total_cmp(&b.0)).expect("a name");
    table.row(
        "P12",
        "calls without the secret turned away, each journaled call by name, 2,000 proxies, 4 callers, plugin ÷ stock",
        &format!("{ratio:.2} ({:.0}/s ÷ {:.0}/s); lowest {lowest:.2}, {name}", pairs.ours(), pairs.yardstick()),
        "≥ 0.9",
        "≥ 0.98",
        // One slow name in eight would hardly show in the sum.
        host.real.then_some(ratio >= 0.9 && lowest >= 0.85),
    );
}
