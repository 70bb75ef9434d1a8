//! Calls of any sort through the C API, with the texts that its caller likes: each gives a code, and each record is
//! acknowledged.
#![no_main]

use std::ffi::c_void;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use libfuzzer_sys::fuzz_target;
use zlm_journal::ffi::c_api::*;
use zlm_journal::ffi::c_call::*;
use zlm_journal::ffi::c_host::*;
use zlm_journal::ffi::{zlm_journal_pair, zlm_journal_text};

static RECORDED: AtomicU64 = AtomicU64::new(0);
static TOLD: AtomicU64 = AtomicU64::new(0);

extern "C" fn told(_: *mut c_void, ack: *const zlm_journal_ack) {
    assert!(!ack.is_null());
    TOLD.fetch_add(1, Ordering::SeqCst);
}

/// The reply to a client is a JSON object if the server's was, whatever the journal has added or put in its place.
/// `context` is a `Vec<u8>` with what the server says.
extern "C" fn done(context: *mut c_void, body: zlm_journal_text, _: bool) {
    // SAFETY: the first is ours since the call was taken in; the second is valid until this returns.
    let (replied, body) = unsafe {
        (*Box::from_raw(context.cast::<Vec<u8>>()), std::slice::from_raw_parts(body.data.cast::<u8>(), body.len))
    };
    let is_object =
        |bytes: &[u8]| serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(bytes).is_ok();
    assert!(is_object(body) || !is_object(&replied), "{} from {replied:?}", String::from_utf8_lossy(body));
}

fn text(bytes: &[u8]) -> zlm_journal_text {
    zlm_journal_text { data: bytes.as_ptr().cast(), len: bytes.len() }
}

fn handle() -> u64 {
    static HANDLE: OnceLock<u64> = OnceLock::new();
    *HANDLE.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("zlmj-fuzz-{}", std::process::id()));
        let path = dir.join("proxies.db");
        let pairs = [("enable", "1"), ("path", path.to_str().unwrap())]
            .map(|(name, value)| zlm_journal_pair { name: text(name.as_bytes()), value: text(value.as_bytes()) });
        let facts = FACTS;
        let options = zlm_journal_options {
            size: size_of::<zlm_journal_options>() as u32,
            abi: ZLM_JOURNAL_ABI,
            host_threads: 1,
            settings: pairs.as_ptr(),
            settings_len: pairs.len(),
            base_dir: text(b"/"),
            own_hosts: std::ptr::null(),
            own_hosts_len: 0,
            own_ports: PORTS.as_ptr(),
            own_ports_len: PORTS.len(),
            facts: &facts,
        };
        let mut handle = 0;
        // SAFETY: all that the options point to lives until the call returns.
        assert_eq!(unsafe { zlm_journal_open(&options, &mut handle) }, 0);
        handle
    })
}

const PORTS: &[u16] = &[1935];
const FACTS: zlm_journal_facts = zlm_journal_facts {
    size: size_of::<zlm_journal_facts>() as u32,
    vhosts: false,
    tells_failures: true,
    idle_answer_ms: 1000,
    record_app: zlm_journal_text { data: std::ptr::null(), len: 0 },
    protocol: std::ptr::null(),
    protocol_len: 0,
    server_id: zlm_journal_text { data: std::ptr::null(), len: 0 },
};

extern "C" fn go(_: *mut c_void) {}

/// What a client may ask of the server, and one that is none of the journal's.
const CALLS: [&str; 8] = [
    "addStreamProxy",
    "delStreamProxy",
    "addStreamPusherProxy",
    "delStreamPusherProxy",
    "addFFmpegSource",
    "delFFmpegSource",
    "close_streams",
    "getMediaList",
];

fuzz_target!(|data: &[u8]| {
    let [what, rest @ ..] = data else { return };
    let handle = if what & 0x40 == 0 { handle() } else { u64::from(*what) + 1000 };
    let parts: Vec<&[u8]> = rest.split(|byte| *byte == 0xfe).collect();
    let part = |index: usize| parts.get(index).copied().unwrap_or_default();
    let kind = match what & 0x30 {
        0 => b"pull".as_slice(),
        0x10 => b"push",
        0x20 => b"ffmpeg",
        _ => part(0),
    };
    // SAFETY, here and below: every text lives until the call returns.
    match what % 5 {
        0..3 => {
            let pairs: Vec<zlm_journal_pair> = parts
                .chunks(2)
                .map(|pair| zlm_journal_pair {
                    name: text(pair[0]),
                    value: text(pair.get(1).copied().unwrap_or_default()),
                })
                .collect();
            let call = zlm_journal_call {
                size: size_of::<zlm_journal_call>() as u32,
                op: u32::from(*what % 6),
                kind: text(kind),
                key: text(part(1)),
                args: pairs.as_ptr(),
                args_len: pairs.len(),
                caller: text(part(2)),
                reason: text(part(3)),
            };
            let before = RECORDED.fetch_add(1, Ordering::SeqCst);
            let code = unsafe { zlm_journal_record(handle, &call, Some(told), std::ptr::null_mut()) };
            assert!((0..=11).contains(&code) && code != 10);
            // None is forgotten: at most those in the queue are still to come.
            while TOLD.load(Ordering::SeqCst) + 1000 < before {
                std::thread::yield_now();
            }
        }
        3 => {
            let mut wanted = false;
            let code =
                unsafe { zlm_journal_wants(handle, text(kind), text(part(1)), u64::from(*what), &mut wanted) };
            assert!(code == 0 || !wanted);
        }
        _ => {
            let args: Vec<zlm_journal_pair> = parts
                .chunks(2)
                .map(|pair| zlm_journal_pair {
                    name: text(pair[0]),
                    value: text(pair.get(1).copied().unwrap_or_default()),
                })
                .collect();
            let request = zlm_journal_request {
                size: size_of::<zlm_journal_request>() as u32,
                name: text(CALLS[usize::from(*what) % CALLS.len()].as_bytes()),
                args: args.as_ptr(),
                args_len: args.len(),
                caller: text(part(0)),
            };
            let stream = zlm_journal_stream { vhost: text(part(0)), app: text(part(1)), stream: text(part(2)) };
            let mut verdict = zlm_journal_verdict {
                size: size_of::<zlm_journal_verdict>() as u32,
                call: 0,
                verdict: 0,
                settles: false,
            };
            let number = u32::from(*what % 4);
            let answer = zlm_journal_answer {
                size: size_of::<zlm_journal_answer>() as u32,
                outcome: u32::from(*what % 7),
                code: -300,
                text: text(part(3)),
            };
            let context = Box::into_raw(Box::new(part(3).to_vec()));
            let client = zlm_journal_client {
                size: size_of::<zlm_journal_client>() as u32,
                context: context.cast(),
                go: Some(go),
                done: Some(done),
            };
            unsafe {
                let code = zlm_journal_call_open(handle, &request, &client, &mut verdict);
                assert!(code != 10 && verdict.verdict <= 3);
                if verdict.verdict == ZLM_JOURNAL_PASS {
                    drop(Box::from_raw(context));
                }
                let mut call = verdict.call;
                zlm_journal_made(handle, number, text(part(1)), &mut call);
                zlm_journal_stream_changed(handle, text(part(3)), &stream, what % 2 == 0);
                zlm_journal_failed(handle, number, text(part(1)), text(part(2)));
                zlm_journal_connected(handle, number, text(part(1)));
                zlm_journal_stream_unwatched(handle, &stream);
                zlm_journal_call_answered(handle, verdict.call, &answer);
                zlm_journal_ended(handle, number, text(part(1)), u64::from(*what));
                zlm_journal_call_settled(handle, verdict.call);
                let mut success = false;
                zlm_journal_host_added(handle, u64::from(*what), &answer, &mut success);
                assert!(!success || answer.outcome <= ZLM_JOURNAL_REPLIED);
                zlm_journal_host_blocked(handle, u64::from(*what), number);
                zlm_journal_host_removed(handle, u64::from(*what));
                zlm_journal_host_updated(handle, u64::from(*what));
                zlm_journal_stream_not_found(handle, &stream);
            }
            let settings: Vec<zlm_journal_pair> = parts
                .chunks(2)
                .map(|pair| zlm_journal_pair {
                    name: text(pair[0]),
                    value: text(pair.get(1).copied().unwrap_or_default()),
                })
                .collect();
            unsafe { zlm_journal_reload(handle, settings.as_ptr(), settings.len(), &FACTS) };
        }
    }
});
