//! The C API for the journal's page.

use std::ffi::c_void;

use super::c_api::zlm_journal_handle;
use super::guard::c_result;
use super::handles;
use super::values::{zlm_journal_pair, zlm_journal_text};
use crate::error::Error;
use crate::page;

/// Receives an HTTP response: within zlm_journal_page, which it must not call. Must not throw. All of it is valid until it
/// returns; `context` belongs to the caller.
pub type zlm_journal_response = Option<
    extern "C" fn(
        context: *mut c_void,
        status: u32,
        headers: *const zlm_journal_pair,
        headers_len: usize,
        body: zlm_journal_text,
    ),
>;

/// Answers a GET of the journal's page. `path` is that of the request, after percent decoding and without the query;
/// `if_none_match` is that header, or empty. Calls `response` once, unless the path is none of the page's, or there is an
/// error. The caller has to check the client's address. Takes microseconds, also meant for media threads.
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE, _INVALID_ARGUMENT.
///
/// # Safety
/// Pointers are NULL or point to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_page(
    handle: zlm_journal_handle,
    path: zlm_journal_text,
    if_none_match: zlm_journal_text,
    response: zlm_journal_response,
    context: *mut c_void,
) -> i32 {
    c_result("zlm_journal_page", || {
        let response = response.ok_or_else(|| Error::invalid("response must be set"))?;
        // SAFETY: as promised by the caller, here and below.
        let path = unsafe { path.lossy() }?;
        let Some(answer) = page::answer(&path, &unsafe { if_none_match.lossy() }?) else { return Ok(()) };
        handles::get(handle)?;
        let pair = |(name, value): &(&str, String)| zlm_journal_pair {
            name: zlm_journal_text::of(*name),
            value: zlm_journal_text::of(value),
        };
        let headers: Vec<_> = answer.headers.iter().map(pair).collect();
        response(context, answer.status, headers.as_ptr(), headers.len(), zlm_journal_text::of(answer.body));
        Ok(())
    })
}
