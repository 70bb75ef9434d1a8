//! The C API's part for the host: what the journal asks of the server, and what the server tells it. As in `c_api`, every
//! function may be called from any thread, returns 0 or a `zlm_journal_code`, and lets no panic through.

// The names are C's.
#![allow(non_camel_case_types)]

use std::ffi::c_void;
use std::sync::Arc;

use super::c_api::zlm_journal_handle;
use super::guard::c_result;
use super::handles;
use super::values::{Context, by_pointer, slice, zlm_journal_text};
use crate::error::{Error, Result};
use crate::reconcile::{Add, Added, Host, Listed};
use crate::record::Kind;

/// `zlm_journal_host_added`: the proxy plays.
pub const ZLM_JOURNAL_ACCEPTED: u32 = 1;
/// `zlm_journal_host_added`: refused, or the first connect failed.
pub const ZLM_JOURNAL_FAILED: u32 = 2;
/// `zlm_journal_host_added`: zlm_journal_wants said no; nothing was done.
pub const ZLM_JOURNAL_UNWANTED: u32 = 3;
/// `zlm_journal_host_added`: the server threw an exception out of the call. After three running, the proxy is set aside.
pub const ZLM_JOURNAL_THREW: u32 = 4;
/// `zlm_journal_host_added`: the server has a proxy with that key already, which was left alone.
pub const ZLM_JOURNAL_PRESENT: u32 = 5;

/// `zlm_journal_host_added`: nothing was tried, since the proxy cannot be started as things are: the reason tells what is
/// missing. It is started when that stream comes (zlm_journal_source_moved), on demand, and in any case tried again about
/// every five minutes.
pub const ZLM_JOURNAL_BLOCKED: u32 = 6;

/// A proxy that the journal wants the host to start.
#[repr(C)]
pub struct zlm_journal_add {
    pub kind: zlm_journal_text,
    pub key: zlm_journal_text,
    /// To be given to zlm_journal_wants.
    pub seq: u64,
    /// The server has this proxy, but it does nothing any more: end it first.
    pub anew: bool,
    /// The arguments of the call, as the text of one JSON object whose values are all strings. A value that was
    /// not UTF-8 when it was recorded is not UTF-8 here.
    pub body: zlm_journal_text,
}

/// A proxy that the server has.
#[repr(C)]
pub struct zlm_journal_proxy {
    pub key: zlm_journal_text,
    pub playing: bool,
    /// How often it has connected again, as the server counts it; negative where the server does not count.
    pub retries: i64,
}

/// The host: what the journal asks of the server. The functions are called from the journal's own threads, one call
/// at a time, between zlm_journal_start and the end of zlm_journal_close. They must not throw; what they are given
/// is valid until they return. `context` must live as long.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zlm_journal_host {
    pub context: *mut c_void,
    /// Start a proxy. First ask zlm_journal_wants, with every other call on this key kept out until the server's
    /// own handler has run. Answer with zlm_journal_host_added, now or later.
    pub add: Option<extern "C" fn(context: *mut c_void, call: u64, add: *const zlm_journal_add)>,
    /// End a proxy, because the call that made it was undone. First ask zlm_journal_wants with 0, with every other call
    /// on this key kept out until the server's own handler has run: where it says yes, do nothing. No answer.
    pub remove: Option<extern "C" fn(context: *mut c_void, kind: zlm_journal_text, key: zlm_journal_text)>,
    /// Tell which proxies of a kind there are, again and again while the server runs: about every ten seconds, or less
    /// often where the answer would take the server more than a hundredth of its time. Answer with
    /// zlm_journal_host_listed, now or later.
    pub list: Option<extern "C" fn(context: *mut c_void, call: u64, kind: zlm_journal_text)>,
}

/// Begins the restore: from here on the host is asked to start what the journal has. Call it when the server accepts
/// calls. The second time it has no effect. With restore=lazy or restore=off in the ini, what is asked for is started.
///
/// # Safety
/// `host` is NULL or points to a zlm_journal_host whose functions can be called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_start(handle: zlm_journal_handle, host: *const zlm_journal_host) -> i32 {
    c_result("zlm_journal_start", || {
        // SAFETY: as promised by the caller.
        let host = *unsafe { by_pointer(host, "host") }?;
        let (Some(add), Some(remove), Some(list)) = (host.add, host.remove, host.list) else {
            return Err(Error::invalid("host.add, host.remove and host.list must all be set"));
        };
        handles::get(handle)?.start(Arc::new(CHost { context: Context(host.context), add, remove, list }))
    })
}

/// Answers zlm_journal_host.add: `outcome` is ZLM_JOURNAL_ACCEPTED, _FAILED, _THREW or _BLOCKED (these with the reason),
/// _UNWANTED or _PRESENT. Any thread, also from within the callback.
///
/// # Safety
/// `reason` is valid until this returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_host_added(
    handle: zlm_journal_handle,
    call: u64,
    outcome: u32,
    reason: zlm_journal_text,
) -> i32 {
    c_result("zlm_journal_host_added", || {
        // SAFETY: as promised by the caller.
        let reason = String::from_utf8_lossy(unsafe { reason.bytes() }?).into_owned();
        let outcome = match outcome {
            ZLM_JOURNAL_ACCEPTED => Added::Accepted,
            ZLM_JOURNAL_FAILED => Added::Failed(reason),
            ZLM_JOURNAL_UNWANTED => Added::Unwanted,
            ZLM_JOURNAL_PRESENT => Added::Present,
            ZLM_JOURNAL_THREW => Added::Threw(reason),
            ZLM_JOURNAL_BLOCKED => Added::Blocked(reason),
            other => return Err(Error::invalid(format!("{other} is no outcome of an add"))),
        };
        if let Some(reconciler) = handles::get(handle)?.reconciler() {
            reconciler.added(call, outcome);
        }
        Ok(())
    })
}

/// Answers zlm_journal_host.list with all proxies of the kind, or, where the server cannot tell, with none and the
/// reason in `error`. Any thread, also from within the callback.
///
/// # Safety
/// Pointers are NULL or point to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_host_listed(
    handle: zlm_journal_handle,
    call: u64,
    proxies: *const zlm_journal_proxy,
    proxies_len: usize,
    error: zlm_journal_text,
) -> i32 {
    c_result("zlm_journal_host_listed", || {
        // SAFETY: as promised by the caller.
        let error = String::from_utf8_lossy(unsafe { error.bytes() }?);
        // SAFETY: as promised by the caller.
        let proxies = unsafe { slice(proxies, proxies_len) }?
            .iter()
            .map(|proxy| {
                // SAFETY: as promised by the caller.
                let key = String::from_utf8_lossy(unsafe { proxy.key.bytes() }?).into_owned();
                Ok((key, Listed { playing: proxy.playing, retries: u64::try_from(proxy.retries).ok() }))
            })
            .collect::<Result<Vec<_>>>()?;
        if let Some(reconciler) = handles::get(handle)?.reconciler() {
            reconciler.listed(call, if error.is_empty() { Ok(proxies) } else { Err(Error::invalid(error)) });
        }
        Ok(())
    })
}

/// Tells that a player waits for a stream, "vhost/app/stream", that the server does not have: the proxy that makes it,
/// where one is wanted, is started before all others, unless the ini says restore=off. Takes microseconds, touches no
/// storage: made for media threads. A stream that the journal knows nothing of is no error.
///
/// # Safety
/// Pointers are NULL or point to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_player_waits(handle: zlm_journal_handle, stream: zlm_journal_text) -> i32 {
    c_result("zlm_journal_player_waits", || {
        // SAFETY: as promised by the caller.
        handles::get(handle)?.player_waits(unsafe { stream.utf8("stream") }?);
        Ok(())
    })
}

/// Tells that a stream of the server, "schema/vhost/app/stream", has come or gone. What pushes it on is started when it
/// has come (with restore=off, what has run since the start), and not taken for given up when it has gone. Takes microseconds, touches no
/// storage: made for media threads. A stream that the journal knows nothing of is no error.
///
/// # Safety
/// Pointers are NULL or point to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_source_moved(
    handle: zlm_journal_handle,
    source: zlm_journal_text,
    is_there: bool,
) -> i32 {
    c_result("zlm_journal_source_moved", || {
        // SAFETY: as promised by the caller.
        handles::get(handle)?.source_moved(unsafe { source.utf8("source") }?, is_there);
        Ok(())
    })
}

/// The host behind the C API, as the reconciler sees it.
struct CHost {
    context: Context,
    add: extern "C" fn(*mut c_void, u64, *const zlm_journal_add),
    remove: extern "C" fn(*mut c_void, zlm_journal_text, zlm_journal_text),
    list: extern "C" fn(*mut c_void, u64, zlm_journal_text),
}

impl Host for CHost {
    fn add(&self, call: u64, add: Add) {
        let add_c = zlm_journal_add {
            kind: zlm_journal_text::of(add.kind.name().as_bytes()),
            key: zlm_journal_text::of(add.key.as_bytes()),
            seq: add.seq,
            anew: add.anew,
            body: zlm_journal_text::of(&add.body),
        };
        (self.add)(self.context.get(), call, &add_c);
    }

    fn remove(&self, kind: Kind, key: Arc<str>) {
        let kind = zlm_journal_text::of(kind.name().as_bytes());
        (self.remove)(self.context.get(), kind, zlm_journal_text::of(key.as_bytes()));
    }

    fn list(&self, call: u64, kind: Kind) {
        (self.list)(self.context.get(), call, zlm_journal_text::of(kind.name().as_bytes()));
    }
}
