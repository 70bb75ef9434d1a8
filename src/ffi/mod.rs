//! The boundary: the C API (calls and callbacks) and the cxx bridge (tables and texts). The only module with `unsafe`.
//! Translates and guards; decides nothing. Every function of the C API may be called from any thread, returns 0 or a
//! `zlm_journal_code`, and lets no panic through; cbindgen generates `include/zlm_journal.h` from these files and
//! copies the comments.

// Every dereference of a caller's pointer must say why it is sound.
#![deny(unsafe_op_in_unsafe_fn)]
#![allow(unsafe_code)] // this is the boundary
#![allow(non_camel_case_types)] // the names are C's

mod bridge;
pub mod c_api;
pub mod c_call;
pub mod c_host;
pub mod c_page;
pub mod c_router;
mod guard;
mod handles;
mod logger;
mod values;

pub use self::values::{zlm_journal_pair, zlm_journal_text};
