//! The nodes of a sweep, linked through themselves, so that a sweep allocates nothing however many there are.
#![expect(unsafe_code, reason = "the chain is made of pointers, each of which is a count")]

use std::ptr::NonNull;

use super::{Node, Ref};

/// The nodes of a sweep, each with a count, linked through themselves.
pub(super) struct Chain {
    pub(super) first: Option<NonNull<Node>>,
    last: Option<NonNull<Node>>,
    sorted: bool,
}

impl Chain {
    pub(super) fn new(first: Ref) -> Chain {
        let mut chain = Chain { first: None, last: None, sorted: true };
        chain.push(first);
        chain
    }

    pub(super) fn push(&mut self, context: Ref) {
        let node = context.node();
        // SAFETY: the chain keeps it from here on, by the count that the handle was.
        unsafe { node.as_ref() }.set_next_in_chain(None);
        let _ = context.into_raw();
        match self.last.replace(node) {
            None => self.first = Some(node),
            Some(last) => {
                self.sorted &= id(last) < id(node);
                // SAFETY: in the chain.
                unsafe { last.as_ref() }.set_next_in_chain(Some(node));
            }
        }
    }

    pub(super) fn pop(&mut self) -> Option<Ref> {
        let node = self.first?;
        // SAFETY: in the chain.
        self.first = unsafe { node.as_ref() }.next_in_chain();
        Some(Ref(node.cast()))
    }

    /// Brings it into the order of derivation.
    pub(super) fn sort(&mut self) {
        if !self.sorted {
            self.first = sort(self.first);
        }
    }
}

impl Node {
    pub(super) fn next_in_chain(&self) -> Option<NonNull<Node>> {
        // SAFETY: the claimant's alone (I6).
        self.work.with(|next| unsafe { *next })
    }

    fn set_next_in_chain(&self, next: Option<NonNull<Node>>) {
        // SAFETY: the claimant's alone (I6).
        self.work.with_mut(|place| unsafe { *place = next });
    }
}

fn id(node: NonNull<Node>) -> u64 {
    // SAFETY: the caller has it in a chain.
    unsafe { node.as_ref() }.head.id.number()
}

/// Sorts a chain by derivation: a merge sort of sorted runs, bottom up, in place.
fn sort(first: Option<NonNull<Node>>) -> Option<NonNull<Node>> {
    let mut runs: Vec<Option<NonNull<Node>>> = Vec::new(); // runs[i]: 2^i runs merged, or none
    let mut rest = first;
    while let Some(head) = rest {
        let mut last = head;
        loop {
            // SAFETY: in the chain, here and below.
            let next = unsafe { last.as_ref() }.next_in_chain();
            match next.filter(|next| id(last) < id(*next)) {
                Some(next) => last = next,
                None => break,
            }
        }
        // SAFETY: as above.
        rest = unsafe { last.as_ref() }.next_in_chain();
        // SAFETY: as above.
        unsafe { last.as_ref() }.set_next_in_chain(None);
        let mut run = Some(head);
        for slot in &mut runs {
            match slot.take() {
                Some(earlier) => run = merge(Some(earlier), run),
                None => {
                    *slot = run.take();
                    break;
                }
            }
        }
        if run.is_some() {
            runs.push(run);
        }
    }
    runs.into_iter().fold(None, |sorted, run| merge(run, sorted))
}

fn merge(a: Option<NonNull<Node>>, b: Option<NonNull<Node>>) -> Option<NonNull<Node>> {
    let (mut a, mut b) = (a, b);
    let mut first = None;
    let mut last: Option<NonNull<Node>> = None;
    loop {
        let source = match (a, b) {
            (Some(x), Some(y)) if id(x) < id(y) => &mut a,
            (_, Some(_)) => &mut b,
            (_, None) => &mut a,
        };
        let Some(node) = *source else { return first };
        // SAFETY: in the chain, here and below.
        *source = unsafe { node.as_ref() }.next_in_chain();
        match last.replace(node) {
            None => first = Some(node),
            // SAFETY: as above.
            Some(last) => unsafe { last.as_ref() }.set_next_in_chain(Some(node)),
        }
    }
}
