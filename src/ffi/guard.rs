//! The guard around every entry point: no panic crosses the boundary, and each thread keeps the text of its last error.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Code, Error, Result};

thread_local! {
    static LAST_ERROR: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs the body of the entry point `entry`; turns a panic into an error.
pub fn guarded<T>(entry: &'static str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(|| {
        injected_panic(entry);
        body()
    }))
    .unwrap_or_else(|panic| {
        Err(Error::new(Code::Panic, format!("zlm-journal failed in {entry}: {}", message(panic.as_ref()))))
    })
}

/// The same for a C function: returns 0 or the error's code, and keeps its message for `last_error`.
pub fn c_result(entry: &'static str, body: impl FnOnce() -> Result<()>) -> i32 {
    match guarded(entry, body) {
        Ok(()) => 0,
        Err(error) => {
            LAST_ERROR.with_borrow_mut(|last| last.clone_from(&error.message));
            error.code as i32
        }
    }
}

pub fn last_error() -> String {
    LAST_ERROR.with_borrow(String::clone)
}

fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "a panic without a message",
    }
}

/// Tests set this variable to the entry point that must panic.
#[cfg(feature = "fault-injection")]
#[allow(clippy::panic)] // it is what the function is for
fn injected_panic(entry: &'static str) {
    if std::env::var("ZLMJ_PANIC_AT").is_ok_and(|name| name == entry) {
        panic!("forced by ZLMJ_PANIC_AT");
    }
}

#[cfg(not(feature = "fault-injection"))]
fn injected_panic(_: &'static str) {}
