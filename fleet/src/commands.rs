//! What operators do to a fleet and see of it: the same for the terminal and over HTTP.

use std::cmp::Reverse;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use zlm_journal::model::redact_arg;

use crate::config;
use crate::etcd::Store;

use crate::model::{self, Moved, NodeInfo, Rebalance, Where};
use crate::seal::Seal;
use crate::seen::Leading;
use crate::wanted;
use crate::writes::{Write, json};

/// What is wanted, as items for sync, with the revision for `if_revision`.
pub async fn export(store: &Store, seal: &Seal, label: Option<&str>, reveal: bool) -> Result<Value> {
    let wanted = wanted::read(store).await?;
    let mut items = Vec::new();
    for (key, (camera, _)) in &wanted.cameras {
        if label.is_some_and(|label| label != camera.label) {
            continue;
        }
        let item = model::item_of(key, camera, &seal.open(key, &camera.args)?);
        let shown = |(name, value): (String, Value)| match reveal {
            true => (name, value),
            false => (name.clone(), redact_arg(&name, value)),
        };
        items.push(Value::Object(item.into_iter().map(shown).collect()));
    }
    Ok(json!({ "revision": wanted.revision, "items": items }))
}

pub async fn order_move(store: &Store, key: &str, node: &str) -> Result<()> {
    config::name("node", node)?;
    ensure!(store.get(&store.keys.node(node)).await?.is_some(), "the node {node} is not there: see status");
    ensure!(
        store.get(&store.keys.place(key)).await?.is_some(),
        "the fleet has no camera {key} on any node: see status"
    );
    let ask = store.keys.ask(key);
    store.write(&[Write::Put(ask, node.as_bytes().to_vec())]).await
}

pub async fn drain(store: &Store, node: &str, drain: bool) -> Result<()> {
    config::name("node", node)?;
    let key = store.keys.drain(node);
    store.write(&[if drain { Write::Put(key, b"{}".to_vec()) } else { Write::Delete(key) }]).await
}

pub async fn rebalance(store: &Store, per_sec: usize) -> Result<()> {
    ensure!(per_sec > 0, "a rebalance needs at least one move a second");
    store.write(&[Write::Put(store.keys.rebalance(), json(&Rebalance { per_sec }))]).await
}

pub async fn find(store: &Store, key: &str) -> Result<Value> {
    let Some(kv) = store.get(&store.keys.place(key)).await? else {
        bail!("the fleet has no camera {key} on any node just now");
    };
    let place: Where = serde_json::from_slice(&kv.value).with_context(|| format!("{} cannot be read", kv.key))?;
    let node = store.get(&store.keys.node(place.node())).await?;
    let info: Option<NodeInfo> = node.and_then(|kv| serde_json::from_slice(&kv.value).ok());
    Ok(json!({ "key": key, "node": &**place.node(), "public": info.map(|info| info.public), "place": place }))
}

/// What the leader tells; without one, what etcd has.
pub async fn status(store: &Store) -> Result<Value> {
    let (candidates, _) = store.list(&store.keys.election()).await?;
    // The leader is the one that has waited longest; who has not led yet has an older key than who waits.
    for candidate in &candidates {
        let api = String::from_utf8_lossy(&candidate.value).into_owned();
        let ask = move || -> Option<Value> {
            let get =
                ureq::get(format!("{api}/leading")).config().timeout_global(Some(Duration::from_secs(2))).build();
            get.call().ok()?.body_mut().read_json().ok()
        };
        if let Ok(Some(leading @ Value::Object(_))) = tokio::task::spawn_blocking(ask).await {
            return Ok(leading);
        }
    }
    let (nodes, _) = store.list(&store.keys.nodes()).await?;
    let prefix = store.keys.nodes();
    let names: Vec<&str> = nodes.iter().filter_map(|kv| kv.key.strip_prefix(&prefix)).collect();
    bail!(
        "no node leads the fleet just now, or the leader cannot be reached; nodes with a lease: {}",
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    )
}

/// The last moves, the newest first.
pub async fn history(store: &Store, key: Option<&str>, limit: usize) -> Result<Value> {
    let prefix = store.keys.history();
    let (mut all, _) = store.list(&prefix).await?;
    // Clocks jump, and those of leaders differ.
    all.sort_by_key(|kv| Reverse(kv.rev));
    let mut moves = Vec::new();
    for kv in &all {
        let at = kv.key.strip_prefix(&prefix).and_then(|rest| rest.split('-').next()?.parse::<u64>().ok());
        let some: Vec<Moved> =
            serde_json::from_slice(&kv.value).with_context(|| format!("{} cannot be read", kv.key))?;
        for moved in some.into_iter().filter(|moved| key.is_none_or(|key| *moved.key == *key)) {
            if moves.len() >= limit {
                return Ok(Value::Array(moves));
            }
            let mut value = json!(moved);
            if let Some(object) = value.as_object_mut() {
                object.insert("at".to_owned(), json!(at));
            }
            moves.push(value);
        }
    }
    Ok(Value::Array(moves))
}

/// Removes an order of a node's drain, all moves that were asked for, and a rebalance.
pub async fn cancel(store: &Store) -> Result<usize> {
    let (orders, _) = store.list(&format!("{}orders/", store.keys.prefix)).await?;
    for some in orders.chunks(100) {
        let deletes: Vec<Write> = some.iter().map(|kv| Write::Delete(kv.key.clone())).collect();
        store.write(&deletes).await?;
    }
    Ok(orders.len())
}

/// Waits until a node has no camera. `tell` gets how many are left.
pub async fn wait_until_empty(store: &Store, node: &str, mut tell: impl FnMut(usize, &Leading)) -> Result<()> {
    loop {
        let seen: Leading = serde_json::from_value(status(store).await?)?;
        let left = seen.nodes.get(node).with_context(|| format!("the fleet has no node {node}"))?.cameras;
        tell(left, &seen);
        if left == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
