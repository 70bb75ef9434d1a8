//! Ends what must not run here any more. Needs nothing but the server, so that the guard can do it as well.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::Node;
use crate::server::Server;

/// Stops the fleet's cameras on the server; ends the server where it does not. Blocks until that is done.
pub fn fence(node: &Node, server: &Server, why: &str, leaving: &mut BTreeSet<String>, fences: &AtomicU64) {
    let mut has_ended_it = false;
    let mut failed: u32 = 0;
    loop {
        match server.stop_all(leaving, node.fence() * 2 / 3) {
            Ok(done) => {
                if done > 0 {
                    fences.fetch_add(1, Ordering::Relaxed);
                    log::warn!("{done} cameras are stopped here: {why}");
                }
                return;
            }
            Err(error) if failed.is_multiple_of(60) => {
                log::error!("the cameras cannot be stopped ({why}): {error:#}");
            }
            Err(_) => {}
        }
        failed += 1;
        match &node.fence_command {
            Some(command) if !has_ended_it => {
                has_ended_it = true;
                fences.fetch_add(1, Ordering::Relaxed);
                end_server(command);
            }
            None if failed == 1 => log::error!(
                "there is no node.fence_command, so MediaServer, which does not answer, cannot be ended: its cameras may \
                 run twice"
            ),
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn end_server(command: &[String]) {
    let Some((program, args)) = command.split_first() else { return };
    log::error!("MediaServer does not stop its cameras, so it is ended: {}", command.join(" "));
    match Command::new(program).args(args).stdin(Stdio::null()).status() {
        Ok(status) if status.success() => {}
        Ok(status) => log::error!("node.fence_command failed: {status}"),
        Err(why) => log::error!("node.fence_command cannot be run: {why}"),
    }
}
