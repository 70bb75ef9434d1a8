//! A client's call that waits for the server's answer and for the disk, in either order. Does not know what was called.

use std::sync::Arc;

use parking_lot::Mutex;

use super::reply::{Answer, Outcome};
use crate::error::{Code, Error};
use crate::journal::{Ack, Done, Persisted, Reply};

/// The client of a call. Both functions are called from any thread, at most once, and must neither block nor call back.
pub trait Client: Send + Sync {
    /// A call that had to wait may be passed to the server now.
    fn go(&self);
    /// The reply may leave. With `more`, another client follows at once on this thread.
    fn done(&self, answer: Answer, outcome: Outcome, more: bool);
}

pub struct Waiting {
    client: Box<dyn Client>,
    tally: Mutex<Tally>,
}

struct Tally {
    /// Acknowledgements that are awaited, and one more until no more will be expected.
    outstanding: usize,
    /// The answer for the client; `None` once it was sent.
    answer: Option<Answer>,
    outcome: Outcome,
}

impl Waiting {
    pub fn new(client: Box<dyn Client>) -> Arc<Waiting> {
        let outcome = Outcome { seq: 0, result: Ok(Persisted::Yes), undone: false, is_journaled: false };
        let tally = Tally { outstanding: 1, answer: Some(Answer::Dropped), outcome };
        Arc::new(Waiting { client, tally: Mutex::new(tally) })
    }

    pub fn go(&self) {
        self.client.go();
    }

    /// The reply must wait for the acknowledgement of one more change.
    pub fn expect(self: &Arc<Self>) -> Done {
        let mut tally = self.tally.lock();
        tally.outstanding += 1;
        tally.outcome.is_journaled = true;
        drop(tally);
        let waiting = Arc::clone(self);
        Done::with_reply(move |ack| waiting.acknowledged(ack))
    }

    fn acknowledged(self: Arc<Self>, Ack { seq, result, undone }: Ack) -> Option<Reply> {
        let (answer, outcome) = self.after(|tally| {
            tally.outstanding -= 1;
            let outcome = &mut tally.outcome;
            outcome.seq = outcome.seq.max(seq);
            outcome.undone |= undone;
            match (result, &outcome.result) {
                (Err(error), _) => outcome.result = Err(error),
                (Ok(Persisted::Soon), Ok(_)) => outcome.result = Ok(Persisted::Soon),
                (Ok(_), _) => {}
            }
        })?;
        Some(Reply::new(move |more| self.client.done(answer, outcome, more)))
    }

    /// The reply must say that the journal does not have what the server did.
    pub fn not_journaled(&self, why: &str) {
        let mut tally = self.tally.lock();
        tally.outcome.is_journaled = true;
        tally.outcome.result = Err(Error::new(Code::Conflict, why));
    }

    pub fn answered(&self, answer: Answer) {
        self.tally.lock().answer.replace(answer);
    }

    /// No more changes will be expected. Once.
    pub fn complete(&self) {
        if let Some((answer, outcome)) = self.after(|tally| tally.outstanding -= 1) {
            self.client.done(answer, outcome, false);
        }
    }

    /// Applies the change, and returns the result for the client if nothing else is awaited.
    fn after(&self, change: impl FnOnce(&mut Tally)) -> Option<(Answer, Outcome)> {
        let mut tally = self.tally.lock();
        change(&mut tally);
        let is_over = tally.outstanding == 0;
        let answer = tally.answer.take_if(|_| is_over)?;
        Some((answer, tally.outcome.clone()))
    }
}
