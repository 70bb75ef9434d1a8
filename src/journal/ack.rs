//! How a recorded call ended, and the telling of it.

use crate::error::{Code, Error, Result};

/// How an acknowledged change stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persisted {
    /// On disk: no crash takes it back.
    Yes,
    /// `durability=async`: in the queue.
    Soon,
}

/// The end of one recorded call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The change by which intent is what the call asked for; 0 when it was never applied.
    pub seq: u64,
    pub result: Result<Persisted>,
    /// `on_error=reject`: intent is again what it was before the call, and the server is to be brought back to it.
    pub undone: bool,
}

impl Ack {
    pub fn failed(error: Error) -> Ack {
        Ack { seq: 0, result: Err(error), undone: false }
    }
}

/// Told exactly once how a recorded call ended: on the writer thread, or on the caller's own for
/// `durability=async` and for refusals. What it calls must not block. Dropped untold, it tells of a failure:
/// whatever goes wrong in here, no reply is ever left hanging.
pub struct Done(Option<Box<dyn FnOnce(Ack) + Send>>);

impl Done {
    pub fn new(told: impl FnOnce(Ack) + Send + 'static) -> Done {
        Done(Some(Box::new(told)))
    }

    pub fn call(mut self, ack: Ack) {
        if let Some(told) = self.0.take() {
            told(ack);
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(told) = self.0.take() {
            told(Ack::failed(Error::new(Code::Panic, "the journal lost track of this call")));
        }
    }
}
