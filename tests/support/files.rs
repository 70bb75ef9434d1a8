//! What a thief finds in files.

use std::fs;
use std::path::{Path, PathBuf};

/// The files below a directory that have a text in them somewhere.
pub fn that_have(dir: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(that_have(&path, text));
        // Or it has just been renamed: then it is met another time.
        } else if fs::read(&path).unwrap_or_default().windows(text.len()).any(|window| window == text.as_bytes()) {
            found.push(path);
        }
    }
    found
}
