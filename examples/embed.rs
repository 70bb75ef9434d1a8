//! The same as embed.c in Rust: the journal as a crate, with the host over ZLMediaKit's C API linked to it.
//!
//!     cargo rustc --example embed --features mk -- \
//!         -L native=<prefix>/lib -L native=<folder of libmk_api.so> -l dylib=mk_api -l dylib=stdc++

#![allow(unsafe_code)] // it is all calls of C

use std::error::Error;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::{BufRead, stdin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, ptr, thread};

use serde_json::Value;
use zlm_journal::ffi::c_api::{
    ZLM_JOURNAL_ABI, ZLM_JOURNAL_ADD, ZLM_JOURNAL_PERSISTED, ZLM_JOURNAL_REMOVE, zlm_journal_ack,
    zlm_journal_call, zlm_journal_handle, zlm_journal_last_error, zlm_journal_options, zlm_journal_want,
};
use zlm_journal::ffi::c_call::zlm_journal_request;
use zlm_journal::ffi::c_router::zlm_journal_api_call;
use zlm_journal::ffi::{zlm_journal_pair, zlm_journal_text};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// mk_config.
#[repr(C)]
struct Config {
    thread_num: c_int,
    log_level: c_int,
    log_mask: c_int,
    log_file_path: *const c_char,
    log_file_days: c_int,
    ini_is_path: c_int,
    ini: *const c_char,
    ssl_is_path: c_int,
    ssl: *const c_char,
    ssl_pwd: *const c_char,
}

/// mk_events, of which only the first member is used here. It has fewer than a hundred.
#[repr(C)]
struct Events {
    media_changed: Option<unsafe extern "C" fn(c_int, *const c_void)>,
    others: [*const c_void; 99],
}

#[link(name = "zlm_journal_mk", kind = "static")]
unsafe extern "C" {
    fn zlm_journal_mk_open(options: *const zlm_journal_options, handle: *mut zlm_journal_handle) -> i32;
    fn zlm_journal_mk_close(handle: zlm_journal_handle) -> i32;
    fn zlm_journal_mk_media_changed(regist: c_int, sender: *const c_void);
}

unsafe extern "C" {
    fn mk_env_init(config: *const Config);
    fn mk_events_listen(events: *const Events);
}

static JOURNAL: AtomicU64 = AtomicU64::new(0);

fn pair<'a>(name: &'a str, value: &'a str) -> zlm_journal_pair {
    zlm_journal_pair { name: zlm_journal_text::of(name), value: zlm_journal_text::of(value) }
}

fn check(result: i32) -> Result<()> {
    if result == 0 {
        return Ok(());
    }
    let (mut message, mut len) = ([0_u8; 1024], 0);
    // SAFETY: the buffer is as large as it is said to be.
    unsafe { zlm_journal_last_error(message.as_mut_ptr().cast(), message.len(), &raw mut len) };
    Err(CStr::from_bytes_until_nul(&message)?.to_string_lossy().into())
}

type Told = mpsc::Sender<std::result::Result<(), String>>;

extern "C" fn on_ack(context: *mut c_void, ack: *const zlm_journal_ack) {
    // SAFETY: `context` is the sender that was given away with the call, and comes back once; `ack` is valid.
    let (told, ack) = unsafe { (Box::from_raw(context.cast::<Told>()), *ack) };
    // SAFETY: the text is valid during the callback.
    let error = unsafe { ack.error.lossy() }.map(|error| error.into_owned()).unwrap_or_default();
    let _ = told.send(if ack.persisted == ZLM_JOURNAL_PERSISTED { Ok(()) } else { Err(error) });
}

/// Adds a pull, changes it, or, without a URL, ends it. Returns when that is on disk.
fn want(number: usize, url: Option<&str>) -> Result<()> {
    let stream = format!("camera{number}");
    let mut args = vec![pair("vhost", "__defaultVhost__"), pair("app", "live"), pair("stream", &stream)];
    args.extend(url.map(|url| pair("url", url)));
    let call = zlm_journal_call {
        size: size_of::<zlm_journal_call>() as u32,
        op: if url.is_some() { ZLM_JOURNAL_ADD } else { ZLM_JOURNAL_REMOVE },
        kind: zlm_journal_text::of("pull"),
        key: zlm_journal_text::NULL,
        args: args.as_ptr(),
        args_len: args.len(),
        caller: zlm_journal_text::NULL,
        reason: zlm_journal_text::of("embed"),
    };
    let (told, done) = mpsc::channel();
    let context = Box::into_raw(Box::<Told>::new(told));
    // SAFETY: all that the call refers to is there until it returns; `on_ack` is called once.
    let result = unsafe {
        zlm_journal_want(JOURNAL.load(Ordering::Relaxed), &raw const call, Some(on_ack), context.cast())
    };
    check(result)?;
    Ok(done.recv()??)
}

extern "C" fn on_reply(context: *mut c_void, _: zlm_journal_text, body: zlm_journal_text) {
    // SAFETY: `context` is the sender that was given away with the call, and comes back once; the text is valid.
    let (told, body) = unsafe { (Box::from_raw(context.cast::<mpsc::Sender<String>>()), body.lossy()) };
    let _ = told.send(body.map(|body| body.into_owned()).unwrap_or_default());
}

fn status() -> Result<Value> {
    let request = zlm_journal_request {
        size: size_of::<zlm_journal_request>() as u32,
        name: zlm_journal_text::of("getJournalStatus"),
        args: ptr::null(),
        args_len: 0,
        caller: zlm_journal_text::NULL,
    };
    let (told, reply) = mpsc::channel::<String>();
    let context = Box::into_raw(Box::new(told));
    // SAFETY: as in `want`; `on_reply` is called once.
    unsafe {
        zlm_journal_api_call(
            JOURNAL.load(Ordering::Relaxed),
            &raw const request,
            zlm_journal_text::NULL,
            Some(on_reply),
            context.cast(),
        )
    };
    Ok(serde_json::from_str::<Value>(&reply.recv()?)?["data"].take())
}

fn wait_until_playing(cameras: usize) -> Result<()> {
    while status()?["now"]["playing"] != cameras {
        thread::sleep(Duration::from_millis(20));
    }
    println!("playing {cameras}");
    Ok(())
}

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [dir, cameras, url] = args.as_slice() else { return Err("usage: embed DIRECTORY CAMERAS URL".into()) };
    let cameras: usize = cameras.parse()?;
    let config = Config {
        thread_num: 4,
        log_level: 4,
        log_mask: 1,
        log_file_path: ptr::null(),
        log_file_days: 0,
        ini_is_path: 0,
        ini: c"[protocol]\nenable_hls=0\nenable_mp4=0\n".as_ptr(),
        ssl_is_path: 0,
        ssl: ptr::null(),
        ssl_pwd: ptr::null(),
    };
    let events = Events { media_changed: Some(zlm_journal_mk_media_changed), others: [ptr::null(); 99] };
    // SAFETY: both are as ZLMediaKit's headers have them, and are copied.
    unsafe {
        mk_env_init(&raw const config);
        mk_events_listen(&raw const events);
    }
    let settings = [pair("enable", "1"), pair("path", "journal/proxies.db")];
    let options = zlm_journal_options {
        size: size_of::<zlm_journal_options>() as u32,
        abi: ZLM_JOURNAL_ABI,
        host_threads: 4,
        settings: settings.as_ptr(),
        settings_len: settings.len(),
        base_dir: zlm_journal_text::of(dir),
        own_hosts: ptr::null(),
        own_hosts_len: 0,
        own_ports: ptr::null(),
        own_ports_len: 0,
        facts: ptr::null(),
    };
    let mut handle = 0;
    // SAFETY: all that the options refer to is there until it returns.
    check(unsafe { zlm_journal_mk_open(&raw const options, &raw mut handle) })?;
    JOURNAL.store(handle, Ordering::Relaxed);

    let mut there = status()?["proxies"]["enabled"].as_u64().unwrap_or(0) as usize;
    println!("opened with {there}");
    for number in there..cameras {
        want(number, Some(url))?;
    }
    there = there.max(cameras);
    println!("acknowledged {there}");
    wait_until_playing(there)?;
    for line in stdin().lock().lines() {
        let line = line?;
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["close"] => break,
            ["update", number, url] => want(number.parse()?, Some(url))?,
            ["delete", number] => {
                want(number.parse()?, None)?;
                there -= 1;
            }
            ["status"] => println!("{}", status()?),
            _ => continue,
        }
        wait_until_playing(there)?;
    }
    // SAFETY: this is none of ZLMediaKit's threads.
    check(unsafe { zlm_journal_mk_close(handle) })?;
    println!("closed");
    Ok(())
}
