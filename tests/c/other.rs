//! Another Rust library in the same process.

#[unsafe(no_mangle)]
pub extern "C" fn other_catches() -> usize {
    let caught = std::panic::catch_unwind(|| std::panic::panic_any("on purpose"));
    caught.err().and_then(|what| what.downcast_ref::<&str>().map(|text| text.len())).unwrap_or(0)
}
