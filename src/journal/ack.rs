//! How a recorded call ended, and how its caller is told.

use serde::Serialize;

use crate::error::{Code, Error, Result};

/// Where an acknowledged change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persisted {
    /// On disk: no crash undoes it.
    Yes,
    /// `durability=async`: in the queue.
    Soon,
}

/// The result of a recorded call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The change by which intent is what the call asked for; 0 if it was never applied.
    pub seq: u64,
    /// Where the change is, or why it is not journaled.
    pub result: Result<Persisted>,
    /// `on_error=reject`: intent is as before the call, and the server has to follow.
    pub undone: bool,
}

/// The call changed nothing.
impl From<Error> for Ack {
    fn from(error: Error) -> Ack {
        Ack { seq: 0, result: Err(error), undone: false }
    }
}

/// What a reply says about the journal.
#[derive(Debug, Serialize)]
pub struct JournalWord<'a> {
    seq: u64,
    persisted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    /// On its way to disk.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pending: bool,
}

impl JournalWord<'_> {
    /// What to say about change `seq`, which ended with this result.
    pub fn of(seq: u64, result: &Result<Persisted>) -> JournalWord<'_> {
        let error = result.as_ref().err().map(|error| error.message.as_str());
        JournalWord {
            seq,
            persisted: *result == Ok(Persisted::Yes),
            error,
            pending: *result == Ok(Persisted::Soon),
        }
    }
}

/// The reply to one call, sent exactly once by `leave`. `more` means that another one follows at once on this thread,
/// so one wake-up can serve both. If it is dropped, it is sent too.
pub struct Reply(Option<Box<dyn FnOnce(bool) + Send>>);

impl Reply {
    /// A reply that `leave` sends, on any thread. It gets `more`.
    pub fn new(leave: impl FnOnce(bool) + Send + 'static) -> Reply {
        Reply(Some(Box::new(leave)))
    }

    /// Sends it.
    pub fn leave(mut self, more: bool) {
        if let Some(leave) = self.0.take() {
            leave(more);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(leave) = self.0.take() {
            leave(false);
        }
    }
}

/// Called exactly once with the result of a recorded call: on the writer thread, or on the caller's for
/// `durability=async` and for refusals. The callback must not block. If it is dropped unused, it reports a failure, so
/// no reply is ever missing.
pub struct Done(Option<Box<dyn FnOnce(Ack) -> Option<Reply> + Send>>);

impl Done {
    /// Calls `told` once with the result.
    pub fn new(told: impl FnOnce(Ack) + Send + 'static) -> Done {
        Done::with_reply(move |ack| {
            told(ack);
            None
        })
    }

    /// For calls whose reply may also have to wait for something else.
    pub fn with_reply(told: impl FnOnce(Ack) -> Option<Reply> + Send + 'static) -> Done {
        Done(Some(Box::new(told)))
    }

    /// Reports the result on this thread, and then sends the reply, if there is one.
    pub fn call(mut self, ack: Ack) {
        self.tell(ack);
    }

    /// Reports all results first, and then sends the replies, one right after the other.
    pub fn call_all(acks: impl Iterator<Item = (Done, Ack)>) {
        let replies = acks.filter_map(|(mut done, ack)| done.0.take().and_then(|told| told(ack)));
        let mut replies = replies.collect::<Vec<Reply>>().into_iter();
        while let Some(reply) = replies.next() {
            reply.leave(replies.len() > 0);
        }
    }

    fn tell(&mut self, ack: Ack) {
        // Dropping a reply sends it.
        drop(self.0.take().map(|told| told(ack)));
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        self.tell(Error::new(Code::Panic, "the journal dropped this call: see the log").into());
    }
}
