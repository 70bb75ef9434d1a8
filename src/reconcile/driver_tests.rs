//! The thread that carries the plan out, with servers that are a few lines each.

use super::*;
use crate::model::{Args, ProxyKey};
use crate::reconcile::Add;
use crate::settings::RestoreMode;

/// A server that refuses all adds with the words of a real one.
#[derive(Default)]
struct Refusing(Mutex<Option<Arc<Handle>>>);

impl Host for Refusing {
    fn add(&self, call: u64, _: Add) {
        let why = "illegal rtsp url:parse port from url failed:admin:pa".to_owned();
        self.0.lock().as_ref().unwrap().tell(Event::Added(call, Added::Failed(why)));
    }
    fn remove(&self, _: ProxyKey) {}
    fn expect(&self, _: usize) {}
    fn actual(&self, keys: &[&ProxyKey]) -> Vec<Option<Listed>> {
        vec![None; keys.len()]
    }
}

/// A server that has all that is even already, and takes nothing more.
struct Half;

impl Host for Half {
    fn expect(&self, _: usize) {}
    fn add(&self, _: u64, _: Add) {}
    fn remove(&self, _: ProxyKey) {}
    fn actual(&self, keys: &[&ProxyKey]) -> Vec<Option<Listed>> {
        let is_there = |key: &&ProxyKey| key.1.parse::<usize>().unwrap().is_multiple_of(2);
        keys.iter().map(|key| is_there(key).then_some(Listed::Playing)).collect()
    }
}

/// So many cameras.
struct Cameras(u64);

impl Intent for Cameras {
    fn wanted(&self) -> Box<dyn Iterator<Item = Wanted> + '_> {
        let url = b"rtsp://admin:pa/ss@10.0.0.1/c".as_slice();
        let args = Args::from_pairs([(b"url".as_slice(), url)]).unwrap();
        Box::new((1..=self.0).map(move |seq| {
            let key = (Kind::Pull, seq.to_string().into());
            Wanted { key, seq, args: args.clone(), crashes: 0, dark_since: None }
        }))
    }
    fn count(&self) -> usize {
        self.0 as usize
    }
    fn wants(&self, _: &ProxyKey) -> Option<Wanted> {
        self.wanted().next()
    }
    fn add(&self, key: &ProxyKey, seq: u64, existing: Existing, _: Option<String>) -> Option<Add> {
        let (takes, setting) = Default::default();
        Some(Add { key: key.clone(), seq, existing, url: String::new(), takes, setting, args: Vec::new() })
    }
    fn note_url(&self, _: &ProxyKey, _: u64, _: UsedUrl) -> Option<u64> {
        None
    }
    fn turned(&self) -> Vec<ProxyKey> {
        Vec::new()
    }
    fn acquit(&self, _: &ProxyKey, _: u64) {}
    fn set_aside(&self, _: &ProxyKey, _: u64, _: &str) -> bool {
        false
    }
    fn release(&self, _: u32) -> Vec<ProxyKey> {
        Vec::new()
    }
    fn dark(&self, _: Vec<(u64, i64)>) {}
    fn now_ms(&self) -> i64 {
        1
    }
}

const LIMITS: Limits = Limits {
    mode: RestoreMode::Eager,
    per_second: 1000,
    per_origin: 0,
    processes: 0,
    revive: Duration::ZERO,
    failover: Duration::from_secs(10),
    seed: 1,
};

#[test]
fn all_are_compared_however_many_pages_they_fill() {
    for count in [0, PAGE as u64 - 1, PAGE as u64, 2 * PAGE as u64 + 1] {
        let handle = start(Arc::new(Half), Arc::new(Cameras(count)), LIMITS, NamingRules::default()).unwrap();
        handle.tell(Event::Begin);
        while handle.shared.plan.lock().wake_to_look() == Duration::ZERO {
            thread::sleep(Duration::from_millis(1));
        }
        let Progress { total, present, .. } = handle.shown(None, 0).progress;
        handle.stop();
        assert_eq!((total as u64, present as u64), (count, count / 2));
    }
}

#[test]
fn what_the_server_says_is_told_without_the_password_of_the_proxy() {
    let host = Arc::new(Refusing::default());
    let (server, intent) = (Arc::clone(&host) as Arc<dyn Host>, Arc::new(Cameras(1)));
    let handle = Arc::new(start(server, intent, LIMITS, NamingRules::default()).unwrap());
    *host.0.lock() = Some(Arc::clone(&handle));
    handle.tell(Event::Begin);
    let shown = loop {
        let shown = handle.shown(None, 10);
        if shown.last_error.is_some() && !shown.troubles.is_empty() && shown.finished {
            break shown;
        }
        thread::sleep(Duration::from_millis(1));
    };
    handle.stop();
    *host.0.lock() = None;
    let said = "illegal rtsp url:parse port from url failed:***:***";
    assert_eq!(shown.last_error.as_deref(), Some(said));
    let all = [&shown.troubles.first().unwrap().last_error, &shown.worst.first().unwrap().last_error];
    assert_eq!(all, [said, said]);
}

/// A server that has all, and of which all does the same.
struct Alike(Mutex<Listed>);

impl Host for Alike {
    fn expect(&self, _: usize) {}
    fn add(&self, _: u64, _: Add) {}
    fn remove(&self, _: ProxyKey) {}
    fn actual(&self, keys: &[&ProxyKey]) -> Vec<Option<Listed>> {
        vec![Some(self.0.lock().clone()); keys.len()]
    }
}

#[test]
fn media_that_have_gone_again_are_no_news() {
    for (does_by_then, playing) in [(Listed::Connecting, 0), (Listed::Playing, 1)] {
        let host = Arc::new(Alike(Mutex::new(Listed::Connecting)));
        let server = Arc::clone(&host) as Arc<dyn Host>;
        let handle = start(server, Arc::new(Cameras(1)), LIMITS, NamingRules::default()).unwrap();
        handle.tell(Event::Begin);
        while handle.shared.plan.lock().wake_to_look() == Duration::ZERO {
            thread::sleep(Duration::from_millis(1));
        }
        *host.0.lock() = does_by_then;
        handle.tell(Event::MediaChanged((Kind::Pull, "1".into())));
        // It stops when it has heard all that was said before, and looks no more.
        handle.stop();
        assert_eq!(handle.shown(None, 0).now.playing, playing);
    }
}
