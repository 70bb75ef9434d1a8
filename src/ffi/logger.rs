//! Passes log lines to the host's log, without the credentials of cameras.

use std::sync::Once;

use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::RwLock;

use crate::model::redact;

/// Takes a level (1 error, 2 warning, 3 information, 4 debug) and a line.
pub type Sink = Box<dyn Fn(u32, &str) + Send + Sync>;

static SINK: RwLock<Option<Sink>> = RwLock::new(None);
static INSTALL: Once = Once::new();

struct ToHost;

impl Log for ToHost {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Debug
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata())
            && let Some(sink) = &*SINK.read()
        {
            sink(record.level() as u32, &redact(&record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// Sends lines to `sink`; `None` stops that. When this returns, the previous sink is no longer called.
pub fn set_sink(sink: Option<Sink>) {
    INSTALL.call_once(|| {
        // If the process has a logger of its own, that one gets our lines.
        if log::set_logger(&ToHost).is_ok() {
            log::set_max_level(LevelFilter::Debug);
        }
    });
    *SINK.write() = sink;
}
