//! The plain values of the C API, and reading them safely.

use std::borrow::Cow;
use std::ffi::{c_char, c_void};
use std::ptr;

use crate::error::{Error, Result};

/// Borrowed bytes: `len` of them at `data`, without a terminating zero. `data` may be NULL if `len` is 0. A function
/// only reads them, and only until it returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zlm_journal_text {
    pub data: *const c_char,
    pub len: usize,
}

/// A name and its value: a setting, or an argument of an API call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zlm_journal_pair {
    pub name: zlm_journal_text,
    pub value: zlm_journal_text,
}

impl zlm_journal_text {
    pub fn of<T: AsRef<[u8]> + ?Sized>(text: &T) -> Self {
        let text = text.as_ref();
        Self { data: text.as_ptr().cast(), len: text.len() }
    }

    pub const NULL: Self = Self { data: ptr::null(), len: 0 };

    /// # Safety
    /// `data` is NULL or points to `len` bytes that stay unchanged for `'a`.
    pub unsafe fn bytes<'a>(&self) -> Result<&'a [u8]> {
        // SAFETY: the caller promises of `data` and `len` what `slice` requires.
        unsafe { slice(self.data.cast(), self.len) }
    }

    /// # Safety
    /// As for [`zlm_journal_text::bytes`].
    pub unsafe fn utf8<'a>(&self, what: &str) -> Result<&'a str> {
        // SAFETY: as promised by the caller.
        let bytes = unsafe { self.bytes() }?;
        std::str::from_utf8(bytes).map_err(|_| Error::invalid(format!("{what} is not UTF-8")))
    }

    /// Replaces what is not UTF-8.
    ///
    /// # Safety
    /// As for [`zlm_journal_text::bytes`].
    pub unsafe fn lossy<'a>(&self) -> Result<Cow<'a, str>> {
        // SAFETY: as promised by the caller.
        unsafe { self.bytes() }.map(String::from_utf8_lossy)
    }
}

/// The names and values of a C array.
///
/// # Safety
/// `data` is NULL or valid for `len` pairs, with all that they point to, for `'a`.
pub unsafe fn pairs<'a>(data: *const zlm_journal_pair, len: usize) -> Result<Vec<(&'a [u8], &'a [u8])>> {
    // SAFETY: as promised by the caller, here and below.
    let pairs = unsafe { slice(data, len) }?;
    let mut read = Vec::with_capacity(pairs.len());
    for pair in pairs {
        read.push(unsafe { (pair.name.bytes()?, pair.value.bytes()?) });
    }
    Ok(read)
}

/// A caller's `context`, passed back to it on our threads.
#[derive(Clone, Copy)]
pub struct Context(pub *mut c_void);

// SAFETY: we never dereference the pointer, and the header says that it is used on other threads.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// A method, so that closures capture `Context` and not the bare pointer in it.
    pub fn get(self) -> *mut c_void {
        self.0
    }
}

/// A C array as a slice.
///
/// # Safety
/// `data` is NULL or points to `len` values that stay unchanged for `'a`.
pub unsafe fn slice<'a, T>(data: *const T, len: usize) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() || !data.is_aligned() {
        return Err(Error::invalid("a pointer is NULL or misaligned though its length is not 0"));
    }
    if len > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Error::invalid("a length exceeds the address space"));
    }
    // SAFETY: not NULL, aligned, within the limit for slices; valid for `'a` by this function's contract.
    Ok(unsafe { std::slice::from_raw_parts(data, len) })
}

/// A struct that the caller passes by pointer.
///
/// # Safety
/// `pointer` is NULL or points to a `T` that stays unchanged for `'a`.
pub unsafe fn by_pointer<'a, T>(pointer: *const T, what: &str) -> Result<&'a T> {
    // SAFETY: as promised by the caller, for an array of one.
    unsafe { slice(pointer, 1) }
        .ok()
        .and_then(<[T]>::first)
        .ok_or_else(|| Error::invalid(format!("{what} is NULL or misaligned")))
}

/// Writes an output parameter.
///
/// # Safety
/// `out` is NULL or may be written.
pub unsafe fn write_out<T>(out: *mut T, value: T) -> Result<()> {
    if out.is_null() || !out.is_aligned() {
        return Err(Error::invalid("the pointer for the result is NULL or misaligned"));
    }
    // SAFETY: not NULL, aligned, writable by this function's contract.
    unsafe { out.write(value) };
    Ok(())
}
