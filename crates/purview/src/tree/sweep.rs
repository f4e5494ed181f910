//! Ending everything below a node that has ended, parents before children, and having it woken. See tree.rs.
#![expect(
    unsafe_code,
    reason = "a sweep follows pointers down, which the lists' locks and the chain's counts keep"
)]

use std::collections::HashSet;
use std::ptr::NonNull;

use crate::clock::Tick;
use crate::list::Tag;
use crate::observe::observer;
use crate::state::{Done, Ended as Outcome, Ending};
use crate::sync::Ordering;

use super::chain::{self, Chain};
use super::node::UNLISTED;
use super::parts::{Cursor, Merged, Parts};
use super::wake::{let_go, tell};
use super::{BATCH, Node, Panics, Ref, Wake};

/// Marks what is below `first`, which the caller has claimed, and wakes what waits in it; then, one after another, the graces
/// below that are over with that.
pub(crate) fn sweep(first: &Ref, wake: &mut Wake<'_>, panics: &mut Panics) {
    let mut over = sweep_one(first.clone(), wake, panics);
    while let Some(grace) = over.pop() {
        // Its end is recorded and claimed no sooner than it is swept: user code has run since it was found, which may have ended it,
        // and a thread that claims a node and then runs user code could be waited for by that code.
        let node = grace.scope();
        if node.note_expiry().origin() == grace.node() && node.state().claim() {
            over.extend(sweep_one(grace, wake, panics));
        } else {
            let_go(grace, wake, panics);
        }
    }
}

/// Returns the graces that have run out with the end of their parent.
fn sweep_one(first: Ref, wake: &mut Wake<'_>, panics: &mut Panics) -> Vec<Ref> {
    let mut aside = Aside::new();
    let (mut unit, others) = mark(&first, &mut aside);
    aside.graces.iter().for_each(|grace| grace.scope().enter_again());
    for other in others {
        other.complete();
        unit.chain.append(other.chain);
        unit.childless.append(other.childless);
        aside.kept.extend(other.others);
    }
    unit.complete();
    first.scope().leave_complete();

    // From here on user code runs.
    tell(first, wake, panics);
    let mut chain = unit.chain;
    chain.append(unit.childless);
    chain.sort();
    while let Some(context) = chain.pop() {
        tell(context, wake, panics);
    }
    unit.others.into_iter().chain(aside.kept).for_each(|context| let_go(context, wake, panics));
    let mut over = Vec::new();
    for grace in aside.graces {
        // Graces of no length end with their parent; on a manual clock nothing else comes to end them.
        let node = grace.scope();
        if node.clock().is_manual() && node.timer_key().0 <= node.clock().now() {
            over.push(grace);
        } else {
            let_go(grace, wake, panics);
        }
    }
    over
}

/// Marks everything below `first`: a unit for the tree there, and one for each merged node that this sweep came by first,
/// those derived last in front.
fn mark(first: &Ref, aside: &mut Aside) -> (Unit, Vec<Unit>) {
    let mut unit = Unit::new(first.scope());
    unit.mark_children(first.scope(), aside);
    unit.mark_below(aside);
    let mut others: Vec<Unit> = Vec::new();
    while let Some((merged, ending, from)) = aside.merged.pop() {
        let node = merged.scope();
        if node.end_merged(ending) {
            aside.mine.insert(merged.node());
            let mut unit = Unit::new(node);
            unit.chain.prepend(merged);
            unit.mark_below(aside);
            others.push(unit);
        } else if aside.mine.contains(&merged.node()) {
            aside.kept.push(merged); // come to by another parent
        } else {
            let from = others.iter_mut().find(|unit| unit.id == from).unwrap_or(&mut unit);
            from.others.push(merged);
        }
    }
    others.sort_by_key(|unit| std::cmp::Reverse(unit.id));
    (unit, others)
}

/// What a sweep comes by and does not mark on the spot.
struct Aside {
    /// Children with a grace that is live.
    graces: Vec<Ref>,
    /// Merged children, to be ended, with the end, and the unit that came to them.
    merged: Vec<(Ref, Ending, u64)>,
    /// Merged children that this sweep has ended.
    mine: HashSet<NonNull<Node>>,
    /// Handles to be let go where user code may run.
    kept: Vec<Ref>,
    /// Whether every end has to be told of.
    observed: bool,
}

impl Aside {
    fn new() -> Aside {
        Aside {
            graces: Vec::new(),
            merged: Vec::new(),
            mine: HashSet::new(),
            kept: Vec::new(),
            observed: observer().is_some(),
        }
    }
}

/// A tree that is marked as one: below the node that was ended, or a merged one.
///
/// Parts of it may be swept by others, who are waited for. That no two wait for each other: marking waits for nobody; then
/// each completes its units in the order of their numbers, the highest first, and each unit waits only for nodes below it,
/// which have higher numbers. So whoever is waited for never waits for a lower number.
struct Unit {
    /// The number of its uppermost node.
    id: u64,
    /// Nodes that have children, or had; parents before children.
    chain: Chain,
    /// Nodes that somebody may wait for, and no more. A node is come by twice at least, when it is marked and when it is told;
    /// these, no oftener: where there are many, coming by is what costs.
    childless: Chain,
    /// Nodes that somebody else has ended and is sweeping.
    others: Vec<Ref>,
}

impl Unit {
    fn new(first: &Node) -> Unit {
        let id = first.head.id.number();
        let (chain, childless) = (Chain::new(), Chain::new());
        Unit { id, chain, childless, others: Vec::new() }
    }

    /// Ends everything below what is in the chain, parents before children.
    fn mark_below(&mut self, aside: &mut Aside) {
        let mut at = self.chain.first();
        while !at.is_none() {
            // SAFETY: in the chain, which keeps it.
            self.mark_children(unsafe { chain::node(at).as_ref() }, aside);
            at = chain::next(at);
        }
    }

    /// Waits for the parts that others sweep, and says that all of it is marked.
    fn complete(&self) {
        for other in &self.others {
            other.scope().wait_until_complete();
        }
        let mut at = self.chain.first();
        while !at.is_none() {
            // SAFETY: in the chain, which keeps it.
            unsafe { chain::node(at).as_ref() }.leave_complete();
            at = chain::next(at);
        }
    }

    /// Takes the children of an ended node out of its lists, and ends them.
    fn mark_children(&mut self, parent: &Node, aside: &mut Aside) {
        let Some(ending) = parent.state().done().map(Done::ending) else { return };
        let at = parent.ended_at(ending);
        let mut shard = 0;
        // Counted again after each lock: shards made a moment before the end are certain to be seen only once a lock of this node has
        // been taken since. A thread that splits later finds the node done, and adds nothing (D3).
        while shard < parent.lists() {
            let mut run = [Chain::new(), Chain::new()]; // the newest come first, so each goes in front
            let mut more = true;
            while more {
                let mut held = parent.hold_shard(shard);
                for _ in 0..BATCH {
                    let item = held.list.0;
                    if item.is_none() || item.tag() == Tag::Waiter {
                        more = false;
                        break;
                    }
                    // SAFETY: in this list, whose lock is held; so are the others below.
                    unsafe { held.list.remove(item) };
                    match item.tag() {
                        Tag::Child => {
                            // SAFETY: as above.
                            let child = unsafe { Node::of_item(item) };
                            self.mark(child, ending, at, &mut run, aside);
                        }
                        Tag::Merged => {
                            // SAFETY: as above.
                            let merged = unsafe { Merged::of(item) };
                            let context = Ref::upgrade(merged.node);
                            merged.listed.store(UNLISTED, Ordering::Release); // the last touch
                            let id = self.id;
                            aside.merged.extend(context.map(|context| (context, ending, id)));
                        }
                        Tag::Cursor => {
                            // SAFETY: as above.
                            unsafe { Cursor::of(item) }.set_linked(None);
                        }
                        Tag::Waiter => {}
                    }
                }
                let awaited = held.is_awaited();
                drop(held);
                if awaited && more {
                    parent.stay_away(shard); // a derive, or a child that leaves: it must not wait for the whole list (C14)
                }
            }
            let [run, childless] = run;
            self.chain.append(run);
            self.childless.append(childless);
            shard += 1;
        }
    }

    /// Ends one child, which is out of its parent's list; that one's lock is held, and keeps the child in memory.
    #[inline]
    fn mark(
        &mut self,
        child: NonNull<Node>,
        ending: Ending,
        at: Tick,
        [run, childless]: &mut [Chain; 2],
        aside: &mut Aside,
    ) {
        // SAFETY: it was listed; it does not go before it is seen to be unlisted, which is the last touch.
        let node = unsafe { child.as_ref() };
        if node.is_leaf() && node.parts == Parts::Plain && !aside.observed {
            let own = node.lock.lock(); // D3: a thread that adds dependents sees the end, or is seen
            // A node that is claimed already is not the leaf that it seems: its canceler, which followed the parent's end ahead of
            // this sweep, may have taken the children out and still be marking below them. It is waited for like any other.
            if node.is_leaf() && node.end_or_claim(ending) {
                node.set_complete(); // after the state, as in `note_ending`
                drop(own);
                node.listed.store(UNLISTED, Ordering::Release);
                return;
            }
        }
        let context = Ref::upgrade(child);
        // Decided under this list's lock: a grace that has ended by itself is a child like any other, and may be being swept.
        if node.grace().is_some() && node.state().done().is_none() {
            node.listed.store(UNLISTED, Ordering::Release);
            aside.graces.extend(context);
            return;
        }
        let ending = node.own_end_before(ending, at).unwrap_or(ending);
        let mine = node.end_or_claim(ending);
        node.listed.store(UNLISTED, Ordering::Release);
        match context {
            None => {} // it is going, and has nobody below
            Some(context) if !mine => self.others.push(context),
            Some(context) if node.is_childless() => {
                node.set_complete();
                childless.prepend(context);
            }
            Some(context) => run.prepend(context),
        }
    }
}

impl Node {
    /// Ends a merged node, which another parent's sweep may be ending. True if its subtree is the caller's to sweep.
    fn end_merged(&self, ending: Ending) -> bool {
        let at = self.ended_at(ending);
        let _guard = self.guard();
        self.end_or_claim(self.own_end_before(ending, at).unwrap_or(ending))
    }

    /// Ends it; or, where it has ended, claims it: that was noted by somebody who only looked at the clock, or at the parent,
    /// and nobody has taken on its subtree. True if that is the caller's to sweep. Its end is guarded by the caller.
    #[inline]
    fn end_or_claim(&self, ending: Ending) -> bool {
        match self.state().end(ending, true) {
            Outcome::Won => true,
            Outcome::Lost => self.state().claim(),
        }
    }

    /// Everything below is marked: leaves the lists that it is in still, and says so to those who wait for it. In this order: a sweep
    /// from above that does not find this node any more must find its subtree marked, and who returns from a cancel of this node must
    /// not find it in a list (C12).
    fn leave_complete(&self) {
        self.unlink();
        self.set_complete();
    }
}
