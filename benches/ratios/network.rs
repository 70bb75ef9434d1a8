//! A network for the benchmark alone. MediaServer binds each pull to a port before it connects, and a connection that was
//! closed keeps its port for a minute: with the thousands of an earlier round that search takes longer than the restore
//! that is measured, and two servers of 10,000 live pulls need more ports than there are by default.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use super::support::network::own;

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
    let why = match (env::current_exe(), own(SET_UP)) {
        (Ok(program), Some(mut inside)) => {
            let args: Vec<OsString> = env::args_os().skip(1).collect();
            // Comes back only where it fails.
            inside.arg(program).args(args).env(INSIDE, "1").exec().to_string()
        }
        (Ok(_), None) => "unshare or ip is missing or not allowed here".to_owned(),
        (Err(why), _) => why.to_string(),
    };
    eprintln!(
        "no network namespace of its own ({why}): P8, P13 and P15 suffer from the connections of earlier rounds"
    );
}
