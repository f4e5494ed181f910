//! Noting an end: by a call, by a deadline, or because somebody else has seen it. The first step of three; see tree.rs.
#![expect(
    unsafe_code,
    reason = "a node that ends leaves its parent's list, and has a record written"
)]

use std::panic::Location;

use crate::clock::{Clock, Tick};
use crate::error::{By, Cause};
use crate::observe::observer;
use crate::state::{Ended as Outcome, Ending, View};
use crate::sync::{Backoff, Locked, Ordering};

use super::dependents::Held;
use super::node::UNLISTED;
use super::parts::Parts;
use super::sweep::sweep;
use super::{Node, Panics, Ref, Wake};

/// Ends a node by a call, unless it has ended. Returns when the subtree is marked, and, to who won, when all in it who
/// waited have been woken (C7). The first panic among those is resumed here (C32).
#[inline]
pub(crate) fn cancel(
    context: &Ref,
    by: By,
    cause: Option<Cause>,
    place: &'static Location<'static>,
) {
    // SAFETY: guards and handles are of nodes.
    let node = unsafe { context.node().as_ref() };
    let quick = || node.is_complete() || (node.parts != Parts::Full && node.cancel_leaf(by, place));
    if cause.is_none() && quick() {
        return;
    }
    cancel_any(context, by, cause, place);
}

/// Any node, at any time.
fn cancel_any(context: &Ref, by: By, cause: Option<Cause>, place: &'static Location<'static>) {
    let node = context.scope();
    let mut cause = cause;
    let mut panics = Panics::new();
    if node.state().done().is_none() {
        let now = node.clock().now();
        expire_first(node, now, &mut panics);
        match node.note_call(by, now, &mut cause, place) {
            Noted::Leaf => node.disarm(),
            Noted::Sweep => sweep(context, &mut Wake::Here, &mut panics),
            Noted::Lost => {}
        }
    }
    finish(context, &mut panics);
    if let Some(cause) = cause {
        panics.catch(|| drop(cause));
    }
    panics.resume();
}

/// Ends an owner whose limit has passed, unless it has ended.
pub(crate) fn expire(context: &Ref, wake: &mut Wake<'_>, panics: &mut Panics) {
    let node = context.scope();
    let ending = node.note_expiry();
    if ending.origin() == context.node() && node.state().claim() {
        sweep(context, wake, panics);
    }
}

/// A deadline that had passed before a cancel came wins, if anybody could have seen it pass (C18).
#[inline]
fn expire_first(node: &Node, now: Tick, panics: &mut Panics) {
    if !node.clock().is_manual() {
        let _ = node.ask_clock_at(|| now);
        return;
    }
    let Some(binding) = node.binding().filter(|binding| binding.at <= now) else { return };
    if let Some(owner) = Ref::upgrade(binding.owner.this()) {
        expire(&owner, &mut Wake::Here, panics);
        panics.release(owner);
    }
}

/// For who came too late to end it: returns when nothing below is live.
fn finish(context: &Ref, panics: &mut Panics) {
    let node = context.scope();
    if node.is_complete() {
        return;
    }
    if node.state().claim() {
        // It was noted by somebody who only looked at the clock, or at the parent: nobody comes to sweep it, or not yet.
        sweep(context, &mut Wake::Here, panics);
    } else {
        node.wait_until_complete();
    }
}

/// The lock that guards a node's end.
pub(super) enum Guard<'a> {
    /// Of its parent's list that it is in.
    Above(Held<'a>),
    /// Its own, where it is in none.
    Own(#[expect(dead_code, reason = "held")] Locked<'a>),
}

/// What came of noting an end.
enum Noted {
    Lost,
    /// Nobody is to hear of it.
    Leaf,
    Sweep,
}

impl Node {
    /// Where a node is in its parent's list, its end is noted under the lock of that list: so a sweep, which holds it
    /// anyway, notes the ends of many children for one lock. A node that is not listed, or not any more, has its own.
    #[inline]
    pub(super) fn guard(&self) -> Guard<'_> {
        let listed = self.listed.load(Ordering::Acquire);
        if listed != UNLISTED {
            if let Some(above) = self.above() {
                let held = above.hold_shard(usize::from(listed));
                if self.listed.load(Ordering::Relaxed) != UNLISTED {
                    return Guard::Above(held);
                }
            }
        }
        Guard::Own(self.lock.lock())
    }

    /// The most frequent end, as [`note_call`](Self::note_call) has it, without what it need not look at: a child on
    /// the system's clock that lives and has nobody to tell. False, with nothing done, where it is another case.
    fn cancel_leaf(&self, by: By, place: &'static Location<'static>) -> bool {
        let listed = self.listed.load(Ordering::Acquire);
        if listed == UNLISTED || observer().is_some() {
            return false;
        }
        let Some(above) = self.above() else { return false };
        let at = Clock::SYSTEM.now();
        match self.state().load() {
            View::Live => {}
            View::AskClock if at < self.deadline() => {}
            View::AskClock | View::Done(_) => return false,
        }
        let mut held = above.hold_shard(usize::from(listed));
        if self.listed.load(Ordering::Relaxed) == UNLISTED || above.state().done().is_some() {
            return false;
        }
        let own = self.lock.lock(); // D3: who adds dependents sees the end, or is seen
        if !self.is_leaf() || self.state().done().is_some() {
            return false;
        }
        // SAFETY: listed here, and the lock is held.
        unsafe { held.list.remove(Node::item(self.this())) };
        self.listed.store(UNLISTED, Ordering::Relaxed); // published by the state
        // If a poll was faster, which found the deadline passed, then that is its end; there is nobody to be told of it.
        let _ = self.note_ending(by, at, &mut None, place, true);
        drop(own);
        drop(held);
        self.disarm();
        true
    }

    /// Records an end that another thread will sweep. Takes no lock where the deadline that binds here is not armed.
    pub(super) fn note(&self, ending: Ending) {
        if !self.state().expire(ending) {
            let _guard = self.guard();
            let (Outcome::Won | Outcome::Lost) = self.state().end(ending, false);
        }
    }

    /// Notes the end by a call, with its record. A leaf leaves its parent's list with that; a node with dependents stays there until
    /// they are marked, so that the parent's sweep finds it and waits for it (C7).
    #[inline]
    fn note_call(
        &self,
        by: By,
        at: Tick,
        cause: &mut Option<Cause>,
        place: &'static Location<'static>,
    ) -> Noted {
        let mut guard = self.guard();
        if self.state().done().is_some() || self.follow_parents() {
            return Noted::Lost;
        }
        let leaf;
        let won;
        match &mut guard {
            Guard::Above(held) => {
                let own = self.lock.lock(); // D3: who adds dependents sees the end, or is seen
                leaf = self.is_leaf() && observer().is_none();
                if leaf {
                    // SAFETY: listed here, and the lock is held.
                    unsafe { held.list.remove(Node::item(self.this())) };
                    self.listed.store(UNLISTED, Ordering::Relaxed); // published by the state
                }
                won = self.note_ending(by, at, cause, place, leaf);
                drop(own);
            }
            Guard::Own(_) => {
                leaf = self.is_leaf() && self.merged().is_none() && observer().is_none();
                won = self.note_ending(by, at, cause, place, leaf);
            }
        }
        match (won || self.state().claim(), leaf) {
            (_, true) => Noted::Leaf,
            (true, false) => Noted::Sweep,
            (false, false) => Noted::Lost,
        }
    }

    /// False, where a poll that looked at the clock was faster: it alone needs no lock.
    #[inline]
    fn note_ending(
        &self,
        by: By,
        at: Tick,
        cause: &mut Option<Cause>,
        place: &'static Location<'static>,
        leaf: bool,
    ) -> bool {
        // SAFETY: it was not done a moment ago, and none but a poll, which writes no record, ends it without the caller's lock.
        unsafe { self.write_record(at, place, cause.take()) };
        let outcome = self.state().end(Ending::new(self.this(), by), true);
        if leaf {
            // After the state: a second canceler that reads this returns at once, and its context has to be done (C7).
            self.set_complete();
        }
        match outcome {
            Outcome::Won => true,
            Outcome::Lost => {
                // SAFETY: nobody reads it, for the node has not ended by a call.
                *cause = unsafe { self.take_cause() };
                false
            }
        }
    }

    /// If a parent has ended, and its sweep has not come here yet: the parent's end was first (C2). The guard is held.
    fn follow_parents(&self) -> bool {
        if self.grace().is_some() {
            return false;
        }
        let ended = match self.merged() {
            None => self.above().and_then(|above| above.state().done()),
            Some(links) => {
                links.iter().find_map(|link| link.parent.as_ref()?.scope().state().done())
            }
        };
        let Some(done) = ended else { return false };
        let ending = done.ending();
        let ending = self.own_end_before(ending, self.ended_at(ending)).unwrap_or(ending);
        let (Outcome::Won | Outcome::Lost) = self.state().end(ending, false);
        true
    }

    /// Another thread is marking what is below; it runs no user code meanwhile.
    pub(super) fn wait_until_complete(&self) {
        let mut backoff = Backoff::new();
        while !self.is_complete() {
            backoff.snooze();
        }
    }
}
