//! A whole MediaServer: what its API costs with the plugin (P7), and how fast its proxies are back (P8, P10, and what
//! else a restart must hold).

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::curve::{Curve, draw};
use super::support::quiet::Quiet;
use super::support::server::{self, Server, status_field};
use super::support::{Holes, Host, Source, write_journal};
use super::table::{Pairs, ROUNDS, Table, median, progress};

/// What nobody watches is not made, as operators of many cameras set it, and no HLS: that would measure the disk.
pub const ON_DEMAND: [(&str, &str); 5] = [
    ("protocol.enable_hls", "0"),
    ("protocol.rtsp_demand", "1"),
    ("protocol.rtmp_demand", "1"),
    ("protocol.ts_demand", "1"),
    ("protocol.fmp4_demand", "1"),
];

type Proxy<'a> = (String, &'a str, &'a [(&'a str, &'a str)]);

pub fn with_journal(binary: &Path, dir: &Path, more: &[(&str, &str)]) -> Server {
    let server = Server::prepare(binary, dir, &[]).with_kept_connections();
    switch_on(&server, more);
    server
}

/// Writes the config of a server whose journal is on.
pub fn switch_on(server: &Server, more: &[(&str, &str)]) {
    let path = server.journal_file();
    server.write_config(&[&[("enable", "1"), ("path", path.to_str().expect("a plain path"))], more].concat());
}

/// Seconds from the start of the process until the status says so.
fn time_until(server: &mut Server, reached: impl Fn(&Value) -> bool) -> f64 {
    let began = Instant::now();
    server.spawn();
    loop {
        let reply = server.try_get("getJournalStatus", &[("limit", "0")]);
        if reply.as_ref().is_some_and(|reply| reached(&reply["data"])) {
            return began.elapsed().as_secs_f64();
        }
        assert!(began.elapsed() < Duration::from_secs(120), "never: {reply:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Ends it as an operator does.
fn stop(server: &mut Server) {
    Server::signal(server.pid(), "INT");
    server.wait_for_end();
}

/// Every proxy of the journal was handed to the server.
fn all_listed(status: &Value) -> bool {
    let restore = &status["restore"];
    restore["total"] != 0 && restore["waiting"] == 0
}

// ---- P7

/// Calls a second of 32 clients, each for a stream of its own whose camera refuses at once (force=1).
fn calls_per_second(mut server: Server, journal: bool) -> f64 {
    const CLIENTS: usize = 32;
    // It is over before the first of these cameras is tried again, 2 s after it refused: a slower server is not to have
    // more of that work in its time.
    const EACH: usize = 150;
    server.start();
    let url = format!("rtsp://127.0.0.1:{}/camera", server::free_port());
    let began = Instant::now();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (server, url) = (&server, &url);
            scope.spawn(move || {
                for n in 0..EACH {
                    let stream = format!("{client}-{n}");
                    let reply = server.get("addStreamProxy", &server::add_args(&stream, url, &[("force", "1")]));
                    assert!(!journal || reply["journal"]["persisted"] == true, "{reply}");
                }
            });
        }
    });
    (CLIENTS * EACH) as f64 / began.elapsed().as_secs_f64()
}

/// A round takes three seconds, and one differs from the next by a tenth.
const ADD_ROUNDS: usize = 8 * ROUNDS;

pub fn add_rate(table: &mut Table, dir: &Path, host: &Host) {
    let mut pairs = Pairs::default();
    for round in 0..ADD_ROUNDS {
        progress(&format!("P7 round {} of {ADD_ROUNDS}", round + 1));
        let stock =
            || Server::prepare(&host.pristine, &dir.join(format!("stock-{round}")), &[]).with_kept_connections();
        let plugin = || with_journal(&host.patched, &dir.join(format!("p7-{round}")), &[]);
        // Who is first changes, so that neither gains by it.
        let (with, without);
        if round % 2 == 0 {
            without = calls_per_second(stock(), false);
            with = calls_per_second(plugin(), true);
        } else {
            with = calls_per_second(plugin(), true);
            without = calls_per_second(stock(), false);
        }
        pairs.push(with, without);
    }
    let ratio = pairs.ratio();
    table.row(
        "P7",
        "addStreamProxy rate, 32 clients, plugin ÷ stock",
        &format!("{ratio:.2} ({:.0}/s ÷ {:.0}/s)", pairs.ours(), pairs.yardstick()),
        "≥ 0.9",
        "≥ 0.97",
        host.real.then_some(ratio >= 0.9),
    );
}

// ---- P10

/// Cameras that refuse at once, each at an address of its own, so that only the rate limits.
pub fn growth(table: &mut Table, dir: &Path, host: &Host) {
    let port = server::free_port();
    let mut servers = [1000_usize, 10_000].map(|count| {
        let server = with_journal(&host.patched, &dir.join(format!("p10-{count}")), &[]);
        let urls: Vec<String> =
            (0..count).map(|n| format!("rtsp://127.78.{}.{}:{port}/", n / 250, n % 250 + 1)).collect();
        let proxies: Vec<Proxy> =
            urls.iter().enumerate().map(|(n, url)| (format!("s{n}"), url.as_str(), [].as_slice())).collect();
        write_journal(&server.journal_file(), proxies);
        server
    });
    let mut pairs = Pairs::default();
    for round in 0..ROUNDS {
        progress(&format!("P10 round {} of {ROUNDS}", round + 1));
        let [small, large] = servers.each_mut().map(|server| {
            let took = time_until(server, all_listed);
            stop(server);
            took
        });
        pairs.push(large, small);
    }
    let ratio = pairs.ratio();
    table.row(
        "P10",
        "process start to all listed, 10,000 proxies ÷ 1,000",
        &format!("{ratio:.1} ({:.2} s ÷ {:.3} s)", pairs.ours(), pairs.yardstick()),
        "≤ 12",
        "≤ 10.5",
        host.real.then_some(ratio <= 12.0),
    );
}

// ---- what a restart must hold

pub fn lazy_boot(table: &mut Table, dir: &Path, host: &Host) {
    const PROXIES: usize = 100_000;
    let mut full = with_journal(&host.patched, &dir.join("lazy"), &[("restore", "lazy")]);
    let url = "rtsp://admin:password@192.168.100.100:554/Streaming/Channels/101";
    write_journal(&full.journal_file(), (0..PROXIES).map(|n| (format!("s{n}"), url, [].as_slice())));
    let mut none =
        Server::prepare(&host.patched, &dir.join("no-journal"), &[("enable", "0")]).with_kept_connections();
    let boot = |server: &mut Server| {
        let began = Instant::now();
        server.start();
        let took = began.elapsed().as_secs_f64();
        // The first look is over, and all that it allocates is there.
        thread::sleep(Duration::from_millis(500));
        let peak = status_field(server.pid(), "VmHWM:") as f64 / 1e6;
        server.kill();
        (took, peak)
    };
    let (mut times, mut peaks) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        progress(&format!("lazy boot round {} of {ROUNDS}", round + 1));
        let ((without, lean), (with, fat)) = (boot(&mut none), boot(&mut full));
        times.push(with - without);
        peaks.push(fat - lean);
    }
    let (time, peak) = (median(times), median(peaks));
    table.row(
        "",
        "restore=lazy, 100,000 journaled: boot takes longer by, and memory at its peak grows by",
        &format!("{time:.2} s; {peak:.0} MB"),
        "< 0.5 s; < 150 MB",
        "",
        time < 0.5 && peak < 150.0,
    );
}

fn boolean(ok: &[bool]) -> bool {
    ok.iter().all(|ok| *ok)
}

pub fn sites(table: &mut Table, dir: &Path, host: &Host) {
    let live = Source::live(dir);
    let playing = |count: usize| move |status: &Value| status["now"]["playing"].as_u64() == Some(count as u64);
    // 600, half of them black holes at addresses of their own.
    let mut server = with_journal(&host.patched, &dir.join("600"), &[]);
    let holes = Holes::new(300);
    let urls = holes.urls();
    let dead = urls.iter().enumerate().map(|(n, url)| (format!("hole{n}"), url.as_str(), [].as_slice()));
    let alive = (0..300).map(|n| (format!("live{n}"), live.url.as_str(), [].as_slice()));
    write_journal(&server.journal_file(), dead.chain(alive));
    let (mut listed, mut played) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        progress(&format!("600 proxies, round {} of {ROUNDS}", round + 1));
        listed.push(time_until(&mut server, all_listed));
        stop(&mut server);
        played.push(time_until(&mut server, playing(300)));
        stop(&mut server);
    }
    let (listed, played) = (median(listed), median(played));
    table.row(
        "",
        "600 proxies, half of them black holes: all listed; every live one plays",
        &format!("{listed:.2} s; {played:.2} s"),
        "≤ 2 s; ≤ 8 s",
        "",
        boolean(&[listed <= 2.0, played <= 8.0]),
    );

    // 300 of one host, half of them black holes that did not play before.
    let mut server = with_journal(&host.patched, &dir.join("300"), &[]);
    let hole = Source::black_hole();
    let dead = (0..150).map(|n| (format!("hole{n}"), hole.url.as_str(), [].as_slice()));
    let alive = (0..150).map(|n| (format!("live{n}"), live.url.as_str(), [].as_slice()));
    write_journal(&server.journal_file(), dead.chain(alive));
    let note: String = (1..=150).map(|seq| format!("{seq} 0\n")).collect();
    let mut played = Vec::new();
    for round in 0..ROUNDS {
        progress(&format!("300 of one host, round {} of {ROUNDS}", round + 1));
        fs::write(server.journal_file().with_extension("db.dark"), &note).expect("what did not play");
        played.push(time_until(&mut server, playing(150)));
        stop(&mut server);
    }
    let played = median(played);
    table.row(
        "",
        "300 proxies of one host, half of them black holes that did not play before: every live one plays",
        &format!("{played:.2} s"),
        "≤ 5 s",
        "",
        played <= 5.0,
    );
}

// ---- P8

const PROXIES: usize = 5000;
const HOLES: usize = PROXIES / 10;
/// Nothing is waited for any longer; the client that adds one by one is not through by then.
const PATIENCE: Duration = Duration::from_secs(160);

/// How often a server is asked where that costs it little.
const LOOK: Duration = Duration::from_millis(20);

/// Seconds of CPU that a process has used.
pub fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let behind_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks =
        |n: usize| behind_name.split(' ').nth(n).and_then(|word| word.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / 100.0
}

struct Run {
    seconds: f64,
    points: Vec<(f64, usize)>,
    cpu: f64,
    client_cpu: f64,
    peak_mb: f64,
}

pub fn against_a_client(table: &mut Table, dir: &Path, host: &Host) {
    let holes = Holes::new(HOLES);
    let dead = holes.urls();
    // The dead are spread evenly among the others.
    let urls_with = |live: &Live| -> Vec<String> {
        (0..PROXIES).map(|n| if n % 10 == 5 { dead[n / 10].clone() } else { live(n) }).collect()
    };
    let prepared = |binary: &Path, name: &str| {
        Server::prepare(binary, &dir.join(name), &[]).with_kept_connections().with_settings(ON_DEMAND)
    };
    let by_plugin = |name: &str, urls: &[String]| -> Vec<Run> {
        let mut server = prepared(&host.patched, &name.replace(' ', "-"));
        switch_on(&server, &[]);
        let proxies = urls.iter().enumerate().map(|(n, url)| (format!("s{n}"), url.as_str(), [].as_slice()));
        write_journal(&server.journal_file(), proxies);
        let round = |round| {
            progress(&format!("{name}: the plugin, round {} of {ROUNDS}", round + 1));
            until_all_listed(&mut server)
        };
        (0..ROUNDS).map(round).collect()
    };
    let [apart, together] = [live(dir, host, true), live(dir, host, false)];
    let urls = urls_with(&apart);
    let mut ours = by_plugin("P8", &urls);
    let at_one_address = by_plugin("P8 at one address", &urls_with(&together));
    let url = |n: usize| urls[n].as_str();
    let outside = |clients: usize| {
        let server = prepared(&host.pristine, &format!("p8-{clients}"));
        server.write_config(&[]);
        by_client(server, clients, &url)
    };
    let at_once = outside(32);
    let one_by_one = outside(1);

    let seconds = median(ours.iter().map(|run| run.seconds).collect());
    let ratio = at_once.seconds / seconds;
    table.row(
        "P8",
        "process start to all listed, 5,000 cameras, each at an address of its own, a tenth black holes, sources on demand: \
         plugin ÷ an outside client, 32 at a time (that one measured once)",
        &format!("1/{ratio:.0} ({seconds:.2} s ÷ {:.1} s)", at_once.seconds),
        "≤ 1/50",
        "≤ 1/200",
        host.real.then_some(ratio >= 50.0),
    );
    let together = median(at_one_address.iter().map(|run| run.seconds).collect());
    table.note(
        "the same with all that live at one address: plugin ÷ that client",
        &format!("1/{:.0} ({together:.2} s)", at_once.seconds / together),
    );
    let last = one_by_one.points.last().map_or(0, |(_, count)| *count);
    table.note(
        "the same by a client that adds one by one",
        &format!("{last} listed after {:.0} s, then stopped", one_by_one.seconds),
    );
    let median_of = |of: fn(&Run) -> f64| median(ours.iter().map(of).collect());
    table.note(
        "CPU until all are listed, plugin; outside client: server and client",
        &format!("{:.2} s; {:.2} s and {:.2} s", median_of(|run| run.cpu), at_once.cpu, at_once.client_cpu),
    );
    table.note(
        "memory of the server at its peak, plugin; outside client",
        &format!("{:.0} MB; {:.0} MB", median_of(|run| run.peak_mb), at_once.peak_mb),
    );
    ours.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let middle = ours.swap_remove(ours.len() / 2);
    let curves = [
        Curve { name: "zlm-journal", points: middle.points },
        Curve { name: "outside client, 32 at a time", points: at_once.points },
        Curve { name: "outside client, one by one", points: one_by_one.points },
    ];
    let title = format!(
        "{PROXIES} proxies after a restart, a tenth of them cameras that never answer{}",
        if host.real { "" } else { " (stand-in)" }
    );
    draw(&dir.join("restore.svg"), &title, PROXIES, &curves).expect("a picture");
}

/// Cameras that play, by their numbers, each at an address of its own or all at one.
type Live = Box<dyn Fn(usize) -> String>;

/// They say little: how fast a machine takes in media is not the question. The stand-in has no media, and needs only that
/// somebody is there.
fn live(dir: &Path, host: &Host, apart: bool) -> Live {
    if host.real {
        let cameras =
            if apart { Quiet::each_at_its_own(PROXIES) } else { Quiet::at([Ipv4Addr::LOCALHOST.into()]) };
        Box::new(move |n| cameras.url(n))
    } else {
        let camera = Source::live(dir);
        Box::new(move |_| camera.url.clone())
    }
}

fn until_all_listed(server: &mut Server) -> Run {
    let began = Instant::now();
    let mut points = Vec::new();
    server.spawn();
    let is_over = |server: &Server| {
        server.try_get("getJournalStatus", &[("limit", "0")]).is_some_and(|reply| all_listed(&reply["data"]))
    };
    loop {
        let pause = look(server, began, &mut points);
        if points.last().is_some_and(|(_, count)| *count == PROXIES) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "never: {:?}", points.last());
        // A look at once where all should be there.
        let looked = Instant::now();
        loop {
            thread::sleep(LOOK);
            if looked.elapsed() >= pause || is_over(server) {
                break;
            }
        }
    }
    let run = Run {
        seconds: points.last().map_or(f64::NAN, |(at, _)| *at),
        cpu: cpu(server.pid()),
        client_cpu: 0.0,
        peak_mb: status_field(server.pid(), "VmHWM:") as f64 / 1e6,
        points,
    };
    stop(server);
    run
}

/// How many the server lists: what was told to start may not have yet. None are noted where it is too busy to answer. Says
/// how long to wait for the next time, since a list costs it time that it should have for the restore.
fn look(server: &Server, began: Instant, points: &mut Vec<(f64, usize)>) -> Duration {
    let asked = Instant::now();
    if let Some(list) = server.get_text("listStreamProxy", &[]) {
        points.push((began.elapsed().as_secs_f64(), list.matches("\"key\"").count()));
    }
    (9 * asked.elapsed()).max(LOOK)
}

fn by_client<'a>(mut server: Server, clients: usize, url: &(impl Fn(usize) -> &'a str + Sync)) -> Run {
    let began = Instant::now();
    let own_cpu = cpu(std::process::id());
    server.start();
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut points = Vec::new();
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    if n >= PROXIES || stop.load(Ordering::SeqCst) {
                        return;
                    }
                    // force=1, so that a camera that does not answer is listed at all.
                    let stream = format!("s{n}");
                    let _ =
                        server.try_get("addStreamProxy", &server::add_args(&stream, url(n), &[("force", "1")]));
                }
            });
        }
        let mut run_cpu = 0.0;
        while points.last().is_none_or(|(_, count)| *count < PROXIES) && began.elapsed() < PATIENCE {
            let pause = look(&server, began, &mut points);
            let listed = points.last().map_or(0, |(_, count)| *count);
            progress(&format!("P8: {clients} at a time, {listed} of {PROXIES} listed"));
            run_cpu = cpu(server.pid());
            thread::sleep(pause);
        }
        stop.store(true, Ordering::SeqCst);
        let run = Run {
            seconds: points.last().map_or(f64::NAN, |(at, _)| *at),
            points: std::mem::take(&mut points),
            cpu: run_cpu,
            client_cpu: cpu(std::process::id()) - own_cpu,
            peak_mb: status_field(server.pid(), "VmHWM:") as f64 / 1e6,
        };
        // Ends the calls that still wait.
        Server::signal(server.pid(), "KILL");
        run
    })
}
