//! Ending a node and everything below it: note, mark, wake. The steps are told in tree.rs.
#![expect(
    unsafe_code,
    reason = "a sweep follows pointers down, which the lists' locks and the chain's counts keep"
)]

use std::collections::HashSet;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::clock::Tick;
use crate::error::{By, Cause, Error};
use crate::list::Link;
use crate::state::{Done, Ended as Outcome, Ending};
use crate::sync::Ordering;
use crate::timer::runner;
use crate::waiter::{Waiter, Who};

use super::chain::Chain;
use super::node::Ended;
use super::{Node, Panics, Ref};

/// How many links are walked before the lock is let go for others. Long enough that locking is a small part of the walk,
/// short enough that nobody waits for longer than about a microsecond.
const BATCH: usize = if cfg!(all(test, purview_loom)) { 1 } else { 32 };

/// Who runs the callbacks of what ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The thread that ends it.
    Here,
    /// The thread that is kept for callbacks: this one is the timer's.
    FromTimer,
}

/// Ends a node by a call, unless it has ended. Returns when the subtree is marked, and, to who won, when all in it who
/// waited have been woken (C7). The first panic among those is resumed here (C32).
pub(crate) fn cancel(
    context: &Ref,
    by: By,
    cause: Option<Cause>,
    place: &'static Location<'static>,
) {
    let node = context.scope();
    let mut panics = Panics::new();
    let mut cause = cause;
    if node.state.done().is_none() {
        let now = node.clock.now();
        expire_first(node, now, &mut panics);
        node.follow_parents();
        if end_by_call(node, by, now, &mut cause, place) {
            sweep(context.clone(), Wake::Here, &mut panics);
        }
    }
    finish(context, &mut panics);
    panics.catch(|| drop(cause));
    panics.resume();
}

/// Ends an owner whose limit has passed, unless it has ended.
pub(crate) fn expire(context: &Ref, wake: Wake, panics: &mut Panics) {
    let node = context.scope();
    let _ = node.note_expiry();
    let own = node.state.done().is_some_and(|done| done.ending().origin() == context.node());
    if own && node.state.claim() {
        sweep(context.clone(), wake, panics);
    }
}

/// A deadline that had passed before a cancel came wins, if anybody could have seen it pass (C18).
fn expire_first(node: &Node, now: Tick, panics: &mut Panics) {
    if !node.clock.is_manual() {
        let _ = node.ask_clock_at(|| now);
        return;
    }
    let Some(owner) = node.owner().filter(|owner| owner.limit() <= now) else { return };
    if let Some(owner) = Ref::upgrade(owner.head.scope) {
        expire(&owner, Wake::Here, panics);
        panics.release(owner);
    }
}

fn end_by_call(
    node: &Node,
    by: By,
    at: Tick,
    cause: &mut Option<Cause>,
    place: &'static Location<'static>,
) -> bool {
    let _lists = node.lists(); // I5: of two calls one writes the facts
    if node.state.done().is_some() {
        return false;
    }
    let facts = Ended { at, place, cause: cause.take() };
    // SAFETY: under the lock, and nobody reads them before the state says so.
    node.ended.with_mut(|ended| unsafe { *ended = Some(facts) });
    matches!(node.state.end(Ending::new(node.head.scope, by), true), Outcome::Won)
}

/// For who came too late to end it: leaves nothing live below, and nothing behind in the parent.
fn finish(context: &Ref, panics: &mut Panics) {
    let node = context.scope();
    let Some(done) = node.state.done() else { return };
    // SAFETY: this node or an ancestor.
    let origin = unsafe { &*done.ending().origin().as_ptr() };
    if origin.complete.load(Ordering::Acquire) || node.complete.load(Ordering::Acquire) {
        return;
    }
    // A deadline that passed unwatched has nobody who comes to sweep, and nobody who waits.
    let unwatched = origin.state.done().is_some_and(|done| !done.was_live())
        && matches!(done.ending().by(), By::Deadline | By::GraceOver);
    let nobody_comes = std::ptr::eq(origin, node) || unwatched;
    if nobody_comes && node.state.claim() {
        sweep(context.clone(), Wake::Here, panics);
    } else {
        help(vec![context.clone()], Wake::Here, panics);
    }
}

/// Marks the subtree of `first`, which the caller has claimed, and wakes who waits in it.
fn sweep(first: Ref, wake: Wake, panics: &mut Panics) {
    let mut next = Some(first);
    let mut firsts = Vec::new();
    while let Some(first) = next.take().or_else(|| firsts.pop()) {
        let mut chain = Chain::new(first);
        let mut aside = Aside { graces: Vec::new(), foreign: Vec::new() };
        let mut at = chain.first;
        while let Some(node) = at {
            // SAFETY: the chain holds a count of it.
            let node = unsafe { node.as_ref() };
            node.mark_children(&mut chain, &mut aside);
            at = node.next_in_chain();
        }
        for (grace, ended_at) in &aside.graces {
            let node = grace.scope();
            node.lower(node.grace.map_or(Tick::NEVER, |time| ended_at.after(time)), wake, panics);
        }
        help(aside.foreign, wake, panics);
        chain.wake(wake, panics);
        for (grace, _) in aside.graces {
            // Graces of no length end with their parent; on a manual clock nobody else comes to see to it.
            let node = grace.scope();
            if node.clock.is_manual() && node.limit() <= node.clock.now() && node.claim_expired() {
                firsts.push(grace);
            } else {
                let_go(grace, wake, panics);
            }
        }
    }
}

/// Drops a handle where that may run the user's code: not on the timer's thread.
pub(super) fn let_go(context: Ref, wake: Wake, panics: &mut Panics) {
    match wake {
        Wake::Here => panics.release(context),
        Wake::FromTimer => runner::release(context),
    }
}

/// What a sweep comes across and does not mark.
struct Aside {
    /// Children with a grace, and when their parent ended.
    graces: Vec<(Ref, Tick)>,
    /// Children that somebody else has ended and is sweeping.
    foreign: Vec<Ref>,
}

impl Node {
    /// Ends the children, in order, and puts them on the chain.
    fn mark_children(&self, chain: &mut Chain, aside: &mut Aside) {
        let Some(ending) = self.state.done().map(Done::ending) else { return };
        let at = self.ended_at(ending);
        self.for_children(|child| {
            if let Some(child) = Ref::upgrade(child) {
                mark(child, ending, at, chain, aside);
            }
        });
    }

    /// Visits the children, in order, under the lock, which is let go every so often: a cursor keeps the place. Somebody may
    /// empty the list meanwhile; then what was in it is no longer this node's to visit.
    pub(super) fn for_children(&self, mut visit: impl FnMut(NonNull<Node>)) {
        let cursor = Link::new();
        let mut resumed = false;
        loop {
            let mut lists = self.lists();
            let children = &mut lists.children;
            let links = match resumed {
                false => children.iter(),
                true if !cursor.is_linked() => return,
                // SAFETY: put there below, and still there.
                true => unsafe { children.iter_after(&cursor) },
            };
            let mut last = None;
            let mut walked = 0;
            for (link, child) in links {
                NonNull::new(child.cast_mut()).into_iter().for_each(&mut visit);
                walked += 1;
                if walked == BATCH {
                    last = Some(link);
                    break;
                }
            }
            match last {
                // SAFETY: the link is in this list, and the cursor leaves it below.
                Some(link) => unsafe { children.move_cursor_after(link, &cursor) },
                None => {
                    // SAFETY: in this list or in none.
                    unsafe { children.remove(&cursor) };
                    return;
                }
            }
            resumed = true;
        }
    }

    /// If a parent has ended, and its sweep has not come here yet: the parent's end was first (C2).
    fn follow_parents(&self) {
        if self.grace.is_some() {
            return;
        }
        if let Some(done) = self.links_up().find_map(|(above, _)| above.state.done()) {
            let ending = self.own_end_before(self.ended_at(done.ending())).unwrap_or(done.ending());
            let (Outcome::Won | Outcome::Lost) = self.state.end(ending, false);
        }
    }

    /// Notes the end of an owner whose limit has passed, and claims it.
    fn claim_expired(&self) -> bool {
        self.note_expiry().origin() == self.head.scope && self.state.claim()
    }

    /// Takes what waits here out, one by one, and wakes it with no lock held.
    fn wake_waiters(&self, ending: Ending, wake: Wake, panics: &mut Panics) {
        while let Some(who) = self.pop_waiter() {
            match who {
                Who::Nobody => {}
                Who::Task(waker) => panics.catch(|| waker.wake()),
                Who::Callback(callback) => {
                    // SAFETY: the list's count, taken out with the waiter.
                    let callback = unsafe { Arc::from_raw(callback) };
                    let error = Error::new(ending);
                    match wake {
                        Wake::Here => panics.catch(|| callback.call(&error)),
                        Wake::FromTimer => runner::call(callback, error),
                    }
                }
            }
        }
    }

    fn pop_waiter(&self) -> Option<Who> {
        let mut lists = self.lists();
        let waiter: *const Waiter = lists.waiters.pop_front()?;
        // SAFETY: it was in the list, whose lock is held; once that is let go, its owner may free it (W2).
        let waiter = unsafe { &*waiter };
        // SAFETY: the lock is held (W1).
        let who = unsafe { waiter.who(|who| std::mem::replace(who, Who::Nobody)) };
        self.count_of(&who).fetch_sub(1, Ordering::Relaxed);
        Some(who)
    }

    /// Empties the list of children. All have ended, have a grace, or are dying; none needs to hear from here again.
    fn let_children_go(&self) {
        loop {
            let mut lists = self.lists();
            for _ in 0..BATCH {
                if lists.children.pop_front().is_none() {
                    return;
                }
                self.counts.children.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// Ends one child of a node that has ended.
fn mark(child: Ref, ending: Ending, at: Tick, chain: &mut Chain, aside: &mut Aside) {
    let node = child.scope();
    if node.grace.is_some() {
        aside.graces.push((child, at));
        return;
    }
    let ending = node.own_end_before(at).unwrap_or(ending);
    match node.state.end(ending, true) {
        Outcome::Won => chain.push(child),
        // Marked by a helper, or ended by a deadline that a poll found: nobody has taken on its subtree.
        Outcome::Lost if node.state.claim() => chain.push(child),
        // Somebody sweeps it: another canceler, or this sweep, which came to it by another parent.
        Outcome::Lost => aside.foreign.push(child),
    }
}

/// Marks what is live below the given nodes, which have ended, and leaves the waking to whoever sweeps them.
fn help(nodes: Vec<Ref>, wake: Wake, panics: &mut Panics) {
    if nodes.is_empty() {
        return; // nearly always, and on the way of every cancel
    }
    let mut todo = nodes;
    let mut seen = HashSet::new();
    let mut kept = Vec::new(); // so that no address is seen twice for two nodes
    while let Some(context) = todo.pop() {
        let node = context.scope();
        if !node.complete.load(Ordering::Acquire) && seen.insert(context.node()) {
            if let Some(ending) = node.state.done().map(Done::ending) {
                let at = node.ended_at(ending);
                node.for_children(|child| {
                    // SAFETY: valid under the lock of the list that it is in (I1).
                    if unsafe { child.as_ref() }.grace.is_some() {
                        return;
                    }
                    if let Some(child) = Ref::upgrade(child) {
                        let node = child.scope();
                        let ending = node.own_end_before(at).unwrap_or(ending);
                        let (Outcome::Won | Outcome::Lost) = node.state.end(ending, false);
                        todo.push(child);
                    }
                });
            }
        }
        kept.push(context);
    }
    kept.into_iter().for_each(|context| let_go(context, wake, panics));
}

impl Chain {
    /// Wakes all who wait at a node of the chain: nodes in derivation order, at each in order of arrival (C9).
    fn wake(mut self, wake: Wake, panics: &mut Panics) {
        self.sort();
        let origin = self.first;
        let mut at = self.first;
        while let Some(node) = at {
            // SAFETY: in the chain.
            let node = unsafe { node.as_ref() };
            node.complete.store(true, Ordering::Release);
            at = node.next_in_chain();
        }
        while let Some(context) = self.pop() {
            let node = context.scope();
            if let Some(ending) = node.state.done().map(Done::ending) {
                if let Some(observer) = crate::observe::observer() {
                    panics.catch(|| observer.done(node.head.id, &Error::new(ending)));
                }
                node.disarm();
                node.let_children_go();
                // Any other has one parent, earlier in the chain, which has let it go.
                if Some(context.node()) == origin || node.merged.is_some() {
                    node.unlink();
                }
                node.wake_waiters(ending, wake, panics);
            }
            let_go(context, wake, panics);
        }
    }
}
