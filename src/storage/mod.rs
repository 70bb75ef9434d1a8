//! The journal's files: opening, reading, writing, recovery and encryption, and the files beside them. Has no threads,
//! and knows nothing of queues or acknowledgements.

pub(crate) mod cipher;
pub(crate) mod crash_counters;
pub(crate) mod db;
pub mod env;
pub(crate) mod intent;
pub(crate) mod offline_hints;
pub(crate) mod paths;
pub(crate) mod recover;
pub(crate) mod rows;
pub(crate) mod salvage;
