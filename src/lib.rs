//! zlm-journal makes ZLMediaKit's stream proxies survive a restart.
//!
//! Accepted API calls are journaled in SQLite ([`journal`]); after a restart the [`reconcile`]r dispatches them
//! again inside the server, until MediaServer lists what its operators asked for. [`plugin`] ties both together,
//! `ffi` makes them a C library. Imports run one way: `ffi → api → alerts → plugin → capture → {reconcile, journal} →
//! {storage, settings, memory} → {page, model, error}`.

#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::unreachable)
)]

pub mod alerts;
pub mod api;
pub mod capture;
pub mod error;
pub mod ffi;
pub mod journal;
mod memory;
pub mod model;
pub mod page;
pub mod plugin;
pub mod reconcile;
pub mod settings;
pub mod storage;
#[cfg(test)]
mod testing;

/// The hash of the sources that this library was built from (src, cpp, patches, Cargo.lock).
pub const BUILD_ID: &str = env!("ZLMJ_BUILD_ID");
