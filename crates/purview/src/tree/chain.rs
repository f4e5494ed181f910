//! The nodes of a sweep, linked through themselves, so that a sweep allocates nothing however many there are.
//!
//! A node leaves its parent's list when it is marked; its link is the sweep's from then on. Each is kept by a count.
#![expect(unsafe_code, reason = "the chain is made of pointers, each of which is a count")]

use std::ptr::NonNull;

use crate::list::Item;

use super::{Node, Ref};

/// Nodes, each with a count, linked through themselves; ends with none.
pub(super) struct Chain {
    first: Item,
    last: Item,
    sorted: bool,
}

impl Chain {
    pub(super) const fn new() -> Chain {
        Chain { first: Item::NONE, last: Item::NONE, sorted: true }
    }

    pub(super) fn first(&self) -> Item {
        self.first
    }

    /// Puts one in at the front.
    pub(super) fn prepend(&mut self, context: Ref) {
        let item = Node::item(context.node());
        let _ = context.into_raw();
        if self.last.is_none() {
            self.last = item;
        } else {
            self.sorted &= id(item) < id(self.first);
        }
        // SAFETY: in no list, and the sweep's alone.
        unsafe { item.chain_to(self.first) };
        self.first = item;
    }

    /// Puts a chain in at the end.
    pub(super) fn append(&mut self, run: Chain) {
        if run.first.is_none() {
            return;
        }
        if self.last.is_none() {
            self.first = run.first;
            self.sorted = run.sorted;
        } else {
            self.sorted &= run.sorted && id(self.last) < id(run.first);
            // SAFETY: in the chain.
            unsafe { self.last.chain_to(run.first) };
        }
        self.last = run.last;
    }

    pub(super) fn pop(&mut self) -> Option<Ref> {
        let item = self.first;
        if item.is_none() {
            return None;
        }
        self.first = next(item);
        // SAFETY: chains are made of nodes.
        Some(Ref(unsafe { Node::of_item(item) }.cast()))
    }

    /// Brings it into the order of derivation.
    pub(super) fn sort(&mut self) {
        if !self.sorted {
            self.first = sort(self.first);
        }
    }
}

/// The next in a chain; the chain is the caller's.
pub(super) fn next(item: Item) -> Item {
    // SAFETY: in the chain.
    unsafe { item.next() }
}

/// The node of an item in a chain.
pub(super) fn node(item: Item) -> NonNull<Node> {
    // SAFETY: chains are made of nodes.
    unsafe { Node::of_item(item) }
}

fn id(item: Item) -> u64 {
    // SAFETY: in the chain, which keeps it.
    unsafe { node(item).as_ref() }.head.id.number()
}

fn link(item: Item, to: Item) {
    // SAFETY: in the chain.
    unsafe { item.chain_to(to) };
}

/// Sorts a chain by derivation: a merge sort of sorted runs, bottom up, in place.
fn sort(first: Item) -> Item {
    let mut runs: Vec<Item> = Vec::new(); // runs[i]: 2^i runs merged, or none
    let mut rest = first;
    while !rest.is_none() {
        let head = rest;
        let mut last = head;
        loop {
            rest = next(last);
            if rest.is_none() || id(rest) < id(last) {
                break;
            }
            last = rest;
        }
        link(last, Item::NONE);
        let mut run = head;
        for slot in &mut runs {
            if slot.is_none() {
                *slot = std::mem::replace(&mut run, Item::NONE);
                break;
            }
            run = merge(std::mem::replace(slot, Item::NONE), run);
        }
        if !run.is_none() {
            runs.push(run);
        }
    }
    runs.into_iter().fold(Item::NONE, |sorted, run| merge(run, sorted))
}

fn merge(a: Item, b: Item) -> Item {
    let (mut a, mut b) = (a, b);
    let mut first = Item::NONE;
    let mut last = Item::NONE;
    loop {
        let source = if b.is_none() || (!a.is_none() && id(a) < id(b)) { &mut a } else { &mut b };
        let item = *source;
        if item.is_none() {
            return first;
        }
        *source = next(item);
        if last.is_none() {
            first = item;
        } else {
            link(last, item);
        }
        link(item, Item::NONE);
        last = item;
    }
}

#[cfg(all(test, not(purview_loom)))]
mod tests {
    use super::Chain;
    use crate::Context;

    /// In the order they are popped, sorted: contexts that are prepended in the order `run` says, one run after another.
    fn popped<const N: usize>(runs: &[[usize; N]]) -> Vec<usize> {
        let contexts: Vec<_> =
            (0..runs.len() * N).map(|_| Context::background().with_cancel()).collect();
        let mut chain = Chain::new();
        for run in runs {
            let mut next = Chain::new();
            for n in run {
                next.prepend(contexts[*n].0.as_ref().clone());
            }
            chain.append(next);
        }
        chain.sort();
        let ids = std::iter::from_fn(|| chain.pop()).map(|context| context.head().id);
        ids.map(|id| contexts.iter().position(|of| of.0.id() == id).expect("put in")).collect()
    }

    #[test]
    fn a_chain_is_sorted_whatever_order_it_was_made_in() {
        for runs in [[[2, 1, 0], [5, 4, 3]], [[0, 1, 2], [5, 4, 3]], [[2, 1, 0], [3, 5, 4]]] {
            assert_eq!(popped(&runs), [0, 1, 2, 3, 4, 5], "within a run: {runs:?}");
        }
        assert_eq!(popped(&[[0, 1, 2]]), [0, 1, 2], "of one run");
        assert_eq!(popped(&[[5, 4, 3], [2, 1, 0]]), [0, 1, 2, 3, 4, 5], "from run to run");
        assert_eq!(popped(&[[4, 1], [3, 0], [5, 2]]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(popped(&[[3], [0], [2], [1]]), [0, 1, 2, 3]);
        assert!(popped::<0>(&[[]]).is_empty());
    }
}
