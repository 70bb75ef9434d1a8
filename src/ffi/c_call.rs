//! The C API's part for clients' calls on their way through the server, and for what the server tells of its proxies and
//! streams. As in `c_api`, every function may be called from any thread, returns 0 or a `zlm_journal_code`, and lets no
//! panic through. All take microseconds and touch no storage: they are made for media threads.

// The names are C's.
#![allow(non_camel_case_types)]

use std::ffi::c_void;

use super::c_api::zlm_journal_handle;
use super::guard::c_result;
use super::handles;
use super::values::{Context, by_pointer, slice, write_out, zlm_journal_pair, zlm_journal_text};
use crate::capture::{Answer, Client, Outcome, Request, Verdict, refusal, reply};
use crate::error::{Error, Result};
use crate::model::Kind;

/// `zlm_journal_verdict`: nothing that is journaled, or the server will refuse it for what it lacks. Let it pass as it is.
pub const ZLM_JOURNAL_PASS: u32 = 0;
/// `zlm_journal_verdict`: run the server's handler now.
pub const ZLM_JOURNAL_GO: u32 = 1;
/// `zlm_journal_verdict`: another add of that key is under way. Run the server's handler when `go` is called.
pub const ZLM_JOURNAL_WAIT: u32 = 2;
/// `zlm_journal_verdict`: it is refused, and its reply has left already.
pub const ZLM_JOURNAL_REFUSE: u32 = 3;

/// `zlm_journal_answer`: with success, and no words.
pub const ZLM_JOURNAL_ACCEPTED: u32 = 1;
/// `zlm_journal_answer`: with a reply, a success where its `code` is 0.
pub const ZLM_JOURNAL_REPLIED: u32 = 2;
/// `zlm_journal_answer`: the handler has refused it at once, for the secret or for what it lacks.
pub const ZLM_JOURNAL_REFUSED: u32 = 3;
/// `zlm_journal_answer`: the handler threw an exception.
pub const ZLM_JOURNAL_THREW: u32 = 4;
/// `zlm_journal_answer`: the server has dropped the call, or stops.
pub const ZLM_JOURNAL_DROPPED: u32 = 5;

/// The kinds of proxy, for zlm_journal_made and zlm_journal_ended.
pub const ZLM_JOURNAL_PULL: u32 = 0;
pub const ZLM_JOURNAL_PUSH: u32 = 1;
pub const ZLM_JOURNAL_FFMPEG: u32 = 2;

/// A client's API call that the server's own check of secret and address has let through.
#[repr(C)]
pub struct zlm_journal_request {
    /// The API's name, in any case: "addStreamProxy".
    pub name: zlm_journal_text,
    /// Everything that its handler can find, wherever the client has put it.
    pub args: *const zlm_journal_pair,
    pub args_len: usize,
    /// "ip:port", for the operator to read.
    pub caller: zlm_journal_text,
}

/// What is to become of a call.
#[repr(C)]
pub struct zlm_journal_verdict {
    /// Its number, from 1; 0 with ZLM_JOURNAL_PASS and _REFUSE.
    pub call: u64,
    /// One of ZLM_JOURNAL_PASS, _GO, _WAIT, _REFUSE.
    pub verdict: u32,
    /// Its handler leaves work on other threads: zlm_journal_call_settled is to follow.
    pub settles: bool,
}

/// How the server has answered a call, of a client's (zlm_journal_call_answered) or of the journal's own
/// (zlm_journal_host_added).
#[repr(C)]
pub struct zlm_journal_answer {
    /// One of ZLM_JOURNAL_ACCEPTED, _REPLIED, _REFUSED, _THREW, _DROPPED.
    pub outcome: u32,
    /// Of a client's call that is ZLM_JOURNAL_REFUSED: the code that the server would reply with.
    pub code: i32,
    /// The body of the reply, one JSON object; or why it was refused, or threw.
    pub text: zlm_journal_text,
}

/// Who waits for the end of a call. Both functions are called from any thread, also from within any function of this
/// header, each at most once. They must return at once, must not call back and must not throw. `context` belongs to the
/// caller until `done` is called, after which it is not used any more.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zlm_journal_client {
    pub context: *mut c_void,
    /// The handler may be run now. Only after ZLM_JOURNAL_WAIT.
    pub go: Option<extern "C" fn(context: *mut c_void)>,
    /// The server has answered, and all that the call changed is on disk, or the reply says why not: this body may leave,
    /// with the status and headers of the server's reply, or as JSON with status 200 where the server has given none. It is
    /// valid until the callback returns. With `more` another client is told at once after this one, on this thread: a
    /// wake-up that this one causes may wait for that one.
    pub done: Option<extern "C" fn(context: *mut c_void, body: zlm_journal_text, more: bool)>,
}

/// Takes in a call that is about to be handed to the server, and sets `*verdict`. With ZLM_JOURNAL_PASS and with an error
/// `client` is not used, and the call goes its stock way; with ZLM_JOURNAL_REFUSE (on_error=reject, and a journal that
/// cannot be written now) `client.done` has been called.
///
/// # Safety
/// Pointers are NULL or point to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_call_open(
    handle: zlm_journal_handle,
    request: *const zlm_journal_request,
    client: *const zlm_journal_client,
    verdict: *mut zlm_journal_verdict,
) -> i32 {
    c_result("zlm_journal_call_open", || {
        let verdict_out = verdict;
        // SAFETY: as promised by the caller, here and below.
        let (request, client) = unsafe { (by_pointer(request, "request")?, *by_pointer(client, "client")?) };
        let pairs = unsafe { slice(request.args, request.args_len) }?;
        let mut args = Vec::with_capacity(pairs.len());
        for pair in pairs {
            args.push((unsafe { pair.name.bytes() }?, unsafe { pair.value.bytes() }?));
        }
        let caller = String::from_utf8_lossy(unsafe { request.caller.bytes() }?).into_owned();
        let context = Context(client.context);
        let (Some(go), Some(done)) = (client.go, client.done) else {
            return Err(Error::invalid("client.go and client.done must both be set"));
        };
        let say = |call, verdict, settles| unsafe {
            write_out(verdict_out, zlm_journal_verdict { call, verdict, settles })
        };
        say(0, ZLM_JOURNAL_PASS, false)?;
        let plugin = handles::get(handle)?;
        let request = Request { name: unsafe { request.name.utf8("name") }?, args: &args, caller: &caller };
        let client = || -> Box<dyn Client> { Box::new(CClient { context, go, done }) };
        match plugin.capture().open(&request, client) {
            Ok(Verdict::Pass) => Ok(()),
            Ok(Verdict::Go { call, settles }) => say(call, ZLM_JOURNAL_GO, settles),
            Ok(Verdict::Wait { call }) => say(call, ZLM_JOURNAL_WAIT, false),
            Err(error) => {
                say(0, ZLM_JOURNAL_REFUSE, false)?;
                done(context.get(), zlm_journal_text::of(&refusal(&error.message)), false);
                Ok(())
            }
        }
    })
}

/// The server has answered a call. Once for each.
///
/// # Safety
/// `answer` is NULL or valid, with its text, until this returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_call_answered(
    handle: zlm_journal_handle,
    call: u64,
    answer: *const zlm_journal_answer,
) -> i32 {
    c_result("zlm_journal_call_answered", || {
        // SAFETY: as promised by the caller.
        let answer = unsafe { answer_of(answer) }?;
        handles::get(handle)?.capture().answered(call, answer);
        Ok(())
    })
}

/// # Safety
/// `answer` is NULL or valid, with its text.
pub(super) unsafe fn answer_of(answer: *const zlm_journal_answer) -> Result<Answer> {
    // SAFETY: as promised by the caller, here and below.
    let answer = unsafe { by_pointer(answer, "answer") }?;
    let bytes = unsafe { answer.text.bytes() }?;
    let words = || String::from_utf8_lossy(bytes).into_owned();
    match answer.outcome {
        ZLM_JOURNAL_ACCEPTED => Ok(Answer::Replied(br#"{"code":0}"#.to_vec())),
        ZLM_JOURNAL_REPLIED => Ok(Answer::Replied(bytes.to_vec())),
        ZLM_JOURNAL_REFUSED => Ok(Answer::Refused(answer.code, words())),
        ZLM_JOURNAL_THREW => Ok(Answer::Threw(words())),
        ZLM_JOURNAL_DROPPED => Ok(Answer::Dropped),
        other => Err(Error::invalid(format!("{other} is no outcome of a call"))),
    }
}

/// All that the handler of close_stream or close_streams has queued on the server's threads has run. Once for each of
/// these calls; for others it says nothing.
#[unsafe(no_mangle)]
pub extern "C" fn zlm_journal_call_settled(handle: zlm_journal_handle, call: u64) -> i32 {
    c_result("zlm_journal_call_settled", || {
        handles::get(handle)?.capture().settled(call);
        Ok(())
    })
}

/// A proxy has entered the map in which the server keeps those of its kind (ZLM_JOURNAL_PULL, _PUSH, _FFMPEG). To be told
/// under that map's lock: the order of these calls is that of the effects. Sets `*call` to the number of the call of
/// zlm_journal_host.add that this carries out; to 0 where it is a client's doing.
///
/// # Safety
/// `key` is valid until this returns; `call` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_made(
    handle: zlm_journal_handle,
    kind: u32,
    key: zlm_journal_text,
    call: *mut u64,
) -> i32 {
    c_result("zlm_journal_made", || {
        // SAFETY: as promised by the caller, here and below.
        let key = String::from_utf8_lossy(unsafe { key.bytes() }?);
        unsafe { write_out(call, 0) }?;
        let ours = handles::get(handle)?.capture().made(kind_of(kind)?, &key);
        unsafe { write_out(call, ours) }
    })
}

/// A proxy has left that map, in the handler of the call `within` (a delete, or a call of zlm_journal_host), or, with 0, in
/// none. As zlm_journal_made.
///
/// # Safety
/// `key` is valid until this returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_ended(
    handle: zlm_journal_handle,
    kind: u32,
    key: zlm_journal_text,
    within: u64,
) -> i32 {
    c_result("zlm_journal_ended", || {
        // SAFETY: as promised by the caller.
        let key = String::from_utf8_lossy(unsafe { key.bytes() }?);
        handles::get(handle)?.capture().ended(kind_of(kind)?, &key, within);
        Ok(())
    })
}

/// The name of a media source, as the server has it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zlm_journal_stream {
    pub vhost: zlm_journal_text,
    pub app: zlm_journal_text,
    pub stream: zlm_journal_text,
}

/// A media source of this schema has come or gone (kBroadcastMediaChanged). What pushes it on is started when it has come
/// (with restore=off, what has run since the start).
///
/// # Safety
/// Pointers are NULL or point to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_stream_changed(
    handle: zlm_journal_handle,
    schema: zlm_journal_text,
    stream: *const zlm_journal_stream,
    is_there: bool,
) -> i32 {
    c_result("zlm_journal_stream_changed", || {
        // SAFETY: as promised by the caller.
        let (schema, stream) = unsafe { (schema.utf8("schema")?, names(stream)?) };
        handles::get(handle)?.stream_changed(schema, stream, is_there);
        Ok(())
    })
}

/// Nobody watches a media source (kBroadcastStreamNoneReader): should its proxy be closed next, that is why.
///
/// # Safety
/// Pointers are NULL or point to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_stream_unwatched(
    handle: zlm_journal_handle,
    stream: *const zlm_journal_stream,
) -> i32 {
    c_result("zlm_journal_stream_unwatched", || {
        // SAFETY: as promised by the caller.
        let [vhost, app, stream] = unsafe { names(stream) }?;
        handles::get(handle)?.stream_unwatched(vhost, app, stream);
        Ok(())
    })
}

/// A player waits for a media source that the server does not have (kBroadcastNotFoundStream): the proxy that makes it,
/// where one is wanted, is started before all others, unless the ini says restore=off.
///
/// # Safety
/// Pointers are NULL or point to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_stream_not_found(
    handle: zlm_journal_handle,
    stream: *const zlm_journal_stream,
) -> i32 {
    c_result("zlm_journal_stream_not_found", || {
        // SAFETY: as promised by the caller.
        let [vhost, app, stream] = unsafe { names(stream) }?;
        handles::get(handle)?.stream_not_found(vhost, app, stream);
        Ok(())
    })
}

/// A proxy of this kind could not connect, or has lost its connection, with the error in words; empty where the host has
/// none. Of a pull MediaServer says so itself (kBroadcastPlayerProxyFailed), a push has to be asked.
///
/// # Safety
/// `key` and `error` are valid until this returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_failed(
    handle: zlm_journal_handle,
    kind: u32,
    key: zlm_journal_text,
    error: zlm_journal_text,
) -> i32 {
    c_result("zlm_journal_failed", || {
        // SAFETY: as promised by the caller, here and below.
        let key = String::from_utf8_lossy(unsafe { key.bytes() }?);
        let error = String::from_utf8_lossy(unsafe { error.bytes() }?);
        handles::get(handle)?.capture().failed(kind_of(kind)?, &key, &error);
        Ok(())
    })
}

/// A proxy of this kind has connected, for the first time or again. Where the journal is not told of that, one that makes
/// no new source then (a push; a pull with `general.resetWhenRePlay=0`, or with all its protocols off) stays `retrying`
/// after its first failure.
///
/// # Safety
/// `key` is valid until this returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_connected(
    handle: zlm_journal_handle,
    kind: u32,
    key: zlm_journal_text,
) -> i32 {
    c_result("zlm_journal_connected", || {
        // SAFETY: as promised by the caller.
        let key = String::from_utf8_lossy(unsafe { key.bytes() }?);
        handles::get(handle)?.capture().connected(kind_of(kind)?, &key);
        Ok(())
    })
}

fn kind_of(number: u32) -> Result<Kind> {
    let kind = usize::try_from(number).ok().and_then(|at| Kind::ALL.get(at));
    kind.copied().ok_or_else(|| Error::invalid(format!("{number} is not a kind of proxy")))
}

/// # Safety
/// `stream` is NULL or valid, with all that it points to, for `'a`.
unsafe fn names<'a>(stream: *const zlm_journal_stream) -> Result<[&'a str; 3]> {
    // SAFETY: as promised by the caller, here and below.
    let stream = unsafe { by_pointer(stream, "stream") }?;
    Ok([unsafe { stream.vhost.utf8("vhost") }?, unsafe { stream.app.utf8("app") }?, unsafe {
        stream.stream.utf8("stream")
    }?])
}

/// The client behind the C API.
struct CClient {
    context: Context,
    go: extern "C" fn(*mut c_void),
    done: extern "C" fn(*mut c_void, zlm_journal_text, bool),
}

impl Client for CClient {
    fn go(&self) {
        (self.go)(self.context.get());
    }

    fn done(&self, answer: Answer, outcome: Outcome, more: bool) {
        (self.done)(self.context.get(), zlm_journal_text::of(&reply(answer, &outcome)), more);
    }
}
