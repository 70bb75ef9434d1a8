//! The way to etcd: one member at a time, the next one when that fails, with a time limit on everything, and errors that
//! say what to do. Knows nothing of cameras.

use std::fs;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, GetOptions, Identity, KeyValue, PutOptions,
    TlsOptions, Txn, TxnOp, WatchOptions, WatchStream,
};
use tokio::time::timeout;

use crate::config::{self, Etcd};
use crate::model::{Keys, Meta, SCHEMA};
use crate::seal::Seal;
use crate::writes::{Write, json};

/// How long one member may take to answer before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// Keys in one answer.
const PAGE: i64 = 1_000;
/// And their bytes at most: a camera has 64 KiB.
const BYTES: usize = 128 << 20;

/// A key, its value and the revision of its last change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kv {
    pub key: String,
    pub value: Vec<u8>,
    pub rev: i64,
}

impl Kv {
    fn of(kv: &KeyValue) -> Self {
        let key = String::from_utf8_lossy(kv.key()).into_owned();
        Self { key, value: kv.value().to_vec(), rev: kv.mod_revision() }
    }
}

/// What a transaction asks before it writes.
#[derive(Clone, Debug)]
pub enum If {
    /// The last change of the key was at this revision; 0: there is no such key.
    Rev(String, i64),
    /// There is no such key.
    Absent(String),
    /// The key was created at this revision.
    Created(String, i64),
}

impl If {
    fn compare(&self) -> Compare {
        match self {
            Self::Rev(key, rev) => Compare::mod_revision(key.as_str(), CompareOp::Equal, *rev),
            Self::Absent(key) => Compare::version(key.as_str(), CompareOp::Equal, 0),
            Self::Created(key, rev) => Compare::create_revision(key.as_str(), CompareOp::Equal, *rev),
        }
    }
}

pub struct Store {
    pub keys: Keys,
    endpoints: Vec<String>,
    options: ConnectOptions,
    /// The member that answered last.
    current: AtomicUsize,
    clients: Vec<tokio::sync::Mutex<Option<Client>>>,
}

impl Store {
    pub fn new(fleet: &str, etcd: &Etcd) -> Result<Arc<Self>> {
        let read =
            |path: &std::path::Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let mut options = ConnectOptions::new()
            .with_connect_timeout(PATIENCE)
            .with_keep_alive(Duration::from_secs(2), PATIENCE)
            .with_auto_token_refresh(true);
        if let (Some(user), Some(file)) = (&etcd.user, &etcd.password_file) {
            options = options.with_user(user, config::secret(file)?);
        }
        if etcd.endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) {
            let mut tls = TlsOptions::new();
            if let Some(file) = &etcd.ca_file {
                tls = tls.ca_certificate(Certificate::from_pem(read(file)?));
            }
            if let (Some(cert), Some(key)) = (&etcd.cert_file, &etcd.private_key_file) {
                tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
            }
            options = options.with_tls(tls);
        }
        let clients = etcd.endpoints.iter().map(|_| tokio::sync::Mutex::new(None)).collect();
        let (keys, endpoints) = (Keys::new(fleet), etcd.endpoints.clone());
        Ok(Arc::new(Self { keys, endpoints, options, current: AtomicUsize::new(0), clients }))
    }

    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    async fn client(&self, at: usize) -> Result<Client, etcd_client::Error> {
        let (Some(slot), Some(endpoint)) = (self.clients.get(at), self.endpoints.get(at)) else {
            return Err(etcd_client::Error::InvalidArgs("no such member".to_owned()));
        };
        let mut slot = slot.lock().await;
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        let client = Client::connect([endpoint], Some(self.options.clone())).await?;
        *slot = Some(client.clone());
        Ok(client)
    }

    /// Asks one member after the other until one answers. What is asked must bear to be asked twice.
    pub async fn ask<T, F>(&self, within: Duration, ask: impl Fn(Client) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut last = None;
        for _ in 0..self.endpoints.len() {
            let at = self.current.load(Ordering::Relaxed) % self.endpoints.len().max(1);
            let endpoint = self.endpoints.get(at).map(String::as_str).unwrap_or_default();
            let answer = timeout(within, async { ask(self.client(at).await?).await }).await;
            let (error, is_final) = match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => (explain(&error), is_an_answer(&error)),
                Err(_) => (format!("no answer within {} ms", within.as_millis()), false),
            };
            if is_final {
                bail!("etcd ({endpoint}): {error}");
            }
            // A connection that fails is made anew the next time.
            if let Some(slot) = self.clients.get(at) {
                *slot.lock().await = None;
            }
            self.current.store(at + 1, Ordering::Relaxed);
            last = Some(format!("etcd ({endpoint}): {error}"));
        }
        bail!("{}", last.unwrap_or_else(|| "etcd.endpoints is empty".to_owned()))
    }

    /// Whether one member follows a leader, or is it: asked of that member alone, which knows it without the others.
    pub async fn has_leader(&self, at: usize, within: Duration) -> Result<bool> {
        let ask = async { self.client(at).await?.status().await };
        let answer = timeout(within, ask).await.context("no answer")?;
        if answer.is_err()
            && let Some(slot) = self.clients.get(at)
        {
            *slot.lock().await = None;
        }
        Ok(answer.map_err(broken)?.leader() != 0)
    }

    pub async fn get(&self, key: &str) -> Result<Option<Kv>> {
        let answer = self.ask(PATIENCE, |mut client| async move { client.get(key, None).await }).await?;
        Ok(answer.kvs().first().map(Kv::of))
    }

    /// What the member that is asked knows, be it a little old. It answers without the others.
    pub async fn get_here(&self, key: &str) -> Result<Option<Kv>> {
        let options = GetOptions::new().with_serializable();
        let answer = self
            .ask(PATIENCE, |mut client| {
                let options = options.clone();
                async move { client.get(key, Some(options)).await }
            })
            .await?;
        Ok(answer.kvs().first().map(Kv::of))
    }

    /// All under a prefix, at one revision, which comes with them.
    pub async fn list(&self, prefix: &str) -> Result<(Vec<Kv>, i64)> {
        self.list_at(prefix, 0).await
    }

    /// The same at an earlier revision.
    pub async fn list_at(&self, prefix: &str, revision: i64) -> Result<(Vec<Kv>, i64)> {
        let (mut all, mut revision, mut from) = (Vec::new(), revision, prefix.to_owned());
        let end = end_of(prefix);
        loop {
            let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE).with_revision(revision);
            let (first, wanted) = (from.clone(), options.clone());
            let answer = self
                .ask(PATIENCE * 5, |client| {
                    let (first, wanted) = (first.clone(), wanted.clone());
                    let mut kv = client.kv_client().max_decoding_message_size(BYTES);
                    async move { kv.get(first, Some(wanted)).await }
                })
                .await?;
            if revision == 0 {
                revision = answer.header().map_or(0, |header| header.revision());
            }
            all.extend(answer.kvs().iter().map(Kv::of));
            match answer.kvs().last() {
                Some(last) if answer.more() => from = format!("{}\0", String::from_utf8_lossy(last.key())),
                _ => return Ok((all, revision)),
            }
        }
    }

    /// Several keys, at one revision, which comes with them.
    pub async fn get_all(&self, keys: &[String]) -> Result<(Vec<Kv>, i64)> {
        let gets: Vec<TxnOp> = keys.iter().map(|key| TxnOp::get(key.as_str(), None)).collect();
        let answer = self
            .ask(PATIENCE * 2, |client| {
                let gets = gets.clone();
                let mut kv = client.kv_client().max_decoding_message_size(BYTES);
                async move { kv.txn(Txn::new().and_then(gets)).await }
            })
            .await?;
        let revision = answer.header().map_or(0, |header| header.revision());
        let mut found = Vec::new();
        for response in answer.op_responses() {
            if let etcd_client::TxnOpResponse::Get(get) = response {
                found.extend(get.kvs().iter().map(Kv::of));
            }
        }
        Ok((found, revision))
    }

    /// Writes if all holds. Some(revision) if it was written, None if something does not hold, and nothing was written. It is
    /// asked a second time where a member does not answer, so among the conditions must be one that the writes themselves
    /// end, or the writes must bear to be made twice.
    pub async fn write_if(&self, conditions: &[If], writes: &[Write], lease: Option<i64>) -> Result<Option<i64>> {
        let compares: Vec<Compare> = conditions.iter().map(If::compare).collect();
        let puts = || lease.map(|lease| PutOptions::new().with_lease(lease));
        let ops: Vec<TxnOp> = writes
            .iter()
            .map(|write| match write {
                Write::Put(key, value) => TxnOp::put(key.as_str(), value.as_slice(), puts()),
                Write::Delete(key) => TxnOp::delete(key.as_str(), None),
            })
            .collect();
        let answer = self
            .ask(PATIENCE * 2, |mut client| {
                let txn = Txn::new().when(compares.clone()).and_then(ops.clone());
                async move { client.txn(txn).await }
            })
            .await?;
        Ok(answer.succeeded().then(|| answer.header().map_or(0, |header| header.revision())))
    }

    pub async fn write(&self, writes: &[Write]) -> Result<()> {
        self.write_if(&[], writes, None).await.map(|_| ())
    }

    /// A connection to the member that answered last, whose streams that member ends when it has no leader: whoever only waits
    /// would wait for ever at a member that is cut off from the others.
    async fn led(&self) -> Result<Client> {
        let at = self.current.load(Ordering::Relaxed) % self.endpoints.len().max(1);
        let endpoint = self.endpoints.get(at).context("etcd.endpoints is empty")?;
        let options = self.options.clone().with_require_leader(true);
        let connected = timeout(PATIENCE, Client::connect([endpoint], Some(options))).await;
        let next = |error: String| {
            self.current.store(at + 1, Ordering::Relaxed);
            anyhow::anyhow!("etcd ({endpoint}): {error}")
        };
        match connected {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => Err(next(explain(&error))),
            Err(_) => Err(next("no answer".to_owned())),
        }
    }

    /// Follows what changes under a prefix from a revision on, for as long as the connection is kept.
    pub async fn watch(&self, prefix: &str, from: i64) -> Result<(Client, WatchStream)> {
        let options = WatchOptions::new().with_prefix().with_start_revision(from);
        let client = self.led().await?;
        let mut watch = client.watch_client().max_decoding_message_size(BYTES);
        match timeout(PATIENCE, watch.watch(prefix, Some(options))).await {
            Ok(Ok(stream)) => Ok((client, stream)),
            failed => {
                self.current.fetch_add(1, Ordering::Relaxed);
                match failed {
                    Ok(Err(error)) => Err(broken(error)),
                    _ => bail!("etcd does not answer"),
                }
            }
        }
    }

    /// Waits to be elected, for as long as that takes. The key that proves it, and its revision.
    pub async fn campaign(&self, value: &str, lease: i64) -> Result<(String, i64)> {
        let mut client = self.led().await?;
        let answer = client.campaign(self.keys.election(), value, lease).await;
        if answer.is_err() {
            self.current.fetch_add(1, Ordering::Relaxed);
        }
        let answer = answer.map_err(broken)?;
        let leader = answer.leader().context("etcd elected nobody")?;
        Ok((String::from_utf8_lossy(leader.key()).into_owned(), leader.rev()))
    }

    /// Makes sure that the prefix is this fleet's, in a form that this program knows.
    pub async fn join(&self, fleet: &str, seal: &Seal) -> Result<()> {
        let key = self.keys.meta();
        loop {
            let Some(found) = self.get(&key).await? else {
                let meta = Meta { schema: SCHEMA, fleet: fleet.to_owned(), probe: seal.probe()? };
                self.write_if(&[If::Absent(key.clone())], &[Write::Put(key.clone(), json(&meta))], None).await?;
                continue;
            };
            let schema = serde_json::from_slice::<serde_json::Value>(&found.value)
                .ok()
                .and_then(|meta| meta.get("schema")?.as_u64())
                .with_context(|| {
                    format!("{key} in etcd is not what this program writes: is the prefix another's?")
                })?;
            ensure!(
                schema <= u64::from(SCHEMA),
                "{key} in etcd has schema {schema}, and this program knows {SCHEMA}: a newer zlm-journal-fleet has \
                 written it; install that one here"
            );
            let meta: Meta = serde_json::from_slice(&found.value)
                .with_context(|| format!("{key} in etcd cannot be read: is the prefix another's?"))?;
            ensure!(
                meta.fleet == fleet,
                "{key} in etcd belongs to the fleet {:?}, and the configuration says {fleet:?}",
                meta.fleet
            );
            return seal.check(meta.probe.as_deref());
        }
    }
}

/// The key after all keys with this prefix.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// Whether another member would say the same.
fn is_an_answer(error: &etcd_client::Error) -> bool {
    use etcd_client::Error;
    match error {
        Error::GRpcStatus(status) => {
            let text = status.message();
            // tonic's codes as numbers: 3 invalid argument, 5 not found, 7 permission denied, 8 exhausted, 11 out of range.
            let code = i32::from(status.code());
            matches!(code, 3 | 5 | 7 | 8 | 11)
                && !text.contains("no leader")
                && !text.contains("too many requests")
        }
        Error::InvalidArgs(_) | Error::InvalidUri(_) => true,
        Error::LeaseKeepAliveError(text) => text.contains("not found"),
        _ => false,
    }
}

/// What went wrong, and what to do.
fn explain(error: &etcd_client::Error) -> String {
    let text = match error {
        etcd_client::Error::GRpcStatus(status) => status.message().to_owned(),
        error => error.to_string(),
    };
    let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    if has(&["database space exceeded", "NOSPACE"]) {
        "it is full (NOSPACE), and takes no writes; what plays goes on. Compact and defragment it, raise \
         --quota-backend-bytes, then run `etcdctl alarm disarm`"
            .to_owned()
    } else if has(&["authentication failed", "invalid user name or password"]) {
        "wrong user or password: see etcd.user and etcd.password_file".to_owned()
    } else if has(&["user name is empty"]) {
        "it wants a user: set etcd.user and etcd.password_file".to_owned()
    } else if has(&["permission denied"]) {
        "the user may not read and write the fleet's prefix: grant it (etcdctl role grant-permission --prefix)"
            .to_owned()
    } else if has(&["no leader", "request timed out", "lost quorum", "context deadline exceeded"]) {
        format!("it has no quorum: more than half of its members must run and reach each other ({text})")
    } else if has(&["required revision has been compacted"]) {
        "what was asked for is too old".to_owned()
    } else if has(&["tcp connect error", "transport error", "dns error"]) {
        "cannot be reached".to_owned()
    } else if has(&["h2 protocol error", "error reading a body", "operation was canceled"]) {
        "the connection broke".to_owned()
    } else {
        text
    }
}

/// An error of a stream, with what to do.
pub fn broken(error: etcd_client::Error) -> anyhow::Error {
    anyhow::anyhow!("etcd: {}", explain(&error))
}

/// Whether an answer says that the lease is gone, and not merely that nobody answers.
pub fn lease_is_gone(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    text.contains("lease not found") || text.contains("requested lease not found")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(end_of("/a/"), b"/a0");
        assert_eq!(end_of("\u{7f}"), vec![0x80]);
    }
}
