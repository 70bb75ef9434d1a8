//! Passes log lines to the host's log, without the credentials of cameras.

use std::ffi::c_void;

use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::RwLock;

use super::values::{Context, zlm_journal_text};
use crate::model::redact;

/// Takes its context, a level (1 error, 2 warning, 3 information, 4 debug) and a line.
type Sink = extern "C" fn(*mut c_void, u32, zlm_journal_text);

static SINK: RwLock<Option<(Sink, Context)>> = RwLock::new(None);

struct ToHost;

impl Log for ToHost {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Debug
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata())
            && let Some((sink, context)) = &*SINK.read()
        {
            let line = redact(&record.args().to_string());
            sink(context.get(), record.level() as u32, zlm_journal_text::of(&line));
        }
    }

    fn flush(&self) {}
}

/// Sends lines to `sink`; `None` stops that. When this returns, the previous sink is no longer called.
pub fn set_sink(sink: Option<(Sink, Context)>) {
    // Only the first time. If the process has a logger of its own, that one gets our lines.
    if log::set_logger(&ToHost).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
    *SINK.write() = sink;
}
