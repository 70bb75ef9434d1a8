//! The C API's part for what the journal asks of the server. As in `c_api`, every
//! function may be called from any thread, returns 0 or a `zlm_journal_code`, and lets no panic through.

// The names are C's.
#![allow(non_camel_case_types)]

use std::ffi::c_void;

use super::c_api::zlm_journal_handle;
use super::c_call::{answer_of, zlm_journal_answer, zlm_journal_stream};
use super::guard::c_result;
use super::handles;
use super::values::{Context, by_pointer, write_out, zlm_journal_text};
use crate::capture::{Answer, Lacking, Server};
use crate::error::Error;
use crate::model::Kind;
use crate::reconcile::{Add, Added};

/// `zlm_journal_host_blocked`: the server lacks `add_api` or `remove_api`.
pub const ZLM_JOURNAL_NO_API: u32 = 0;
/// `zlm_journal_host_blocked`: the source that it takes is not there.
pub const ZLM_JOURNAL_NO_STREAM: u32 = 1;
/// `zlm_journal_host_blocked`: the server's ini file has no such setting.
pub const ZLM_JOURNAL_NO_SETTING: u32 = 2;

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
    /// The server's calls that start and end it.
    pub add_api: zlm_journal_text,
    pub remove_api: zlm_journal_text,
    /// The source of the server that it takes by name, without which it cannot be started; with an empty schema, none.
    pub schema: zlm_journal_text,
    pub stream: zlm_journal_stream,
    /// The key of the server's ini file without which it is not to be started; empty, none.
    pub setting: zlm_journal_text,
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
    /// zlm_journal_host_added or, where what it needs is not there, with zlm_journal_host_blocked, and do nothing then.
    /// Whatever it ends before (`replace`) is told with `call` as zlm_journal_ended's `within`.
    pub add: Option<extern "C" fn(context: *mut c_void, call: u64, add: *const zlm_journal_add)>,
    /// End a proxy that is not wanted by the server's call `remove_api`, on a thread of the host's, with `call` as
    /// zlm_journal_ended's `within`. Then say so with zlm_journal_host_removed.
    pub remove: Option<
        extern "C" fn(context: *mut c_void, call: u64, remove_api: zlm_journal_text, key: zlm_journal_text),
    >,
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

/// Answers zlm_journal_host.add, and sets `*success` to whether that is a success. Once; what comes later is ignored. After
/// ZLM_JOURNAL_THREW three times running the proxy is set aside. Any thread, also from within the callback.
///
/// # Safety
/// `answer` is NULL or valid, with its text, until this returns; `success` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_host_added(
    handle: zlm_journal_handle,
    call: u64,
    answer: *const zlm_journal_answer,
    success: *mut bool,
) -> i32 {
    c_result("zlm_journal_host_added", || {
        // SAFETY: as promised by the caller, here and below.
        let added = match unsafe { answer_of(answer) }? {
            answer if answer.is_success() => Added::Accepted,
            Answer::Threw(why) => Added::Threw(why),
            answer => Added::Failed(answer.error()),
        };
        let is_success = added == Added::Accepted;
        handles::get(handle)?.capture().started(call, added);
        unsafe { write_out(success, is_success) }
    })
}

/// Answers zlm_journal_host.add: nothing was tried, since what it cannot do without is missing, one of ZLM_JOURNAL_NO_API,
/// _NO_STREAM and _NO_SETTING. It is started when that stream comes (zlm_journal_stream_changed), on demand, and in any case
/// tried again about every five minutes. As zlm_journal_host_added.
#[unsafe(no_mangle)]
pub extern "C" fn zlm_journal_host_blocked(handle: zlm_journal_handle, call: u64, lacking: u32) -> i32 {
    c_result("zlm_journal_host_blocked", || {
        let lacking = match lacking {
            ZLM_JOURNAL_NO_API => Lacking::Api,
            ZLM_JOURNAL_NO_STREAM => Lacking::Stream,
            ZLM_JOURNAL_NO_SETTING => Lacking::Setting,
            other => return Err(Error::invalid(format!("{other} is nothing that an add needs"))),
        };
        handles::get(handle)?.capture().blocked(call, lacking);
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

fn text(text: &str) -> zlm_journal_text {
    zlm_journal_text::of(text.as_bytes())
}

/// The host behind the C API.
struct CHost {
    context: Context,
    add: extern "C" fn(*mut c_void, u64, *const zlm_journal_add),
    remove: extern "C" fn(*mut c_void, u64, zlm_journal_text, zlm_journal_text),
}

impl Server for CHost {
    fn add(&self, call: u64, add: &Add) {
        let text = |text: &str| zlm_journal_text::of(text.as_bytes());
        let info = add.kind.info();
        let [schema, vhost, app, stream] =
            add.takes.as_ref().map_or([""; 4], |its| its.each_ref().map(|it| &**it));
        let add_c = zlm_journal_add {
            kind: text(info.name),
            key: text(&add.key),
            seq: add.seq,
            replace: add.replace,
            add_api: text(info.add),
            remove_api: text(info.remove),
            schema: text(schema),
            stream: zlm_journal_stream { vhost: text(vhost), app: text(app), stream: text(stream) },
            setting: text(add.setting.as_deref().unwrap_or_default()),
            body: zlm_journal_text::of(&add.body),
        };
        (self.add)(self.context.get(), call, &add_c);
    }

    fn remove(&self, call: u64, kind: Kind, key: &str) {
        (self.remove)(self.context.get(), call, text(kind.info().remove), text(key));
    }
}
