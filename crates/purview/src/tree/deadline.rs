//! Which deadline binds, whether it has passed, and who watches it.
//!
//! An *owner* is a node that has something to say about time: a deadline of its own, a grace, or, where several parents come together,
//! the deadlines of more than one of them. Every node knows the [nearest](Node::nearest) owner, itself or an ancestor; that is
//! written once, when the node is derived. The owners above an owner are found through its parent, up to a grace or a merge, which
//! speaks for all above it. The deadline of a node is the earliest along these owners, and the owner whose it is [binds](Node::binding):
//! of two equal ones the upper, so that an error names the deadline that would have fired anyway (C19).
//!
//! | owner | its limit |
//! |---|---|
//! | a deadline | as it was given |
//! | a grace | the deadline of its parent, plus the grace; once the parent is done, the instant of that end plus the grace |
//! | a merge | the earliest deadline of its parents |
//!
//! A deadline starts *unarmed*: no timer, and each poll below its owner checks the clock. It becomes *armed* with the first
//! waiter below it: in the timer, a poll is one load, and the timer decides. On a manual clock it is armed from the start.
//!
//! # Invariants
//! - **B1** The walk up stops at a grace, whose limit contains what is above, plus the grace. To go on would find the parent's own
//!   deadline, which is too early.
//! - **B2** When a grace is over is a function of its parent's end. It is stored once, with a CAS from *never*; until the parent is done
//!   the limit is computed from the parent's deadline, and can only become earlier.
//! - **B3** A timer's key is stored, and changes under the timer's lock only. A grace whose parent is live is in the timer for its own
//!   deadline at most: it cannot be over before its parent is done, and the thread that ends the parent enters it again.
//! - **B4** A merge of parents with one owner between them has that owner. With several it is an owner itself, and always armed. Its
//!   deadline is computed over all owners that can be reached, each once and ancestors first: graces over merges of graces would
//!   take exponential time, or a stack, to walk.
//! - **B5** Of equal limits the upper owner's counts (C19), also if it is a grace that became earlier.
//! - **B6** A poll records the end of the binding one among the unarmed owners, and follows it down. An armed owner, and all above it,
//!   are the timer's: to say done for them would show a child done before its parent (C9).
//! - **B7** A wait arms from the top down, and nothing below an owner that is done (I7).
//! - **B8** No limit ever becomes later. A deadline is an owner only if it was the earliest when it was given, or if it was given below a
//!   grace or a merge, whose limits can become earlier; [`MOVES`] says that there is one above. Below a limit that could become
//!   later, every deadline has to be an owner.
#![expect(
    unsafe_code,
    reason = "owners and roots are ancestors, which the strong pointers up keep"
)]

use std::time::Duration;

use crate::clock::Tick;
use crate::error::By;
use crate::state::{Done, Ending, View};
use crate::sync::Ordering;

use super::Node;
use super::parts::{Bound, Parts};

/// In a node's `wheel`: there is a grace or a merge among the owners above, so that the deadline from above can become earlier. Set
/// before the node is shared. What else is in that byte is in `arm.rs`.
pub(super) const MOVES: u8 = 2;

/// A deadline, and the owner that it ends.
#[derive(Clone, Copy)]
pub(super) struct Binding<'a> {
    pub(super) at: Tick,
    pub(super) owner: &'a Node,
    /// Where it comes from: of a grace whose parent is live, from the deadline of an owner above.
    pub(super) source: &'a Node,
}

impl<'a> Binding<'a> {
    pub(super) fn own(at: Tick, owner: &'a Node) -> Binding<'a> {
        Binding { at, owner, source: owner }
    }

    /// Of two, where `upper` comes from further up: the earlier; of equal ones the upper.
    pub(super) fn or_upper(self, upper: Binding<'a>) -> Binding<'a> {
        if upper.at <= self.at { upper } else { self }
    }
}

/// Nodes on the way up from one, to be visited from the top down. A few take no allocation: a poll makes none (C5).
pub(super) struct Way<'a> {
    near: [Option<&'a Node>; Way::NEAR],
    far: Vec<&'a Node>,
    count: usize,
}

impl<'a> Way<'a> {
    const NEAR: usize = 16;

    pub(super) fn new() -> Way<'a> {
        Way { near: [None; Way::NEAR], far: Vec::new(), count: 0 }
    }

    pub(super) fn push(&mut self, node: &'a Node) {
        match self.near.get_mut(self.count) {
            Some(slot) => *slot = Some(node),
            None => self.far.push(node),
        }
        self.count += 1;
    }

    pub(super) fn down(&self) -> impl Iterator<Item = &'a Node> {
        self.far.iter().rev().copied().chain(self.near.iter().rev().copied().flatten())
    }
}

impl Node {
    /// The deadline that binds here (C15); never, if there is none.
    pub(crate) fn deadline(&self) -> Tick {
        self.binding().map_or(Tick::NEVER, |binding| binding.at)
    }

    /// The nearest owner: this node or one above.
    #[inline]
    pub(super) fn nearest(&self) -> Option<&Node> {
        match self.bound() {
            Bound::None => None,
            Bound::Own => Some(self),
            // SAFETY: an ancestor.
            Bound::Above(owner) => Some(unsafe { &*owner.as_ptr() }),
        }
    }

    /// The owner whose deadline binds here, and that deadline.
    #[inline]
    pub(super) fn binding(&self) -> Option<Binding<'_>> {
        let owner = self.nearest()?;
        if owner.parts == Parts::Timed && !owner.moves() {
            return Some(Binding::own(owner.own_deadline(), owner));
        }
        Some(owner.binding_from())
    }

    /// Of an owner: the earliest along it and the owners above. Allocates only where there is a merge on the way.
    fn binding_from(&self) -> Binding<'_> {
        self.earliest(false)
    }

    /// The same, as a poll of an unarmed owner sees it: no further than to the first owner that is armed. That one and those above it
    /// are the timer's; to record an end that comes later than theirs would show a child done that has another error than it gets
    /// a moment later. A grace whose parent waits for the timer cannot be over. Allocates nothing: a merge is always armed.
    fn earliest_unarmed(&self) -> Binding<'_> {
        self.earliest(true)
    }

    fn earliest(&self, unarmed: bool) -> Binding<'_> {
        let mut least = Binding::own(Tick::NEVER, self);
        // The lowest grace on the way: what is above it binds through it, and later by all the graces between.
        let mut grace: Option<&Node> = None;
        let mut added = Duration::ZERO;
        let mut next = Some(self);
        while let Some(owner) = next {
            if unarmed && owner.state().load() == View::Live {
                let is_later =
                    grace.is_some() || owner.merged().is_some() || least.at < owner.timer_key().0;
                return if is_later { least } else { Binding::own(Tick::NEVER, owner) };
            }
            if owner.merged().is_some() {
                let merge = owner.merge_binding();
                let at = merge.at.after(added);
                return least.or_upper(Binding {
                    at,
                    owner: grace.unwrap_or(merge.owner),
                    ..merge
                });
            }
            let is_over = owner.grace_over();
            grace = grace.or(owner.grace().map(|_| owner));
            let at = owner.own_deadline().min(is_over.unwrap_or(Tick::NEVER)).after(added);
            least = least.or_upper(Binding { at, owner: grace.unwrap_or(owner), source: owner });
            next = match owner.grace() {
                None => owner.next_owner(),
                Some(_) if is_over.is_some() => None,
                Some(time) => {
                    added = added.saturating_add(time);
                    owner.above().and_then(Node::nearest)
                }
            };
        }
        least
    }

    /// Of an owner that is neither a grace nor a merge: the next one up, if its limit can be the earlier one.
    pub(super) fn next_owner(&self) -> Option<&Node> {
        if self.moves() { self.above().and_then(Node::nearest) } else { None }
    }

    #[inline]
    pub(super) fn moves(&self) -> bool {
        self.wheel.load(Ordering::Relaxed) & MOVES != 0
    }

    #[inline]
    pub(super) fn is_owner(&self) -> bool {
        matches!(self.bound(), Bound::Own)
    }

    /// Of a new node whose nearest owner above is `above`: whether that one's limit, or one further up, can become earlier.
    #[inline]
    pub(super) fn note_moves(&self, above: &Node) {
        if above.moves() || above.grace().is_some() || above.merged().is_some() {
            self.wheel.store(self.wheel.load(Ordering::Relaxed) | MOVES, Ordering::Relaxed);
        }
    }

    /// A poll of a node whose deadline is not armed.
    #[cold]
    pub(super) fn ask_clock(&self) -> Option<Done> {
        self.ask_clock_at(|| self.clock().now())
    }

    /// The same, of any node and at a time that may be known; nothing, where the deadline is armed.
    pub(super) fn ask_clock_at(&self, now: impl FnOnce() -> Tick) -> Option<Done> {
        if self.state().load() != View::AskClock {
            return self.state().done();
        }
        let nearest = self.nearest()?;
        match nearest.state().load() {
            View::Live => self.state().arm(), // it is armed by now: from here on, this node's poll is one load, too
            View::Done(_) => self.follow_unswept(nearest),
            View::AskClock => {
                let Binding { at, owner, .. } = nearest.earliest_unarmed();
                if at == Tick::NEVER || now() < at {
                    return None;
                }
                if owner.state().expire(owner.expiry()) {
                    self.follow_unswept(owner);
                }
            }
        }
        self.state().done()
    }

    /// Notes the end of the owner, which is done, here and on the way down to here, parent before child (C9): what this
    /// observer is going to see, everyone sees. A node on the way may have ended otherwise before; then that is handed on.
    fn follow(&self, owner: &Node, note: impl Fn(&Node, Ending)) {
        let mut way = Way::new();
        let mut at = Some(self);
        while let Some(node) = at.filter(|node| !std::ptr::eq(*node, owner)) {
            if node.state().done().is_some() {
                break;
            }
            way.push(node);
            at = if node.merged().is_some() { node.above_by(owner) } else { node.above() };
        }
        let from = at.unwrap_or(owner);
        let Some(mut ending) = from.state().done().or(owner.state().done()).map(Done::ending)
        else {
            return;
        };
        for node in way.down() {
            note(node, ending);
            ending = node.state().done().map_or(ending, Done::ending);
        }
    }

    /// Of a node whose deadline has passed: records the end of the owner whose it is, ahead of the timer, and follows it.
    pub(crate) fn note_deadline(&self) -> Option<Ending> {
        let owner = self.binding()?.owner;
        let _ = owner.note_expiry();
        self.follow(owner, Node::note);
        self.state().done().map(Done::ending)
    }

    /// Of an owner whose limit has passed: the end it has come to.
    pub(super) fn expiry(&self) -> Ending {
        let this = self.this();
        let Some(extra) = self.extra().filter(|_| self.is_grace_over()) else {
            return Ending::new(this, By::Deadline);
        };
        if self.grace_root().is_none() {
            let root = self.find_root();
            // SAFETY: an ancestor, kept by this node.
            unsafe { root.origin().as_ref() }.keep_memory();
            let null = std::ptr::null_mut();
            let set =
                extra.root.compare_exchange(null, root.word(), Ordering::AcqRel, Ordering::Acquire);
            if set.is_err() {
                // SAFETY: the count that was just taken.
                unsafe { Node::release_memory(root.origin()) };
            }
        }
        Ending::new(this, By::GraceOver)
    }

    /// Of an owner whose limit has passed: records its end ahead of the sweep, and returns the end it has. Takes no lock where the
    /// deadline is not armed, so that a poll may call it.
    pub(super) fn note_expiry(&self) -> Ending {
        let ending = self.expiry();
        if self.state().done().is_none() {
            self.note(ending);
        }
        self.state().done().map_or(ending, Done::ending)
    }

    /// When this node, which is done, ended.
    pub(super) fn ended_at(&self, ending: Ending) -> Tick {
        // SAFETY: this node or an ancestor.
        let origin = unsafe { &*ending.origin().as_ptr() };
        if origin.clock() != self.clock() {
            return self.clock().now(); // a merged context's parent, on another clock: its time says nothing here
        }
        match ending.by() {
            By::Call | By::GuardDropped => origin.ended().at,
            By::Deadline => origin.own_deadline(),
            By::GraceOver => origin.over_at(),
        }
    }

    /// Its own deadline, if that had passed before the end `ending` of a parent, by a clock that any thread could read: then it ended by
    /// that, whatever thread records the end now. Of a deadline that is equal to the parent's the parent's counts (C19). An armed
    /// deadline on the system's clock is the timer's to record (C18).
    pub(super) fn own_end_before(&self, ending: Ending, at: Tick) -> Option<Ending> {
        let Bound::Own = self.bound() else { return None };
        let own = self.own_deadline();
        let by_time = matches!(ending.by(), By::Deadline | By::GraceOver);
        let is_first = own < at || (own == at && !by_time);
        let passed = self.grace().is_none() && is_first && own != Tick::NEVER;
        let told_by_clock =
            passed && (self.clock().is_manual() || self.state().load() == View::AskClock);
        told_by_clock.then(|| Ending::new(self.this(), By::Deadline))
    }

    /// Follows the end of `owner`, which is done, down to here, unless a sweep is on its way, which will visit this node.
    pub(super) fn follow_unswept(&self, owner: &Node) {
        if owner.state().done().is_some_and(|done| !done.was_live()) {
            self.follow(owner, |node, ending| _ = node.state().expire(ending));
        }
    }
}
