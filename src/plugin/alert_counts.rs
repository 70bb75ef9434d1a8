//! What has become of the alerts, for the status and the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Counters of alerts. Any thread.
#[derive(Debug, Default)]
pub struct AlertCounts {
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    waiting: AtomicU64,
    last_error: Mutex<Option<String>>,
}

/// Since the start.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct AlertReading {
    /// Alerts that the receiver has taken.
    pub sent: u64,
    /// Calls to the receiver that failed.
    pub failed: u64,
    /// Alerts that were dropped because too many waited.
    pub dropped: u64,
    /// Alerts that wait to be sent.
    pub waiting: u64,
    /// Why the last call failed; `None` if it did not.
    pub last_error: Option<String>,
}

impl AlertCounts {
    /// A call to the receiver has delivered so many alerts. Forgets the last error.
    pub fn sent(&self, alerts: u64) {
        self.sent.fetch_add(alerts, Ordering::Relaxed);
        *self.last_error.lock() = None;
    }

    /// A call to the receiver has failed, for this reason.
    pub fn failed(&self, why: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock() = Some(why);
    }

    /// So many alerts were dropped because too many waited.
    pub fn dropped(&self, alerts: u64) {
        self.dropped.fetch_add(alerts, Ordering::Relaxed);
    }

    /// So many alerts wait to be sent now.
    pub fn waiting(&self, alerts: u64) {
        self.waiting.store(alerts, Ordering::Relaxed);
    }

    /// A copy of all counters. They are read one after the other, not at one moment.
    pub fn read(&self) -> AlertReading {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        AlertReading {
            sent: of(&self.sent),
            failed: of(&self.failed),
            dropped: of(&self.dropped),
            waiting: of(&self.waiting),
            last_error: self.last_error.lock().clone(),
        }
    }
}
