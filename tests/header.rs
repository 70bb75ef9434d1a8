//! The committed header is the generated one.

use std::fs;
use std::path::Path;

#[test]
fn the_header_is_what_cbindgen_makes_of_the_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = root.join("include/zlm_journal.h");
    let mut generated = Vec::new();
    cbindgen::Builder::new()
        .with_config(cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap())
        .with_src(root.join("src/error.rs"))
        .with_src(root.join("src/ffi/values.rs"))
        .with_src(root.join("src/ffi/c_api.rs"))
        .with_src(root.join("src/ffi/c_call.rs"))
        .with_src(root.join("src/ffi/c_host.rs"))
        .with_src(root.join("src/ffi/c_router.rs"))
        .with_src(root.join("src/ffi/c_page.rs"))
        .generate()
        .unwrap()
        .write(&mut generated);
    let generated = String::from_utf8(generated).unwrap();
    if std::env::var_os("ZLMJ_UPDATE_HEADER").is_some() {
        fs::write(&header, &generated).unwrap();
    }
    let committed = fs::read_to_string(&header).unwrap_or_default();
    assert!(
        committed == generated,
        "include/zlm_journal.h is stale: run ZLMJ_UPDATE_HEADER=1 cargo test --test header"
    );
}
