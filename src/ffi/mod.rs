//! The boundary: the C API (life cycle, recording, the host's callbacks) and the cxx bridge (what answers with
//! text). Only here is `unsafe`. Translates and guards; decides nothing.

// Every dereference of a caller's pointer says why it is sound.
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
