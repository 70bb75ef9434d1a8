//! `zlm-journal-fleet`: runs the cameras of many MediaServers as one fleet. See docs/fleet.md.

mod commands;
mod config;
mod etcd;
mod fence;
mod guard;
mod http;
mod leader;
mod lease;
mod model;
mod node;
mod place;
mod quorum;
mod seal;
mod seen;
mod server;
mod shared;
mod simulate;
mod wanted;
mod writes;

use std::collections::BTreeSet;
use std::io::{IsTerminal, Read, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use config::Config;
use etcd::Store;
use seal::Seal;
use seen::Leading;
use wanted::{Options, Set};

/// Runs the cameras of many ZLMediaKit servers as one fleet, on etcd.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// The configuration; docs/fleet.md explains it.
    #[arg(long, short, global = true, default_value = "/etc/zlm-journal-fleet.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Is a node of the fleet, beside a MediaServer. SIGTERM ends it: others get its cameras at once. SIGUSR2 ends it to be
    /// started again: its cameras go on.
    Serve,
    /// Stops the cameras here when `serve` does not renew the lease; started by it.
    #[command(hide = true)]
    Guard { parent: u32, instance: String },
    /// Makes the wanted cameras of a label those of a file (JSON or CSV, as importJournal takes them; - reads from standard
    /// input).
    Sync {
        file: PathBuf,
        #[command(flatten)]
        change: Change,
        /// Removes nothing.
        #[arg(long)]
        keep: bool,
        /// All cameras are meant, each with its `fleet_label`, as export prints them.
        #[arg(long, conflicts_with = "label")]
        all_labels: bool,
    },
    /// Removes cameras by their keys (vhost/app/stream).
    Remove {
        #[arg(required = true)]
        keys: Vec<String>,
        #[command(flatten)]
        change: Change,
    },
    /// Prints what is wanted, as a JSON document that sync takes.
    Export {
        #[arg(long)]
        label: Option<String>,
        /// With the passwords in URLs.
        #[arg(long)]
        reveal: bool,
    },
    /// Shows nodes, cameras, moves, and what has no place and why.
    Status {
        /// Again and again.
        #[arg(long)]
        follow: bool,
        #[arg(long)]
        json: bool,
    },
    /// Says which node has a camera.
    Where { key: String },
    /// Shows the last moves and why they were made, the newest first.
    History {
        #[arg(long)]
        key: Option<String>,
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Moves a camera to a node.
    Move { key: String, node: String },
    /// Empties a node, and keeps it empty.
    Drain {
        node: String,
        /// Lets it have cameras again.
        #[arg(long)]
        undo: bool,
        /// Returns at once.
        #[arg(long)]
        no_wait: bool,
    },
    /// Moves cameras from the fullest nodes to the emptiest ones.
    Rebalance {
        /// Moves begun in a second at most.
        #[arg(long, default_value_t = 1)]
        per_sec: usize,
    },
    /// Takes back all drains, moves and rebalances.
    Cancel,
    /// Empties one node after the other, runs a command for each, and goes on when it is back.
    Upgrade {
        /// Run by sh, with the node's id in $NODE. Must return after the node was restarted.
        #[arg(long)]
        run: String,
        /// These nodes, in this order; all by default.
        nodes: Vec<String>,
    },
    /// Runs the placement on a fleet in memory, and prints what it costs.
    Simulate {
        #[arg(long, default_value_t = 1_000)]
        nodes: usize,
        #[arg(long, default_value_t = 100_000)]
        cameras: usize,
        #[arg(long, default_value_t = 1_000)]
        events: usize,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

#[derive(Args)]
struct Change {
    /// The set that is meant; without it, the cameras without a label.
    #[arg(long, default_value = "")]
    label: String,
    /// Says what would change, and changes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Changes nothing if anything was changed since this revision (see export).
    #[arg(long)]
    if_revision: Option<i64>,
}

impl Change {
    fn options(self, prune: bool) -> Options {
        Options { label: Some(self.label), prune, dry_run: self.dry_run, if_revision: self.if_revision }
    }
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Simulate { nodes, cameras, events, seed } => {
            simulate(&simulate::Size { nodes: *nodes, cameras: *cameras, events: *events, seed: *seed })
        }
        Command::Guard { parent, instance } => guard::run(&cli.config, *parent, instance),
        _ => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")
            .and_then(|runtime| runtime.block_on(run(cli))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let config = Config::read(&cli.config)?;
    if matches!(cli.command, Command::Serve) {
        return serve(config, &cli.config).await;
    }
    let store = Store::new(&config.fleet, &config.etcd)?;
    let seal = Seal::of(&config)?;
    store.join(&config.fleet, &seal).await?;
    match cli.command {
        Command::Serve | Command::Guard { .. } | Command::Simulate { .. } => Ok(()),
        Command::Sync { file, change, keep, all_labels } => {
            let mut options = change.options(!keep);
            options.label = options.label.filter(|_| !all_labels);
            let items = wanted::parse(&text_of(&file)?).with_context(|| file.display().to_string())?;
            let set = Set::of(&items, options.label.as_deref()).with_context(|| file.display().to_string())?;
            print_outcome(&wanted::sync(&store, &seal, &set, &options).await?)
        }
        Command::Remove { keys, change } => {
            let keys: BTreeSet<String> = keys.into_iter().collect();
            print_outcome(&wanted::remove(&store, &keys, &change.options(true)).await?)
        }
        Command::Export { label, reveal } => {
            print_json(&commands::export(&store, &seal, label.as_deref(), reveal).await?)
        }
        Command::Status { follow, json } => status(&store, follow, json).await,
        Command::Where { key } => print_json(&commands::find(&store, &key).await?),
        Command::History { key, limit } => {
            let moves = commands::history(&store, key.as_deref(), limit).await?;
            moves.as_array().into_iter().flatten().try_for_each(print_json)
        }
        Command::Move { key, node } => commands::order_move(&store, &key, &node).await,
        Command::Drain { node, undo, no_wait } => {
            commands::drain(&store, &node, !undo).await?;
            if undo || no_wait { Ok(()) } else { drained(&store, &node).await }
        }
        Command::Rebalance { per_sec } => commands::rebalance(&store, per_sec).await,
        Command::Cancel => {
            println!("{} orders taken back", commands::cancel(&store).await?);
            Ok(())
        }
        Command::Upgrade { run, nodes } => upgrade(&store, &run, nodes).await,
    }
}

async fn serve(config: Config, path: &std::path::Path) -> Result<()> {
    let shared = shared::Shared::new(config)?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let guarded = guard::keep(path, shared.clone());
    let answering = tokio::spawn(http::serve(shared.clone()));
    let working = node::run(shared.clone(), stopped);
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut restart = signal(SignalKind::user_defined2())?;
    tokio::pin!(working);
    tokio::select! {
        ended = &mut working => return ended,
        ended = answering => return ended.context("HTTP has ended")?,
        ended = guarded => return ended,
        _ = term.recv() => {}
        _ = int.recv() => {}
        // Its next start goes on with the lease; if there is none in time, the guard stops the cameras.
        _ = restart.recv() => return Ok(()),
    }
    let _ = stop.send(true);
    working.await
}

fn text_of(file: &std::path::Path) -> Result<String> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read from standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn print_json(value: &Value) -> Result<()> {
    writeln!(std::io::stdout(), "{value}").context("cannot print")
}

fn print_outcome(outcome: &wanted::Outcome) -> Result<()> {
    print_json(&serde_json::to_value(outcome)?)?;
    if outcome.conflict {
        bail!("something was changed after that revision: look at export again");
    }
    Ok(())
}

async fn status(store: &Arc<Store>, follow: bool, json: bool) -> Result<()> {
    loop {
        let value = commands::status(store).await;
        match value {
            Ok(value) if json => print_json(&value)?,
            Ok(value) => {
                if follow && std::io::stdout().is_terminal() {
                    print!("\x1b[2J\x1b[H");
                }
                print!("{}", seen::told(&serde_json::from_value::<Leading>(value)?));
            }
            Err(error) if follow => println!("{error:#}"),
            Err(error) => return Err(error),
        }
        if !follow {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn drained(store: &Arc<Store>, node: &str) -> Result<()> {
    let mut last = usize::MAX;
    commands::wait_until_empty(store, node, |left, seen| {
        if left != last {
            last = left;
            eprintln!("{node}: {left} cameras left, {} being moved", seen.moving);
        }
        for (key, why) in seen.stuck.iter().take(3) {
            eprintln!("{key} cannot leave: {why}");
        }
    })
    .await
}

async fn upgrade(store: &Arc<Store>, run: &str, nodes: Vec<String>) -> Result<()> {
    let seen = || async { Ok::<Leading, anyhow::Error>(serde_json::from_value(commands::status(store).await?)?) };
    let all: Vec<String> = if nodes.is_empty() {
        seen().await?.nodes.iter().filter(|(_, node)| node.alive).map(|(id, _)| id.clone()).collect()
    } else {
        nodes
    };
    for (at, node) in all.iter().enumerate() {
        eprintln!("{node} ({} of {}): it is emptied", at + 1, all.len());
        let before = seen().await?.nodes.get(node).map(|node| node.instance.clone());
        let before = before.with_context(|| format!("the fleet has no node {node}"))?;
        commands::drain(store, node, true).await?;
        drained(store, node).await?;
        eprintln!("{node}: {run}");
        let done = tokio::process::Command::new("sh").args(["-c", run]).env("NODE", node).status().await?;
        if !done.success() {
            bail!("the command failed for {node} ({done}), which stays empty: `drain --undo {node}` ends that");
        }
        let began = Instant::now();
        loop {
            // The leader may just have been that node.
            let now = seen().await.ok().and_then(|seen| Some(seen.nodes.get(node)?.clone()));
            if now.is_some_and(|now| now.alive && now.instance != before) {
                break;
            }
            if began.elapsed() > Duration::from_secs(600) {
                bail!("{node} is not back after ten minutes, or was not restarted, and stays empty");
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        commands::drain(store, node, false).await?;
    }
    eprintln!("all are done; `rebalance` spreads the cameras over them again");
    Ok(())
}

fn simulate(size: &simulate::Size) -> Result<()> {
    let began = Instant::now();
    let report = simulate::run(size, |events| {
        eprint!("\r{events} of {} events, {} s ", size.events, began.elapsed().as_secs());
    })
    .context("a rule was broken")?;
    eprintln!();
    println!(
        "{} nodes, {} cameras, {} events (seed {}): no rule was broken",
        size.nodes, size.cameras, size.events, size.seed
    );
    println!(
        "first plan {:.3} s, longest later one {:.3} s",
        report.first_plan.as_secs_f64(),
        report.longest_plan.as_secs_f64()
    );
    println!(
        "spread {:.1} % of capacity at first, {:.1} % after a rebalance",
        report.spread * 100.0,
        report.spread_after * 100.0
    );
    println!("{:<22} {:>7} {:>14} {:>10} {:>10}", "for each", "events", "transactions", "writes", "bytes");
    for (what, cost) in &report.costs {
        let each = |value: usize| value as f64 / cost.events.max(1) as f64;
        println!(
            "{what:<22} {:>7} {:>14.1} {:>10.1} {:>10.0}",
            cost.events,
            each(cost.transactions),
            each(cost.writes),
            each(cost.bytes)
        );
    }
    Ok(())
}
