//! The glue as a compiler sees it.

use std::process::Command;

use super::*;

/// Against the stand-in's headers; against ZLMediaKit's own, its build is the test.
#[test]
#[ignore = "slow: just test-e2e"]
fn the_glue_compiles_as_cpp11_with_gcc_and_clang_without_a_warning() {
    if HOST.real {
        return;
    }
    let flags = HOST.patched.with_file_name("CMakeFiles/MediaServer.dir/flags.make");
    let flags = std::fs::read_to_string(flags).unwrap();
    let includes = flags.lines().find_map(|line| line.strip_prefix("CXX_INCLUDES = ")).unwrap();
    // Headers that are not ours may warn.
    let includes = includes.replace("-I", "-isystem ");
    for compiler in ["g++", "clang++"] {
        if Command::new(compiler).arg("--version").output().is_err() {
            support::skip(&format!("the glue with {compiler}, which is not installed"));
            continue;
        }
        let mut count = 0;
        for source in std::fs::read_dir(support::root().join("cpp")).unwrap() {
            let source = source.unwrap().path();
            if source.extension().is_none_or(|extension| extension != "cpp") {
                continue;
            }
            support::run(
                Command::new(compiler)
                    .args(["-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"])
                    // The macros of MediaServer's events name all arguments of a listener.
                    .args(["-Wno-unused-parameter", "-include", "zlm_journal_hooks.h"])
                    .arg("-I")
                    .arg(support::root().join("cpp"))
                    .args(includes.split_whitespace())
                    // Of the host over ZLMediaKit's C API.
                    .arg("-isystem")
                    .arg(support::root().join("tests/standin/api"))
                    .arg(source),
            );
            count += 1;
        }
        assert!(count >= 5);
    }
}
