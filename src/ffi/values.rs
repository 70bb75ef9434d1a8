//! The plain values of the C API, and reading them safely.

use std::borrow::Cow;
use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;
use std::ptr;

use crate::error::{Code, Error, Result};

/// Borrowed bytes: `len` of them at `data`, without a terminating zero. `data` may be NULL if `len` is 0. A function
/// only reads them, and only until it returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zlm_journal_text {
    /// The first byte.
    pub data: *const c_char,
    /// The number of bytes.
    pub len: usize,
}

/// A name and its value: a setting, or an argument of an API call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zlm_journal_pair {
    /// The name.
    pub name: zlm_journal_text,
    /// The value; it may be empty.
    pub value: zlm_journal_text,
}

impl zlm_journal_text {
    /// Borrows `text`: valid only as long as that is.
    pub fn of<T: AsRef<[u8]> + ?Sized>(text: &T) -> Self {
        let text = text.as_ref();
        Self { data: text.as_ptr().cast(), len: text.len() }
    }

    /// An empty text without a pointer.
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

/// A struct that may grow: its first member is `size`, the `sizeof` of whoever has made it. New members come at its end, not
/// in padding, and a caller that does not know them is as one that has set them to zero.
///
/// # Safety
/// It is `#[repr(C)]`, begins with a `u32`, and all of its members may be zero.
pub unsafe trait Growing: Copy {
    /// Its size when it was first in the header: where the first member that came later begins.
    const FIRST: usize = size_of::<Self>();
}

/// No struct of this API will ever be as large; what says that it is has not set its size.
const LARGEST: usize = 4096;

/// What whoever has made this struct says is its size.
///
/// # Safety
/// `pointer` is NULL or points to a `T`, perhaps of another version.
unsafe fn size_of_theirs<T: Growing>(pointer: *const T, what: &str) -> Result<usize> {
    // SAFETY: as promised by the caller: `size` is the first member in every version.
    let size = *unsafe { by_pointer(pointer.cast::<u32>(), what) }? as usize;
    if !pointer.is_aligned() {
        return Err(Error::invalid(format!("{what} is misaligned")));
    }
    if (T::FIRST..=LARGEST).contains(&size) {
        return Ok(size);
    }
    let least = T::FIRST;
    let why = format!("{what}.size is {size}, and at least {least} here: set it to the sizeof of the struct");
    Err(Error::new(Code::VersionMismatch, why))
}

/// A copy of a struct that the caller passes by pointer, whatever version of it the caller has.
///
/// # Safety
/// `pointer` is NULL or points to a `T`, perhaps of another version, of which `size` is right.
pub unsafe fn grown<T: Growing>(pointer: *const T, what: &str) -> Result<T> {
    // SAFETY: as promised by the caller, here and below.
    let size = unsafe { size_of_theirs(pointer, what) }?;
    let known = size.min(size_of::<T>());
    let beyond = unsafe { slice(pointer.cast::<u8>().wrapping_add(known), size - known) }?;
    if beyond.iter().any(|byte| *byte != 0) {
        let why = format!("{what} asks for something that this library is too old for: update it");
        return Err(Error::new(Code::VersionMismatch, why));
    }
    let mut copy = MaybeUninit::<T>::zeroed();
    // SAFETY: `known` bytes are there on both sides.
    unsafe { ptr::copy_nonoverlapping(pointer.cast::<u8>(), copy.as_mut_ptr().cast::<u8>(), known) };
    // SAFETY: its members are what the caller has set, or zero, which each of them may be.
    Ok(unsafe { copy.assume_init() })
}

/// Writes as much of an output parameter as the caller knows of it; its `size` stays.
///
/// # Safety
/// `out` is NULL or points to a `T`, perhaps of another version, of which `size` is right and the rest may be written.
pub unsafe fn write_grown<T: Growing>(out: *mut T, value: &T, what: &str) -> Result<()> {
    // SAFETY: as promised by the caller.
    let size = unsafe { size_of_theirs(out.cast_const(), what) }?;
    let (skipped, known) = (size_of::<u32>(), size.min(size_of::<T>()));
    let (from, to) = (ptr::from_ref(value).cast::<u8>(), out.cast::<u8>());
    // SAFETY: `known` bytes are there on both sides, and it is more than `skipped`.
    unsafe { ptr::copy_nonoverlapping(from.add(skipped), to.add(skipped), known - skipped) };
    Ok(())
}

/// The `size` of a struct of ours.
#[allow(clippy::cast_possible_truncation)] // see `LARGEST`
pub const fn size_of_ours<T: Growing>() -> u32 {
    assert!(size_of::<T>() <= LARGEST);
    size_of::<T>() as u32
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
