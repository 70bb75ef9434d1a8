//! What a server costs that has nothing to do but to keep its proxies: CPU (P13), memory (P15), and while other people's
//! streams come and go (P14). A stock server stands beside it all the time and gets the same. Both are real ones: the
//! stand-in has no media.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::batch::from_32_clients;
use super::restore::{ON_DEMAND, cpu, switch_on};
use super::support::Host;
use super::support::quiet::{Quiet, come_and_go};
use super::support::server::{self, Server, free_port};
use super::table::{Pairs, ROUNDS, Table, median, progress};

/// A stock server and one with the plugin, in this order, alike in all else.
struct Pair {
    servers: [Server; 2],
    /// Where each takes who pushes.
    rtsp: [SocketAddr; 2],
}

impl Pair {
    fn start(dir: &Path, name: &str, host: &Host, more: &[(&str, &str)]) -> Pair {
        let rtsp = [free_port(), free_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let server = |binary: &Path, name: &str, rtsp: SocketAddr| {
            Server::prepare(binary, &dir.join(name), &[])
                .with_kept_connections()
                .with_settings(ON_DEMAND)
                .with_settings(more.iter().copied())
                .with_settings([("rtsp.port", &*rtsp.port().to_string())])
        };
        let mut stock = server(&host.pristine, &format!("{name}-stock"), rtsp[0]);
        stock.write_config(&[]);
        let mut plugin = server(&host.patched, name, rtsp[1]);
        switch_on(&plugin, &[]);
        stock.start();
        plugin.start();
        Pair { servers: [stock, plugin], rtsp }
    }

    /// Adds so many cameras to both, a tenth of which are off: each to both at the same time, since a camera that is off is
    /// tried less and less often the longer ago it was added.
    fn fill(&self, what: &str, count: usize, cameras: &Quiet) {
        let off = format!("rtsp://127.0.0.1:{}/off", free_port());
        let added = AtomicUsize::new(0);
        from_32_clients(count, |n| {
            let url = if n % 10 == 5 { off.clone() } else { cameras.url(n) };
            for server in &self.servers {
                server.get("addStreamProxy", &server::add_args(&format!("s{n}"), &url, &[("force", "1")]));
            }
            let added = added.fetch_add(1, Ordering::Relaxed);
            if added.is_multiple_of(100) {
                progress(&format!("{what}: {added} of {count} added to each"));
            }
        });
        for server in &self.servers {
            assert_eq!(server.proxies().len(), count);
        }
    }

    /// The seconds of CPU that both use meanwhile.
    fn cpu_while(&self, act: impl FnOnce()) -> [f64; 2] {
        let used = || self.servers.each_ref().map(|server| cpu(server.pid()));
        let before = used();
        act();
        let after = used();
        [after[0] - before[0], after[1] - before[1]]
    }
}

fn sites() -> Quiet {
    Quiet::at((1..=16).map(|n| IpAddr::from([127, 81, 0, n])))
}

// ---- P13

pub fn cpu_at_rest(table: &mut Table, dir: &Path, host: &Host) {
    let pairs = at_rest("P13", dir, host);
    let ratio = pairs.ratio();
    table.row(
        "P13",
        "CPU time in a minute at rest, 10,000 proxies that nobody watches, a tenth of them off, plugin ÷ stock",
        &format!("{ratio:.3} ({:.2} s ÷ {:.2} s)", pairs.ours(), pairs.yardstick()),
        "≤ 1.05",
        "≤ 1.01",
        ratio <= 1.05,
    );
}

/// What P13 says of two servers that are the same: how pulls are shared out among the pollers is chance.
pub fn cpu_at_rest_of_two_alike(table: &mut Table, dir: &Path, host: &Host) {
    let alike = Host { patched: host.pristine.clone(), pristine: host.pristine.clone(), ..*host };
    let pairs = at_rest("P13-control", dir, &alike);
    table.row(
        "P13-control",
        "the same of two stock servers: how far chance moves P13",
        &format!("{:.3} ({:.2} s ÷ {:.2} s)", pairs.ratio(), pairs.ours(), pairs.yardstick()),
        "",
        "",
        None,
    );
}

fn at_rest(name: &str, dir: &Path, host: &Host) -> Pairs {
    const PROXIES: usize = 10_000;
    const MINUTE: Duration = Duration::from_secs(60);
    let cameras = sites();
    let pair = Pair::start(dir, &name.to_lowercase(), host, &[]);
    pair.fill(name, PROXIES, &cameras);
    // Those that are off are tried again after longer and longer, up to a minute.
    pause(&format!("{name}: until it is at rest"), 2 * MINUTE);
    let mut pairs = Pairs::default();
    for round in 0..ROUNDS {
        let [stock, plugin] = pair.cpu_while(|| pause(&format!("{name} round {} of {ROUNDS}", round + 1), MINUTE));
        pairs.push(plugin, stock);
    }
    pairs
}

fn pause(what: &str, time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        progress(&format!("{what}, {} of {} s", began.elapsed().as_secs(), time.as_secs()));
        thread::sleep(Duration::from_millis(500).min(time.saturating_sub(began.elapsed())));
    }
}

// ---- P14

pub fn media_events(table: &mut Table, dir: &Path, host: &Host) {
    const PROXIES: usize = 100;
    const STREAMS_A_SECOND: u32 = 125;
    const CALLERS: u32 = 5;
    const SECONDS: u32 = 10;
    let cameras = sites();
    let pair = Pair::start(dir, "p14", host, &[("protocol.continue_push_ms", "0")]);
    pair.fill("P14", PROXIES, &cameras);
    // The server says so in its log.
    let events = || {
        ["媒体注册:", "媒体注销:"].map(|said| pair.servers[0].log().matches(said).count()).iter().sum::<usize>()
    };
    let (mut pairs, mut rates) = (Pairs::default(), Vec::new());
    for round in 0..ROUNDS {
        progress(&format!("P14 round {} of {ROUNDS}", round + 1));
        let (before, began) = (events(), Instant::now());
        let [stock, plugin] = pair.cpu_while(|| {
            thread::scope(|scope| {
                for server in pair.rtsp {
                    for caller in 0..CALLERS {
                        scope.spawn(move || {
                            for n in 0..STREAMS_A_SECOND / CALLERS * SECONDS {
                                let due = Duration::from_secs(1) / (STREAMS_A_SECOND / CALLERS) * n;
                                thread::sleep(due.saturating_sub(began.elapsed()));
                                let stream = format!("push-{round}-{caller}-{n}");
                                come_and_go(server, &stream).expect("a stream that comes and goes");
                            }
                        });
                    }
                }
            });
            pair.servers[1].wait_for_pollers();
        });
        rates.push((events() - before) as f64 / began.elapsed().as_secs_f64());
        pairs.push(plugin, stock);
    }
    let ratio = pairs.ratio();
    table.row(
        "P14",
        "CPU time of a server whose streams come and go, plugin ÷ stock",
        &format!(
            "{ratio:.3} ({:.2} s ÷ {:.2} s in {SECONDS} s of {:.0} media events a second)",
            pairs.ours(),
            pairs.yardstick(),
            median(rates)
        ),
        "≤ 1.1",
        "≤ 1.02",
        ratio <= 1.1,
    );
}

// ---- P15

pub fn memory_at_rest(table: &mut Table, dir: &Path, host: &Host) {
    const PROXIES: usize = 4000;
    let cameras = sites();
    let (mut pairs, mut each) = (Pairs::default(), Vec::new());
    for round in 0..ROUNDS {
        let what = format!("P15 round {} of {ROUNDS}", round + 1);
        let pair = Pair::start(dir, &format!("p15-{round}"), host, &[]);
        pair.fill(&what, PROXIES, &cameras);
        pause(&what, Duration::from_secs(20));
        let [stock, plugin] = pair.servers.each_ref().map(|server| server.memory() as f64);
        each.push((plugin - stock) / PROXIES as f64 / 1024.0);
        pairs.push(plugin / 1e6, stock / 1e6);
    }
    let each = median(each);
    table.row(
        "P15",
        "memory at rest, 4,000 proxies, a tenth of them off, plugin minus stock, for each proxy",
        &format!("{each:.1} KiB ({:.0} MB, {:.0} MB)", pairs.ours(), pairs.yardstick()),
        "≤ 3 KiB",
        "≤ 1.5 KiB",
        each <= 3.0,
    );
}
