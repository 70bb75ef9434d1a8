//! The seeded race of every journaled call on few keys from many connections. At quiet points the server's lists and
//! the journal must be the same, and what comes back after a kill -9 too.
//! `ZLMJ_SCHEDULES_SEC` sets for how long (15 s), `ZLMJ_SEED` where to begin, `ZLMJ_THREADS` the server's pollers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Instant;

use super::*;
use support::Publisher;

const CLIENTS: usize = 16;
/// So many of the pulls have somebody who would watch.
const VIEWED: usize = 2;
const ROUND: Duration = Duration::from_millis(1500);
/// No call is waited for any longer.
const ANSWERED: Duration = Duration::from_secs(15);
/// Virtual host, app and stream of pulls. Some are of another virtual host by name, and two have one key.
const PULLS: [(&str, &str, &str); 8] = [
    ("__defaultVhost__", "live", "p0"),
    ("__defaultVhost__", "live", "p1"),
    ("__defaultVhost__", "live", "p2"),
    ("__defaultVhost__", "live", "p3"),
    ("foo", "live", "q0"),
    ("foo", "live", "q1"),
    ("__defaultVhost__", "live/one", "key"),
    ("__defaultVhost__", "live", "one/key"),
];
/// The pull of these that the server closes by itself when nobody watches, which is always.
const UNWATCHED: &str = "q1";
/// What is pushed: a stream that somebody else publishes, and one that is pulled.
const PUSHED: [&str; 2] = ["ext", "p0"];

/// Kind, key, url: as listed, or as journaled.
type Proxies = BTreeMap<(&'static str, String), String>;

type Args = Vec<(&'static str, String)>;

fn owned<'a>((name, value): (&'a str, &str)) -> (&'a str, String) {
    (name, value.to_owned())
}

/// What clients did: the last replies for each stream, and the keys that the server gave.
#[derive(Default)]
struct Notes {
    replies: Mutex<BTreeMap<String, VecDeque<String>>>,
    keys: Mutex<BTreeMap<String, String>>,
    calls: AtomicU64,
    persisted: AtomicU64,
    number: AtomicU64,
}

impl Notes {
    fn note(&self, stream: &str, client: usize, call: &str, args: &Args, sent: Instant, reply: Option<&Value>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if reply.is_some_and(|reply| reply["journal"]["persisted"] == true) {
            self.persisted.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(key) = reply.and_then(|reply| reply["data"]["key"].as_str()) {
            self.keys.lock().unwrap().insert(format!("{call} {stream}"), key.to_owned());
        }
        let reply = reply.map_or("no answer".to_owned(), |reply| {
            format!("{} {} {}", reply["code"], reply["msg"], reply["journal"])
        });
        let took = sent.elapsed().as_millis();
        let line = format!(
            "#{} client {client}: {call} {args:?} -> {reply} ({took} ms)",
            self.number.fetch_add(1, Ordering::Relaxed)
        );
        let mut replies = self.replies.lock().unwrap();
        let lines = replies.entry(stream.to_owned()).or_default();
        lines.push_back(line);
        if lines.len() > 24 {
            lines.pop_front();
        }
    }

    fn last_of(&self, stream: &str) -> String {
        let replies = self.replies.lock().unwrap();
        replies
            .get(stream)
            .into_iter()
            .chain(replies.get("*"))
            .flatten()
            .fold(String::new(), |all, line| all + line + "\n")
    }
}

/// The sources of a race.
struct Cameras {
    live: Source,
    other: Source,
    slow: support::slow::Slow,
    hole: Source,
    dead: String,
}

impl Cameras {
    fn url(&self, random: &mut fastrand::Rng, client: usize) -> (String, Option<&'static str>) {
        // Whose add it was shows in the url, and which of his.
        let of = format!("?client={client}&n={}", random.u16(..));
        match random.u32(0..20) {
            0..=8 => (format!("{}{of}", self.live.url), None),
            9..=13 => (format!("{}{of}", self.other.url), None),
            14..=15 => (format!("{}{of}", self.slow.url), None),
            16..=18 => (format!("{}{of}", self.dead), Some("1")),
            _ => (format!("{}{of}", self.hole.url), Some("1")),
        }
    }
}

struct Race {
    fixture: Fixture,
    cameras: Cameras,
    sink: Source,
    publisher: Option<Publisher>,
    notes: Notes,
    seed: u64,
    /// Now and then only: each is a process, and the server never answers for some.
    with_ffmpeg: bool,
}

/// One call of one client: which, with what, and whose stream it is about (`*` for all).
fn random_call(race: &Race, random: &mut fastrand::Rng, client: usize) -> (&'static str, Args, String) {
    let (vhost, app, stream) = PULLS[random.usize(0..PULLS.len())];
    // As it ends in the key.
    let label = stream.rsplit('/').next().unwrap_or_default().to_owned();
    let known = |call: &str, stream: &str| {
        let keys = race.notes.keys.lock().unwrap();
        keys.get(&format!("{call} {stream}")).cloned().unwrap_or_else(|| "nobody's".to_owned())
    };
    let force = |random: &mut fastrand::Rng| ("force", if random.bool() { "1" } else { "0" }.to_owned());
    let of = |vhost: &str, app: &str, stream: &str| -> Args {
        vec![("vhost", vhost.into()), ("app", app.into()), ("stream", stream.into())]
    };
    match random.u32(0..if race.with_ffmpeg && client < 4 { 1000 } else { 950 }) {
        0..=409 => {
            let (url, timeout) = race.cameras.url(random, client);
            let mut args = of(vhost, app, stream);
            args.extend([("url", url), force(random)]);
            if stream == UNWATCHED {
                args.push(("auto_close", "1".into()));
            }
            args.extend(timeout.map(|timeout| ("timeout_sec", timeout.to_owned())));
            ("addStreamProxy", args, label)
        }
        410..=579 => ("delStreamProxy", vec![("key", format!("{vhost}/{app}/{stream}"))], label),
        580..=659 => {
            let more = vec![("schema", effects::schema().into()), force(random)];
            ("close_stream", [of(vhost, app, stream), more].concat(), label)
        }
        660..=769 => ("close_streams", vec![("app", app.into()), ("stream", stream.into()), force(random)], label),
        770..=775 => ("close_streams", vec![("app", "live".into()), force(random)], "*".into()),
        776..=779 => ("close_streams", vec![("stream", "ext".into()), force(random)], "ext".into()),
        780..=854 => {
            let stream = PUSHED[random.usize(0..PUSHED.len())].to_owned();
            let mut args = of("__defaultVhost__", "live", &stream);
            args.extend([
                ("schema", "rtmp".into()),
                ("dst_url", race.sink.takes(&format!("to-{stream}"))),
                force(random),
            ]);
            ("addStreamPusherProxy", args, stream)
        }
        855..=934 => {
            let stream = PUSHED[random.usize(0..PUSHED.len())];
            ("delStreamPusherProxy", vec![("key", known("addStreamPusherProxy", stream))], stream.into())
        }
        950..=969 => {
            let dst = format!("rtmp://localhost:{}/live/f", race.fixture.server.rtmp_port);
            let args =
                vec![("src_url", race.cameras.live.url.clone()), ("dst_url", dst), ("timeout_ms", "2500".into())];
            ("addFFmpegSource", args, "f".into())
        }
        970..=984 => ("delFFmpegSource", vec![("key", known("addFFmpegSource", "f"))], "f".into()),
        985..=999 => ("close_streams", vec![("stream", "f".into()), force(random)], "f".into()),
        // With the vhost that the caller named: the server finds nothing there.
        _ => ("close_streams", vec![("vhost", "foo".into()), force(random)], "*".into()),
    }
}

impl Race {
    fn start(seed: u64) -> Race {
        // What the reconciler mends later must not hide what the journal has wrong.
        let settings = [("revive_sec", "600")];
        let mut fixture = Fixture::prepare(&settings);
        fixture.server.max_stream_wait_ms = 300;
        fixture.server.none_reader_ms = 300;
        fixture.server.write_config(&Fixture::journal(&fixture.server, &settings));
        fixture.server.start();
        let live = fixture.source();
        let cameras = Cameras {
            slow: live.slow(Duration::from_millis(400)),
            live,
            other: fixture.source(),
            hole: Source::black_hole(),
            dead: format!("rtsp://127.0.0.1:{}/dead", server::free_port()),
        };
        let sink = fixture.source();
        Race { fixture, cameras, sink, publisher: None, notes: Notes::default(), seed, with_ffmpeg: true }
    }

    /// All clients call until the time is over, and are all answered.
    fn run(&self, random: &mut fastrand::Rng) {
        let end = Instant::now() + ROUND;
        let seeds: Vec<u64> = (0..CLIENTS).map(|_| random.u64(..)).collect();
        let server = &self.fixture.server;
        thread::scope(|scope| {
            // Some watch, so that closing without force finds readers.
            for (_, _, stream) in PULLS.iter().filter(|(_, app, _)| *app == "live").take(VIEWED) {
                scope.spawn(move || {
                    while Instant::now() < end {
                        let player = server.play(stream);
                        thread::sleep(Duration::from_millis(200));
                        drop(player);
                    }
                });
            }
            for (client, seed) in seeds.into_iter().enumerate() {
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    while Instant::now() < end {
                        let (call, args, stream) = random_call(self, &mut random, client);
                        // The server never answers for an FFmpeg source that is deleted while it begins.
                        let limit = if call == "addFFmpegSource" { Duration::from_secs(4) } else { ANSWERED };
                        self.call(limit, &stream, client, call, &args);
                    }
                });
            }
        });
        for (vhost, app, stream) in PULLS.into_iter().filter(|(_, _, stream)| *stream != UNWATCHED) {
            self.rush(vhost, app, stream);
        }
        if self.with_ffmpeg {
            self.close_ffmpeg();
        }
        server.wait_for_pollers();
    }

    /// Among a thousand calls hardly one closes the stream of an FFmpeg source that has come: it takes a second to.
    fn close_ffmpeg(&self) {
        let server = &self.fixture.server;
        let dst = format!("rtmp://localhost:{}/live/f", server.rtmp_port);
        let add: Args =
            [("src_url", &*self.cameras.live.url), ("dst_url", &dst), ("timeout_ms", "10000")].map(owned).into();
        let close: Args = [("app", "live"), ("stream", "f"), ("force", "1")].map(owned).into();
        self.call(ANSWERED, "f", CLIENTS, "addFFmpegSource", &add);
        self.call(ANSWERED, "f", CLIENTS, "close_streams", &close);
    }

    /// One call, about that stream, with a note of what came of it.
    fn call(&self, limit: Duration, stream: &str, client: usize, call: &str, args: &Args) {
        let plain: Vec<_> = args.iter().map(|(name, value)| (*name, &**value)).collect();
        let sent = Instant::now();
        let reply = self.fixture.server.try_get_within(limit, call, &plain);
        self.notes.note(stream, client, call, args, sent, reply.as_ref());
    }

    /// All clients add the same at the same moment, each with a url of his own: one of them makes it.
    fn rush(&self, vhost: &str, app: &str, stream: &str) {
        let server = &self.fixture.server;
        let key = format!("{vhost}/{app}/{stream}");
        server.get("delStreamProxy", &[("key", &key)]);
        let together = Barrier::new(CLIENTS);
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let together = &together;
                scope.spawn(move || {
                    let url = format!("{}?client={client}&n=rush", self.cameras.live.url);
                    let args: Args =
                        [("vhost", vhost), ("app", app), ("stream", stream), ("url", &url)].map(owned).into();
                    let label = stream.rsplit('/').next().unwrap_or_default();
                    together.wait();
                    self.call(ANSWERED, label, client, "addStreamProxy", &args);
                });
            }
        });
    }

    fn listed(&self) -> Proxies {
        let server = &self.fixture.server;
        let lists = [
            ("pull", "listStreamProxy", "url"),
            ("push", "listStreamPusherProxy", "url"),
            ("ffmpeg", "listFFmpegSource", "src_url"),
        ];
        let of =
            |(kind, list, url)| server.listed(list, url).into_iter().map(move |(key, url)| ((kind, key), url));
        lists.into_iter().flat_map(of).collect()
    }

    fn journaled(&self) -> Proxies {
        let kinds = [("pull", "url"), ("push", "dst_url"), ("ffmpeg", "src_url")];
        let of = |(kind, url)| {
            let sql = format!(
                "select key, json_extract(args, '$.{url}') from proxies where kind = '{kind}' and state = 'enabled'"
            );
            let rows: Vec<_> = self
                .fixture
                .sqlite3(&sql)
                .lines()
                .filter_map(|row| row.split_once('|'))
                .map(|(key, url)| ((kind, key.to_owned()), url.to_owned()))
                .collect();
            rows
        };
        kinds.into_iter().flat_map(of).collect()
    }

    /// The stream that a push takes, by the key that the server gave it.
    fn pushed(&self, key: &str) -> Option<String> {
        let keys = self.notes.keys.lock().unwrap();
        let name = keys.iter().find(|(name, theirs)| name.starts_with("addStreamPusherProxy") && *theirs == key);
        name.and_then(|(name, _)| name.split(' ').nth(1)).map(str::to_owned)
    }

    /// Where the two differ, less what is right so: a push whose stream is not there waits for it.
    fn differences(&self, expected: &Proxies, found: &Proxies) -> Vec<(&'static str, String)> {
        let all = expected.keys().chain(found.keys()).cloned().collect::<std::collections::BTreeSet<_>>();
        all.into_iter()
            .filter(|of| expected.get(of) != found.get(of))
            .filter(|(kind, key)| {
                let waits = || self.pushed(key).is_some_and(|stream| !self.fixture.server.has_stream(&stream));
                *kind != "push" || !waits()
            })
            .collect()
    }

    /// Pulls at once, since nothing is under way. Pushes and FFmpeg sources in a while: their streams come and go, as what
    /// nobody watches does.
    fn assert_alike(&self, what: &str, round: u64, expected: impl Fn() -> Proxies) -> Proxies {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let (expected, found) = (expected(), self.listed());
            let differ = self.differences(&expected, &found);
            if differ.is_empty() {
                return found;
            }
            let may_move = |(kind, key): &(&str, String)| *kind != "pull" || key.ends_with(UNWATCHED);
            let in_time = differ.iter().all(may_move) && Instant::now() < deadline;
            if !in_time {
                self.fail(what, round, &differ, &expected, &found);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn fail(
        &self,
        what: &str,
        round: u64,
        differ: &[(&'static str, String)],
        expected: &Proxies,
        found: &Proxies,
    ) {
        let mut told = format!("{what}, round {round}, ZLMJ_SEED={}\n", self.seed);
        for of in differ {
            let (kind, key) = of;
            let stream = match *kind {
                "pull" => key.rsplit('/').next().map(str::to_owned),
                "push" => self.pushed(key),
                _ => Some("f".to_owned()),
            };
            let history = self.fixture.sqlite3(&format!(
                "select seq, op, origin, reason, args from journal where key = '{key}' order by seq desc limit 8"
            ));
            told += &format!(
                "{kind} {key}: expected {:?}, listed {:?}\njournal, newest first:\n{history}last replies:\n{}\n",
                expected.get(of),
                found.get(of),
                self.notes.last_of(&stream.unwrap_or_default())
            );
        }
        panic!("{told}");
    }

    /// What is not ours comes back as its owner brings it.
    fn publish(&mut self) {
        if self.publisher.is_none() || !self.fixture.server.has_stream("ext") {
            self.publisher = None;
            self.publisher = Some(Publisher::to(&self.fixture.server, "ext"));
        }
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn every_journaled_call_races_and_the_journal_ends_as_the_server_does() {
    let seconds = schedules::number("ZLMJ_SCHEDULES_SEC", 15);
    let seed = schedules::number("ZLMJ_SEED", fastrand::u64(..));
    support::say(&format!("races of every journaled call: {seconds} s, ZLMJ_SEED={seed}"));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut race = Race::start(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut round, mut most) = (0, 0);
    while round == 0 || Instant::now() < end {
        race.publish();
        race.with_ffmpeg = round % 4 == 1;
        race.run(&mut random);
        race.publish();
        let mut listed = race.assert_alike("journaled and listed differ", round, || race.journaled());
        most = most.max(listed.len());
        let lasting = |mut proxies: Proxies| {
            proxies.retain(|(_, key), _| !key.ends_with(UNWATCHED));
            proxies
        };
        listed = lasting(listed);
        let before = lasting(race.journaled());
        // A push whose stream was not there then may find it after the start.
        listed.extend(
            before.iter().filter(|((kind, _), _)| *kind == "push").map(|(of, url)| (of.clone(), url.clone())),
        );
        race.publisher = None;
        race.fixture.crash_and_restore();
        race.publish();
        race.assert_alike("after kill -9, what was listed and what is listed differ", round, || {
            let unwatched = race.journaled().into_iter().filter(|((_, key), _)| key.ends_with(UNWATCHED));
            listed.clone().into_iter().chain(unwatched).collect()
        });
        assert_eq!(
            before,
            lasting(race.journaled()),
            "a restart changes no intent: round {round}, ZLMJ_SEED={seed}"
        );
        round += 1;
    }
    let (calls, persisted) = (race.notes.calls.into_inner(), race.notes.persisted.into_inner());
    support::say(&format!(
        "races: {round} rounds, {calls} calls, {persisted} said to be on disk, up to {most} proxies at a quiet point, \
         no difference, ZLMJ_SEED={seed}"
    ));
    assert!(persisted > 0, "nothing was journaled");
}
