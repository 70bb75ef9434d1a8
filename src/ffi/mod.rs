//! The boundary: the C API (calls and callbacks) and the cxx bridge (tables and texts). The only module with `unsafe`.
//! Translates and guards; decides nothing.

// Every dereference of a caller's pointer must say why it is sound.
#![deny(unsafe_op_in_unsafe_fn)]
#![allow(unsafe_code)] // this is the boundary

mod bridge;
pub mod c_api;
pub mod c_call;
pub mod c_host;
pub mod c_router;
mod guard;
mod handles;
mod logger;
mod values;

pub use self::values::{zlm_journal_pair, zlm_journal_text};
