//! The C API's part for what the journal asks of the server. As in `c_api`, every
//! function may be called from any thread, returns 0 or a `zlm_journal_code`, and lets no panic through.

// The names are C's.
#![allow(non_camel_case_types)]

use std::ffi::c_void;

use super::c_api::zlm_journal_handle;
use super::guard::c_result;
use super::handles;
use super::values::{Context, by_pointer, zlm_journal_text};
use crate::capture::Server;
use crate::error::Error;
use crate::model::Kind;
use crate::reconcile::{Add, Added};

/// `zlm_journal_host_added`: the server has answered with success.
pub const ZLM_JOURNAL_ACCEPTED: u32 = 1;
/// `zlm_journal_host_added`: refused, or the first connect failed, or it will never be answered.
pub const ZLM_JOURNAL_FAILED: u32 = 2;
/// `zlm_journal_host_added`: the server threw an exception out of the call. After three running, the proxy is set aside.
pub const ZLM_JOURNAL_THREW: u32 = 3;

/// `zlm_journal_host_added`: nothing was tried, since the proxy cannot be started as things are: the reason tells what is
/// missing. It is started when that stream comes (zlm_journal_stream_changed), on demand, and in any case tried again about
/// every five minutes.
pub const ZLM_JOURNAL_BLOCKED: u32 = 4;

/// A proxy that the journal wants the host to start.
#[repr(C)]
pub struct zlm_journal_add {
    pub kind: zlm_journal_text,
    pub key: zlm_journal_text,
    /// The change that this carries out: what a handler of crash signals notes (crash_file() of the bridge) while the server
    /// works on it.
    pub seq: u64,
    /// The server has this proxy, but it does nothing any more: end it first.
    pub replace: bool,
    /// The arguments of the call, as the text of one JSON object whose values are all strings. A value that was
    /// not UTF-8 when it was recorded is not UTF-8 here.
    pub body: zlm_journal_text,
}

/// The host: what the journal asks of the server. The functions are called from any thread, also from within what the
/// host tells of its proxies, between zlm_journal_start and the end of zlm_journal_close. They must return at once and
/// must not throw, and may call any function of this header but zlm_journal_close; what they are given is valid until they return. `context` must live as long.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zlm_journal_host {
    pub context: *mut c_void,
    /// Start a proxy, on a thread of the host's. No other add of its key is under way then. Answer with
    /// zlm_journal_host_added. Whatever it ends before (`anew`) is told with `call` as zlm_journal_ended's `within`.
    pub add: Option<extern "C" fn(context: *mut c_void, call: u64, add: *const zlm_journal_add)>,
    /// End a proxy that is not wanted, on a thread of the host's, with `call` as zlm_journal_ended's `within`. Then say so
    /// with zlm_journal_host_removed.
    pub remove:
        Option<extern "C" fn(context: *mut c_void, call: u64, kind: zlm_journal_text, key: zlm_journal_text)>,
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
        let (Some(add), Some(remove)) = (host.add, host.remove) else {
            return Err(Error::invalid("host.add and host.remove must both be set"));
        };
        handles::get(handle)?.start(Box::new(CHost { context: Context(host.context), add, remove }))
    })
}

/// Answers zlm_journal_host.add: `outcome` is ZLM_JOURNAL_ACCEPTED, _FAILED, _THREW or _BLOCKED (these with the reason).
/// Once; what comes later is ignored. Any thread, also from within the callback.
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
            ZLM_JOURNAL_THREW => Added::Threw(reason),
            ZLM_JOURNAL_BLOCKED => Added::Blocked(reason),
            other => return Err(Error::invalid(format!("{other} is not an outcome of an add"))),
        };
        handles::get(handle)?.capture().started(call, outcome);
        Ok(())
    })
}

/// Says that zlm_journal_host.remove was carried out. Any thread, also from within the callback.
#[unsafe(no_mangle)]
pub extern "C" fn zlm_journal_host_removed(handle: zlm_journal_handle, call: u64) -> i32 {
    c_result("zlm_journal_host_removed", || {
        handles::get(handle)?.capture().removed(call);
        Ok(())
    })
}

/// The host behind the C API.
struct CHost {
    context: Context,
    add: extern "C" fn(*mut c_void, u64, *const zlm_journal_add),
    remove: extern "C" fn(*mut c_void, u64, zlm_journal_text, zlm_journal_text),
}

impl Server for CHost {
    fn add(&self, call: u64, add: &Add) {
        let add_c = zlm_journal_add {
            kind: zlm_journal_text::of(add.kind.name().as_bytes()),
            key: zlm_journal_text::of(add.key.as_bytes()),
            seq: add.seq,
            replace: add.replace,
            body: zlm_journal_text::of(&add.body),
        };
        (self.add)(self.context.get(), call, &add_c);
    }

    fn remove(&self, call: u64, kind: Kind, key: &str) {
        let kind = zlm_journal_text::of(kind.name().as_bytes());
        (self.remove)(self.context.get(), call, kind, zlm_journal_text::of(key.as_bytes()));
    }
}
