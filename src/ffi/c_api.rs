//! The C API for the life of a journal, and for hosts that record their calls themselves.

use std::ffi::{c_char, c_void};
use std::path::Path;
use std::time::Duration;

use super::guard::{c_result, last_error};
use super::logger::set_sink;
use super::values::{
    Context, Growing, grown, pairs, size_of_ours, slice, write_out, zlm_journal_pair, zlm_journal_text,
};
use super::{guard, handles};
use crate::capture::{HostFacts, PROTOCOLS, is_true};
use crate::error::{Code, Error, Result};
use crate::journal::{Ack, Call, Cause, Done, Mutation, Persisted};
use crate::model::{Args, Kind, NamingRules, Op};
use crate::plugin::Plugin;
use crate::reconcile::SETTLES;

/// The version of this header. Every incompatible change increments it; docs/abi.md says which changes are compatible.
pub const ZLM_JOURNAL_ABI: u32 = 17;

/// `zlm_journal_call.op`: the call made a proxy. No change if the journal already has it with the same arguments,
/// enabled and on disk.
pub const ZLM_JOURNAL_ADD: u32 = 1;
/// `zlm_journal_call.op`: the call removed a proxy.
pub const ZLM_JOURNAL_REMOVE: u32 = 2;

/// `zlm_journal_call.op`: the call asked for a proxy that the server already had, and succeeded without changing it. No
/// change if the journal has that proxy enabled.
pub const ZLM_JOURNAL_ADD_EXISTING: u32 = 4;

/// `zlm_journal_ack.persisted`: not on disk; `error` says why.
pub const ZLM_JOURNAL_NOT_PERSISTED: u32 = 0;
/// `zlm_journal_ack.persisted`: on disk; no crash undoes it.
pub const ZLM_JOURNAL_PERSISTED: u32 = 1;
/// `zlm_journal_ack.persisted`: durability=async; not yet on disk.
pub const ZLM_JOURNAL_PERSISTED_SOON: u32 = 2;

/// How long the close waits for running API calls. Reading a long history may take longer.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// An open journal; never 0. It is a number, not a pointer: using it after zlm_journal_close is an error
/// (ZLM_JOURNAL_CODE_INVALID_HANDLE), not undefined behavior.
pub type zlm_journal_handle = u64;

/// Properties of the host that decide how its events are read.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zlm_journal_facts {
    /// sizeof(zlm_journal_facts).
    pub size: u32,
    /// `general.enableVhost`. If false, every media source has the virtual host __defaultVhost__, whatever its proxy
    /// was added with.
    pub vhosts: bool,
    /// The host reports each failed connect of a pull with zlm_journal_failed.
    pub tells_failures: bool,
    /// How many milliseconds after its event the hook on_stream_none_reader may still answer.
    pub idle_answer_ms: u32,
    /// `record.appName`: streams of this app are closed without an event when they have no viewers.
    pub record_app: zlm_journal_text,
    /// The [protocol] section of the host's ini file, without "protocol." in the names: the default protocols of a
    /// pull. A pull with any of them plays once it has a media source; a pull with none plays once its add succeeds.
    /// Values that are not UTF-8 (paths may be) are ignored. Copied.
    pub protocol: *const zlm_journal_pair,
    /// The number of pairs at `protocol`.
    pub protocol_len: usize,
    /// `general.mediaServerId`: what the host calls itself in alerts. May be empty.
    pub server_id: zlm_journal_text,
}

// SAFETY: as the trait asks.
unsafe impl Growing for zlm_journal_facts {}

impl zlm_journal_facts {
    const NONE: Self = Self {
        size: size_of_ours::<Self>(),
        vhosts: false,
        tells_failures: false,
        idle_answer_ms: 0,
        record_app: zlm_journal_text::NULL,
        protocol: std::ptr::null(),
        protocol_len: 0,
        server_id: zlm_journal_text::NULL,
    };
}

/// How to open a journal.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zlm_journal_options {
    /// sizeof(zlm_journal_options).
    pub size: u32,
    /// ZLM_JOURNAL_ABI of the header that the caller was compiled with.
    pub abi: u32,
    /// The number of poller threads of the host; the default pace of a restore depends on it.
    pub host_threads: u32,
    /// The [journal] section of the host's ini file, without "journal." in the names. Missing keys have their defaults.
    pub settings: *const zlm_journal_pair,
    /// The number of pairs at `settings`.
    pub settings_len: usize,
    /// The directory to which a relative `path` refers.
    pub base_dir: zlm_journal_text,
    /// The host's own names and addresses other than loopback, and the ports on which it plays and receives streams. A
    /// proxy that would feed itself through them is not started. Both may be empty.
    pub own_hosts: *const zlm_journal_text,
    /// The number of texts at `own_hosts`.
    pub own_hosts_len: usize,
    /// The ports, in host byte order.
    pub own_ports: *const u16,
    /// The number of ports at `own_ports`.
    pub own_ports_len: usize,
    /// NULL: as if all of it were zero.
    pub facts: *const zlm_journal_facts,
}

// SAFETY: as the trait asks.
unsafe impl Growing for zlm_journal_options {}

/// A change of the desired state: one that has happened (zlm_journal_record), or one that is asked for (zlm_journal_want).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zlm_journal_call {
    /// sizeof(zlm_journal_call).
    pub size: u32,
    /// ZLM_JOURNAL_ADD, ZLM_JOURNAL_ADD_EXISTING or ZLM_JOURNAL_REMOVE.
    pub op: u32,
    /// The kind of proxy: "pull", "push" or "ffmpeg".
    pub kind: zlm_journal_text,
    /// The proxy's key as the host knows it: 1 to 4096 bytes of UTF-8; for zlm_journal_want it may be empty.
    pub key: zlm_journal_text,
    /// All arguments of an add, at most 1 MiB; `secret` is dropped. Unused by other operations.
    pub args: *const zlm_journal_pair,
    /// The number of pairs at `args`.
    pub args_len: usize,
    /// Who called, "ip:port"; for operators to read.
    pub caller: zlm_journal_text,
    /// Which API was called, such as "addStreamProxy"; for operators to read.
    pub reason: zlm_journal_text,
}

// SAFETY: as the trait asks.
unsafe impl Growing for zlm_journal_call {}

/// The result of a recorded call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zlm_journal_ack {
    /// sizeof(zlm_journal_ack) in this library: members that begin behind it are not there.
    pub size: u32,
    /// One of ZLM_JOURNAL_NOT_PERSISTED, _PERSISTED, _PERSISTED_SOON.
    pub persisted: u32,
    /// The number of the change; 0 if there was none.
    pub seq: u64,
    /// 0, or the zlm_journal_code of the error.
    pub code: i32,
    /// on_error=reject, and not persisted: the desired state is as before the call. Reply with an error; the journal
    /// uses zlm_journal_host to restore the server's state.
    pub undone: bool,
    /// Empty, or the error message. Valid until the callback returns.
    pub error: zlm_journal_text,
}

// SAFETY: as the trait asks.
unsafe impl Growing for zlm_journal_ack {}

/// Called exactly once for each zlm_journal_record, whatever that returns: on the journal's writer thread, or before
/// zlm_journal_record returns. Must not block and must not throw. `context` belongs to the caller.
pub type zlm_journal_done = Option<extern "C" fn(context: *mut c_void, ack: *const zlm_journal_ack)>;

/// Receives a log line. Level 1 is error, 2 warning, 3 information, 4 debug. Called from any thread; must not throw.
/// `line` is valid until the callback returns.
pub type zlm_journal_log = Option<extern "C" fn(context: *mut c_void, level: u32, line: zlm_journal_text)>;

/// Opens or creates the journal that `options` describe, and sets `*handle`; close it with zlm_journal_close. Blocks on
/// the disk: do not call it on media threads. Errors: ZLM_JOURNAL_CODE_DISABLED if `enable` is 0, _VERSION_MISMATCH,
/// _INVALID_ARGUMENT. An unusable journal file is not an error: calls are acknowledged with ZLM_JOURNAL_NOT_PERSISTED,
/// the status says why, and opening is retried every second.
/// ZLM_JOURNAL_CODE_STORAGE: a thread could not be started.
///
/// # Safety
/// Pointers are NULL or point to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_open(
    options: *const zlm_journal_options,
    handle: *mut zlm_journal_handle,
) -> i32 {
    c_result("zlm_journal_open", || {
        // SAFETY: the caller promises valid pointers, here and below.
        let options = unsafe { grown(options, "options") }?;
        let abi = options.abi;
        if abi != ZLM_JOURNAL_ABI {
            return Err(Error::new(
                Code::VersionMismatch,
                format!(
                    "the caller was compiled with version {abi} of zlm_journal.h, but the library has version \
                     {ZLM_JOURNAL_ABI}: recompile it with the header of the library"
                ),
            ));
        }
        let pairs = unsafe { read_settings(options.settings, options.settings_len) }?;
        let base_dir = unsafe { options.base_dir.utf8("base_dir") }?;
        // Nothing is opened for a result that cannot be handed out.
        unsafe { write_out(handle, 0) }?;
        let ports = unsafe { slice(options.own_ports, options.own_ports_len) }?.to_vec();
        let hosts = unsafe { slice(options.own_hosts, options.own_hosts_len) }?
            .iter()
            .map(|host| unsafe { host.utf8("an own host") }.map(str::to_lowercase))
            .collect::<Result<Vec<_>>>()?;
        let facts = match options.facts.is_null() {
            true => zlm_journal_facts::NONE,
            false => unsafe { grown(options.facts, "facts") }?,
        };
        let facts = unsafe { read_facts(&facts, hosts, ports) }?;
        let plugin = Plugin::open(pairs, Path::new(base_dir), u64::from(options.host_threads), facts)?;
        // SAFETY: as promised by the caller.
        unsafe { write_out(handle, handles::insert(plugin)) }
    })
}

/// Applies the `[journal]` section, all of it as for zlm_journal_open, and the current `facts` (NULL: they are as before)
/// after the ini was read again. Settings that need a restart (enable, path, key_file, restore) and invalid ones are
/// reported in the log and the status. Touches no storage.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE, _INVALID_ARGUMENT, _VERSION_MISMATCH.
///
/// # Safety
/// Pointers are NULL or point to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_reload(
    handle: zlm_journal_handle,
    settings: *const zlm_journal_pair,
    settings_len: usize,
    facts: *const zlm_journal_facts,
) -> i32 {
    c_result("zlm_journal_reload", || {
        // SAFETY: as promised by the caller, here and below.
        let pairs = unsafe { read_settings(settings, settings_len) }?;
        let plugin = handles::get(handle)?;
        let before = plugin.capture().facts();
        let facts = if facts.is_null() {
            HostFacts::clone(&before)
        } else {
            let NamingRules { hosts, ports, .. } = before.rules.clone();
            unsafe { read_facts(&grown(facts, "facts")?, hosts, ports) }?
        };
        plugin.reload(pairs, facts);
        Ok(())
    })
}

/// Asks for a proxy, changes one, or ends one, for a host that makes its proxies only when zlm_journal_host asks for them.
/// With ZLM_JOURNAL_ADD, the journal has the proxy with these arguments, in place of those that it had, and asks the
/// host to make or change it; with ZLM_JOURNAL_REMOVE, it no longer has it, and asks the host to end it. `call.key` may be
/// empty: then `args` have what makes the key. The desired state has changed when this returns; `done` is called, as for
/// zlm_journal_record, when the change is on disk, and may be NULL. The host is asked before or after that, and the status
/// says how it goes. While the journal cannot be written, the call is refused, whatever `on_error` says. Takes
/// microseconds, copies the arguments, and touches no storage.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE, _INVALID_ARGUMENT, _VERSION_MISMATCH, _QUEUE_FULL, _CLOSED; or what
/// keeps the journal from being written: _STORAGE, _CORRUPT, _LOCKED, _NEWER_SCHEMA, _KEY_MISSING. `done` gets the
/// same one.
///
/// # Safety
/// Pointers are NULL or point to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_want(
    handle: zlm_journal_handle,
    call: *const zlm_journal_call,
    done: zlm_journal_done,
    context: *mut c_void,
) -> i32 {
    let done = done_of(done, Context(context));
    c_result("zlm_journal_want", move || {
        // SAFETY: as promised by the caller.
        let wish = handles::get(handle).and_then(|plugin| Ok((plugin, unsafe { read_wish(call) }?)));
        match wish {
            Ok((plugin, (wish, cause))) => plugin.want(vec![wish], None, &cause, done).map(drop),
            Err(error) => {
                done.call(error.clone().into());
                Err(error)
            }
        }
    })
}

/// Records a call. The desired state has changed when this returns, and `done` is called when the change is on disk.
/// Calls on one key take effect in the order in which they arrive. Meant for media threads: takes microseconds, copies
/// the arguments, and touches no storage. `done` may be NULL.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE, _INVALID_ARGUMENT, _VERSION_MISMATCH; `done` gets the same one. That a call
/// cannot be journaled is no error here: only `done` is told.
///
/// # Safety
/// Pointers are NULL or point to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_record(
    handle: zlm_journal_handle,
    call: *const zlm_journal_call,
    done: zlm_journal_done,
    context: *mut c_void,
) -> i32 {
    let done = done_of(done, Context(context));
    c_result("zlm_journal_record", move || {
        let prepared = handles::get(handle).and_then(|plugin| {
            // SAFETY: as promised by the caller.
            let (call, args) = unsafe { read_call(call) }?;
            Ok((plugin, call, args))
        });
        match prepared {
            Ok((plugin, call, Ok(args))) => {
                plugin.record(Call { args, ..call }, done);
                Ok(())
            }
            Ok((plugin, call, Err(error))) => {
                plugin.refuse(call.kind, call.key, error.clone(), done);
                Err(error)
            }
            Err(error) => {
                done.call(error.clone().into());
                Err(error)
            }
        }
    })
}

/// Sets `*wanted` to whether the journal has the proxy enabled, exactly as change `seq` left it; with `seq` 0, in any
/// version.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE, _INVALID_ARGUMENT.
///
/// # Safety
/// Pointers are NULL or point to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_wants(
    handle: zlm_journal_handle,
    kind: zlm_journal_text,
    key: zlm_journal_text,
    seq: u64,
    wanted: *mut bool,
) -> i32 {
    c_result("zlm_journal_wants", || {
        // SAFETY: as promised by the caller, here and below.
        let (kind, key) = unsafe { (read_kind(kind)?, key.utf8("key")?) };
        let answer = handles::get(handle)?.journal().wants(kind, key, seq);
        unsafe { write_out(wanted, answer) }
    })
}

/// Closes the journal: calls the host no more, and writes and acknowledges everything that was recorded. Call it before
/// the host destroys its proxies. Blocks on the disk, and waits up to five seconds for running API calls
/// (zlm_journal_api_call). ZLM_JOURNAL_CODE_BUSY: the journal is closed, but some API calls still run, so the process
/// must not destroy anything. Closing twice is ZLM_JOURNAL_CODE_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn zlm_journal_close(handle: zlm_journal_handle) -> i32 {
    c_result("zlm_journal_close", || {
        // The handle stays valid until all answers are in: the host may still be answering.
        handles::get(handle)?.close();
        if handles::remove(handle)?.close(LAST_ANSWERS) {
            return Ok(());
        }
        Err(Error::new(Code::Busy, "the journal is closed, but API calls are still running"))
    })
}

/// Sends the log lines of all journals of this process to `log`; NULL stops that. When this returns, the previous
/// function is no longer called. Must not be called from within a log callback.
/// Has no errors of its own.
#[unsafe(no_mangle)]
pub extern "C" fn zlm_journal_set_log(log: zlm_journal_log, context: *mut c_void) -> i32 {
    let context = Context(context);
    c_result("zlm_journal_set_log", || {
        set_sink(log.map(|log| (log, context)));
        Ok(())
    })
}

/// A proxy whose add was answered this many milliseconds ago or less is accused of a crash as well: its first data are
/// read then.
pub const ZLM_JOURNAL_SETTLES_MS: u32 = 2000;
const _: () = assert!(SETTLES.as_millis() == ZLM_JOURNAL_SETTLES_MS as u128);

/// Copies the path of the file to which a handler of crash signals must write what the host was working on: the `seq` of
/// each zlm_journal_add, in decimal, one per line. The next start reads and removes it. `buffer`, `capacity` and `*len` are
/// as for zlm_journal_last_error.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE, _INVALID_ARGUMENT (also if the path is not UTF-8).
///
/// # Safety
/// `buffer` is NULL or has room for `capacity` bytes; `len` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_crash_file(
    handle: zlm_journal_handle,
    buffer: *mut c_char,
    capacity: usize,
    len: *mut usize,
) -> i32 {
    c_result("zlm_journal_crash_file", || {
        let path = handles::get(handle)?.crash_file()?;
        // SAFETY: as promised by the caller.
        unsafe { copy_out(&path, buffer, capacity, len) }
    })
}

/// Copies the message of this thread's last error to `buffer`, truncated to `capacity` bytes including the terminating
/// zero, and sets `*len` to its full length without the zero. `buffer` may be NULL if `capacity` is 0.
/// Errors: ZLM_JOURNAL_CODE_INVALID_ARGUMENT.
///
/// # Safety
/// `buffer` is NULL or has room for `capacity` bytes; `len` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_last_error(buffer: *mut c_char, capacity: usize, len: *mut usize) -> i32 {
    // `guarded`, not `c_result`: reading the last error must not replace it.
    let result = guard::guarded("zlm_journal_last_error", || {
        // SAFETY: as promised by the caller.
        unsafe { copy_out(&last_error(), buffer, capacity, len) }
    });
    result.map_or_else(|error| error.code as i32, |()| 0)
}

/// # Safety
/// `buffer` is NULL or has room for `capacity` bytes; `len` is NULL or may be written.
unsafe fn copy_out(text: &str, buffer: *mut c_char, capacity: usize, len: *mut usize) -> Result<()> {
    if capacity > 0 {
        if buffer.is_null() {
            return Err(Error::invalid("buffer is NULL though its capacity is not 0"));
        }
        let copied = text.len().min(capacity - 1);
        // SAFETY: `buffer` has room for `capacity` bytes, of which these are at most `capacity - 1`.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast::<u8>(), copied) };
        // SAFETY: `copied` is less than `capacity`.
        unsafe { buffer.add(copied).write(0) };
    }
    // SAFETY: as promised by the caller.
    unsafe { write_out(len, text.len()) }
}

/// # Safety
/// `facts` is valid, with all that it points to.
unsafe fn read_facts(facts: &zlm_journal_facts, hosts: Vec<String>, ports: Vec<u16>) -> Result<HostFacts> {
    // SAFETY: as promised by the caller, here and below.
    let protocol = unsafe { slice(facts.protocol, facts.protocol_len) }?;
    // Other values of the section are paths, in any encoding.
    let text = |pair: &zlm_journal_pair| unsafe { Some((pair.name.utf8("").ok()?, pair.value.utf8("").ok()?)) };
    let protocol: Vec<(&str, &str)> = protocol.iter().filter_map(text).collect();
    let is_on = |switch: &str| protocol.iter().any(|(name, value)| *name == switch && is_true(value));
    Ok(HostFacts {
        protocols: PROTOCOLS.map(is_on),
        rules: NamingRules { vhosts: facts.vhosts, hosts, ports },
        server_id: String::from_utf8_lossy(unsafe { facts.server_id.bytes() }?).into_owned(),
        record_app: unsafe { facts.record_app.utf8("record_app") }?.to_owned(),
        idle_answer: Duration::from_millis(u64::from(facts.idle_answer_ms)),
        tells_failures: facts.tells_failures,
    })
}

/// The pairs of an ini section.
///
/// # Safety
/// `settings` is NULL or valid, with all that it points to, for `'a`.
unsafe fn read_settings<'a>(
    settings: *const zlm_journal_pair,
    settings_len: usize,
) -> Result<Vec<(&'a str, &'a str)>> {
    // SAFETY: as promised by the caller, here and below.
    let pairs = unsafe { slice(settings, settings_len) }?;
    let text = |pair: &zlm_journal_pair| unsafe {
        Ok((pair.name.utf8("a setting's name")?, pair.value.utf8("a setting's value")?))
    };
    pairs.iter().map(text).collect()
}

/// The call without its arguments, and the arguments, which may be invalid.
///
/// # Safety
/// `call` is NULL or valid, with all that it points to, for `'a`.
unsafe fn read_call<'a>(call: *const zlm_journal_call) -> Result<(Call<'a>, Result<Option<Args>>)> {
    // SAFETY: as promised by the caller, here and below.
    let call = unsafe { grown(call, "call") }?;
    let kind = unsafe { read_kind(call.kind) }?;
    let key = unsafe { call.key.utf8("key") }?;
    let (op, args) = match call.op {
        ZLM_JOURNAL_ADD | ZLM_JOURNAL_ADD_EXISTING => {
            let pairs = unsafe { pairs(call.args, call.args_len) };
            (Op::Add, pairs.and_then(Args::from_pairs).map(Some))
        }
        ZLM_JOURNAL_REMOVE => (Op::Remove, Ok(None)),
        other => return Err(Error::invalid(format!("{other} is not an operation"))),
    };
    let cause = Cause {
        caller: unsafe { call.caller.lossy() }?.into_owned(),
        reason: unsafe { call.reason.lossy() }?.into_owned(),
    };
    let already_exists = call.op == ZLM_JOURNAL_ADD_EXISTING;
    Ok((Call { op, kind, key, args: None, already_exists, cause }, args))
}

/// What zlm_journal_want is asked for.
///
/// # Safety
/// `call` is NULL or valid, with all that it points to.
unsafe fn read_wish(call: *const zlm_journal_call) -> Result<(Mutation, Cause)> {
    // SAFETY: as promised by the caller, here and below.
    let call = unsafe { grown(call, "call") }?;
    let (kind, given) = unsafe { (read_kind(call.kind)?, call.key.utf8("key")?) };
    let args = Args::from_pairs(unsafe { pairs(call.args, call.args_len) }?)?;
    let (op, key, args) = match call.op {
        ZLM_JOURNAL_ADD => (Op::Add, kind.key_of_add(&args)?, Some(args)),
        ZLM_JOURNAL_REMOVE if given.is_empty() => (Op::Remove, kind.key_of_args(&args), None),
        ZLM_JOURNAL_REMOVE => (Op::Remove, given.to_owned(), None),
        other => return Err(Error::invalid(format!("op is {other}, not ZLM_JOURNAL_ADD or ZLM_JOURNAL_REMOVE"))),
    };
    if !given.is_empty() && given != key {
        return Err(Error::invalid(format!("these arguments make the key {key:?}, not {given:?}")));
    }
    crate::model::check_key(&key)?;
    let cause = Cause {
        caller: unsafe { call.caller.lossy() }?.into_owned(),
        reason: unsafe { call.reason.lossy() }?.into_owned(),
    };
    Ok((Mutation { key: (kind, key.into()), op, args, expected: None }, cause))
}

fn done_of(done: zlm_journal_done, context: Context) -> Done {
    Done::new(move |ack| {
        if let Some(done) = done {
            done(context.get(), &ack_of(&ack));
        }
    })
}

/// # Safety
/// `kind` is valid.
unsafe fn read_kind(kind: zlm_journal_text) -> Result<Kind> {
    // SAFETY: as promised by the caller.
    let name = unsafe { kind.utf8("kind") }?;
    Kind::from_name(name).ok_or_else(|| Error::invalid(format!("{name:?} is not a kind of proxy")))
}

/// The result borrows from `ack`.
fn ack_of(ack: &Ack) -> zlm_journal_ack {
    let (persisted, code, error) = match &ack.result {
        Ok(Persisted::Yes) => (ZLM_JOURNAL_PERSISTED, 0, zlm_journal_text::NULL),
        Ok(Persisted::Soon) => (ZLM_JOURNAL_PERSISTED_SOON, 0, zlm_journal_text::NULL),
        Err(error) => (ZLM_JOURNAL_NOT_PERSISTED, error.code as i32, zlm_journal_text::of(&error.message)),
    };
    let size = size_of_ours::<zlm_journal_ack>();
    zlm_journal_ack { size, persisted, seq: ack.seq, code, undone: ack.undone, error }
}
