//! The C API for the API calls that the journal answers itself.

use std::borrow::Cow;
use std::ffi::c_void;

use super::c_api::zlm_journal_handle;
use super::c_call::zlm_journal_request;
use super::guard::c_result;
use super::handles;
use super::values::{Context, grown, slice, zlm_journal_text};
use crate::api::{Call, ReplyTo};
use crate::error::Error;

/// Receives the whole reply to an API call, to be sent with HTTP status 200: on a thread of the journal, or before
/// zlm_journal_api_call returns. Must not block and must not throw. The texts are valid until it returns; `context`
/// belongs to the caller.
pub type zlm_journal_reply =
    Option<extern "C" fn(context: *mut c_void, content_type: zlm_journal_text, body: zlm_journal_text)>;

/// Carries out one of the API calls of docs/api.md, such as getJournalStatus or syncJournal. `request` has the arguments from URL and
/// body, `body` the unparsed body; both are copied. Returns at once; `reply` is called exactly once, whatever this
/// returns, unless it is NULL (ZLM_JOURNAL_CODE_INVALID_ARGUMENT).
/// Errors: ZLM_JOURNAL_CODE_INVALID_HANDLE, _INVALID_ARGUMENT, _VERSION_MISMATCH. What goes wrong later is in the
/// reply.
///
/// # Safety
/// Pointers are NULL or point to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zlm_journal_api_call(
    handle: zlm_journal_handle,
    request: *const zlm_journal_request,
    body: zlm_journal_text,
    reply: zlm_journal_reply,
    context: *mut c_void,
) -> i32 {
    let context = Context(context);
    let reply = reply.map(|reply| {
        ReplyTo::new(move |answer| {
            let (content_type, body) = (answer.content_type, &answer.body);
            reply(context.get(), zlm_journal_text::of(content_type), zlm_journal_text::of(body));
        })
    });
    c_result("zlm_journal_api_call", move || {
        let reply = reply.ok_or_else(|| Error::invalid("reply must be set"))?;
        let call = (|| {
            let router = handles::router(handle)?;
            // SAFETY: as promised by the caller, here and below.
            let request = unsafe { grown(request, "request") }?;
            let lossy = |text: &zlm_journal_text| unsafe { text.lossy() }.map(Cow::into_owned);
            let pairs = unsafe { slice(request.args, request.args_len) }?;
            let args = pairs.iter().map(|pair| Ok((lossy(&pair.name)?, lossy(&pair.value)?)));
            let args = args.collect::<crate::error::Result<Vec<_>>>()?;
            let body = unsafe { body.bytes() }?.to_vec();
            Ok((router, lossy(&request.name)?, args, body, lossy(&request.caller)?))
        })();
        match call {
            Ok((router, name, args, body, caller)) => {
                router.call(Call { name, args, body, caller, reply });
                Ok(())
            }
            Err(error) => {
                reply.fail(&error);
                Err(error)
            }
        }
    })
}
