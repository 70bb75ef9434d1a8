//! What many calls at once have needed, as at a restore, given back once none is left.

use std::collections::{HashMap, VecDeque};

/// Room for so many is kept for the next ones.
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

/// To be called when something was taken out.
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
