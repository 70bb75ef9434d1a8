//! MediaServer's codes of results (`API::ApiErr` in its server/WebApi.h).

/// What was asked for does not exist (`API::NotFound`).
pub const NOT_FOUND: i32 = -500;
/// The handler threw an exception (`API::Exception`).
pub const EXCEPTION: i32 = -400;
/// An argument is wrong or missing (`API::InvalidArgs`).
pub const INVALID_ARGS: i32 = -300;
/// Anything else (`API::OtherFailed`).
pub const OTHER_FAILED: i32 = -1;
