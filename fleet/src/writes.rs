//! What a step of the plan writes to etcd. Pure, so that the simulation counts the very same writes.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::model::{Keys, Moved, Placed, Where};
use crate::place::Step;

/// Steps in one transaction: each has up to five writes and two comparisons, and etcd takes 128 of either by default.
pub const STEPS: usize = 24;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Put(String, Vec<u8>),
    Delete(String),
}

impl Write {
    /// What etcd stores of it.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Put(key, value) => key.len() + value.len(),
            Self::Delete(key) => key.len(),
        }
    }
}

pub fn json(value: &impl Serialize) -> Vec<u8> {
    // Only maps with other keys than texts can fail, and there is none.
    serde_json::to_vec(value).unwrap_or_default()
}

pub fn of_step(keys: &Keys, step: &Step) -> Vec<Write> {
    let holders = |place: &Option<Where>| -> BTreeSet<_> {
        place.iter().flat_map(Where::holders).cloned().collect::<BTreeSet<_>>()
    };
    let (before, after) = (holders(&step.before), holders(&step.after));
    let mut writes = Vec::new();
    for node in before.difference(&after) {
        writes.push(Write::Delete(keys.placed(node, &step.key)));
    }
    for node in &after {
        let overlaps = matches!(&step.after, Some(Where::Both { to, .. }) if to == node);
        let placed = Placed { rev: step.camera, overlaps, plays: false };
        writes.push(Write::Put(keys.placed(node, &step.key), json(&placed)));
    }
    if step.before != step.after {
        writes.push(match &step.after {
            Some(place) => Write::Put(keys.place(&step.key), json(place)),
            None => Write::Delete(keys.place(&step.key)),
        });
    }
    if step.ends_ask {
        writes.push(Write::Delete(keys.ask(&step.key)));
    }
    writes
}

/// The entry of the history for some steps, if any of them moves something. Its key begins with the time, which is
/// shown; the order is that of the revisions.
pub fn history(keys: &Keys, steps: &[Step], now_ms: u64, number: usize) -> Option<Write> {
    let moved: Vec<Moved> = steps
        .iter()
        .filter(|step| step.before != step.after || step.ends_ask)
        .map(|step| {
            let node = |place: &Option<Where>| place.as_ref().map(|place| place.node().clone());
            let to = match &step.after {
                Some(Where::On { node }) => Some(node.clone()),
                Some(moving) => moving.target().cloned(),
                None => None,
            };
            Moved { key: step.key.clone(), from: node(&step.before), to, why: step.why.clone() }
        })
        .collect();
    let key = format!("{}{now_ms:013}-{number:04}", keys.history());
    (!moved.is_empty()).then(|| Write::Put(key, json(&moved)))
}
