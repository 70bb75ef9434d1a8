//! Whether etcd can still decide anything. A lease ends by a decision of etcd, so without a quorum none ends, and what
//! plays may go on; but a node that is merely cut off must not take its own silence for that.
//!
//! Rule: the quorum counts as lost if so many members have no leader that the others cannot be a majority, and if most
//! nodes of the fleet see the same and none sees otherwise. A member has none if it says so, or if it refuses a connection, which says
//! that no etcd runs there. One that does not answer at all may be running, and have one. When etcd has a quorum again, its
//! new leader gives every lease its whole time anew (etcd, `lessor.Promote`).

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::etcd::Store;
use crate::shared::Shared;

const PATIENCE: Duration = Duration::from_millis(500);
/// How many other nodes are asked at most.
const SOME: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quorum {
    /// A majority of its members has a leader.
    There,
    /// It cannot be there.
    Lost,
    /// Too many do not answer to know.
    Unknown,
}

/// What this node sees by itself.
pub async fn seen(store: &Arc<Store>) -> Quorum {
    let members = store.endpoints().len();
    let looks: Vec<_> = (0..members).map(|at| tokio::spawn(look(Arc::clone(store), at))).collect();
    let (mut led, mut leaderless) = (0, 0);
    for look in looks {
        match look.await {
            Ok(Some(true)) => led += 1,
            Ok(Some(false)) => leaderless += 1,
            _ => {}
        }
    }
    judge(members, led, leaderless)
}

fn judge(members: usize, led: usize, leaderless: usize) -> Quorum {
    let majority = members / 2 + 1;
    if members - leaderless < majority {
        Quorum::Lost
    } else if led >= majority {
        Quorum::There
    } else {
        Quorum::Unknown
    }
}

/// Whether a member has a leader; None if that cannot be told.
async fn look(store: Arc<Store>, at: usize) -> Option<bool> {
    let endpoint = store.endpoints().get(at)?;
    let (scheme, address) = endpoint.split_once("://")?;
    let default = if scheme == "https" { ":443" } else { ":80" };
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = if has_port { address.to_owned() } else { format!("{address}{default}") };
    match timeout(PATIENCE, TcpStream::connect(&address)).await {
        Ok(Ok(_)) => store.has_leader(at, PATIENCE).await.ok(),
        Ok(Err(why)) if why.kind() == ErrorKind::ConnectionRefused => Some(false),
        _ => None,
    }
}

/// What the fleet sees.
pub async fn of(shared: &Shared) -> Quorum {
    let own = seen(&shared.store).await;
    if own != Quorum::Lost {
        return own;
    }
    let mut others: Vec<String> = {
        let nodes = shared.nodes.lock();
        if nodes.is_empty() {
            // Who else there is was not read yet.
            return Quorum::Unknown;
        }
        nodes.iter().filter(|(id, _)| **id != shared.node.id).map(|(_, info)| info.api.clone()).collect()
    };
    // Of many, some from all over the fleet.
    let every = others.len().div_ceil(SOME).max(1);
    others = others.into_iter().step_by(every).collect();
    let asked = others.len() + 1;
    let asks: Vec<_> = others.into_iter().map(|api| tokio::task::spawn_blocking(move || ask(&api))).collect();
    let (mut agree, mut deny) = (1, 0);
    for answer in asks {
        match answer.await {
            Ok(Some(Quorum::Lost)) => agree += 1,
            Ok(Some(Quorum::There)) => deny += 1,
            _ => {}
        }
    }
    if agree * 2 > asked && deny == 0 { Quorum::Lost } else { Quorum::Unknown }
}

fn ask(api: &str) -> Option<Quorum> {
    let get = ureq::get(format!("{api}/quorum")).config().timeout_global(Some(PATIENCE * 2)).build();
    get.call().ok()?.body_mut().read_json().ok()
}

/// The rule needs to know every member.
pub async fn check_members(store: &Store) -> Result<()> {
    let answer = store.ask(Duration::from_secs(2), |mut client| async move { client.member_list().await }).await;
    // Who may not list them still may be a node.
    let Ok(members) = answer else { return Ok(()) };
    let (there, named) = (members.members().len(), store.endpoints().len());
    ensure!(
        there == named,
        "etcd has {there} members, and etcd.endpoints names {named}: name the client URL of each, since by them a node \
         tells an etcd without quorum from a cut network"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_leaderless_majority_proves_that_there_is_no_quorum() {
        for (members, led, leaderless, is) in [
            (3, 3, 0, Quorum::There),
            (3, 2, 1, Quorum::There),
            (3, 1, 2, Quorum::Lost),
            (3, 0, 3, Quorum::Lost),
            (3, 1, 1, Quorum::Unknown),
            (3, 0, 0, Quorum::Unknown),
            (5, 2, 2, Quorum::Unknown),
            (5, 2, 3, Quorum::Lost),
            (1, 0, 1, Quorum::Lost),
        ] {
            assert_eq!(judge(members, led, leaderless), is, "{members} {led} {leaderless}");
        }
    }
}
