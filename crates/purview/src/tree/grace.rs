//! When a grace is over, what end it has then, and how that is handed down.
//!
//! A grace's deadline is known only when its parent ends: until then it is the parent's own plus the grace (C15). When a
//! cancel makes it earlier, that is [handed down](Node::lower) to the nodes below for which it binds now. A poll that comes
//! before that may find the grace over by the estimate; what it records is exact all the same, for it is computed from the
//! parent's end ([`find_root`](Node::find_root)).
#![expect(
    unsafe_code,
    reason = "owners and roots are ancestors, which the strong pointers up keep"
)]

use std::collections::{BTreeMap, HashSet};
use std::ptr::NonNull;

use crate::clock::Tick;
use crate::error::By;
use crate::list::Tag;
use crate::state::Ending;
use crate::sync::Ordering;

use super::deadline::Way;
use super::parts::{Bound, Merged};
use super::{Node, Ref};

/// Nodes to come to, each with the one above whose deadline binds there, by that deadline. No two have the same number.
#[derive(Default)]
struct Todo {
    steps: BTreeMap<(i64, usize), (Ref, NonNull<Node>)>,
    count: usize,
}

impl Node {
    /// Where the end began that this grace, which has run out, followed; and when it ran out. The parent's time was up before this grace's, even if nothing
    /// has recorded it yet; then that is done here, at the parent itself and not only at its owner: a cancel between the two would
    /// otherwise give the parent another end. Graces may be nested, and none of them armed: the uppermost first.
    pub(super) fn find_root(&self) -> (Ending, Tick) {
        let mut graces = Way::new();
        let mut grace = Some(self);
        while let Some((node, parent)) = grace.and_then(|node| Some((node, node.above()?))) {
            if parent.state().done().is_some() {
                break;
            }
            graces.push(node);
            grace = parent.owner().filter(|owner| owner.grace().is_some() && owner.is_grace_over());
        }
        for grace in graces.down() {
            grace.above().map(Node::note_deadline); // what is above is done, so this does not come back here
        }
        let parent =
            self.above().and_then(|parent| Some((parent, parent.state().done()?.ending())));
        let Some((parent, ending)) = parent else {
            // Not so: its time began with its parent's end.
            return (Ending::new(self.this(), By::Deadline), self.graced());
        };
        let over_at =
            self.grace().map_or(Tick::NEVER, |grace| parent.ended_at(ending).after(grace));
        // SAFETY: an ancestor.
        let root = unsafe { ending.origin().as_ref() }.grace_root();
        (root.filter(|_| ending.by() == By::GraceOver).unwrap_or(ending), over_at)
    }

    /// Whether it is its grace that ends it, and not its own deadline.
    pub(super) fn is_grace_over(&self) -> bool {
        self.graced() <= self.own_deadline()
    }

    /// Of a grace: its parent has ended, or will end earlier than it was said. Handed down to all below for whom this is
    /// the earliest now.
    /// The nodes that it visits are put into `kept`, to be released where user code may run.
    ///
    /// The earliest limits first (as in Dijkstra's algorithm: a grace only adds to them), so that a node that is reached by several
    /// ways, through merged contexts, has it by the shortest when those below look.
    pub(super) fn lower(&self, until: Tick, kept: &mut Vec<Ref>) {
        if !self.lower_graced(until) {
            return;
        }
        let mut todo = Todo::default();
        let mut seen = HashSet::new(); // merged contexts are come to by every parent
        self.collect_children(&mut todo);
        while let Some((_, (child, source))) = todo.steps.pop_first() {
            let node = child.scope();
            if seen.insert((child.node(), source)) {
                // SAFETY: an ancestor of the child.
                let source = unsafe { source.as_ref() };
                let lowered = match node.grace() {
                    Some(grace) => node.lower_graced(source.limit().after(grace)),
                    None => node.adopt_owner(source),
                };
                if lowered {
                    node.collect_children(&mut todo);
                }
            }
            kept.push(child); // also so that no address is seen twice for two nodes
        }
    }

    fn lower_graced(&self, until: Tick) -> bool {
        let Some(extra) = self.extra() else { return false };
        self.with_timers(|timers| {
            let lower = until < self.graced();
            if lower {
                extra.graced.store(until.nanos(), Ordering::Release);
                if self.is_armed() && self.state().done().is_none() {
                    self.enter(timers);
                }
            }
            lower
        })
    }

    /// Makes `owner`, which is above, this node's, if its limit is earlier than that of the present one; of two equal ones
    /// the upper (C19). True if it is this node's now. Ticks of another clock say nothing.
    pub(super) fn adopt_owner(&self, owner: &Node) -> bool {
        if owner.clock() != self.clock() {
            return false;
        }
        let _one_at_a_time = self.lock.lock();
        let (limit, present) = (owner.limit(), self.deadline());
        if limit < present || (limit == present && limit != Tick::NEVER && self.is_owner()) {
            self.set_bound(Bound::Above(owner.this()));
        }
        self.owner().is_some_and(|own| std::ptr::eq(own, owner))
    }

    /// Adds the children, each with the node whose deadline binds here. A child that is derived meanwhile has it from the
    /// start: it looks under the lock that this walk takes after the owner was changed.
    fn collect_children(&self, todo: &mut Todo) {
        self.for_each(|item| {
            let child = match item.tag() {
                // SAFETY: in the list, whose lock is held.
                Tag::Child => unsafe { Node::of_item(item) },
                // SAFETY: as above.
                Tag::Merged => unsafe { Merged::of(item) }.node,
                Tag::Waiter | Tag::Cursor => return,
            };
            if let (Some(owner), Some(child)) = (self.owner(), Ref::upgrade(child)) {
                todo.count += 1;
                todo.steps.insert((owner.limit().nanos(), todo.count), (child, owner.this()));
            }
        });
    }
}
