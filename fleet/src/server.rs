//! The MediaServer beside this program, by its journal's API.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::config::{self, Node};
use crate::lease;
use crate::model::LABEL;

/// How long a call may take that need not be quick.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct Server {
    base: Arc<str>,
    secret: Arc<str>,
    http: ureq::Agent,
}

/// MediaServer has answered, and said no.
#[derive(Debug)]
pub struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
        to.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// What a sync has done.
#[derive(Debug, Default)]
pub struct Synced {
    /// The journal's last change.
    pub seq: u64,
    pub removed: Vec<String>,
}

impl Server {
    pub fn new(node: &Node) -> Result<Self> {
        let secret = config::secret(&node.secret_file)?;
        let http =
            ureq::Agent::config_builder().http_status_as_error(false).max_idle_connections(2).build().new_agent();
        Ok(Self { base: node.server.as_str().into(), secret: secret.as_str().into(), http })
    }

    /// Blocks; see [`Server::call`].
    fn call_now(&self, api: &str, query: &[(&str, &str)], body: Option<&str>, within: Duration) -> Result<Value> {
        let url = format!("{}/index/api/{api}", self.base);
        let said = match body {
            None => {
                let get = self.http.get(&url).query_pairs(query.iter().copied());
                get.header("secret", &*self.secret).config().timeout_global(Some(within)).build().call()
            }
            Some(body) => {
                let post = self.http.post(&url).query_pairs(query.iter().copied());
                let post = post.header("secret", &*self.secret).header("Content-Type", "application/json");
                post.config().timeout_global(Some(within)).build().send(body)
            }
        };
        // Neither the error nor the URL shows the secret, which is a header.
        let mut said = said.with_context(|| format!("MediaServer at {} does not answer {api}", self.base))?;
        let text = said.body_mut().with_config().limit(256 << 20).read_to_string();
        let text = text.with_context(|| format!("MediaServer's answer to {api} was cut off"))?;
        let reply: Value = serde_json::from_str(&text).with_context(|| {
            format!("MediaServer's answer to {api} is not JSON: has it the journal ([journal] enable=1)?")
        })?;
        match reply.get("code").and_then(Value::as_i64) {
            Some(0) => Ok(reply),
            _ if reply.get("conflict") == Some(&Value::Bool(true)) => Ok(reply),
            Some(-100) => bail!("MediaServer refuses the secret: see node.secret_file"),
            _ => {
                let why = reply.get("msg").and_then(Value::as_str).unwrap_or("no reason");
                Err(Refused(format!("MediaServer refuses {api}: {why}")).into())
            }
        }
    }

    /// Without holding up other tasks.
    async fn call(
        &self,
        api: &str,
        query: &[(&str, &str)],
        body: Option<String>,
        within: Duration,
    ) -> Result<Value> {
        let this = self.clone();
        let api = api.to_owned();
        let query: Vec<(String, String)> =
            query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        tokio::task::spawn_blocking(move || {
            let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (&**name, &**value)).collect();
            this.call_now(&api, &query, body.as_deref(), within)
        })
        .await
        .context("the call was broken off")?
    }

    /// Makes what the journal has under the fleet's label these items. With `if_seq`, only if nobody else has changed it since:
    /// None then.
    pub async fn sync(&self, items: &[Value], if_seq: Option<u64>, within: Duration) -> Result<Option<Synced>> {
        let body = serde_json::to_string(items)?;
        let seq = if_seq.map(|seq| seq.to_string());
        let query: Vec<(&str, &str)> =
            [("label", LABEL)].into_iter().chain(seq.as_deref().map(|seq| ("if_seq", seq))).collect();
        let reply = self.call("syncJournal", &query, Some(body), within).await?;
        Ok((reply.get("conflict") != Some(&Value::Bool(true))).then(|| synced(&reply)))
    }

    /// Whether the journal would take an item. Changes nothing.
    pub async fn takes(&self, item: &Value) -> Result<()> {
        let query = [("label", LABEL), ("prune", "0"), ("dry_run", "1")];
        self.call("syncJournal", &query, Some(serde_json::to_string(&[item])?), PATIENCE).await.map(|_| ())
    }

    /// Ends all that the fleet has here, and `leaving`, which it may still have from an earlier try. Blocks, so that it needs
    /// no runtime. How many it were.
    pub fn stop_all(&self, leaving: &mut BTreeSet<String>, within: Duration) -> Result<usize> {
        let began = lease::now();
        let reply = self.call_now("syncJournal", &[("label", LABEL)], Some("[]"), within)?;
        let removed = synced(&reply).removed;
        let count = removed.len();
        leaving.extend(removed);
        while !leaving.is_empty() {
            let left = within.saturating_sub(Duration::from_millis(lease::now().saturating_sub(began)));
            if left.is_zero() {
                bail!("MediaServer has not stopped them within {} ms", within.as_millis());
            }
            if self.has_any(leaving, left)? {
                std::thread::sleep(Duration::from_millis(50));
            } else {
                leaving.clear();
            }
        }
        Ok(count)
    }

    /// Whether MediaServer itself still has one of these pulls.
    fn has_any(&self, keys: &BTreeSet<String>, within: Duration) -> Result<bool> {
        let reply = self.call_now("listStreamProxy", &[], None, within)?;
        let listed = reply.get("data").and_then(Value::as_array).into_iter().flatten();
        Ok(listed.filter_map(|proxy| proxy.get("key")?.as_str()).any(|key| keys.contains(key)))
    }

    /// Waits until MediaServer itself has none of these pulls any more.
    pub async fn wait_until_gone(&self, keys: BTreeSet<String>) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let this = self.clone();
        let wait = move || -> Result<()> {
            let began = lease::now();
            while this.has_any(&keys, PATIENCE)? {
                if lease::now().saturating_sub(began) > 10_000 {
                    bail!("MediaServer does not end pulls that its journal does not have any more");
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        };
        tokio::task::spawn_blocking(wait).await.context("the wait was broken off")?
    }

    pub async fn status(&self, within: Duration) -> Result<Value> {
        let reply = self.call("getJournalStatus", &[("limit", "1")], None, within).await?;
        Ok(reply.get("data").cloned().unwrap_or(Value::Null))
    }

    /// Has a server that was started with restore=off start what its journal has.
    pub async fn restore(&self) -> Result<()> {
        self.call("restoreJournal", &[], None, PATIENCE).await.map(|_| ())
    }

    /// Whether media of a pull flow.
    pub async fn plays(&self, key: &str) -> Result<bool> {
        let query = [("label", LABEL), ("prefix", key), ("live", "1"), ("limit", "10")];
        let reply = self.call("listJournal", &query, None, PATIENCE).await?;
        let listed = reply.get("data").and_then(Value::as_array).into_iter().flatten();
        let found = listed.into_iter().find(|entry| entry.get("key") == Some(&json!(key)));
        Ok(found.and_then(|entry| entry.pointer("/now/state")) == Some(&json!("playing")))
    }
}

fn synced(reply: &Value) -> Synced {
    let removed = reply.pointer("/data/removed").and_then(Value::as_array).into_iter().flatten();
    Synced {
        seq: reply.pointer("/journal/seq").and_then(Value::as_u64).unwrap_or_default(),
        removed: removed.filter_map(|key| key.as_str().map(str::to_owned)).collect(),
    }
}
