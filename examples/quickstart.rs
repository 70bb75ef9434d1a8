//! The main job on this machine: proxies added, the server killed with -9, started again, and all of them back.
//!
//!     cargo run --example quickstart                            a small C server with an in-memory media host
//!     cargo run --example quickstart -- <path to MediaServer>   the real, patched server, over HTTP
//!
//! `-- --proxies N` adds N instead of 1,000. The files stay, for you to look into with sqlite3.

#[path = "../tests/support/server.rs"]
#[allow(dead_code)]
mod server;

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;
use std::{env, fs, thread};

use server::Server;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let (mut proxies, mut media_server) = (1000_usize, None);
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--proxies" {
            proxies = args.next().ok_or("--proxies needs a number")?.parse()?;
        } else {
            media_server = Some(PathBuf::from(arg));
        }
    }
    let dir = env::temp_dir().join(format!("zlm-journal-quickstart-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let file = match media_server {
        Some(binary) => with_media_server(&binary, &dir, proxies)?,
        None => with_embedded_host(&dir, proxies)?,
    };
    println!("\nLook into the journal:\n");
    for query in [
        "select key, url, state, updated from proxies_view limit 3",
        "select seq, time, op, key, origin from journal_view order by seq desc limit 3",
    ] {
        println!("  sqlite3 {} \"{query}\"", file.display());
    }
    Ok(())
}

// ---- a server in C, compiled here, that uses the C API

fn with_embedded_host(dir: &Path, proxies: usize) -> Result<PathBuf> {
    let program = compile_embedded_host(dir)?;
    let data = dir.join("journal");
    fs::create_dir_all(&data)?;

    println!("1. A media server that keeps its proxies in memory starts, and a client adds {proxies} proxies.");
    let mut first = Host::start(&program, &data, proxies)?;
    first.wait_for("running")?;
    let began = Instant::now();
    let line = first.wait_for("acknowledged")?;
    println!("   {line}, each durable before its answer: {:.0?}", began.elapsed());

    println!("2. kill -9.");
    first.kill()?;

    println!("3. It starts again.");
    let began = Instant::now();
    let mut second = Host::start(&program, &data, proxies)?;
    let line = second.wait_for("running")?;
    println!("   {line} of {proxies}, {:.0?} after its start", began.elapsed());
    let restored: usize = line.rsplit(' ').next().unwrap_or_default().parse()?;
    second.kill()?;
    if restored != proxies {
        return Err(format!("only {restored} of {proxies} proxies came back").into());
    }
    Ok(data.join("proxies.db"))
}

struct Host {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Host {
    fn start(program: &Path, data: &Path, proxies: usize) -> Result<Host> {
        let mut child = Command::new(program)
            .arg(data)
            .arg(proxies.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no standard output")?;
        Ok(Host { child, lines: BufReader::new(output).lines() })
    }

    /// Passes the host's own lines on until the one that begins with `word`.
    fn wait_for(&mut self, word: &str) -> Result<String> {
        for line in self.lines.by_ref() {
            let line = line?;
            if line.starts_with(word) {
                return Ok(line);
            }
            println!("   | {}", line.trim_start());
        }
        Err(format!("the host ended before it said {word:?}").into())
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

fn compile_embedded_host(dir: &Path) -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // target/<profile>/examples/quickstart: cargo puts the library beside `examples` when it is asked for it.
    let profile = env::current_exe()?;
    let profile = profile.ancestors().nth(2).ok_or("an unusual target directory")?;
    let mut build = Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    build.args(["build", "--quiet", "--locked", "--lib"]).current_dir(root);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    if !build.status()?.success() {
        return Err("cargo could not build the library".into());
    }
    let library = profile.join("libzlm_journal.a");
    let program = dir.join("embedded_host");
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    println!("0. Compiling examples/embedded_host.c with {compiler} against {}", library.display());
    let libraries: &[&str] = if cfg!(target_os = "macos") {
        &["-lc++"]
    } else {
        &["-lstdc++", "-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"]
    };
    let status = Command::new(&compiler)
        .arg("-I")
        .arg(root.join("include"))
        .arg(root.join("examples/embedded_host.c"))
        .arg(library)
        .args(libraries)
        .arg("-o")
        .arg(&program)
        .status()
        .map_err(|error| format!("{compiler}: {error}. Install a C and C++ compiler, or set CC"))?;
    if !status.success() {
        return Err(format!("{compiler} failed").into());
    }
    Ok(program)
}

// ---- the real server, over HTTP

const CLIENTS: usize = 32;

fn with_media_server(binary: &Path, dir: &Path, proxies: usize) -> Result<PathBuf> {
    let mut server = Server::prepare(&binary.canonicalize()?, dir, &[]);
    let file = server.journal_file();
    let path = file.to_str().ok_or("the temporary directory has an unusual name")?.to_owned();
    server.write_config(&[("enable", "1"), ("path", &path)]);
    println!(
        "1. {} starts, and {CLIENTS} clients add {proxies} cameras that are off (force=1).",
        binary.display()
    );
    server.start();
    let began = Instant::now();
    // Nobody listens there: the server keeps them, as it was told to, and tries again and again.
    let url = format!("rtsp://127.0.0.1:{}/camera", server::free_port());
    let persisted: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (server, url) = (&server, &url);
                scope.spawn(move || {
                    (client..proxies)
                        .step_by(CLIENTS)
                        .filter(|n| {
                            let stream = format!("camera{n}");
                            let args = server::add_args(&stream, url, &[("force", "1")]);
                            let reply = server.try_get("addStreamProxy", &args);
                            reply.is_some_and(|reply| reply["journal"]["persisted"] == true)
                        })
                        .count()
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap_or(0)).sum()
    });
    println!("   {persisted} acknowledged as durable in {:.1?}", began.elapsed());
    let before = server.proxies();
    println!("2. kill -9.");
    server.kill();
    println!("3. It starts again.");
    let began = Instant::now();
    server.start();
    let up = began.elapsed();
    while server.proxies().len() < before.len() && began.elapsed().as_secs() < 60 {
        thread::sleep(std::time::Duration::from_millis(20));
    }
    let after = server.proxies();
    println!(
        "   {} of {} proxies listed {:.2?} after its start, {:.2?} after it answered calls",
        after.len(),
        before.len(),
        began.elapsed(),
        began.elapsed() - up
    );
    println!("   getJournalStatus: {}", server.status());
    if after != before || persisted != proxies {
        return Err("not all proxies came back".into());
    }
    Ok(file)
}
