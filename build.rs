//! Compiles the cxx bridge, makes the table of the page's files, and sets the build id: a hash of everything that decides how
//! the plugin behaves (src, cpp, patches, .cargo, Cargo.lock, without *.md). Tests use it to detect a MediaServer that was
//! built from other sources.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?);
    println!("cargo:rustc-env=ZLMJ_BUILD_ID={:016x}", build_id(&root)?);

    if !env::var("LIBSQLITE3_FLAGS").is_ok_and(|flags| flags.contains("HAVE_FDATASYNC")) {
        println!(
            "cargo:warning=each commit of zlm-journal will sync its inode as well: set LIBSQLITE3_FLAGS as .cargo/config.toml \
             does, which cargo reads where it is called from within the repository"
        );
    }
    fs::write(PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?).join("page.rs"), page(&root)?)?;
    cxx_build::bridge("src/ffi/bridge.rs").std("c++11").compile("zlm_journal_bridge");
    Ok(())
}

/// The files of src/page as a Rust array: name, hash and content of each.
fn page(root: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    collect(&root.join("src/page"), &mut files)?;
    files.sort();
    let mut table = String::from("&[\n");
    for file in files {
        let hash = fnv(&fs::read(&file)?, FNV_START);
        let name = file.file_name().unwrap_or_default();
        writeln!(table, "    ({name:?}, \"{hash:016x}\", include_bytes!({file:?})),").map_err(io::Error::other)?;
    }
    Ok(table + "]\n")
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv(bytes: &[u8], hash: u64) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// FNV-1a (64 bit) over the path and the content of each file, ordered by path.
fn build_id(root: &Path) -> io::Result<u64> {
    let mut files = Vec::new();
    for top in ["src", "cpp", "patches", ".cargo", "Cargo.lock"] {
        let path = root.join(top);
        println!("cargo:rerun-if-changed={}", path.display());
        collect(&path, &mut files)?;
    }
    files.sort();
    let mut hash = FNV_START;
    let mut mix = |bytes: &[u8]| hash = fnv(&[0], fnv(bytes, hash));
    for file in files {
        let name = file.strip_prefix(root).map_err(io::Error::other)?;
        mix(name.to_string_lossy().as_bytes());
        mix(&fs::read(&file)?);
    }
    Ok(hash)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
    } else if path.is_file() && path.extension().is_none_or(|extension| extension != "md") {
        files.push(path.to_owned());
    }
    Ok(())
}
