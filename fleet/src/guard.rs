//! A second process of the program, which stops the cameras at the deadline when the first one does not renew it: because
//! it was stopped, hangs, or is dead. It needs neither etcd nor a runtime, only the file with the deadline and the server.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::config::Config;
use crate::fence::fence;
use crate::lease::{self, Deadline};
use crate::server::Server;
use crate::shared::Shared;

/// How often the guard looks, and leaves a sign that it does.
const LOOK: Duration = Duration::from_millis(100);
/// A guard without a sign for so long is replaced.
const SILENCE_MS: u64 = 2_000;

fn sign(state_dir: &Path) -> std::path::PathBuf {
    state_dir.join("guard")
}

/// The guard itself: until the program is gone and has nothing to stop any more, or has another guard.
pub fn run(config: &Path, parent: u32, instance: &str) -> Result<()> {
    let config = Config::read(config)?;
    let node = config.node()?;
    let (server, deadline) = (Server::new(node)?, Deadline::new(&node.state_dir)?);
    let (mut leaving, fences) = (BTreeSet::new(), AtomicU64::new(0));
    let mut last: Option<lease::Held> = None;
    loop {
        // A file that is gone, with its directory, ends nothing.
        last = deadline.read().or(last).filter(|held| !held.is_over());
        let has_parent =
            rustix::process::getppid().is_some_and(|pid| pid.as_raw_nonzero().get().unsigned_abs() == parent);
        let is_anothers = last.as_ref().is_some_and(|held| held.instance != instance);
        if !has_parent && (last.is_none() || is_anothers) {
            return Ok(());
        }
        if last.as_ref().is_some_and(|held| lease::now() >= held.deadline) {
            // Again and again: a call of the program may be under way.
            fence(node, &server, "the program has not renewed the lease in time", &mut leaving, &fences);
            if !has_parent {
                return Ok(());
            }
        }
        // Whoever cannot write it is replaced, and the next one cannot either: the program says so.
        let _ = std::fs::write(sign(&node.state_dir), lease::now().to_string());
        std::thread::sleep(LOOK);
    }
}

/// Keeps a guard running.
pub async fn keep(config: &Path, shared: Arc<Shared>) -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program")?;
    loop {
        let mut child = Command::new(&program)
            .arg("--config")
            .arg(config)
            .args(["guard", &std::process::id().to_string(), &shared.instance])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start the guard")?;
        let began = lease::now();
        let why = watch(&mut child, &shared, began).await;
        log::error!("the guard {why}, and is started again");
        if let Err(error) = child.kill().await {
            log::debug!("{error}");
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn watch(child: &mut Child, shared: &Shared, began: u64) -> &'static str {
    loop {
        tokio::select! {
            _ = child.wait() => return "has ended",
            () = sleep(Duration::from_millis(500)) => {}
        }
        let text = std::fs::read_to_string(sign(&shared.node.state_dir)).unwrap_or_default();
        let signed = text.parse().unwrap_or(0).max(began);
        if lease::now().saturating_sub(signed) > SILENCE_MS {
            // It may be stopping cameras, which takes its time.
            let fencing = shared.deadline.left() == 0;
            if !fencing {
                return "gives no sign";
            }
        }
    }
}
