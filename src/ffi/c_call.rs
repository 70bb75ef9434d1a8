//! The C API for clients' calls on their way through the server, and for the server's events. All functions are meant
//! for media threads: they take microseconds and touch no storage.

use std::ffi::c_void;

use super::c_api::zlm_journal_handle;
use super::guard::c_result;
use super::handles;
use super::values::{
    Context, Growing, by_pointer, grown, pairs, size_of_ours, write_grown, write_out, zlm_journal_pair,
    zlm_journal_text,
};
use crate::capture::{Answer, Client, Outcome, Request, Verdict, refusal, reply};
use crate::error::{Error, Result};
use crate::model::Kind;

/// `zlm_journal_verdict`: the call is not journaled, or the server will refuse it as incomplete. Let it pass unchanged.
pub const ZLM_JOURNAL_PASS: u32 = 0;
/// `zlm_journal_verdict`: run the server's handler now.
pub const ZLM_JOURNAL_GO: u32 = 1;
/// `zlm_journal_verdict`: another add of that key is running. Run the server's handler when `go` is called.
pub const ZLM_JOURNAL_WAIT: u32 = 2;
/// `zlm_journal_verdict`: the call is refused, and its reply has been sent.
pub const ZLM_JOURNAL_REFUSE: u32 = 3;

/// `zlm_journal_answer`: success, without a text.
pub const ZLM_JOURNAL_ACCEPTED: u32 = 1;
/// `zlm_journal_answer`: a reply; success if its `code` is 0.
pub const ZLM_JOURNAL_REPLIED: u32 = 2;
/// `zlm_journal_answer`: the handler refused the call at once, because of its secret or missing arguments.
pub const ZLM_JOURNAL_REFUSED: u32 = 3;
/// `zlm_journal_answer`: the handler threw an exception.
pub const ZLM_JOURNAL_THREW: u32 = 4;
/// `zlm_journal_answer`: the server dropped the call, or is stopping.
pub const ZLM_JOURNAL_DROPPED: u32 = 5;

/// The kinds of proxy, for zlm_journal_made and zlm_journal_ended.
pub const ZLM_JOURNAL_PULL: u32 = 0;
/// A push: addStreamPusherProxy.
pub const ZLM_JOURNAL_PUSH: u32 = 1;
/// An FFmpeg source: addFFmpegSource.
pub const ZLM_JOURNAL_FFMPEG: u32 = 2;

/// A client's API call that has passed the server's check of secret and address.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zlm_journal_request {
    /// sizeof(zlm_journal_request).
    pub size: u32,
    /// The API's name, in any case: "addStreamProxy".
    pub name: zlm_journal_text,
    /// All arguments that its handler can find, in the URL, the body and the headers.
    pub args: *const zlm_journal_pair,
    /// The number of pairs at `args`.
    pub args_len: usize,
    /// "ip:port", for the operator to read.
    pub caller: zlm_journal_text,
}

// SAFETY: as the trait asks.
unsafe impl Growing for zlm_journal_request {}

/// What to do with a call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zlm_journal_verdict {
    /// sizeof(zlm_journal_verdict), set by the caller.
    pub size: u32,
    /// One of ZLM_JOURNAL_PASS, _GO, _WAIT, _REFUSE.
    pub verdict: u32,
    /// The handler leaves work on other threads: call zlm_journal_call_settled when that is done.
    pub settles: bool,
    /// The number of the call, from 1; 0 with ZLM_JOURNAL_PASS and _REFUSE.
    pub call: u64,
}

// SAFETY: as the trait asks.
unsafe impl Growing for zlm_journal_verdict {}

/// The server's answer to a client's call (zlm_journal_call_answered) or to one of the journal's own
/// (zlm_journal_host_added).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zlm_journal_answer {
    /// sizeof(zlm_journal_answer).
    pub size: u32,
    /// One of ZLM_JOURNAL_ACCEPTED, _REPLIED, _REFUSED, _THREW, _DROPPED.
    pub outcome: u32,
    /// With ZLM_JOURNAL_REFUSED, for a client's call: the code that the server would reply with.
    pub code: i32,
    /// The body of the reply, one JSON object; or why the call was refused or threw.
    pub text: zlm_journal_text,
}

// SAFETY: as the trait asks.
unsafe impl Growing for zlm_journal_answer {}

/// The client of a call. Both functions are called at most once each, from any thread, also from within any function of
/// this header. They must return at once, must not call back and must not throw. `context` belongs to the caller and is
/// not used after `done`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zlm_journal_client {
    /// sizeof(zlm_journal_client).
    pub size: u32,
    /// The first argument of both functions; may be NULL.
    pub context: *mut c_void,
    /// Run the handler now. Only after ZLM_JOURNAL_WAIT.
    pub go: Option<extern "C" fn(context: *mut c_void)>,
    /// Send this body: the server has answered, and everything that the call changed is on disk, or the body says why
    /// not. Use the status and headers of the server's reply; without one, HTTP status 200 and JSON. `body` is valid
    /// until the callback returns. With `more`, another client's `done` follows at once on this thread, so that one
    /// wake-up can serve both.
    pub done: Option<extern "C" fn(context: *mut c_void, body: zlm_journal_text, more: bool)>,
}

// SAFETY: as the trait asks.
unsafe impl Growing for zlm_journal_client {}

/// Registers a call that is about to be passed to the server, and sets `*verdict`. With ZLM_JOURNAL_PASS or an error,
/// `client` is not used, and the call takes its normal way. With ZLM_JOURNAL_REFUSE (on_error=reject, and the journal
/// cannot be written), `client.done` has already been called.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE, _INVALID_ARGUMENT, _VERSION_MISMATCH.
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
        // SAFETY: as promised by the caller, here and below.
        let (request, client) = unsafe { (grown(request, "request")?, grown(client, "client")?) };
        let args = unsafe { pairs(request.args, request.args_len) }?;
        let caller = unsafe { request.caller.lossy() }?;
        let context = Context(client.context);
        let (Some(go), Some(done)) = (client.go, client.done) else {
            return Err(Error::invalid("client.go and client.done must both be set"));
        };
        let say = |call, what, settles| unsafe {
            let size = size_of_ours::<zlm_journal_verdict>();
            write_grown(verdict, &zlm_journal_verdict { size, verdict: what, settles, call }, "verdict")
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

/// Reports the server's answer to a call. Exactly once for each call that was not passed or refused.
/// An unknown `call` is ignored. Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE, _INVALID_ARGUMENT, _VERSION_MISMATCH.
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
    let answer = unsafe { grown(answer, "answer") }?;
    let bytes = unsafe { answer.text.bytes() }?;
    let words = || String::from_utf8_lossy(bytes).into_owned();
    match answer.outcome {
        ZLM_JOURNAL_ACCEPTED => Ok(Answer::Replied(br#"{"code":0}"#.to_vec())),
        ZLM_JOURNAL_REPLIED => Ok(Answer::Replied(bytes.to_vec())),
        ZLM_JOURNAL_REFUSED => Ok(Answer::Refused(answer.code, words())),
        ZLM_JOURNAL_THREW => Ok(Answer::Threw(words())),
        ZLM_JOURNAL_DROPPED => Ok(Answer::Dropped),
        other => Err(Error::invalid(format!(
            "outcome is {other}, not ZLM_JOURNAL_ACCEPTED, _REPLIED, _REFUSED, _THREW or _DROPPED"
        ))),
    }
}

/// Reports that everything that the handler of close_stream or close_streams queued on the server's threads has run.
/// Once for each of these calls; other calls are ignored.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn zlm_journal_call_settled(handle: zlm_journal_handle, call: u64) -> i32 {
    c_result("zlm_journal_call_settled", || {
        handles::get(handle)?.capture().settled(call);
        Ok(())
    })
}

/// Reports that a proxy has entered the server's map of its kind (ZLM_JOURNAL_PULL, _PUSH, _FFMPEG). Call it under that
/// map's lock, so that the order of the reports is the order of the effects. Sets `*call` to the call of
/// zlm_journal_host.add that made it, or to 0.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE, _INVALID_ARGUMENT.
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
        let key = unsafe { key.lossy() }?;
        unsafe { write_out(call, 0) }?;
        let ours = handles::get(handle)?.capture().made(kind_of(kind)?, &key);
        unsafe { write_out(call, ours) }
    })
}

/// Reports that a proxy has left that map: in the handler of the call `within` (a delete, or a call of
/// zlm_journal_host), or in none if `within` is 0. Call it under the map's lock.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE, _INVALID_ARGUMENT.
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
        let key = unsafe { key.lossy() }?;
        handles::get(handle)?.capture().ended(kind_of(kind)?, &key, within);
        Ok(())
    })
}

/// The name of a media source in the server.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zlm_journal_stream {
    /// The virtual host. In reports of the host, empty stands for the default one.
    pub vhost: zlm_journal_text,
    /// The app.
    pub app: zlm_journal_text,
    /// The name within the app.
    pub stream: zlm_journal_text,
}

/// Reports that a media source with this schema was registered or unregistered (kBroadcastMediaChanged). Registering
/// starts the pushes that take it; with restore=off, only those that have run since the start.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE, _INVALID_ARGUMENT.
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

/// Reports that nobody watches a media source (kBroadcastStreamNoneReader). If its proxy is closed next, this is taken
/// as the reason.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE, _INVALID_ARGUMENT.
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

/// Reports that a player waits for a missing media source (kBroadcastNotFoundStream). If an enabled or dormant proxy
/// makes it, that proxy is started before all others, unless restore=off.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE, _INVALID_ARGUMENT.
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

/// Reports that a proxy of this kind failed to connect or lost its connection, with the error message, or an empty one.
/// MediaServer reports this for pulls (kBroadcastPlayerProxyFailed); pushes must be asked.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE, _INVALID_ARGUMENT.
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
        let key = unsafe { key.lossy() }?;
        let error = unsafe { error.lossy() }?;
        handles::get(handle)?.capture().failed(kind_of(kind)?, &key, &error);
        Ok(())
    })
}

/// Reports that a proxy of this kind has connected, also if it did before. Without this report, a proxy that registers
/// no new source then (a push; a pull with `general.resetWhenRePlay=0` or without protocols) stays `retrying` after its
/// first failure.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE, _INVALID_ARGUMENT.
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
        let key = unsafe { key.lossy() }?;
        handles::get(handle)?.capture().connected(kind_of(kind)?, &key);
        Ok(())
    })
}

fn kind_of(number: u32) -> Result<Kind> {
    let kind = Kind::ALL.get(number as usize).copied();
    kind.ok_or_else(|| Error::invalid(format!("{number} is not a kind of proxy")))
}

/// # Safety
/// `stream` is NULL or valid, with all that it points to, for `'a`.
unsafe fn names<'a>(stream: *const zlm_journal_stream) -> Result<[&'a str; 3]> {
    // SAFETY: as promised by the caller, here and below.
    let stream = unsafe { by_pointer(stream, "stream") }?;
    Ok(unsafe { [stream.vhost.utf8("vhost")?, stream.app.utf8("app")?, stream.stream.utf8("stream")?] })
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
