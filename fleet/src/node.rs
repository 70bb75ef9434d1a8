//! One node: holds its lease, gives its server what is placed on it, and stops all of that before the lease can end
//! without it.
//!
//! ```text
//!  lease granted or renewed at t          cameras may run here until t + lease - fence
//!  fence begins                           the server is told to stop, and ended if it does not
//!  t + lease at the earliest              etcd ends the lease; others may start these cameras
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use etcd_client::EventType;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::config::Node;
use crate::etcd::{self, If, lease_is_gone};
use crate::fence::fence;
use crate::leader;
use crate::lease::{self, Held};
use crate::model::{Args, Camera, NodeInfo, Placed, Report};
use crate::quorum::{self, Quorum};
use crate::server::{Refused, Synced};
use crate::shared::Shared;
use crate::writes::{Write, json};

/// Runs the node until it is told to end.
pub async fn run(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) -> Result<()> {
    let watching = tokio::spawn(look_after_server(shared.clone()));
    let mut first = true;
    while !*stop.borrow() {
        let joined = tokio::select! {
            joined = join(&shared, first) => joined,
            _ = stop.changed() => break,
        };
        let ended = match joined {
            Ok(lease) => {
                tokio::select! {
                    ended = hold(&shared, lease) => ended,
                    _ = stop.changed() => break,
                }
            }
            // The lease of an earlier start still counts: its cameras go on, and the guard watches over them.
            Err(error) if first && earlier(&shared).is_some() => {
                shared.is_wrong(&error);
                sleep(Duration::from_millis(300)).await;
                continue;
            }
            Err(error) => Err(error),
        };
        first = false;
        if let Err(error) = &ended {
            shared.is_wrong(error);
        }
        stop_cameras(&shared, "the lease is lost").await;
        let lease = shared.lease.swap(0, Ordering::SeqCst);
        give_up(&shared, lease).await;
        sleep(Duration::from_millis(500)).await;
    }
    watching.abort();
    // Who is stopped on purpose gives its cameras to others at once.
    stop_cameras(&shared, "the program ends").await;
    give_up(&shared, shared.lease.swap(0, Ordering::SeqCst)).await;
    Ok(())
}

async fn give_up(shared: &Shared, lease: i64) {
    if lease != 0 {
        let revoke =
            shared.store.ask(Duration::from_secs(1), |mut client| async move { client.lease_revoke(lease).await });
        if let Err(error) = revoke.await {
            log::warn!("the lease could not be given back, and ends by itself: {error:#}");
        }
    }
}

/// What an earlier start has left, if it still counts.
fn earlier(shared: &Shared) -> Option<Held> {
    shared.deadline.read().filter(|held| !held.is_over() && held.deadline > lease::now())
}

/// Becomes a node of the fleet. An earlier start whose lease still counts is continued: its cameras go on.
async fn join(shared: &Arc<Shared>, first: bool) -> Result<i64> {
    let node = &shared.node;
    let held = earlier(shared).filter(|_| first);
    if held.is_none() {
        stop_cameras(shared, "this node has no lease").await;
    }
    shared.store.join(&shared.config.fleet, &shared.seal).await?;
    quorum::check_members(&shared.store).await?;
    let sent = lease::now();
    let mut kept = None;
    if let Some(held) = &held {
        let id = held.lease;
        let renewed =
            shared.store.ask(patience(node), |mut client| async move { client.lease_keep_alive(id).await }).await;
        match renewed {
            Ok(_) => kept = Some(id),
            Err(error) if lease_is_gone(&error) => stop_cameras(shared, "the earlier lease is gone").await,
            Err(error) => return Err(error.context("the earlier lease cannot be continued just now")),
        }
    }
    let lease = match kept {
        Some(lease) => lease,
        None => {
            let ttl = i64::from(node.lease_sec);
            let granted =
                shared.store.ask(patience(node), |mut client| async move { client.lease_grant(ttl, None).await });
            granted.await?.id()
        }
    };
    let info = NodeInfo {
        instance: shared.instance.clone(),
        zone: node.zone.as_deref().map(Arc::from),
        capacity: node.capacity,
        public: node.public.clone(),
        api: node.api.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        lease_sec: node.lease_sec,
        fence_sec: node.fence_sec,
    };
    let key = shared.store.keys.node(&node.id);
    let condition = match shared.store.get(&key).await? {
        None => If::Absent(key.clone()),
        Some(found) => {
            let other: NodeInfo = serde_json::from_slice(&found.value).context("the node's key cannot be read")?;
            let is_ours = held.as_ref().is_some_and(|held| held.instance == other.instance);
            if !is_ours && other.instance != shared.instance {
                give_up(shared, lease).await;
                bail!(
                    "the node {} is there already, at {}: give this one another node.id, or wait for at most {} s if \
                     that one was killed",
                    node.id,
                    other.api,
                    other.lease_sec
                );
            }
            If::Rev(key.clone(), found.rev)
        }
    };
    shared.deadline.extend(lease, &shared.instance, deadline_of(node, sent))?;
    let write = [Write::Put(key, json(&info))];
    if shared.store.write_if(&[condition], &write, Some(lease)).await?.is_none() {
        give_up(shared, lease).await;
        bail!("the node {} has changed meanwhile: trying again", node.id);
    }
    shared.lease.store(lease, Ordering::SeqCst);
    log::info!("node {} is in the fleet {}, with lease {lease:x}", node.id, shared.config.fleet);
    Ok(lease)
}

fn deadline_of(node: &Node, sent: u64) -> u64 {
    sent + u64::from(node.lease_sec - node.fence_sec) * 1000
}

/// How long one try to renew may take: there are several before the deadline.
fn patience(node: &Node) -> Duration {
    ((node.lease() - node.fence()) / 6).max(Duration::from_millis(500))
}

/// Is a node of the fleet until the lease is lost.
async fn hold(shared: &Arc<Shared>, lease: i64) -> Result<()> {
    shared.is_well();
    let ended = tokio::select! {
        ended = renew(shared, lease) => ended,
        ended = forever(shared, "the cameras placed here", || follow_placed(shared.clone(), lease)) => ended,
        ended = forever(shared, "the nodes", || follow_nodes(shared.clone())) => ended,
        ended = forever(shared, "the leadership", || leader::campaign(shared.clone(), lease)) => ended,
        ended = server_is_gone(shared) => ended,
    };
    shared.is_leader.store(false, Ordering::SeqCst);
    ended
}

/// Does something anew when it fails, after a pause.
async fn forever<F: Future<Output = Result<()>>>(shared: &Shared, what: &str, act: impl Fn() -> F) -> Result<()> {
    loop {
        if let Err(error) = act().await {
            shared.is_wrong(&error.context(format!("{what} cannot be followed just now")));
            sleep(Duration::from_millis(500)).await;
        }
    }
}

async fn renew(shared: &Arc<Shared>, lease: i64) -> Result<()> {
    let node = &shared.node;
    let every = (node.lease() - node.fence()) / 3;
    loop {
        let sent = lease::now();
        let renewed = shared
            .store
            .ask(patience(node), |mut client| async move { client.lease_keep_alive(lease).await })
            .await;
        match renewed {
            Ok(_) => {
                // Who comes too late, as after a stop of the whole machine, has been stopped by the guard.
                let is_late = shared.deadline.left() == 0;
                shared.deadline.extend(lease, &shared.instance, deadline_of(node, sent))?;
                if is_late {
                    shared.look_again.notify_one();
                }
                if shared.goes_on_without_quorum.swap(false, Ordering::SeqCst) {
                    log::info!("etcd has a quorum again, and the lease is renewed");
                }
                sleep(every.saturating_sub(Duration::from_millis(lease::now() - sent))).await;
            }
            Err(error) if lease_is_gone(&error) => bail!("etcd has ended the lease of this node"),
            Err(error) => {
                let (looked, left) = (lease::now(), shared.deadline.left());
                if left == 0 {
                    return Err(error.context("the lease could not be renewed in time"));
                }
                // Once it was lost, each time: when it is back, all that is left is time for etcd to elect and to answer.
                let nearly = u64::try_from(patience(node).as_millis()).unwrap_or(u64::MAX) * 2 + 1000;
                let is_due = left < nearly || shared.goes_on_without_quorum.load(Ordering::SeqCst);
                if is_due && quorum::of(shared).await == Quorum::Lost && shared.deadline.left() > 0 {
                    // Whoever leads etcd after this moment gives all leases their whole time: see quorum.
                    shared.deadline.extend(lease, &shared.instance, deadline_of(node, looked))?;
                    if !shared.goes_on_without_quorum.swap(true, Ordering::SeqCst) {
                        log::error!("etcd has no quorum, so no lease can end: what plays goes on ({error:#})");
                    }
                }
                sleep(Duration::from_millis(300)).await;
            }
        }
    }
}

/// The nodes that live.
async fn follow_nodes(shared: Arc<Shared>) -> Result<()> {
    let prefix = shared.store.keys.nodes();
    let (all, revision) = shared.store.list(&prefix).await?;
    let name = |key: &str| key.strip_prefix(&prefix).unwrap_or(key).to_owned();
    *shared.nodes.lock() =
        all.iter().filter_map(|kv| Some((name(&kv.key), serde_json::from_slice(&kv.value).ok()?))).collect();
    let (_connection, mut stream) = shared.store.watch(&prefix, revision + 1).await?;
    while let Some(answer) = stream.message().await.map_err(etcd::broken)? {
        if answer.canceled() {
            bail!("etcd has ended the watch: {}", answer.cancel_reason());
        }
        let mut nodes = shared.nodes.lock();
        for event in answer.events() {
            let Some(kv) = event.kv() else { continue };
            let id = name(&String::from_utf8_lossy(kv.key()));
            match (event.event_type(), serde_json::from_slice(kv.value())) {
                (EventType::Put, Ok(info)) => drop(nodes.insert(id, info)),
                _ => drop(nodes.remove(&id)),
            }
        }
    }
    bail!("etcd has ended the watch")
}

/// What is placed here, and what it means for the server.
struct Given {
    lease: i64,
    placed: BTreeMap<String, (Placed, i64)>,
    /// Cameras as they were read, with their revision.
    cameras: BTreeMap<String, (Args, i64)>,
    /// What the server does not take, at which revision of the camera.
    refused: BTreeMap<String, i64>,
    revision: i64,
    /// What the leader was told of.
    reported: i64,
}

async fn follow_placed(shared: Arc<Shared>, lease: i64) -> Result<()> {
    let prefix = shared.store.keys.placed_on(&shared.node.id);
    let (all, revision) = shared.store.list(&prefix).await?;
    let name = |key: &str| key.strip_prefix(&prefix).unwrap_or(key).to_owned();
    let read = |value: &[u8]| serde_json::from_slice::<Placed>(value).unwrap_or_default();
    let placed = all.iter().map(|kv| (name(&kv.key), (read(&kv.value), kv.rev))).collect();
    let (cameras, refused) = (BTreeMap::new(), BTreeMap::new());
    let mut given = Given { lease, placed, cameras, refused, revision, reported: 0 };
    let (_connection, mut stream) = shared.store.watch(&prefix, revision + 1).await?;
    given.apply(&shared).await?;
    loop {
        let begins = given.placed.values().any(|(placed, _)| placed.overlaps && !placed.plays);
        let pause = if begins { Duration::from_millis(200) } else { Duration::from_secs(3600) };
        tokio::select! {
            answer = stream.message() => {
                let mut answer = answer.map_err(etcd::broken)?;
                // What comes at once is done at once.
                while let Some(now) = answer {
                    if now.canceled() {
                        bail!("etcd has ended the watch: {}", now.cancel_reason());
                    }
                    for event in now.events() {
                        let Some(kv) = event.kv() else { continue };
                        let key = name(&String::from_utf8_lossy(kv.key()));
                        given.revision = given.revision.max(kv.mod_revision());
                        match event.event_type() {
                            EventType::Put => drop(given.placed.insert(key, (read(kv.value()), kv.mod_revision()))),
                            EventType::Delete => drop(given.placed.remove(&key)),
                        }
                    }
                    answer = match timeout(Duration::from_millis(20), stream.message()).await {
                        Ok(more) => Some(more.map_err(etcd::broken)?.context("etcd has ended the watch")?),
                        Err(_) => None,
                    };
                }
                given.apply(&shared).await?;
            }
            () = sleep(pause) => given.tell_what_plays(&shared).await?,
            () = shared.look_again.notified() => {
                given.apply(&shared).await?;
            }
        }
    }
}

impl Given {
    async fn apply(&mut self, shared: &Shared) -> Result<()> {
        self.fetch(shared).await?;
        // If anybody changes the journal from here on, such as the guard while this program is stopped, nothing is done.
        let status = shared.server.status(Duration::from_secs(5)).await?;
        let seq = status.get("seq").and_then(Value::as_u64);
        let (items, sent) = match self.sync(shared, seq).await {
            // One that the server does not take must not hold up the others.
            Err(error) if error.is::<Refused>() => {
                self.find_refused(shared).await?;
                self.sync(shared, seq).await?
            }
            done => done?,
        };
        let Some(synced) = sent else {
            // It is tried again at once, with what the journal has now.
            shared.look_again.notify_one();
            return Ok(());
        };
        shared.seq.store(synced.seq, Ordering::SeqCst);
        let mut leaving: BTreeSet<String> = synced.removed.into_iter().collect();
        leaving.extend(shared.given.lock().iter().cloned());
        leaving.retain(|key| !items.contains(key));
        shared.server.wait_until_gone(leaving).await?;
        *shared.given.lock() = items;
        shared.placed.store(self.placed.len() as u64, Ordering::Relaxed);
        if self.reported != self.revision {
            let report =
                Write::Put(shared.store.keys.report(&shared.node.id), json(&Report { applied: self.revision }));
            shared.store.write_if(&[], &[report], Some(self.lease)).await?;
            self.reported = self.revision;
        }
        if self.refused.is_empty() {
            shared.is_well();
        }
        Ok(())
    }

    /// Tells the server what it should have: the keys, and what that has done, or None if somebody else was first.
    async fn sync(&self, shared: &Shared, seq: Option<u64>) -> Result<(BTreeSet<String>, Option<Synced>)> {
        let (mut items, mut keys) = (Vec::with_capacity(self.placed.len()), BTreeSet::new());
        for key in self.placed.keys().filter(|key| !self.refused.contains_key(*key)) {
            // One that is not wanted any more is taken from here soon.
            if let Some((args, _)) = self.cameras.get(key) {
                items.push(serde_json::to_value(args)?);
                keys.insert(key.clone());
            }
        }
        let left = shared.deadline.left();
        if left == 0 {
            bail!("the lease is over: nothing is started");
        }
        shared.given.lock().extend(keys.iter().cloned());
        let within = Duration::from_millis(left).min(Duration::from_secs(10));
        Ok((keys, shared.server.sync(&items, seq, within).await?))
    }

    /// Asks for each camera alone whether the server takes it.
    async fn find_refused(&mut self, shared: &Shared) -> Result<()> {
        for key in self.placed.keys() {
            let Some((args, rev)) = self.cameras.get(key) else { continue };
            match shared.server.takes(&serde_json::to_value(args)?).await {
                Ok(()) => drop(self.refused.remove(key)),
                Err(error) if error.is::<Refused>() => {
                    shared.is_wrong(&error.context(format!("{key} is not started")));
                    self.refused.insert(key.clone(), *rev);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what is placed here and not known yet.
    async fn fetch(&mut self, shared: &Shared) -> Result<()> {
        self.cameras.retain(|key, _| self.placed.contains_key(key));
        self.refused.retain(|key, rev| self.placed.get(key).is_some_and(|(placed, _)| placed.rev <= *rev));
        let is_new = |(key, (placed, _)): (&String, &(Placed, i64))| {
            self.cameras.get(key).is_none_or(|(_, rev)| *rev < placed.rev).then(|| key.clone())
        };
        let new: Vec<String> = self.placed.iter().filter_map(is_new).collect();
        for some in new.chunks(100) {
            let keys: Vec<String> = some.iter().map(|key| shared.store.keys.camera(key)).collect();
            let (found, _) = shared.store.get_all(&keys).await?;
            for kv in found {
                let prefix = shared.store.keys.cameras();
                let key = kv.key.strip_prefix(&prefix).unwrap_or(&kv.key).to_owned();
                let read = serde_json::from_slice::<Camera>(&kv.value)
                    .map_err(anyhow::Error::from)
                    .and_then(|camera| shared.seal.open(&key, &camera.args));
                match read {
                    Ok(args) => drop(self.cameras.insert(key, (args, kv.rev))),
                    // The others are none the worse for it.
                    Err(error) => shared.is_wrong(&error.context(format!("{key} cannot be read"))),
                }
            }
        }
        Ok(())
    }

    /// Says of those that are still elsewhere as well that they play here.
    async fn tell_what_plays(&mut self, shared: &Shared) -> Result<()> {
        let begun: Vec<_> =
            self.placed.iter().filter(|(_, (placed, _))| placed.overlaps && !placed.plays).collect();
        for (key, (placed, rev)) in begun {
            if shared.server.plays(key).await? {
                let plays = Placed { plays: true, ..*placed };
                let key = shared.store.keys.placed(&shared.node.id, key);
                // The watch brings it back.
                shared
                    .store
                    .write_if(&[If::Rev(key.clone(), *rev)], &[Write::Put(key, json(&plays))], None)
                    .await?;
            }
        }
        Ok(())
    }
}

/// Asks the server every second how it is. One that was started anew has nothing running (restore=off), until it is clear
/// whether this node still may have what its journal has.
async fn look_after_server(shared: Arc<Shared>) {
    let mut was_silent = false;
    loop {
        match shared.server.status(Duration::from_secs(2)).await {
            Ok(status) => {
                let phase = status.pointer("/restore/phase").and_then(Value::as_str).unwrap_or_default();
                let has_some = status.pointer("/proxies/enabled").and_then(Value::as_u64).unwrap_or_default() > 0;
                if phase == "off" && has_some {
                    restore(&shared, was_silent).await;
                } else if was_silent && matches!(phase, "running" | "done") && has_some {
                    log::warn!(
                        "MediaServer was started and restores its journal by itself, though others may have its cameras: \
                         set restore=off in [journal] of its config.ini, this program does the rest"
                    );
                }
                // Somebody has changed the journal, and may have changed what is the fleet's.
                let (seq, ours) = (status.get("seq").and_then(Value::as_u64), shared.seq.load(Ordering::SeqCst));
                if ours > 0 && seq.is_some_and(|seq| seq != ours) && shared.seq.load(Ordering::SeqCst) == ours {
                    shared.look_again.notify_one();
                }
                was_silent = false;
                *shared.status.lock() = (status, lease::now());
            }
            Err(error) => {
                was_silent = true;
                log::debug!("{error:#}");
            }
        }
        sleep(if was_silent { Duration::from_millis(200) } else { Duration::from_secs(1) }).await;
    }
}

/// Starts what the journal has: without the fleet's cameras if this node may not have them.
async fn restore(shared: &Arc<Shared>, is_news: bool) {
    if shared.deadline.left() == 0 {
        stop_cameras(shared, "MediaServer was started, and this node has no lease").await;
    }
    match shared.server.restore().await {
        Ok(()) if is_news => log::info!("MediaServer was started, and what its journal has is restored"),
        Ok(()) => {}
        Err(error) => log::error!("{error:#}"),
    }
}

/// Ends when the server has not answered for too long.
async fn server_is_gone(shared: &Shared) -> Result<()> {
    let limit = u64::try_from(shared.node.server_timeout().as_millis()).unwrap_or(u64::MAX);
    let began = lease::now();
    loop {
        let last = shared.status.lock().1.max(began);
        if lease::now().saturating_sub(last) > limit {
            return Err(anyhow!(
                "MediaServer at {} has not answered for {} s: its cameras are given to others",
                shared.node.server,
                shared.node.server_timeout_sec
            ));
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Returns once the server has none of the fleet's cameras, whatever that takes.
async fn stop_cameras(shared: &Arc<Shared>, why: &str) {
    let shared = shared.clone();
    let why = why.to_owned();
    let stop = move || {
        shared.placed.store(0, Ordering::Relaxed);
        shared.applied.store(0, Ordering::SeqCst);
        shared.seq.store(0, Ordering::SeqCst);
        let mut leaving = shared.given.lock().clone();
        fence(&shared.node, &shared.server, &why, &mut leaving, &shared.fences);
        shared.given.lock().clear();
        shared.deadline.end(&shared.instance);
    };
    if let Err(error) = tokio::task::spawn_blocking(stop).await {
        log::error!("stopping the cameras was broken off: {error}");
    }
}
