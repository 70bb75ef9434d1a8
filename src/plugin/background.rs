//! A thread of the plugin's own that runs until its handle is dropped.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};

/// Dropping it tells the thread to end, and does not wait for it.
pub struct Background {
    /// Nothing is ever sent.
    _stop: Sender<()>,
}

/// The thread's side.
pub struct Stop(Receiver<()>);

impl Background {
    /// Runs `work` on a thread of this name, which does `what`, for messages. Not to be called on a poller of MediaServer,
    /// whose real-time priority the thread would inherit.
    pub fn start(name: &str, what: &'static str, work: impl FnOnce(&Stop) + Send + 'static) -> Result<Background> {
        let (stop, told) = channel();
        let run = move || {
            if catch_unwind(AssertUnwindSafe(|| work(&Stop(told)))).is_err() {
                log::error!("journal: {what} has ended because of a bug in zlm-journal");
            }
        };
        let started = thread::Builder::new().name(name.to_owned()).spawn(run);
        started.map_err(|error| Error::storage(format!("cannot start a thread for {what}: {error}")))?;
        Ok(Background { _stop: stop })
    }
}

impl Stop {
    /// Waits that long, or until the handle is dropped. Returns whether to go on.
    pub fn wait(&self, pause: Duration) -> bool {
        self.0.recv_timeout(pause) == Err(RecvTimeoutError::Timeout)
    }
}
