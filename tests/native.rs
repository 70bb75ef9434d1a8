//! The C and C++ tests, built and run by CMake as their users would, and what the CMake files promise.

#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use parking_lot::Mutex;
use support::{build_dir, cargo_dir, link_our_sqlite, root, run};

/// cargo puts the library at one place whatever it was built with: held from a build until the programs are linked.
static LIBRARY: Mutex<()> = Mutex::new(());

/// Configures and builds the C and C++ tests in a build tree of that name; all trees share the Rust library.
fn build(name: &str, flags: &str) -> PathBuf {
    let build = build_dir(name);
    let _library = LIBRARY.lock();
    run(Command::new("cmake")
        .arg("-S")
        .arg(root())
        .arg("-B")
        .arg(&build)
        .args(["-DZLM_JOURNAL_PROFILE=dev", "-DZLM_JOURNAL_FEATURES=fault-injection"])
        .arg(format!("-DZLM_JOURNAL_CARGO_DIR={}", cargo_dir().display()))
        .args([format!("-DCMAKE_C_FLAGS={flags}"), format!("-DCMAKE_CXX_FLAGS={flags}")]));
    run(Command::new("cmake").arg("--build").arg(&build));
    build
}

fn ctest(build: &Path) {
    let output = run(Command::new("ctest").arg("--output-on-failure").current_dir(build));
    for test in ["c_api_test", "bridge_test", "panic_test"] {
        assert!(output.contains(test), "{test} did not run:\n{output}");
    }
}

#[test]
#[ignore = "slow: just test-native"]
fn the_c_and_cpp_tests_pass_also_under_sanitizers_and_valgrind() {
    let plain = build("native", "");
    ctest(&plain);
    run(Command::new("valgrind")
        .args(["-q", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"])
        .arg(plain.join("tests/c_api_test")));
    // A sanitizer's finding ends the test with a report.
    ctest(&build("native-asan", "-fsanitize=address,undefined -fno-sanitize-recover=all -g"));
}

#[test]
#[ignore = "slow: just test-native"]
fn the_c_test_is_free_of_races() {
    // The runtime that came with the compiler: only it knows what the library was instrumented for.
    let sysroot = run(Command::new("rustc").args(["--print", "sysroot"]));
    let target = "x86_64-unknown-linux-gnu";
    let lib = Path::new(sysroot.trim()).join("lib/rustlib").join(target).join("lib");
    let runtime = fs::read_dir(&lib).ok().and_then(|files| {
        let mut paths = files.map(|file| file.unwrap().path());
        paths.find(|path| path.to_string_lossy().ends_with("_rt.tsan.a"))
    });
    let Some(runtime) = runtime else {
        support::skip("races, since this Rust toolchain has no thread sanitizer");
        return;
    };
    let dir = build_dir("native-tsan");
    run(link_our_sqlite(&mut Command::new(env!("CARGO")))
        .args(["build", "--locked", "--package", "zlm-journal", "--lib", "--target", target])
        .env("CARGO_TARGET_DIR", &dir)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer")
        .current_dir(root()));
    let object = dir.join("c_api_test.o");
    run(Command::new("gcc")
        .args(["-g", "-fsanitize=thread", "-c", "-o"])
        .arg(&object)
        .arg("-I")
        .arg(root().join("include"))
        .arg(root().join("tests/c/c_api_test.c")));
    let program = dir.join("c_api_test");
    run(Command::new("gcc")
        .arg("-o")
        .arg(&program)
        .arg(object)
        .arg("-Wl,--whole-archive")
        .arg(runtime)
        .arg("-Wl,--no-whole-archive")
        .arg(dir.join(target).join("debug/libzlm_journal.a"))
        .args(["-lstdc++", "-lpthread", "-lm", "-ldl", "-lrt"]));
    // The standard library is not instrumented: the sanitizer does not see what orders its channels, nor the fence
    // before the last owner of an Arc drops it.
    let suppressions = dir.join("suppressions");
    fs::write(&suppressions, "race:std::sync::mpmc\nrace:drop_slow\n").unwrap();
    let options = format!("suppressions={}:halt_on_error=1", suppressions.display());
    let said = run(Command::new(&program).env("TSAN_OPTIONS", options));
    assert!(said.contains("passed"), "{said}");
}

#[test]
fn the_documented_link_libraries_are_the_real_ones() {
    let _library = LIBRARY.lock();
    let output = Command::new(env!("CARGO"))
        .args(["rustc", "--locked", "--lib", "--crate-type", "staticlib", "--", "--print", "native-static-libs"])
        .env("CARGO_TARGET_DIR", cargo_dir())
        .current_dir(root())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&output.stderr).into_owned();
    let printed = output
        .lines()
        .find_map(|line| line.split("native-static-libs:").nth(1))
        .unwrap_or_else(|| panic!("rustc named no libraries:\n{output}"))
        .replace("-l", "");
    let cmake = fs::read_to_string(root().join("CMakeLists.txt")).unwrap();
    let documented = cmake
        .lines()
        .find_map(|line| line.trim().strip_prefix("set(ZLM_JOURNAL_LINK_LIBRARIES ")?.strip_suffix(')'))
        .unwrap();
    assert_eq!(documented.split_whitespace().collect::<Vec<_>>(), printed.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn an_unpatched_tree_is_told_to_apply_the_patches() {
    let dir = build_dir("unpatched");
    let output = Command::new("cmake")
        .arg("-S")
        .arg(root().join("tests/standin"))
        .arg("-B")
        .arg(&dir)
        .arg(format!("-DCMAKE_PROJECT_ZLMediaKit_INCLUDE={}/cpp/zlmediakit.cmake", root().display()))
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!output.status.success());
    assert!(message.contains("patches/apply"), "{message}");
}
