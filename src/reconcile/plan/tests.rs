//! The plan by itself, one rule at a time.

mod asked;
mod crashes;
mod looks;
mod properties;
mod restore;
mod revive;
mod streams;
mod urls;
mod world;

use super::*;
use crate::model::Args;

const LIMITS: Limits = Limits {
    mode: RestoreMode::Eager,
    per_second: u32::MAX as u64,
    per_origin: 8,
    processes: 2,
    revive: Duration::from_secs(30),
    failover: Duration::from_secs(10),
    seed: 7,
};

fn new(limits: Limits) -> Plan {
    Plan::new(limits, NamingRules { ports: vec![1935], ..NamingRules::default() })
}

fn key(name: &str) -> ProxyKey {
    (Kind::Pull, name.into())
}

fn args(pairs: &[(&str, &str)]) -> Args {
    Args::from_pairs(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))).unwrap()
}

fn want(name: &str, seq: u64) -> Wanted {
    let args = args(&[("url", &format!("rtsp://{name}/live"))]);
    Wanted { key: key(name), seq, args, crashes: 0, dark_since: None }
}

fn wanted(names: &[&str]) -> Vec<Wanted> {
    names.iter().zip(1..).map(|(name, seq)| want(name, seq)).collect()
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const RETRYING: Listed = Listed::Retrying { failures: 0, error: None };

fn playing(names: &[&str]) -> HashMap<ProxyKey, Listed> {
    listed(names, Listed::Playing)
}

fn retrying(names: &[&str]) -> HashMap<ProxyKey, Listed> {
    listed(names, RETRYING)
}

fn listed(names: &[&str], does: Listed) -> HashMap<ProxyKey, Listed> {
    names.iter().map(|name| (key(name), does.clone())).collect()
}

fn look(plan: &mut Plan, wanted: Vec<Wanted>, listed: &HashMap<ProxyKey, Listed>, at: Duration) {
    observe(plan, wanted, listed, at, at);
}

/// A whole look, of one page.
fn observe(
    plan: &mut Plan,
    wanted: Vec<Wanted>,
    listed: &HashMap<ProxyKey, Listed>,
    asked: Duration,
    now: Duration,
) {
    plan.begin_look(asked, 1_000_000);
    let there = |want: Wanted| {
        let there = listed.get(&want.key).cloned();
        (want, there)
    };
    plan.compare(wanted.into_iter().map(there), asked, now, 1_000_000);
    plan.end_look(now);
}

/// Everything that may be started at a moment, by name; the calls are numbered on.
fn start(plan: &mut Plan, at: Duration) -> Vec<String> {
    let mut all = act(plan, at);
    all.retain(|action| action != "release" && !action.starts_with("acquit"));
    all
}

/// Everything that is to be done at a moment.
fn act(plan: &mut Plan, at: Duration) -> Vec<String> {
    std::iter::from_fn(|| plan.next(at))
        .map(|action| match action {
            Action::Start { key, existing, url, .. } => {
                let how = match existing {
                    Existing::Keep => "",
                    Existing::Update => " in place",
                    Existing::Replace => " anew",
                };
                let from = url.map_or_else(String::new, |url| format!(" from {url}"));
                format!("{}{how}{from}", key.1)
            }
            Action::SetAside { key, .. } => format!("set aside {}", key.1),
            Action::Acquit { key, .. } => format!("acquit {}", key.1),
            Action::Release { .. } => "release".to_owned(),
            Action::Note { key, used: UsedUrl { url, number, ago, why, error }, .. } => {
                format!("{} plays from {number}, {url}, for {} s: {why}: {error}", key.1, ago.as_secs())
            }
            Action::Probe { ticket, url } => format!("probe {ticket} {url}"),
        })
        .collect()
}

fn failed() -> Added {
    Added::Failed("off".into())
}

/// A plan whose only proxy, "a", was restored and answered so at second 0.
fn restored(limits: Limits, answer: Added) -> Plan {
    let mut plan = new(limits);
    look(&mut plan, wanted(&["a"]), &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), ["a"]);
    plan.answered(1, answer, secs(0), 0);
    plan
}

/// A push of live/a to somewhere.
fn push(to: &str, seq: u64) -> Wanted {
    let pairs = [("vhost", "__defaultVhost__"), ("app", "live"), ("stream", "a"), ("dst_url", to)];
    Wanted { args: args(&pairs), key: (Kind::Push, to.into()), ..want("push", seq) }
}

fn blocked() -> Added {
    Added::Blocked("no source".into())
}

const TO: &str = "rtmp://cdn/live/a";
