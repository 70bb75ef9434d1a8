//! The table of API calls and the threads that carry them out: never media threads, since most calls wait for the disk.
//! Knows nothing of HTTP.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Reply, Request, exchange, file, history, list, metrics, proxies, status, sync, versions};
use crate::alerts;
use crate::error::{Code, Error, Result};
use crate::plugin::{Background, Plugin};

struct Route {
    name: &'static str,
    handler: fn(&Plugin, &Request<'_>) -> Result<Reply>,
    lane: fn(&Router) -> &Lane,
}

const ROUTES: &[Route] = &[
    Route { name: "addStreamProxies", handler: proxies::add, lane: |router| &router.write },
    Route { name: "delStreamProxies", handler: proxies::remove, lane: |router| &router.write },
    Route { name: "exportJournal", handler: exchange::export, lane: |router| &router.memory },
    Route { name: "getJournalHistory", handler: history::history, lane: |router| &router.read },
    Route { name: "getJournalMetrics", handler: metrics::page, lane: |router| &router.memory },
    Route { name: "getJournalStatus", handler: status::status, lane: |router| &router.memory },
    Route { name: "importJournal", handler: exchange::import, lane: |router| &router.write },
    Route { name: "listJournal", handler: list::entries, lane: |router| &router.memory },
    Route { name: "listJournalSnapshots", handler: versions::snapshots, lane: |router| &router.read },
    Route { name: "restoreJournal", handler: proxies::restore, lane: |router| &router.memory },
    Route { name: "rollbackJournal", handler: versions::rollback, lane: |router| &router.read },
    Route { name: "setJournalState", handler: proxies::set_state, lane: |router| &router.write },
    Route { name: "syncJournal", handler: sync::sync, lane: |router| &router.write },
    Route { name: "takeJournalSnapshot", handler: versions::take, lane: |router| &router.read },
    Route { name: "updateStreamProxy", handler: proxies::update, lane: |router| &router.write },
];

/// The names of all calls. They are matched ignoring case.
pub fn names() -> impl Iterator<Item = &'static str> {
    ROUTES.iter().map(|route| route.name)
}

/// Carries out a call on this thread.
pub fn answer(plugin: &Plugin, name: &str, request: &Request<'_>) -> Reply {
    let answered = route(name).and_then(|route| (route.handler)(plugin, request));
    answered.unwrap_or_else(|error| Reply::failure(&error))
}

fn route(name: &str) -> Result<&'static Route> {
    let route = ROUTES.iter().find(|route| route.name.eq_ignore_ascii_case(name));
    route.ok_or_else(|| Error::invalid(format!("{name} is not an API call of this version")))
}

/// A call with copies of everything that it needs.
pub struct Call {
    /// The name, in any case. An unknown one is answered with a failure.
    pub name: String,
    /// The arguments, from URL and body.
    pub args: Vec<(String, String)>,
    /// The body as it came.
    pub body: Vec<u8>,
    /// `ip:port`.
    pub caller: String,
    /// Where the reply goes.
    pub reply: ReplyTo,
}

/// Takes the reply to a call exactly once, on any thread. If it is dropped unused, it sends a failure, so no client is
/// left waiting.
pub struct ReplyTo(Option<SendReply>);

type SendReply = Box<dyn FnOnce(&Reply) + Send>;

impl ReplyTo {
    /// Calls `reply` once, on the thread that answers or drops the call. It must not block.
    pub fn new(reply: impl FnOnce(&Reply) + Send + 'static) -> ReplyTo {
        ReplyTo(Some(Box::new(reply)))
    }

    /// Sends this reply.
    pub fn send(mut self, reply: &Reply) {
        if let Some(to) = self.0.take() {
            to(reply);
        }
    }

    /// Sends a failure with this error.
    pub fn fail(self, error: &Error) {
        self.send(&Reply::failure(error));
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        if let Some(to) = self.0.take() {
            to(&Reply::failure(&Error::new(Code::Closed, "this call was not completed: see the log")));
        }
    }
}

/// Carries out calls on a few threads, in lanes, so that slow calls do not delay others.
pub struct Router {
    /// The journal that the calls are about.
    pub plugin: Arc<Plugin>,
    /// For calls that need no disk: they are answered even if the disk is stuck.
    memory: Lane,
    /// For calls that read files, which may take seconds.
    read: Lane,
    /// For calls that wait until their changes are on disk.
    write: Lane,
    /// `None` if the thread could not be started.
    _file: Option<Background>,
    _alerts: Option<Background>,
}

impl Router {
    /// Starts the threads. Not to be called on a poller of MediaServer, whose real-time priority and processor they
    /// would inherit.
    pub fn new(plugin: Arc<Plugin>) -> Router {
        // More than one each: exporting 100,000 entries must not delay the status.
        let watched = file::watch(Arc::clone(&plugin));
        let file = watched.inspect_err(|error| log::error!("journal: the file is not watched: {error}")).ok();
        let started = alerts::start(Arc::clone(&plugin));
        let alerts = started.inspect_err(|error| log::error!("journal: no alerts: {error}")).ok();
        Router {
            plugin,
            memory: Lane::new(2),
            read: Lane::new(2),
            write: Lane::new(4),
            _file: file,
            _alerts: alerts,
        }
    }

    /// Returns at once. If the queue is full or closed, the call is answered with the reason.
    pub fn call(&self, call: Call) {
        // An unknown call is refused, which needs no disk.
        let lane = route(&call.name).map_or(&self.memory, |route| (route.lane)(self));
        let plugin = Arc::clone(&self.plugin);
        lane.submit(call.reply, move |reply| {
            let request = Request { args: &call.args, body: &call.body, caller: &call.caller };
            reply.send(&answer(&plugin, &call.name, &request));
        });
    }

    /// Takes no more calls, and waits up to `patience` for running ones. Returns false if some are still running.
    pub fn close(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let closed = [&self.memory, &self.read, &self.write].map(|lane| lane.close(until));
        closed.iter().all(|is_done| *is_done)
    }
}

type Work = (ReplyTo, Box<dyn FnOnce(ReplyTo) + Send>);

/// A few threads with one queue.
struct Lane {
    /// `None` if it is closed or has no threads.
    queue: Mutex<Option<SyncSender<Work>>>,
    /// Disconnected once the threads have answered all calls and ended; nothing is ever sent.
    ended: Mutex<Receiver<()>>,
}

impl Lane {
    /// The maximum number of calls that wait for a thread.
    const QUEUE: usize = 64;

    fn new(threads: usize) -> Lane {
        let (queue, jobs) = sync_channel(Self::QUEUE);
        let (running, ended) = channel();
        let jobs = Arc::new(Mutex::new(jobs));
        let lane = Lane { queue: Mutex::new(None), ended: Mutex::new(ended) };
        for _ in 0..threads {
            let (jobs, running) = (Arc::clone(&jobs), running.clone());
            let worker = thread::Builder::new().name("zlmj-api".to_owned());
            match worker.spawn(move || work(&jobs, running)) {
                Ok(_) => *lane.queue.lock() = Some(queue.clone()),
                Err(error) => log::error!("journal: cannot start a thread for API calls: {error}"),
            }
        }
        lane
    }

    fn submit(&self, reply: ReplyTo, job: impl FnOnce(ReplyTo) + Send + 'static) {
        let Some(queue) = self.queue.lock().clone() else {
            return reply.fail(&Error::new(Code::Closed, "the journal is closed: the server is stopping"));
        };
        if let Err(TrySendError::Full((reply, _)) | TrySendError::Disconnected((reply, _))) =
            queue.try_send((reply, Box::new(job)))
        {
            reply.fail(&Error::new(Code::Busy, format!("{} API calls are waiting: try again later", Self::QUEUE)));
        }
    }

    fn close(&self, until: Instant) -> bool {
        *self.queue.lock() = None;
        let patience = until.saturating_duration_since(Instant::now());
        self.ended.lock().recv_timeout(patience) == Err(RecvTimeoutError::Disconnected)
    }
}

/// Holds `running` until the queue is closed and every call in it is answered.
fn work(jobs: &Mutex<Receiver<Work>>, _running: Sender<()>) {
    loop {
        let next = jobs.lock().recv();
        let Ok((reply, job)) = next else { return };
        if catch_unwind(AssertUnwindSafe(move || job(reply))).is_err() {
            log::error!("journal: an API call failed because of a bug in zlm-journal");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use serde_json::{Value, json};

    use super::*;

    fn lane_with(threads: usize) -> (Lane, mpsc::Sender<String>, mpsc::Receiver<String>) {
        let (told, replies) = mpsc::channel();
        (Lane::new(threads), told, replies)
    }

    fn to(told: &mpsc::Sender<String>) -> ReplyTo {
        let told = told.clone();
        ReplyTo::new(move |reply| drop(told.send(reply.body.clone())))
    }

    fn good() -> Reply {
        Reply::json(&json!({"code": 0}))
    }

    #[test]
    fn lane_answers_every_call() {
        let (lane, told, replies) = lane_with(1);
        let (go, gate) = mpsc::channel::<()>();
        lane.submit(to(&told), move |reply| {
            gate.recv().unwrap();
            reply.send(&good());
        });
        lane.submit(to(&told), |_| panic!("a defect"));
        for _ in 0..2 * Lane::QUEUE {
            lane.submit(to(&told), |reply| reply.send(&good()));
        }
        // The queue is full, and says so at once; the rest is answered when the first is.
        let full: Vec<String> = replies.try_iter().collect();
        assert!(
            full.len() > Lane::QUEUE && full.iter().all(|reply| reply.contains("try again later")),
            "{full:?}"
        );
        assert!(!lane.close(Instant::now()));
        go.send(()).unwrap();
        assert!(lane.close(Instant::now() + Duration::from_secs(10)));
        lane.submit(to(&told), |reply| reply.send(&good()));
        drop(told);
        let rest: Vec<String> = replies.iter().collect();
        assert_eq!(full.len() + rest.len(), 3 + 2 * Lane::QUEUE);
        assert_eq!(rest.iter().filter(|reply| reply.contains("not completed")).count(), 1);
        assert_eq!(rest.iter().filter(|reply| reply.contains("is stopping")).count(), 1);
    }

    #[test]
    fn routes_are_sorted_and_documented() {
        let page = include_str!("../../docs/api.md");
        let postman: Value =
            serde_json::from_str(include_str!("../../docs/zlm-journal.postman_collection.json")).unwrap();
        assert!(names().is_sorted());
        for name in names() {
            let section = page.split("\n## ").find(|section| section.starts_with(name)).expect(name);
            assert!(section.contains(&format!("/index/api/{name}?secret=…")), "{name} has no request");
            if name != "getJournalMetrics" {
                let reply = section.split("```json\n").nth(1).expect(name).split("```").next().unwrap();
                let reply: Value = serde_json::from_str(reply).expect(name);
                assert_eq!(reply["code"], 0, "{name}");
            }
            let mut items = postman["item"].as_array().unwrap().iter();
            assert!(items.any(|item| item["name"] == name), "{name} in Postman's");
        }
        // Sections about more than one call have a title in words, with a capital letter.
        let sections = page.split("\n## ").skip(1).filter_map(|section| section.split_whitespace().next());
        for section in sections.filter(|title| title.starts_with(char::is_lowercase)) {
            assert!(names().any(|name| name == section), "docs/api.md has {section}, which is no API call");
        }
    }
}
