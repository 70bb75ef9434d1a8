//! What a program gets that embeds ZLMediaKit through its C API: the installed package, what it exports, the host over
//! libmk_api, and the examples. With the real libmk_api where there is one ($ZLMJ_MK_API, by default
//! ~/.cache/zlm-journal/mk_api, with libmk_api.so and ZLMediaKit's api/include as include/), else with the stand-in's.

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use support::{Source, build_dir, cargo_dir, root, run, say};

/// ZLMediaKit's C API: the folder of its headers, and of the library.
struct MkApi {
    include: PathBuf,
    folder: PathBuf,
    is_real: bool,
}

static MK_API: LazyLock<MkApi> = LazyLock::new(|| {
    let folder = env::var_os("ZLMJ_MK_API").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache/zlm-journal/mk_api")));
    if let Some(folder) = folder.filter(|folder| folder.join("libmk_api.so").exists()) {
        return MkApi { include: folder.join("include"), folder, is_real: true };
    }
    say("!!! NO REAL libmk_api: what follows runs against the stand-in's, which proves nothing about ZLMediaKit");
    let tree = root().join("tests/standin");
    let build = build_dir("standin-mk-api");
    run(Command::new("cmake").arg("-S").arg(&tree).arg("-B").arg(&build));
    run(Command::new("cmake").arg("--build").arg(&build).args(["--target", "mk_api"]));
    MkApi { include: tree.join("api"), folder: build, is_real: false }
});

/// The package, installed, and the programs of tests/consumer that are built with nothing else.
struct Installed {
    prefix: PathBuf,
    programs: PathBuf,
}

impl Installed {
    fn lib(&self) -> PathBuf {
        let names = ["lib", "lib64", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"];
        let folders = names.map(|name| self.prefix.join(name));
        folders.into_iter().find(|folder| folder.join("libzlm_journal.a").exists()).expect("an installed library")
    }
}

static INSTALLED: LazyLock<Installed> = LazyLock::new(|| {
    let (build, prefix, programs) = (build_dir("package"), build_dir("prefix"), build_dir("consumer"));
    let library = MK_API.folder.join("libmk_api.so");
    run(Command::new("cmake")
        .arg("-S")
        .arg(root())
        .arg("-B")
        .arg(&build)
        .args(["-DZLM_JOURNAL_PROFILE=dev", "-DBUILD_TESTING=OFF"])
        .arg(format!("-DZLM_JOURNAL_CARGO_DIR={}", cargo_dir().display()))
        .arg(format!("-DCMAKE_INSTALL_PREFIX={}", prefix.display()))
        .arg(format!("-DZLM_JOURNAL_MK_INCLUDE={}", MK_API.include.display()))
        .arg(format!("-DZLM_JOURNAL_MK_LIBRARY={}", library.display())));
    run(Command::new("cmake").arg("--build").arg(&build));
    run(Command::new("cmake").arg("--install").arg(&build));
    let other = programs.join("libother.a");
    run(Command::new("rustc")
        .args(["--edition=2024", "--crate-type=staticlib", "-o"])
        .arg(&other)
        .arg(root().join("tests/c/other.rs")));
    run(Command::new("cmake")
        .arg("-S")
        .arg(root().join("tests/consumer"))
        .arg("-B")
        .arg(&programs)
        .arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()))
        .arg(format!("-DMK_INCLUDE={}", MK_API.include.display()))
        .arg(format!("-DMK_LIBRARY={}", library.display()))
        .arg(format!("-DOTHER={}", other.display())));
    run(Command::new("cmake").arg("--build").arg(&programs));
    Installed { prefix, programs }
});

/// A camera for programs that are linked with this libmk_api.
fn camera(dir: &Path) -> Source {
    if MK_API.is_real { Source::live(dir) } else { Source::talking() }
}

// ---- what the library exports

/// The names that nm shows with these options.
fn symbols(library: &Path, options: &[&str]) -> BTreeSet<String> {
    let listed = run(Command::new("nm").args(options).arg(library));
    listed.lines().filter_map(|line| line.split_whitespace().next_back().map(str::to_owned)).collect()
}

/// The functions that the header declares.
fn declared() -> BTreeSet<String> {
    let header = fs::read_to_string(root().join("include/zlm_journal.h")).unwrap();
    let names = header.lines().filter_map(|line| line.strip_prefix("int32_t ")?.split('(').next());
    names.map(str::to_owned).collect()
}

#[test]
#[ignore = "slow: just test-embed"]
fn installed_libraries_export_the_c_api_and_nothing_else() {
    let lib = INSTALLED.lib();
    let of_static =
        symbols(&lib.join("libzlm_journal.a"), &["--defined-only", "--extern-only", "--format=just-symbols"]);
    let of_static: BTreeSet<String> =
        of_static.into_iter().filter(|name| !name.is_empty() && !name.ends_with(".o:")).collect();
    assert_eq!(of_static, declared());
    let shared = lib.join("libzlm_journal.so");
    assert_eq!(symbols(&shared, &["--dynamic", "--defined-only", "--format=just-symbols"]), declared());
    let of_host =
        symbols(&lib.join("libzlm_journal_mk.so"), &["--dynamic", "--defined-only", "--format=just-symbols"]);
    assert!(of_host.len() == 5 && of_host.iter().all(|name| name.starts_with("zlm_journal_mk_")), "{of_host:?}");
    for kind in ["before", "after", "shared"] {
        let said = run(&mut Command::new(INSTALLED.programs.join(format!("neighbours_{kind}"))));
        assert!(said.contains("passed"), "{said}");
    }
}

#[test]
#[ignore = "slow: just test-embed"]
fn pkg_config_says_how_to_link_each_library() {
    let path = INSTALLED.lib().join("pkgconfig");
    let flags = |name: &str, options: &[&str]| {
        let said = run(Command::new("pkg-config").args(options).arg(name).env("PKG_CONFIG_PATH", &path));
        said.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("embed");
    run(Command::new("cc")
        .arg(root().join("examples/embed.c"))
        .arg("-o")
        .arg(&program)
        .arg(format!("-I{}", MK_API.include.display()))
        .args(flags("zlm-journal-mk", &["--cflags", "--libs"]))
        .arg(MK_API.folder.join("libmk_api.so")));
    let usage = Command::new(&program).envs(libraries()).output().unwrap();
    assert!(String::from_utf8_lossy(&usage.stderr).contains("usage"), "{usage:?}");
    assert_eq!(flags("zlm-journal", &["--modversion"]), [env!("CARGO_PKG_VERSION")]);
}

/// A header without its comments, each declaration on a line.
fn declarations(header: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join("include").join(header)).unwrap();
    let mut code = String::new();
    for piece in text.split("/*") {
        code.push_str(piece.split_once("*/").map_or(piece, |(_, code)| code));
    }
    let lines = code.lines().filter(|line| !line.trim_start().starts_with(['#', '/']));
    let code = lines.collect::<Vec<_>>().join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    code.split(';').map(|text| text.trim().trim_start_matches("extern \"C\" { ").to_owned()).collect()
}

/// Constants and structs of zlm_journal.h as a C compiler sees them here, with the offset and size of each member, and the
/// declarations of functions and callbacks of both headers.
fn abi() -> String {
    let header = fs::read_to_string(root().join("include/zlm_journal.h")).unwrap();
    let mut source = String::from("#include <stdio.h>\n#include \"zlm_journal.h\"\nint main(void) {\n");
    for line in header.lines() {
        let named = line.strip_prefix("#define ZLM_JOURNAL_").filter(|rest| rest.contains(' '));
        let code = line.trim().split_once(" = ").filter(|(name, _)| name.starts_with("ZLM_JOURNAL_CODE"));
        let name = named.and_then(|rest| rest.split(' ').next()).map(|name| format!("ZLM_JOURNAL_{name}"));
        if let Some(name) = name.or(code.map(|(name, _)| name.to_owned())) {
            writeln!(source, "printf(\"{name} %d\\n\", (int){name});").unwrap();
        }
    }
    let mut functions = String::new();
    let mut open: Option<String> = None;
    for text in declarations("zlm_journal.h") {
        let text = match text.strip_prefix("typedef struct ").and_then(|text| text.split_once(" { ")) {
            Some((name, first)) => {
                writeln!(source, "printf(\"struct {name} %zu\\n\", sizeof(struct {name})); end = 0;").unwrap();
                open = Some(name.to_owned());
                first.to_owned()
            }
            None => text,
        };
        let Some(name) = &open else {
            if text.contains('(') {
                writeln!(functions, "{text}").unwrap();
            }
            continue;
        };
        if text.starts_with('}') {
            // The next version's new member must not begin within this one.
            writeln!(source, "if (end != sizeof(struct {name})) {{ printf(\"  and padding at its end\\n\"); }}")
                .unwrap();
            open = None;
            continue;
        }
        let member = match text.split_once("(*") {
            Some((_, rest)) => rest.split(')').next().unwrap_or_default(),
            None => text.rsplit([' ', '*']).next().unwrap_or_default(),
        };
        let of = format!("((struct {name} *)0)->{member}");
        writeln!(source, "end = offsetof(struct {name}, {member}) + sizeof {of};").unwrap();
        writeln!(source, "printf(\"  %s at %zu, %zu bytes\\n\", \"{text}\", end - sizeof {of}, sizeof {of});")
            .unwrap();
    }
    for text in declarations("zlm_journal_mk.h").iter().filter(|text| text.contains('(')) {
        writeln!(functions, "{text}").unwrap();
    }
    let source = source.replace("main(void) {\n", "main(void) {\nsize_t end = 0;\n") + "return 0;\n}\n";
    let dir = tempfile::tempdir().unwrap();
    let (file, program) = (dir.path().join("abi.c"), dir.path().join("abi"));
    fs::write(&file, source).unwrap();
    run(Command::new("cc").arg(&file).arg("-o").arg(&program).arg("-I").arg(root().join("include")));
    format!("{}{functions}", run(&mut Command::new(program)))
}

#[test]
#[ignore = "slow: just test-embed"]
fn the_abi_is_the_committed_one() {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return;
    }
    let (file, now) = (root().join("include/zlm_journal.abi"), abi());
    assert!(now.contains("struct zlm_journal_host ") && now.contains("int32_t zlm_journal_mk_close("), "{now}");
    assert!(!now.contains("padding at its end"), "a struct has no room to grow: see docs/abi.md\n{now}");
    if env::var_os("ZLMJ_UPDATE_ABI").is_some() {
        fs::write(&file, &now).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == now,
        "the ABI has changed: see docs/abi.md, and then ZLMJ_UPDATE_ABI=1 cargo test --test embed the_abi -- --ignored\n{now}"
    );
}

// ---- the examples

/// Where the programs find libraries that are loaded when they start.
fn libraries() -> [(&'static str, String); 1] {
    [("LD_LIBRARY_PATH", format!("{}:{}", MK_API.folder.display(), INSTALLED.lib().display()))]
}

/// A running example.
struct Embedded {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Embedded {
    fn start(program: &[&Path], dir: &Path, cameras: usize, url: &str) -> Embedded {
        let mut process = Command::new(program[0])
            .args(&program[1..])
            .arg(dir)
            .arg(cameras.to_string())
            .arg(url)
            .envs(libraries())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::options().create(true).append(true).open(dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Embedded { process, input, output: BufReader::new(output) }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
        self.input.flush().unwrap();
    }

    /// Waits for this line; what ZLMediaKit logs is left out.
    fn wait_for(&mut self, expected: &str) {
        let mut seen = String::new();
        while seen.lines().next_back() != Some(expected) {
            let end = seen.len();
            let read = self.output.read_line(&mut seen).unwrap();
            assert!(read > 0, "it has ended before {expected:?}:\n{seen}");
            let is_its =
                ["opened", "acknowledged", "playing", "closed"].iter().any(|word| seen[end..].starts_with(word));
            assert!(
                !is_its || seen[end..].trim_end() == expected,
                "{expected:?} did not come, but {}",
                &seen[end..]
            );
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Adds cameras, is killed, has them back, changes one and deletes one.
fn keeps_its_cameras(program: &[&Path], cameras: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (camera(dir.path()), camera(dir.path()));
    let mut embedded = Embedded::start(program, dir.path(), cameras, &one.url);
    embedded.wait_for("opened with 0");
    embedded.wait_for(&format!("acknowledged {cameras}"));
    embedded.wait_for(&format!("playing {cameras}"));
    drop(embedded);

    let began = Instant::now();
    let mut embedded = Embedded::start(program, dir.path(), 0, &one.url);
    embedded.wait_for(&format!("opened with {cameras}"));
    let opened = began.elapsed();
    embedded.wait_for(&format!("acknowledged {cameras}"));
    embedded.wait_for(&format!("playing {cameras}"));
    say(&format!(
        "{}: {cameras} cameras open {opened:?} and play {:?} after the start that follows a kill -9",
        program.last().unwrap().file_name().unwrap().display(),
        began.elapsed()
    ));
    // Asked at the cameras: how many they serve, or how often somebody has connected to them.
    let has = |source: &Source, viewers: usize, connects: usize| {
        let deadline = Instant::now() + Duration::from_secs(60);
        let is_so = || source.viewers().map_or_else(|| source.connects() == connects, |now| now == viewers);
        while !is_so() {
            assert!(
                Instant::now() < deadline,
                "{:?} or {} instead of {viewers}",
                source.viewers(),
                source.connects()
            );
            thread::sleep(Duration::from_millis(50));
        }
    };
    has(&one, cameras, 2 * cameras);
    embedded.say(&format!("update 1 {}", other.url));
    embedded.wait_for(&format!("playing {cameras}"));
    has(&other, 1, 1);
    has(&one, cameras - 1, 2 * cameras);
    embedded.say("delete 0");
    embedded.wait_for(&format!("playing {}", cameras - 1));
    has(&one, cameras - 2, 2 * cameras);
    embedded.say("close");
    embedded.wait_for("closed");
    assert!(embedded.process.wait().unwrap().success());
    let of_journal = support::sqlite3(&dir.path().join("journal/proxies.db"), "select count(*) from proxies");
    assert_eq!(of_journal.trim(), (cameras - 1).to_string());
}

#[test]
#[ignore = "slow: just test-embed"]
fn example_in_c_keeps_its_cameras() {
    keeps_its_cameras(&[&INSTALLED.programs.join("embed_c")], 500);
}

#[test]
#[ignore = "slow: just test-embed"]
fn example_in_cpp_keeps_its_cameras() {
    keeps_its_cameras(&[&INSTALLED.programs.join("embed_cpp")], 50);
}

#[test]
#[ignore = "slow: just test-embed"]
fn example_in_python_keeps_its_cameras() {
    keeps_its_cameras(&[Path::new("python3"), &root().join("examples/embed.py")], 50);
}

#[test]
#[ignore = "slow: just test-embed"]
fn example_in_rust_keeps_its_cameras() {
    let dir = INSTALLED.lib();
    run(Command::new(env!("CARGO"))
        .args(["rustc", "--locked", "--example", "embed", "--features", "mk", "--"])
        .args(["-L", &format!("native={}", dir.display()), "-L", &format!("native={}", MK_API.folder.display())])
        .args(["-l", "dylib=mk_api", "-l", "dylib=stdc++"])
        .env("CARGO_TARGET_DIR", cargo_dir())
        .current_dir(root()));
    keeps_its_cameras(&[&cargo_dir().join("debug/examples/embed")], 50);
}

// ---- the host over libmk_api

fn mk_host_test() -> Command {
    let mut command = Command::new(INSTALLED.programs.join("mk_host_test"));
    command.envs(libraries());
    command
}

#[test]
#[ignore = "slow: just test-embed"]
fn host_over_libmk_api_may_be_called_back_and_closed_while_it_restores() {
    let dir = tempfile::tempdir().unwrap();
    let source = camera(dir.path());
    for mode in ["call-back", "ends"] {
        let said = run(mk_host_test().arg(mode).arg(dir.path().join(mode)).arg(&source.url));
        assert!(said.contains("passed"), "{said}");
    }

    let many = dir.path().join("many");
    let args = |n: usize| {
        vec![
            ("vhost", "__defaultVhost__".to_owned()),
            ("app", "live".to_owned()),
            ("stream", format!("c{n}")),
            ("url", source.url.clone()),
        ]
    };
    let all: Vec<_> = (0..500).map(|n| (format!("__defaultVhost__/live/c{n}"), args(n))).collect();
    let records = all.iter().map(|(key, args)| {
        let args = args.iter().map(|(name, value)| (*name, value.as_str())).collect();
        (zlm_journal::model::Kind::Pull, key.clone(), args)
    });
    support::write_records(&many.join("journal/proxies.db"), records);
    let said = run(mk_host_test().arg("close-while-restoring").arg(&many).arg("30"));
    assert!(said.contains("passed"), "{said}");
    assert_eq!(support::sqlite3(&many.join("journal/proxies.db"), "select count(*) from proxies").trim(), "500");
}

#[test]
#[ignore = "slow: just test-embed"]
fn host_over_libmk_api_pushes_again_when_the_target_or_the_source_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let source = camera(dir.path());
    let target = camera(dir.path());
    let (address, takes) = (target.address(), target.takes("pushed"));
    // The stock server that is the target speaks RTMP; the stand-in has one word for all.
    let mut process = mk_host_test()
        .arg("push")
        .arg(dir.path())
        .args([&source.url, "rtmp", &takes])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
    let mut pushing = Embedded { process, input, output: BufReader::new(output) };
    pushing.wait_for("pushes");
    assert!(target.gets("pushed"));
    drop(target);
    pushing.say("it is gone");
    pushing.wait_for("retries");
    let target = if MK_API.is_real { Source::live_at(dir.path(), address) } else { Source::talking_at(address) };
    pushing.say("it is back");
    pushing.wait_for("mk_host_test: passed");
    assert!(target.gets("pushed"));
    assert!(pushing.process.wait().unwrap().success());
}

/// `ZLMJ_CYCLES` says how many under valgrind (1000 with the real libmk_api, otherwise 200).
#[test]
#[ignore = "slow: just test-embed"]
fn opening_and_closing_leaves_no_thread_and_no_memory() {
    let checked =
        env::var("ZLMJ_CYCLES").unwrap_or_else(|_| if MK_API.is_real { "1000" } else { "200" }.to_owned());
    let dir = tempfile::tempdir().unwrap();
    let source = camera(dir.path());
    let said = run(mk_host_test().arg("cycles").arg(dir.path()).arg("1000").arg(&source.url));
    say(said.lines().find(|line| line.contains("cycles:")).expect("a figure"));
    let said = run(Command::new("valgrind")
        .args(["-q", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"])
        .arg(INSTALLED.programs.join("mk_host_test"))
        .envs(libraries())
        .arg("cycles")
        .arg(dir.path())
        .arg(checked)
        .arg(&source.url));
    assert!(said.contains("passed"), "{said}");
}
