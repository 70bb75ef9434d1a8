//! What an alert says.

use serde::{Serialize, Serializer};

use crate::model::{Kind, ProxyKey};
use crate::reconcile::Progress;

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// It has not played for `alert_after_sec`.
    ProxyDown,
    /// It plays again, or is no longer wanted.
    ProxyUp,
    /// MediaServer gave it up, and it was forgotten (`on_give_up=forget`).
    ProxyGivenUp,
    /// It plays from another of its URLs.
    ProxyMoved,
    /// It is quarantined.
    ProxySetAside,
    /// Every proxy of the restore has a result.
    RestoreDone,
    /// The journal cannot be written, or could not be opened.
    StorageFailed,
    /// The journal is written again.
    StorageOk,
    /// The watched file cannot be applied; what it had before still holds.
    FileRefused,
    /// It could not be applied, and was now.
    FileOk,
}

/// Times are milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Serialize)]
pub struct Alert {
    /// What has happened.
    pub event: Event,
    /// When it was noticed; for what the history has noted, when it was made.
    pub at: i64,
    /// Since when it is so, or, where it is over, was so.
    pub since: i64,
    /// The proxy that it is about; `None` if it is about none.
    #[serde(flatten, serialize_with = "named")]
    pub proxy: Option<ProxyKey>,
    /// The `journal_label` of the proxy; `None` if it has none, or it is not known any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Without secrets.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// How often, for example how many attempts have failed in a row.
    pub count: u64,
    /// The counts of the restore, only with [`Event::RestoreDone`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore: Option<Progress>,
}

impl Alert {
    /// An alert without a label, a reason and a restore, and with a count of 0.
    pub fn of(event: Event, proxy: Option<ProxyKey>, at: i64, since: i64) -> Alert {
        Alert { event, at, since, proxy, label: None, why: String::new(), count: 0, restore: None }
    }
}

fn named<S: Serializer>(proxy: &Option<ProxyKey>, to: S) -> std::result::Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Named<'a> {
        kind: Kind,
        key: &'a str,
    }
    proxy.as_ref().map(|(kind, key)| Named { kind: *kind, key }).serialize(to)
}
