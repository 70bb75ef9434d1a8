//! Frees the memory of collections that have grown a lot, as at a restore, once they are empty.

use std::collections::{HashMap, VecDeque};

/// The capacity that is kept.
const KEPT: usize = 1024;

pub trait Grown: Default {
    fn is_spent(&self) -> bool;
}

impl<K, V> Grown for HashMap<K, V> {
    fn is_spent(&self) -> bool {
        self.is_empty() && self.capacity() > KEPT
    }
}

impl<T> Grown for VecDeque<T> {
    fn is_spent(&self) -> bool {
        self.is_empty() && self.capacity() > KEPT
    }
}

/// Call it after taking something out.
pub fn give_back(grown: &mut impl Grown) {
    if grown.is_spent() {
        *grown = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_many_is_given_back_when_it_is_empty_and_not_before() {
        let mut many: HashMap<usize, usize> = (0..10_000).map(|n| (n, n)).collect();
        many.retain(|n, _| *n == 0);
        give_back(&mut many);
        assert!(many.capacity() >= 10_000 && many.len() == 1);
        many.clear();
        give_back(&mut many);
        assert_eq!(many.capacity(), 0);
        let mut few: VecDeque<usize> = VecDeque::with_capacity(10);
        give_back(&mut few);
        assert!(few.capacity() >= 10);
    }
}
