//! A network for the benchmark alone. MediaServer binds each pull to a port before it connects, and a connection that was
//! closed keeps its port for a minute: with the thousands of an earlier round that search takes longer than the restore
//! that is measured, and two servers of 10,000 live pulls need more ports than there are by default.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

const INSIDE: &str = "ZLMJ_BENCH_INSIDE";
/// The ports that this names lie above those that servers get ([`super::support::server::free_port`]). As many open files as
/// are allowed at all: the cameras are here.
const SET_UP: &str = "ip link set lo up &&
    echo 1000 > /proc/sys/net/ipv4/tcp_max_tw_buckets &&
    echo 32000 65535 > /proc/sys/net/ipv4/ip_local_port_range &&
    ulimit -n $(ulimit -H -n)";

/// Goes on in a network namespace of its own; in the one that everybody shares where there can be none, and says so.
pub fn enter() {
    if env::var_os(INSIDE).is_some() {
        return;
    }
    let unshare = |script: String| {
        // Whoever is no root may have one all the same, as the root of a user namespace.
        let is_root = Command::new("id").arg("-u").output().is_ok_and(|said| said.stdout.trim_ascii() == b"0");
        let mut command = Command::new("unshare");
        command.args(if is_root { ["-n"].as_slice() } else { &["-r", "-n"] }).args(["sh", "-c", &script]);
        command
    };
    let works = unshare(SET_UP.to_owned()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    let why = match env::current_exe() {
        Ok(program) if works => {
            let args: Vec<OsString> = env::args_os().skip(1).collect();
            // Comes back only where it fails.
            let mut inside = unshare(format!("{SET_UP}; exec \"$0\" \"$@\""));
            inside.arg(program).args(args).env(INSIDE, "1").exec().to_string()
        }
        Ok(_) => "unshare or ip is missing or not allowed here".to_owned(),
        Err(why) => why.to_string(),
    };
    eprintln!(
        "no network namespace of its own ({why}): P8, P13 and P15 suffer from the connections of earlier rounds"
    );
}
