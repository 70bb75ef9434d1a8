//! What the fleet should have: read as a whole, changed as one. A change of many cameras is staged, one transaction
//! after the other, and counts from the one that names it the last change; folding it into the cameras' own keys then
//! changes nothing of what is wanted. So it is never half visible.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::etcd::{If, Store};
use crate::model::{self, Args, Camera, Head};
use crate::seal::Seal;
use crate::writes::{Write, json};

/// Writes in one transaction, below etcd's default of 128.
const AT_ONCE: usize = 100;
/// And their bytes, below its 1.5 MiB.
const BYTES_AT_ONCE: usize = 1 << 20;
/// How often another's change may come first before a change gives up.
const TRIES: usize = 10;

/// All that is wanted, at one revision.
pub struct Wanted {
    pub cameras: BTreeMap<String, (Camera, i64)>,
    pub head: Option<Head>,
    /// The revision of the last change of what is wanted; for `if_revision`.
    pub revision: i64,
    /// The revision of the head itself.
    head_rev: i64,
}

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The set that the items are; "" are those without a label, None are all.
    pub label: Option<String>,
    /// Removes what the set does not have any more.
    pub prune: bool,
    pub dry_run: bool,
    /// Refuses if anything was changed since this revision.
    pub if_revision: Option<i64>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    pub added: Vec<String>,
    pub updated: Vec<String>,
    pub removed: Vec<String>,
    pub unchanged: usize,
    pub dry_run: bool,
    /// Something was changed since `if_revision`, and nothing was done.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub conflict: bool,
    pub revision: i64,
}

pub async fn read(store: &Store) -> Result<Wanted> {
    // Everything is read at one revision; it is tried again where that is compacted meanwhile.
    let mut last = None;
    for _ in 0..3 {
        match read_once(store).await {
            Ok(wanted) => return Ok(wanted),
            Err(error) if format!("{error:#}").contains("too old") => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("cannot read what is wanted")))
}

async fn read_once(store: &Store) -> Result<Wanted> {
    let (all, revision) = store.list(&store.keys.cameras()).await?;
    let (heads, _) = store.list_at(&store.keys.head(), revision).await?;
    let head_rev = heads.first().map_or(0, |head| head.rev);
    let head: Option<Head> = heads.first().map(|head| serde_json::from_slice(&head.value)).transpose()?;
    let prefix = store.keys.cameras();
    let mut cameras = BTreeMap::new();
    for kv in all {
        let key = kv.key.strip_prefix(&prefix).unwrap_or(&kv.key).to_owned();
        let camera: Camera =
            serde_json::from_slice(&kv.value).with_context(|| format!("{} in etcd cannot be read", kv.key))?;
        cameras.insert(key, (camera, kv.rev));
    }
    if let Some(head) = head.as_ref().filter(|head| head.pending) {
        let prefix = store.keys.staged(&head.change);
        for kv in store.list_at(&prefix, revision).await?.0 {
            let key = kv.key.strip_prefix(&prefix).unwrap_or(&kv.key).to_owned();
            match serde_json::from_slice(&kv.value)
                .with_context(|| format!("{} in etcd cannot be read", kv.key))?
            {
                Some(camera) => cameras.insert(key, (camera, kv.rev)),
                None => cameras.remove(&key),
            };
        }
    }
    let revision = head.as_ref().and_then(|head| head.since).unwrap_or(head_rev);
    Ok(Wanted { cameras, head, revision, head_rev })
}

/// The cameras of an import: what syncJournal takes, as JSON (an array, or an object with `items`), or as CSV with a line of
/// names. An error names the item.
pub fn parse(text: &str) -> Result<Vec<Map<String, Value>>> {
    let text = text.trim_start_matches('\u{feff}');
    if text.trim_start().starts_with(['[', '{']) {
        let value: Value = serde_json::from_str(text).context("the items are not valid JSON")?;
        let items = match value {
            Value::Array(items) => items,
            Value::Object(mut object) => match object.remove("items") {
                Some(Value::Array(items)) => items,
                _ => bail!("expected an array of items, or an object with items"),
            },
            _ => bail!("expected an array of items"),
        };
        let numbered = items.into_iter().enumerate();
        return numbered
            .map(|(at, item)| match item {
                Value::Object(item) => Ok(item),
                _ => bail!("item {}: expected an object", at + 1),
            })
            .collect();
    }
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(false).from_reader(text.as_bytes());
    let names = reader.headers().context("the first line is not a line of names")?.clone();
    let row = |row: Result<csv::StringRecord, csv::Error>| -> Result<Map<String, Value>> {
        let row = row.context("not valid CSV")?;
        Ok(names
            .iter()
            .zip(&row)
            .map(|(name, value)| (name.to_owned(), Value::String(value.to_owned())))
            .collect())
    };
    reader.records().map(row).collect()
}

/// The wanted set of a label, with the secrets in it sealed. One invalid item rejects the whole.
pub struct Set(BTreeMap<String, (Camera, Args)>);

impl Set {
    pub fn of(items: &[Map<String, Value>], label: Option<&str>) -> Result<Self> {
        let mut set = BTreeMap::new();
        for (at, item) in items.iter().enumerate() {
            let mut item = item.clone();
            // As MediaServer's own default.
            item.entry("vhost").or_insert_with(|| Value::String("__defaultVhost__".to_owned()));
            let (key, camera, args) =
                model::camera_of(&item, label).with_context(|| format!("item {}", at + 1))?;
            if set.insert(key.clone(), (camera, args)).is_some() {
                bail!("item {}: {key} is there twice", at + 1);
            }
        }
        Ok(Self(set))
    }
}

/// Makes the wanted cameras of a label those of a set.
pub async fn sync(store: &Store, seal: &Seal, set: &Set, options: &Options) -> Result<Outcome> {
    change(store, options, |wanted| {
        let mut changes = BTreeMap::new();
        let mut outcome = Outcome::default();
        for (key, (camera, args)) in &set.0 {
            let now = wanted.cameras.get(key);
            if let Some((now, _)) = now {
                let same_args = seal.open(key, &now.args)? == *args;
                if same_args && *now == (Camera { args: now.args.clone(), ..camera.clone() }) {
                    outcome.unchanged += 1;
                    continue;
                }
                ensure!(
                    options.label.as_ref().is_none_or(|label| now.label == *label) || now.label.is_empty(),
                    "{key} belongs to the label {:?}: remove it there first",
                    now.label
                );
            }
            let args = seal.close(key, args)?;
            changes.insert(key.clone(), Some(Camera { args, ..camera.clone() }));
            if now.is_some() { &mut outcome.updated } else { &mut outcome.added }.push(key.clone());
        }
        if options.prune {
            for (key, (camera, _)) in &wanted.cameras {
                let is_meant = options.label.as_ref().is_none_or(|label| camera.label == *label);
                if is_meant && !set.0.contains_key(key) {
                    changes.insert(key.clone(), None);
                    outcome.removed.push(key.clone());
                }
            }
        }
        Ok((changes, outcome))
    })
    .await
}

/// Removes cameras by their keys; those that are not there are not named in the outcome.
pub async fn remove(store: &Store, keys: &BTreeSet<String>, options: &Options) -> Result<Outcome> {
    change(store, options, |wanted| {
        let there: Vec<String> = keys.iter().filter(|key| wanted.cameras.contains_key(*key)).cloned().collect();
        let changes = there.iter().map(|key| (key.clone(), None)).collect();
        Ok((changes, Outcome { removed: there, ..Outcome::default() }))
    })
    .await
}

type Changes = BTreeMap<String, Option<Camera>>;

async fn change(
    store: &Store,
    options: &Options,
    diff: impl Fn(&Wanted) -> Result<(Changes, Outcome)>,
) -> Result<Outcome> {
    for _ in 0..TRIES {
        let wanted = read(store).await?;
        let (changes, outcome) = diff(&wanted)?;
        let outcome = Outcome { dry_run: options.dry_run, revision: wanted.revision, ..outcome };
        if options.if_revision.is_some_and(|seen| wanted.revision > seen) {
            let revision = wanted.revision;
            return Ok(Outcome { conflict: true, dry_run: options.dry_run, revision, ..Outcome::default() });
        }
        if options.dry_run || changes.is_empty() {
            return Ok(outcome);
        }
        if wanted.head.as_ref().is_some_and(|head| head.pending) {
            fold(store).await?;
            continue;
        }
        if let Some(revision) = commit(store, &wanted, &changes).await? {
            return Ok(Outcome { revision, ..outcome });
        }
    }
    bail!("others change what is wanted all the time: try again later")
}

/// Makes a change that was derived from `wanted` count. None if another one came first: then nothing was changed.
async fn commit(store: &Store, wanted: &Wanted, changes: &Changes) -> Result<Option<i64>> {
    let id = new_id();
    let head = |pending| Write::Put(store.keys.head(), json(&Head { change: id.clone(), pending, since: None }));
    let unchanged = If::Rev(store.keys.head(), wanted.head_rev);
    let at_once = batches(changes.iter().map(|(key, camera)| match camera {
        Some(camera) => Write::Put(store.keys.camera(key), json(camera)),
        None => Write::Delete(store.keys.camera(key)),
    }));
    if let [only] = at_once.as_slice() {
        let writes: Vec<Write> = only.iter().cloned().chain([head(false)]).collect();
        return decided(store, &id, store.write_if(&[unchanged], &writes, None).await).await;
    }
    let (staged, staging) = (store.keys.staged(&id), store.keys.staging(&id));
    store.write(&[Write::Put(staging.clone(), now_ms().to_string().into_bytes())]).await?;
    let begun = store.get(&staging).await?.map_or(0, |kv| kv.rev);
    let mut written = 0;
    for batch in batches(changes.iter().map(|(key, camera)| Write::Put(format!("{staged}{key}"), json(camera)))) {
        store.write(&batch).await?;
        written += batch.len();
        progress("staged", written, changes.len());
    }
    // Who cleans up what was left behind begins with that key.
    let conditions = [unchanged, If::Rev(staging.clone(), begun)];
    let counts = [head(true), Write::Delete(staging)];
    let committed = decided(store, &id, store.write_if(&conditions, &counts, None).await).await?;
    if committed.is_none() {
        discard(store, &id).await?;
        return Ok(None);
    }
    // From here on it counts. The leader folds it if this does not come to its end.
    if let Err(error) = fold(store).await {
        log::warn!("the change counts, and is still being applied by the leader: {error:#}");
    }
    Ok(committed)
}

/// A write that was asked for twice, since nobody answered the first time, may find its own first one.
async fn decided(store: &Store, id: &str, written: Result<Option<i64>>) -> Result<Option<i64>> {
    if let Ok(Some(revision)) = written {
        return Ok(Some(revision));
    }
    let head = store.get(&store.keys.head()).await?;
    let ours = head.and_then(|kv| {
        let head: Head = serde_json::from_slice(&kv.value).ok()?;
        (head.change == id).then_some(kv.rev)
    });
    match (ours, written) {
        (Some(revision), _) => Ok(Some(revision)),
        (None, Ok(_)) => Ok(None),
        (None, Err(error)) => Err(error),
    }
}

/// Moves what is staged to the cameras' own keys, which changes nothing of what is wanted. May be done by several at the same
/// time.
pub async fn fold(store: &Store) -> Result<()> {
    let Some(head_kv) = store.get(&store.keys.head()).await? else { return Ok(()) };
    let head: Head = serde_json::from_slice(&head_kv.value).context("the head in etcd cannot be read")?;
    if !head.pending {
        return Ok(());
    }
    let prefix = store.keys.staged(&head.change);
    let still = If::Rev(store.keys.head(), head_kv.rev);
    let (staged, _) = store.list(&prefix).await?;
    let pairs = staged.iter().map(|kv| {
        let key = kv.key.strip_prefix(&prefix).unwrap_or(&kv.key);
        let camera = store.keys.camera(key);
        if kv.value == b"null" { Write::Delete(camera) } else { Write::Put(camera, kv.value.clone()) }
    });
    let (mut done, mut folded) = (staged.iter(), 0);
    for batch in batches_of(pairs, AT_ONCE / 2) {
        let deletes: Vec<Write> =
            done.by_ref().take(batch.len()).map(|kv| Write::Delete(kv.key.clone())).collect();
        folded += batch.len();
        progress("applied", folded, staged.len());
        // If another one has folded this part, or all, its cameras' keys have not been changed since: nothing else may
        // change them before the end of this.
        let writes: Vec<Write> = batch.into_iter().chain(deletes).collect();
        if store.write_if(std::slice::from_ref(&still), &writes, None).await?.is_none() {
            return Ok(());
        }
    }
    let folded = Head { pending: false, since: Some(head.since.unwrap_or(head_kv.rev)), ..head };
    store.write_if(&[still], &[Write::Put(store.keys.head(), json(&folded))], None).await?;
    Ok(())
}

/// Tells how far a long change has come.
fn progress(what: &str, done: usize, of: usize) {
    const EVERY: usize = 5_000;
    if of >= EVERY && (done == of || done % EVERY < AT_ONCE / 2) {
        log::info!("{done} of {of} changes are {what}");
    }
}

/// Deletes what is staged of a change that will never count.
async fn discard(store: &Store, id: &str) -> Result<()> {
    let (staged, _) = store.list(&store.keys.staged(id)).await?;
    for batch in batches(staged.into_iter().map(|kv| Write::Delete(kv.key))) {
        store.write(&batch).await?;
    }
    Ok(())
}

/// How long a change may take to be staged.
const STAGED: Duration = Duration::from_secs(3_600);

/// Deletes what was staged long ago and never counted. `seen`: since when the caller has seen each of these changes. The time in
/// its name does not count: it is that of another clock.
pub async fn clean(store: &Store, seen: &mut HashMap<String, Instant>) -> Result<()> {
    let prefix = store.keys.all_staged();
    let (staged, _) = store.list(&prefix).await?;
    // Read after the list: a change that counts by now is not touched.
    let head = store.get(&store.keys.head()).await?;
    let head: Option<Head> = head.and_then(|kv| serde_json::from_slice(&kv.value).ok());
    let ids: BTreeSet<&str> =
        staged.iter().filter_map(|kv| kv.key.strip_prefix(&prefix)?.split('/').next()).collect();
    seen.retain(|id, _| ids.contains(id.as_str()));
    for id in ids {
        let since = *seen.entry(id.to_owned()).or_insert_with(Instant::now);
        if head.as_ref().is_none_or(|head| head.change != id) && since.elapsed() > STAGED {
            log::warn!("the change {id}, which was begun more than an hour ago and never made, is discarded");
            // From here on it cannot count.
            store.write(&[Write::Delete(store.keys.staging(id))]).await?;
            let head = store.get(&store.keys.head()).await?;
            let head: Option<Head> = head.and_then(|kv| serde_json::from_slice(&kv.value).ok());
            if head.is_none_or(|head| head.change != id) {
                discard(store, id).await?;
            }
        }
    }
    Ok(())
}

fn batches(writes: impl Iterator<Item = Write>) -> Vec<Vec<Write>> {
    batches_of(writes, AT_ONCE)
}

/// Transactions that etcd takes.
fn batches_of(writes: impl Iterator<Item = Write>, most: usize) -> Vec<Vec<Write>> {
    let mut all: Vec<Vec<Write>> = Vec::new();
    let mut bytes = 0;
    for write in writes {
        bytes += write.bytes();
        match all.last_mut() {
            Some(batch) if batch.len() < most && bytes <= BYTES_AT_ONCE => batch.push(write),
            _ => {
                bytes = write.bytes();
                all.push(vec![write]);
            }
        }
    }
    all
}

/// A name for a change that no other has. It begins with the time.
fn new_id() -> String {
    format!("{:013}-{}", now_ms(), crate::lease::instance())
}

pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_csv_say_the_same() {
        let json = r#"[{"app":"live","stream":"a","url":"rtsp://h/1"}]"#;
        let csv = "\u{feff}app, stream, url\nlive, a, rtsp://h/1\n";
        assert_eq!(parse(json).unwrap(), parse(csv).unwrap());
        assert_eq!(parse(&format!("{{\"items\":{json}}}")).unwrap(), parse(csv).unwrap());
    }

    #[test]
    fn a_bad_item_is_named() {
        for (text, says) in [("[1]", "item 1"), ("{}", "items"), ("[{]", "JSON"), ("app,stream\nlive", "CSV")] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(says), "{error}");
        }
        let items =
            parse(r#"[{"app":"live","stream":"a","url":"rtsp://h/1"},{"app":"live","stream":"b"}]"#).unwrap();
        let error = format!("{:#}", Set::of(&items, None).err().unwrap());
        assert_eq!(error, "item 2: url is missing");
    }

    #[test]
    fn transactions_are_as_small_as_etcd_wants_them() {
        let put = |n: usize, bytes| Write::Put(format!("{n:04}"), vec![0; bytes]);
        assert_eq!(batches((0..250).map(|n| put(n, 10))).iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
        let long = batches((0..4).map(|n| put(n, 400_000)));
        assert_eq!(long.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
    }
}
