//! A network for one test alone, and in it a node with two links: one to etcd, and one to its server and from whoever asks it.

use std::env;
use std::fs;
use std::process::{Child, Command};
use std::time::Duration;

use crate::fixture::{Way, program, wait_for};
use crate::support::network::own;
use crate::support::{HOST, run, skip};
use crate::wire::Wire;

/// A file into which whoever is inside writes.
const INSIDE: &str = "ZLMJ_FLEET_INSIDE";
/// Ends with the test, or later if that is killed.
const HOLD: &str = "ip link set lo up && exec sleep 900";
/// The names of the links on this side, and the beginning of their addresses: this side is .1, the node .2.
const LINKS: [(&str, &str); 2] = [(ETCD, "10.77.1"), ("zlmj-rest", "10.77.2")];
const ETCD: &str = "zlmj-etcd";

/// Whether this is a network namespace of its own. If not, the test of this name is run in one.
pub fn inside(test: &str) -> bool {
    if let Some(came) = env::var_os(INSIDE) {
        fs::write(came, test).unwrap();
        return true;
    }
    let set_up =
        "ip link set lo up && ip link add name one type veth peer name two && ip link del one && unshare -n true";
    let Some(mut there) = own(set_up) else {
        skip("a link that is down: unshare or ip is missing or not allowed here");
        return false;
    };
    // What must be built is built out here.
    let _ = &*HOST;
    let came = tempfile::NamedTempFile::new().unwrap();
    there.arg(env::current_exe().unwrap()).args(["--exact", test, "--include-ignored", "--nocapture"]);
    let status = there.env(INSIDE, came.path()).env("ZLMJ_FLEET", program()).status().unwrap();
    assert!(status.success(), "in a network of its own: {status}");
    assert!(came.as_file().metadata().unwrap().len() > 0, "{test}: there is no test of this name");
    false
}

pub struct Link {
    holder: Child,
}

impl Link {
    pub fn new() -> Link {
        let holder = Command::new("unshare").args(["-n", "sh", "-c", HOLD]).spawn().expect("unshare");
        let link = Link { holder };
        let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net"));
        let pid = link.holder.id().to_string();
        wait_for("a network for the node", Duration::from_secs(10), || {
            network(&pid).is_ok_and(|its| network("self").is_ok_and(|own| own != its))
        });
        for (name, address) in LINKS {
            let enter = link.enter().join(" ");
            let script = format!(
                "set -e
                ip link add name {name} type veth peer name peer netns {pid}
                ip addr add {address}.1/24 dev {name}
                ip link set {name} up
                {enter} ip link set peer name {name}
                {enter} ip addr add {address}.2/24 dev {name}
                {enter} ip link set {name} up"
            );
            run(Command::new("sh").args(["-c", &script]));
        }
        link
    }

    fn enter(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", self.holder.id())]
    }

    /// The way of the node: each member of etcd by the first link, its server by the second.
    pub fn way(&self, etcd: &[String]) -> Way {
        let [(_, first), (_, second)] = LINKS;
        Way {
            etcd: etcd.iter().map(|member| Wire::at(&format!("{first}.1"), member).url).collect(),
            host: format!("{second}.2"),
            gate: Some(format!("{second}.1")),
            by: self.enter().to_vec(),
            env: Vec::new(),
        }
    }

    /// The link to etcd, on this side: `up` or `down`.
    pub fn set(&self, what: &str) {
        run(Command::new("ip").args(["link", "set", ETCD, what]));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
