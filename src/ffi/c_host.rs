//! The C API for what the journal asks of the server.

use std::ffi::c_void;

use super::c_api::zlm_journal_handle;
use super::c_call::{answer_of, zlm_journal_answer, zlm_journal_stream};
use super::guard::c_result;
use super::handles;
use super::values::{Context, Growing, grown, size_of_ours, write_out, zlm_journal_pair, zlm_journal_text};
use crate::capture::{Answer, Lacking, Server};
use crate::error::Error;
use crate::model::{Existing, ProxyKey, body_of};
use crate::reconcile::{Add, Added};

/// `zlm_journal_host_blocked`: the server does not have `add_api` or `remove_api`.
pub const ZLM_JOURNAL_NO_API: u32 = 0;
/// `zlm_journal_host_blocked`: the media source `schema`/`stream` does not exist.
pub const ZLM_JOURNAL_NO_STREAM: u32 = 1;
/// `zlm_journal_host_blocked`: the server's ini file has no such setting.
pub const ZLM_JOURNAL_NO_SETTING: u32 = 2;

/// A proxy that the host must start.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zlm_journal_add {
    /// sizeof(zlm_journal_add) in this library: members that begin behind it are not there.
    pub size: u32,
    /// The server has this proxy, but it no longer works, or has to be another: remove it first.
    pub replace: bool,
    /// The kind of proxy: "pull", "push" or "ffmpeg".
    pub kind: zlm_journal_text,
    /// The key that the server gives it.
    pub key: zlm_journal_text,
    /// The number of the change. A handler of crash signals writes it to zlm_journal_crash_file while the server works on
    /// the proxy.
    pub seq: u64,
    /// The server's API calls that add and remove it.
    pub add_api: zlm_journal_text,
    /// The call that removes it.
    pub remove_api: zlm_journal_text,
    /// The media source that it needs; none if the schema is empty.
    pub schema: zlm_journal_text,
    /// The name of that media source; all of it is empty if the schema is.
    pub stream: zlm_journal_stream,
    /// The key of the server's ini file that it needs; none if empty.
    pub setting: zlm_journal_text,
    /// The URL that it connects to, which is also in `body`.
    pub url: zlm_journal_text,
    /// The arguments of the call: one JSON object whose values are all strings. A value that was not UTF-8 when it was
    /// recorded is not UTF-8 here.
    pub body: zlm_journal_text,
    /// The same, one by one.
    pub args: *const zlm_journal_pair,
    /// The number of pairs at `args`.
    pub args_len: usize,
}

// SAFETY: as the trait asks.
unsafe impl Growing for zlm_journal_add {}

/// The host. The journal calls these functions from any thread, also from within reports of the host, between
/// zlm_journal_start and the end of zlm_journal_close. They must return at once and must not throw. They may call any
/// function of this header except zlm_journal_close. Their arguments are valid until they return; `context` must stay
/// valid until zlm_journal_close returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zlm_journal_host {
    /// sizeof(zlm_journal_host).
    pub size: u32,
    /// The first argument of all functions; may be NULL.
    pub context: *mut c_void,
    /// Start a proxy, on a thread of the host. No other add of its key is running then. Answer with
    /// zlm_journal_host_added. If something that it needs is missing, do nothing and answer with
    /// zlm_journal_host_blocked. Pass `call` as `within` to zlm_journal_ended for what this removes (`replace`).
    pub add: Option<extern "C" fn(context: *mut c_void, call: u64, add: *const zlm_journal_add)>,
    /// Give a running proxy of the kind pull the arguments of `add` in place, so that its media sources stay, and let it
    /// connect anew, on its own thread. Then call zlm_journal_host_updated before it can fail or connect, and answer with
    /// zlm_journal_host_added when it has done either; an error means that the server keeps it and retries. If it has
    /// ended, do as in `add`. NULL if the host cannot; then such a proxy is replaced.
    pub update: Option<extern "C" fn(context: *mut c_void, call: u64, add: *const zlm_journal_add)>,
    /// End a proxy with the server's call `remove_api`, on a thread of the host. Pass `call` as `within` to
    /// zlm_journal_ended. Then call zlm_journal_host_removed.
    pub remove: Option<
        extern "C" fn(context: *mut c_void, call: u64, remove_api: zlm_journal_text, key: zlm_journal_text),
    >,
}

// SAFETY: as the trait asks.
unsafe impl Growing for zlm_journal_host {}

/// Begins the restore: from now on the host is asked to start what the journal has. Call it when the server accepts API
/// calls; further calls have no effect. With restore=lazy or restore=off, proxies are started only on demand.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE, _INVALID_ARGUMENT, _VERSION_MISMATCH.
///
/// # Safety
/// `host` is NULL or points to a zlm_journal_host whose functions can be called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_start(handle: zlm_journal_handle, host: *const zlm_journal_host) -> i32 {
    c_result("zlm_journal_start", || {
        // SAFETY: as promised by the caller.
        let host = unsafe { grown(host, "host") }?;
        let (Some(add), Some(remove)) = (host.add, host.remove) else {
            return Err(Error::invalid("host.add and host.remove must both be set"));
        };
        let (context, update) = (Context(host.context), host.update);
        handles::get(handle)?.start(Box::new(CHost { context, add, update, remove }));
        Ok(())
    })
}

/// Answers zlm_journal_host.add, and sets `*success` to whether the answer is a success. Once per call; further answers
/// are ignored. After three ZLM_JOURNAL_THREW in a row the proxy is quarantined. Any thread, also from within the
/// callback.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE, _INVALID_ARGUMENT, _VERSION_MISMATCH.
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

/// Answers zlm_journal_host.add if nothing was tried because something is missing (`lacking`: ZLM_JOURNAL_NO_API,
/// _NO_STREAM or _NO_SETTING). The proxy is started when the stream comes (zlm_journal_stream_changed) or on demand,
/// and is retried about every five minutes. Otherwise as zlm_journal_host_added.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE, _INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub extern "C" fn zlm_journal_host_blocked(handle: zlm_journal_handle, call: u64, lacking: u32) -> i32 {
    c_result("zlm_journal_host_blocked", || {
        let lacking = match lacking {
            ZLM_JOURNAL_NO_API => Lacking::Api,
            ZLM_JOURNAL_NO_STREAM => Lacking::Stream,
            ZLM_JOURNAL_NO_SETTING => Lacking::Setting,
            other => {
                return Err(Error::invalid(format!(
                    "lacking is {other}, not ZLM_JOURNAL_NO_API, _NO_STREAM or _NO_SETTING"
                )));
            }
        };
        handles::get(handle)?.capture().blocked(call, lacking);
        Ok(())
    })
}

/// Reports that the running proxy has the arguments of zlm_journal_host.update, and connects anew from now on. Exactly
/// once, before the answer. Any thread.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn zlm_journal_host_updated(handle: zlm_journal_handle, call: u64) -> i32 {
    c_result("zlm_journal_host_updated", || {
        handles::get(handle)?.capture().updated(call);
        Ok(())
    })
}

/// Reports that zlm_journal_host.remove was carried out. Any thread, also from within the callback.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE.
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
    update: Option<extern "C" fn(*mut c_void, u64, *const zlm_journal_add)>,
    remove: extern "C" fn(*mut c_void, u64, zlm_journal_text, zlm_journal_text),
}

impl CHost {
    fn pass(&self, to: extern "C" fn(*mut c_void, u64, *const zlm_journal_add), call: u64, add: &Add) {
        let info = add.key.0.info();
        let text = zlm_journal_text::of::<str>;
        let [schema, vhost, app, stream] = add.takes.each_ref().map(|part| text(part));
        let pair = |(name, value): &(String, Vec<u8>)| zlm_journal_pair {
            name: text(name),
            value: zlm_journal_text::of(value),
        };
        let args: Vec<_> = add.args.iter().map(pair).collect();
        let body = body_of(&add.args);
        let add_c = zlm_journal_add {
            size: size_of_ours::<zlm_journal_add>(),
            kind: text(info.name),
            key: text(&add.key.1),
            seq: add.seq,
            replace: add.existing == Existing::Replace,
            add_api: text(info.add),
            remove_api: text(info.remove),
            schema,
            stream: zlm_journal_stream { vhost, app, stream },
            setting: text(&add.setting),
            url: text(&add.url),
            body: zlm_journal_text::of(&body),
            args: args.as_ptr(),
            args_len: args.len(),
        };
        to(self.context.get(), call, &add_c);
    }
}

impl Server for CHost {
    fn add(&self, call: u64, add: &Add) {
        self.pass(self.add, call, add);
    }

    fn can_update(&self) -> bool {
        self.update.is_some()
    }

    fn update(&self, call: u64, add: &Add) {
        self.pass(self.update.unwrap_or(self.add), call, add);
    }

    fn remove(&self, call: u64, (kind, key): &ProxyKey) {
        let text = zlm_journal_text::of::<str>;
        (self.remove)(self.context.get(), call, text(kind.info().remove), text(key));
    }
}
