//! A network namespace of one's own.

use std::process::{Command, Stdio};

/// A command that sets up a network of its own by a script, and there becomes the program that is added to it as arguments. `None`
/// where unshare or ip is missing or not allowed. Whoever is no root has one all the same, as the root of a user namespace.
pub fn own(set_up: &str) -> Option<Command> {
    let unshare = |way: &[&str], script: &str| {
        let mut command = Command::new("unshare");
        command.args(way).args(["sh", "-c", script]);
        command
    };
    let works =
        |way: &&[&str]| unshare(way, set_up).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    let ways: [&[&str]; 2] = [&["-n"], &["-r", "-n"]];
    ways.into_iter().find(works).map(|way| unshare(way, &format!("{set_up}; exec \"$0\" \"$@\"")))
}
