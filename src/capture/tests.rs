//! Effects against calls: in each test the server does something that its replies alone would not tell.

mod ours;
mod pushes;
mod states;

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;
use crate::model::{NamingRules, State as Wanted};
use crate::reconcile::{self, Added, Listed};
use crate::settings::Settings;

struct Bench {
    capture: Capture,
    journal: Arc<Journal>,
    _dir: tempfile::TempDir,
}

/// A client that notes what it is told.
struct Caller {
    id: u64,
    gone: Receiver<()>,
    done: Receiver<Outcome>,
}

struct Notes {
    go: std::sync::mpsc::Sender<()>,
    done: std::sync::mpsc::Sender<Outcome>,
}

impl Client for Notes {
    fn go(&self) {
        self.go.send(()).unwrap();
    }
    fn done(&self, _: Answer, outcome: Outcome, _: bool) {
        self.done.send(outcome).unwrap();
    }
}

impl Caller {
    fn outcome(&self) -> Outcome {
        self.done.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    fn waits(&self) -> bool {
        self.gone.try_recv().is_err()
    }

    fn is_persisted(&self) -> bool {
        let outcome = self.outcome();
        outcome.is_journaled && outcome.result.is_ok()
    }
}

/// What the server says with success and without.
fn answer(ok: bool) -> Answer {
    Answer::Replied(format!("{{\"code\": {}}}", if ok { 0 } else { -1 }).into_bytes())
}

const KEY: &str = "__defaultVhost__/live/a";

impl Bench {
    /// What the server does with it, which it has.
    fn does(&self, kind: Kind, key: &str) -> Listed {
        reconcile::Host::actual(&self.capture, &[&(kind, key.into())]).pop().flatten().unwrap()
    }

    fn new() -> Bench {
        Self::with(&[])
    }

    fn with(settings: &[(&str, &str)]) -> Bench {
        Self::of_a_server_that_tells_failures(true, settings)
    }

    fn of_a_server_that_tells_failures(tells_failures: bool, settings: &[(&str, &str)]) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j/p.db");
        let all = [&[("enable", "1"), ("path", path.to_str().unwrap())], settings].concat();
        let (settings, problems) = Settings::read(all, dir.path());
        assert!(problems.is_empty(), "{problems:?}");
        let journal = Arc::new(Journal::open(&settings).unwrap());
        let facts = HostFacts {
            rules: NamingRules::default(),
            server_id: String::new(),
            record_app: "record".into(),
            idle_answer: Duration::from_secs(10),
            tells_failures,
            protocols: [true, true, true, true, true, false],
        };
        Bench { capture: Capture::new(Arc::clone(&journal), facts), journal, _dir: dir }
    }

    fn open(&self, name: &str, args: &[(&str, &str)]) -> (Verdict, Option<Caller>) {
        let bytes: Vec<(&[u8], &[u8])> =
            args.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let request = Request { name, args: &bytes, caller: "10.0.0.1:1" };
        let ((go, gone), (told, done)) = (channel(), channel());
        let mut used = false;
        let client = || -> Box<dyn Client> {
            used = true;
            Box::new(Notes { go, done: told })
        };
        let verdict = self.capture.open(&request, client).unwrap();
        let (Verdict::Go { call: id, .. } | Verdict::Wait { call: id }) = verdict else {
            assert!(!used);
            return (verdict, None);
        };
        (verdict, Some(Caller { id, gone, done }))
    }

    fn call(&self, name: &str, args: &[(&str, &str)]) -> Caller {
        self.open(name, args).1.unwrap()
    }

    fn add(&self, url: &str, more: &[(&str, &str)]) -> Caller {
        let args = [("vhost", "__defaultVhost__"), ("app", "live"), ("stream", "a"), ("url", url)];
        self.call("addStreamProxy", &[&args, more].concat())
    }

    /// Added, playing, journaled.
    fn playing(&self, more: &[(&str, &str)]) {
        let add = self.add("rtsp://1", more);
        self.capture.made(Kind::Pull, KEY);
        self.capture.answered(add.id, answer(true));
        assert!(add.is_persisted());
        self.source(true);
    }

    /// The server has answered a close call and done all that this has queued.
    fn is_over(&self, close: &Caller, ok: bool) {
        self.capture.answered(close.id, answer(ok));
        self.capture.settled(close.id);
    }

    /// The reconciler starts it as change `seq` left it, by its call of that number.
    fn start(&self, call: u64, key: ProxyKey, seq: u64) {
        self.change(call, key, seq, Existing::Keep);
    }

    /// The same, where the server may have it already.
    fn change(&self, call: u64, key: ProxyKey, seq: u64, existing: Existing) {
        let (takes, setting, url) = Default::default();
        let add = Add { key, seq, existing, url, takes, setting, args: Vec::new() };
        reconcile::Host::add(&self.capture, call, add);
    }

    fn source(&self, is_there: bool) {
        for schema in ["rtsp", "rtmp"] {
            self.capture.stream_changed(schema, &stream("live", "a"), is_there);
        }
    }

    fn url(&self) -> Option<String> {
        let entry = self.journal.get(Kind::Pull, KEY).filter(|entry| entry.state == Wanted::Enabled)?;
        entry.args.read().get("url").map(str::to_owned)
    }

    fn state(&self) -> Option<Wanted> {
        self.journal.get(Kind::Pull, KEY).map(|entry| entry.state)
    }
}

fn stream(app: &str, stream: &str) -> Stream {
    Stream::new("", app, stream, &NamingRules::default())
}

#[test]
fn a_refused_forced_add_is_not_journaled() {
    let bench = Bench::new();
    bench.playing(&[]);
    let second = bench.add("rtsp://2", &[("force", "1")]);
    bench.capture.answered(second.id, answer(false));
    assert!(!second.outcome().is_journaled);
    assert_eq!(bench.url().unwrap(), "rtsp://1");
}

#[test]
fn forced_add_is_journaled_when_it_is_made_and_answered_when_the_server_answers() {
    let bench = Bench::new();
    let add = bench.add("rtsp://1", &[("force", "1")]);
    bench.capture.made(Kind::Pull, KEY);
    assert_eq!(bench.url().unwrap(), "rtsp://1");
    bench.journal.checkpoint().unwrap();
    assert!(add.done.try_recv().is_err());
    bench.capture.failed(Kind::Pull, KEY, "off");
    bench.capture.answered(add.id, answer(true));
    assert!(add.is_persisted());
    assert_ne!(bench.does(Kind::Pull, KEY), Listed::Playing);
}

#[test]
fn adds_of_one_key_go_through_one_at_a_time() {
    let bench = Bench::new();
    let first = bench.add("rtsp://1", &[]);
    let others = [bench.add("rtsp://2", &[]), bench.add("rtsp://3", &[])];
    assert!(others.iter().all(Caller::waits));
    bench.capture.made(Kind::Pull, KEY);
    // It goes on without the first being answered: no camera holds it up.
    assert!(!others[0].waits() && others[1].waits());
    bench.capture.answered(others[0].id, answer(false));
    assert!(!others[1].waits());
    bench.capture.answered(others[1].id, answer(false));
    bench.capture.answered(first.id, answer(true));
    assert!(first.is_persisted());
    assert!(others.iter().all(|other| !other.outcome().is_journaled));
    assert_eq!(bench.url().unwrap(), "rtsp://1");
    assert!(bench.capture.state.lock().is_idle(), "nothing is kept of what is over");
}

#[test]
fn a_success_after_the_proxy_was_replaced_is_not_journaled() {
    let bench = Bench::new();
    let first = bench.add("rtsp://1", &[]);
    bench.capture.made(Kind::Pull, KEY);
    let delete = bench.call("delStreamProxy", &[("key", KEY)]);
    bench.capture.ended(Kind::Pull, KEY, delete.id);
    bench.capture.answered(delete.id, answer(true));
    let second = bench.add("rtsp://2", &[("force", "1")]);
    bench.capture.made(Kind::Pull, KEY);
    bench.capture.answered(first.id, answer(true));
    assert!(first.outcome().result.is_err());
    bench.capture.answered(second.id, answer(true));
    assert!(second.is_persisted() && delete.is_persisted());
    assert_eq!(bench.url().unwrap(), "rtsp://2");
}

#[test]
fn failed_first_connect_forgets_nothing_that_was_wanted_before() {
    let bench = Bench::new();
    bench.playing(&[("retry_count", "0")]);
    bench.source(false);
    bench.capture.failed(Kind::Pull, KEY, "off");
    bench.capture.ended(Kind::Pull, KEY, 0);
    let again = bench.add("rtsp://2", &[("retry_count", "0")]);
    bench.capture.made(Kind::Pull, KEY);
    bench.capture.failed(Kind::Pull, KEY, "off");
    bench.capture.ended(Kind::Pull, KEY, 0);
    bench.capture.answered(again.id, answer(false));
    assert!(!again.outcome().is_journaled);
    assert_eq!(bench.url().unwrap(), "rtsp://1");
}

#[test]
fn delete_of_what_is_not_there_is_journaled_unless_somebody_has_added_it_since() {
    let bench = Bench::new();
    bench.playing(&[]);
    bench.capture.ended(Kind::Pull, KEY, 0);
    assert!(bench.url().is_some(), "the server's own doing");
    let delete = bench.call("delStreamProxy", &[("key", KEY)]);
    bench.capture.answered(delete.id, answer(true));
    assert!(delete.is_persisted());
    assert_eq!(bench.state(), None);

    let late = bench.call("delStreamProxy", &[("key", KEY)]);
    bench.playing(&[]);
    bench.capture.answered(late.id, answer(true));
    assert!(late.outcome().result.is_err());
    assert!(bench.url().is_some());
}

#[test]
fn close_call_counts_for_what_it_ends_however_late_and_however_it_is_answered() {
    for (name, ok) in [("close_streams", true), ("close_streams", false), ("close_stream", true)] {
        let bench = Bench::new();
        bench.playing(&[]);
        let args = [("schema", "rtsp"), ("vhost", "__defaultVhost__"), ("app", "live"), ("stream", "a")];
        let close = bench.call(name, &args);
        bench.capture.answered(close.id, answer(ok));
        assert!(close.done.try_recv().is_err(), "what it has queued has not run");
        bench.source(false);
        bench.capture.ended(Kind::Pull, KEY, 0);
        bench.capture.settled(close.id);
        assert!(close.is_persisted(), "{name}");
        assert_eq!(bench.state(), None, "{name}");
    }
}

#[test]
fn close_call_counts_for_nothing_else() {
    let bench = Bench::new();
    bench.playing(&[]);
    let others =
        [("app", "other"), ("stream", "b"), ("schema", "hls")].map(|arg| bench.call("close_streams", &[arg]));
    let over = bench.call("close_streams", &[]);
    bench.is_over(&over, true);
    assert!(!over.outcome().is_journaled, "there were viewers");
    bench.source(false);
    bench.capture.ended(Kind::Pull, KEY, 0);
    for call in &others {
        bench.is_over(call, true);
        assert!(!call.outcome().is_journaled);
    }
    assert!(bench.url().is_some());
}

#[test]
fn close_call_hits_also_where_the_end_of_an_older_source_is_told_late() {
    let bench = Bench::new();
    bench.playing(&[]);
    // It is that of the proxy before this one.
    bench.source(false);
    let close = bench.call("close_streams", &[("app", "live")]);
    bench.capture.ended(Kind::Pull, KEY, 0);
    bench.is_over(&close, false);
    assert!(close.is_persisted());
    assert_eq!(bench.state(), None);
}

#[test]
fn close_call_does_not_count_for_what_never_had_a_source() {
    let bench = Bench::new();
    let add = bench.add("rtsp://1", &[("force", "1"), ("retry_count", "0")]);
    bench.capture.made(Kind::Pull, KEY);
    let close = bench.call("close_streams", &[]);
    bench.capture.failed(Kind::Pull, KEY, "off");
    bench.capture.answered(add.id, answer(true));
    bench.capture.ended(Kind::Pull, KEY, 0);
    bench.is_over(&close, true);
    assert!(!close.outcome().is_journaled);
    assert!(bench.url().is_some());
}

#[test]
fn every_close_call_that_may_have_ended_it_waits_for_the_disk() {
    let bench = Bench::new();
    bench.playing(&[]);
    let calls = [("app", "live"), ("stream", "a")].map(|arg| bench.call("close_streams", &[arg]));
    bench.capture.ended(Kind::Pull, KEY, calls[1].id);
    for call in &calls {
        bench.is_over(call, true);
        assert!(call.is_persisted());
    }
    assert_eq!(bench.state(), None);
}

#[test]
fn ffmpeg_source_of_a_stream_that_was_there_before_is_closed_with_it() {
    let bench = Bench::new();
    let dst = "rtmp://localhost/live/a";
    let add = bench.call("addFFmpegSource", &[("src_url", "x"), ("dst_url", dst), ("timeout_ms", "1")]);
    let key = Kind::Ffmpeg.key_of(|_| dst);
    bench.capture.made(Kind::Ffmpeg, &key);
    bench.capture.answered(add.id, answer(true));
    let close = bench.call("close_streams", &[("stream", "a")]);
    bench.capture.ended(Kind::Ffmpeg, &key, 0);
    bench.is_over(&close, true);
    assert!(close.is_persisted() && !bench.journal.wants(Kind::Ffmpeg, &key, 0));
}

#[test]
fn force_is_read_as_the_server_reads_it() {
    for (value, forced) in [("1", true), ("2", true), ("TRUE", true), ("0", false), ("00", false), ("no", false)] {
        let bench = Bench::new();
        let add = bench.add("rtsp://1", &[("force", value)]);
        bench.capture.made(Kind::Pull, KEY);
        assert_eq!(bench.url().is_some(), forced, "{value}");
        bench.capture.answered(add.id, answer(true));
    }
}

#[test]
fn keys_that_read_alike_are_closed_by_their_parts() {
    let bench = Bench::new();
    let args = [("vhost", "__defaultVhost__"), ("app", "a/b"), ("stream", "c"), ("url", "rtsp://1")];
    let add = bench.call("addStreamProxy", &args);
    let key = "__defaultVhost__/a/b/c";
    bench.capture.made(Kind::Pull, key);
    bench.capture.answered(add.id, answer(true));
    bench.capture.stream_changed("rtsp", &stream("a/b", "c"), true);
    let close = bench.call("close_streams", &[("app", "a"), ("stream", "b/c")]);
    bench.capture.ended(Kind::Pull, key, 0);
    bench.is_over(&close, true);
    assert!(!close.outcome().is_journaled);
    assert!(bench.journal.wants(Kind::Pull, key, 0));
}

#[test]
fn end_for_lack_of_viewers_is_told_from_giving_up() {
    type What = fn(&Bench);
    let unwatched: What = |bench| bench.capture.nobody_watches(&stream("live", "a"));
    let failed: What = |bench| bench.capture.failed(Kind::Pull, KEY, "off");
    let lost: What = |bench| bench.source(false);
    let back: What = |bench| bench.source(true);
    let cases: [(&str, &[What], Option<Wanted>); 6] = [
        ("nobody watched", &[unwatched, lost], None),
        ("it failed, and then nobody watched", &[failed, unwatched, lost], None),
        ("nobody watched, and then it failed", &[unwatched, failed, lost], Some(Wanted::Enabled)),
        ("it failed", &[failed, lost], Some(Wanted::Enabled)),
        ("nobody watched, it was lost, and came back", &[unwatched, failed, lost, back], Some(Wanted::Enabled)),
        ("for no reason that we know", &[lost], Some(Wanted::Enabled)),
    ];
    for (name, events, state) in cases {
        let bench = Bench::new();
        bench.playing(&[("retry_count", "3")]);
        events.iter().for_each(|event| event(&bench));
        bench.capture.ended(Kind::Pull, KEY, 0);
        assert_eq!(bench.state(), state, "{name}");
    }
    // Without a limit it never gives up, whatever was heard of it last.
    let bench = Bench::new();
    bench.playing(&[]);
    [unwatched, failed].iter().for_each(|event| event(&bench));
    bench.capture.ended(Kind::Pull, KEY, 0);
    assert_eq!(bench.state(), None);
}

#[test]
fn settings_decide_what_the_servers_own_ends_do() {
    let idle = Bench::with(&[("on_idle_close", "dormant")]);
    idle.playing(&[]);
    idle.capture.nobody_watches(&stream("live", "a"));
    idle.capture.ended(Kind::Pull, KEY, 0);
    assert_eq!(idle.state(), Some(Wanted::Dormant));

    let given_up = Bench::with(&[("on_give_up", "forget")]);
    given_up.playing(&[("retry_count", "0")]);
    given_up.capture.failed(Kind::Pull, KEY, "off");
    given_up.capture.ended(Kind::Pull, KEY, 0);
    assert_eq!(given_up.state(), None);
}

#[test]
fn stream_of_the_record_app_is_closed_without_an_event() {
    let key = "foo/record/a";
    for (tells_failures, retry_count, fails, is_kept) in [
        (true, "-1", false, false),
        (true, "3", false, false),
        (true, "3", true, true),
        (false, "-1", false, false),
        (false, "3", false, false),
        (false, "3", true, true),
    ] {
        let bench = Bench::of_a_server_that_tells_failures(tells_failures, &[]);
        let args = [
            ("vhost", "foo"),
            ("app", "record"),
            ("stream", "a"),
            ("url", "rtsp://1"),
            ("retry_count", retry_count),
        ];
        let add = bench.call("addStreamProxy", &args);
        bench.capture.made(Kind::Pull, key);
        bench.capture.answered(add.id, answer(true));
        bench.capture.stream_changed("rtsp", &stream("record", "a"), true);
        if fails {
            bench.capture.failed(Kind::Pull, key, "off");
        }
        bench.capture.ended(Kind::Pull, key, 0);
        let case = format!("{tells_failures}, {retry_count}, {fails}");
        assert_eq!(bench.journal.wants(Kind::Pull, key, 0), is_kept, "{case}");
    }
}

#[test]
fn pull_that_is_given_another_name_is_closed_by_either() {
    for name in ["a", "b"] {
        let bench = Bench::new();
        bench.playing(&[("stream_replace", "b")]);
        let close = bench.call("close_stream", &[("app", "live"), ("stream", name)]);
        bench.capture.ended(Kind::Pull, KEY, 0);
        bench.is_over(&close, true);
        assert!(close.is_persisted() && bench.url().is_none(), "{name}");
    }
    let bench = Bench::new();
    bench.playing(&[("stream_replace", "b")]);
    bench.capture.nobody_watches(&stream("live", "b"));
    bench.capture.ended(Kind::Pull, KEY, 0);
    assert!(bench.url().is_none(), "closed for lack of viewers");
}

#[test]
fn forced_add_counts_though_the_server_drops_it_after_it_was_made() {
    let bench = Bench::new();
    bench.playing(&[]);
    bench.capture.ended(Kind::Pull, KEY, 0);
    let dropped = bench.add("rtsp://2", &[("force", "1")]);
    bench.capture.made(Kind::Pull, KEY);
    bench.capture.answered(dropped.id, answer(false));
    assert!(dropped.is_persisted());
    assert_eq!(bench.url().unwrap(), "rtsp://2");
}

#[test]
fn every_open_call_is_told_of_the_end() {
    let bench = Bench::new();
    let through = bench.add("rtsp://1", &[("force", "1")]);
    let waits = bench.add("rtsp://2", &[]);
    let close = bench.call("close_streams", &[]);
    bench.capture.made(Kind::Pull, KEY);
    bench.journal.close();
    bench.capture.close();
    assert!(through.is_persisted());
    assert!(!waits.outcome().is_journaled && !close.outcome().is_journaled);
    // Answers that come now are nobody's.
    bench.capture.answered(through.id, answer(true));
    let request = Request { name: "delStreamProxy", args: &[(b"key", b"k")], caller: "10.0.0.1:1" };
    let nobody = || -> Box<dyn Client> { unreachable!() };
    assert!(matches!(bench.capture.open(&request, nobody), Ok(Verdict::Pass)));
}

#[test]
fn call_that_is_dropped_without_an_answer_holds_up_nobody() {
    let bench = Bench::new();
    let dropped = bench.add("rtsp://1", &[]);
    let next = bench.add("rtsp://2", &[]);
    bench.capture.answered(dropped.id, answer(false));
    assert!(!dropped.outcome().is_journaled && !next.waits());
}

#[test]
fn what_is_no_call_of_ours_passes() {
    let bench = Bench::new();
    for (name, args) in [
        ("getMediaList", &[("app", "live")][..]),
        ("addStreamProxy", &[("app", "live")]),
        ("addStreamProxy", &[("vhost", ""), ("app", "live"), ("stream", "a"), ("url", "rtsp://1")]),
        ("delStreamProxy", &[]),
    ] {
        assert!(matches!(bench.open(name, args).0, Verdict::Pass), "{name}");
    }
}

/// Hours of an hour that begins so many hours from now.
fn hours_in(hours: i64) -> String {
    let minutes = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 60;
    let begin = (minutes as i64 + hours * 60).rem_euclid(24 * 60);
    let end = (begin + 60) % (24 * 60);
    format!("{:02}:{:02}-{:02}:{:02} @ UTC", begin / 60, begin % 60, end / 60, end % 60)
}

#[test]
fn an_add_outside_of_its_hours_is_journaled_and_not_passed_to_the_server() {
    let bench = Bench::new();
    let hours = hours_in(3);
    let add = bench.add("rtsp://1", &[("journal_hours", &hours)]);
    assert!(add.is_persisted() && add.gone.try_recv().is_err(), "it is answered, and the server has not got it");
    assert_eq!(bench.url().unwrap(), "rtsp://1");
    assert!(!bench.journal.is_due(Kind::Pull, KEY, 0) && bench.journal.wants(Kind::Pull, KEY, 0));
    assert!(bench.capture.state.lock().is_idle());
    let again = bench.add("rtsp://2", &[("journal_hours", &hours)]);
    assert!(again.is_persisted() && again.gone.try_recv().is_err());
    assert_eq!(bench.url().unwrap(), "rtsp://2", "as nothing is there, the last add counts");
    let delete = bench.call("delStreamProxy", &[("key", KEY)]);
    bench.capture.answered(delete.id, answer(true));
    assert!(delete.is_persisted());
    assert_eq!(bench.state(), None);

    bench.playing(&[("journal_hours", &hours_in(0))]);
    assert!(bench.journal.is_due(Kind::Pull, KEY, 0));
    let late = bench.add("rtsp://3", &[("journal_hours", &hours)]);
    // Whoever came first wins: the server has it, and refuses.
    bench.capture.answered(late.id, answer(false));
    assert!(!late.outcome().is_journaled);
    assert_eq!(bench.url().unwrap(), "rtsp://1");
}

#[test]
fn an_add_that_asks_the_journal_for_what_it_cannot_do_is_refused() {
    let bench = Bench::new();
    for (name, value) in [("journal_hours", "always"), ("Journal_Hour", "08:00-18:00")] {
        let args = [("vhost", "v"), ("app", "live"), ("stream", "a"), ("url", "rtsp://1"), (name, value)];
        let bytes = args.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let request = Request { name: "addStreamProxy", args: &bytes, caller: "10.0.0.1:1" };
        let refused = bench.capture.open(&request, || unreachable!("nothing is waited for"));
        assert!(refused.unwrap_err().message.contains(name));
    }
    assert_eq!(bench.state(), None);
}
