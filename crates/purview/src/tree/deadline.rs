//! Whose deadline binds, whether it has passed, and who watches it.
//!
//! Of the deadlines on a node's path one binds: the earliest. The node it belongs to is the `owner`; of two equal ones it
//! is the upper one, so that an error names the deadline that would have fired anyway (C19). `deadline()` is two loads,
//! however deep the tree.
//!
//! A deadline starts *unwatched*: no timer, and each poll below its owner asks the clock. It becomes *armed* with the first
//! waiter below it: in the timer, a poll is one load, and the timer decides. On a manual clock it is armed from the start.
//!
//! A grace's deadline is known only when its parent ends: until then it is the parent's own plus the grace (C15). When a
//! cancel makes it earlier, that is [handed down](Node::lower) to the nodes below for which it binds now.
#![expect(
    unsafe_code,
    reason = "owners and roots are ancestors, which the strong pointers up keep"
)]

use std::collections::HashSet;
use std::ptr::NonNull;

use crate::clock::Tick;
use crate::error::By;
use crate::state::{Done, Ended, Ending, View};
use crate::sync::{Ordering, fence};
use crate::timer::Target;

use super::sweep::let_go;
use super::{Node, Panics, Ref, Wake};

impl Node {
    /// The deadline that binds here (C15); never, if there is none.
    pub(crate) fn deadline(&self) -> Tick {
        self.owner().map_or(Tick::NEVER, Node::limit)
    }

    pub(super) fn owner(&self) -> Option<&Node> {
        // SAFETY: this node or an ancestor.
        unsafe { self.owner.load(Ordering::Acquire).as_ref() }
    }

    /// Of an owner: when it ends by time.
    pub(super) fn limit(&self) -> Tick {
        self.fixed.min(self.graced())
    }

    pub(super) fn is_owner(&self) -> bool {
        self.owner().is_some_and(|owner| std::ptr::eq(owner, self))
    }

    /// The poll of a node whose deadline nobody watches.
    #[cold]
    pub(super) fn ask_clock(&self) -> Option<Done> {
        self.ask_clock_at(|| self.clock.now())
    }

    /// The same, of any node and at a time that may be known; nothing, where a timer watches.
    pub(super) fn ask_clock_at(&self, now: impl FnOnce() -> Tick) -> Option<Done> {
        if self.state.load() != View::AskClock {
            return self.state.done();
        }
        let owner = self.owner()?;
        match owner.state.load() {
            View::Live => self.state.arm(), // somebody watches it by now: from here on, ours is one load too
            View::Done(done) if done.was_live() => {} // a sweep is on its way and will not pass us by
            View::Done(_) => self.follow(owner),
            View::AskClock => {
                let limit = owner.limit();
                if limit == Tick::NEVER || now() < limit {
                    return None;
                }
                if owner.state.expire(owner.expiry()) {
                    self.follow(owner);
                }
            }
        }
        self.state.done()
    }

    /// Notes the end of the owner, which is done, here and on the way down to here, parent before child (C9): what this
    /// observer is going to see, everyone sees. A node on the way may have ended otherwise before; then that is handed on.
    fn follow(&self, owner: &Node) {
        let mut path = Vec::new();
        let mut at = Some(self);
        while let Some(node) = at.filter(|node| !std::ptr::eq(*node, owner)) {
            if node.state.done().is_some() {
                break;
            }
            path.push(node);
            // A merged node may have its owner by another parent than the first; its way is told by the owner alone.
            at = if node.merged.is_some() { None } else { node.above() };
        }
        let from = at.unwrap_or(owner);
        let Some(mut ending) = from.state.done().or(owner.state.done()).map(Done::ending) else {
            return;
        };
        for node in path.into_iter().rev() {
            let (Ended::Won | Ended::Lost) = node.state.end(ending, false);
            ending = node.state.done().map_or(ending, Done::ending);
        }
    }

    /// Of a node whose deadline has passed: notes the end of its owner, ahead of the timer, and follows it.
    pub(crate) fn note_deadline(&self) -> Option<Ending> {
        let owner = self.owner()?;
        let _ = owner.note_expiry();
        self.follow(owner);
        self.state.done().map(Done::ending)
    }

    /// Of an owner whose limit has passed: the end it has come to.
    pub(super) fn expiry(&self) -> Ending {
        let this = self.head.scope;
        if self.graced() > self.fixed || self.grace.is_none() {
            return Ending::new(this, By::Deadline);
        }
        if self.root.load(Ordering::Acquire).is_null() {
            let root = self.find_root();
            // SAFETY: an ancestor, kept by this node.
            unsafe { root.origin().as_ref() }.keep_memory();
            let null = std::ptr::null_mut();
            if self
                .root
                .compare_exchange(null, root.word(), Ordering::AcqRel, Ordering::Acquire)
                .is_err()
            {
                // SAFETY: the count that was just taken.
                unsafe { Node::release_memory(root.origin()) };
            }
        }
        Ending::new(this, By::GraceOver)
    }

    /// Where the end began that this grace, which has run out, followed. Graces may be nested, and all of them unwatched.
    fn find_root(&self) -> Ending {
        let mut grace = self;
        loop {
            let Some(parent) = grace.above() else {
                return Ending::new(self.head.scope, By::Deadline);
            };
            if let Some(done) = parent.state.done() {
                let ending = done.ending();
                // SAFETY: an ancestor.
                let root = unsafe { ending.origin().as_ref() }.root();
                return root.filter(|_| ending.by() == By::GraceOver).unwrap_or(ending);
            }
            // The parent's time was up before this grace's, though nobody has noted it yet.
            let Some(owner) = parent.owner() else {
                return Ending::new(self.head.scope, By::Deadline);
            };
            if owner.grace.is_some() && owner.graced() <= owner.fixed {
                grace = owner;
                continue;
            }
            return owner.note_expiry();
        }
    }

    /// Of an owner whose limit has passed: notes its end ahead of whoever is going to sweep, and returns the end it has.
    pub(super) fn note_expiry(&self) -> Ending {
        let ending = self.expiry();
        match self.state.end(ending, false) {
            Ended::Won => ending,
            Ended::Lost => self.state.done().map_or(ending, Done::ending),
        }
    }

    /// When this node, which is done, ended.
    pub(super) fn ended_at(&self, ending: Ending) -> Tick {
        // SAFETY: this node or an ancestor.
        let origin = unsafe { &*ending.origin().as_ptr() };
        if origin.clock != self.clock {
            return self.clock.now(); // a merged context's parent, on another clock: its time says nothing here
        }
        match ending.by() {
            By::Call | By::GuardDropped => {
                origin.ended().map_or_else(|| self.clock.now(), |ended| ended.at)
            }
            By::Deadline => origin.fixed,
            By::GraceOver => origin.graced(),
        }
    }

    /// Its own deadline, if that had passed at `at` by a clock that anybody could read: then it ended by that, whoever
    /// comes along now. An armed deadline on the system's clock is the timer's to note (C18).
    pub(super) fn own_end_before(&self, at: Tick) -> Option<Ending> {
        let passed = self.grace.is_none()
            && self.fixed <= at
            && self.is_owner()
            && self.fixed != Tick::NEVER;
        let told_by_clock =
            passed && (self.clock.is_manual() || self.state.load() == View::AskClock);
        told_by_clock.then(|| Ending::new(self.head.scope, By::Deadline))
    }

    /// Arms the deadline that binds here and those above it, the uppermost first (I7). Called with no lock held, after
    /// something was registered that has to hear of the end; the caller then looks once more whether it has come.
    pub(crate) fn watch(&self) {
        const NEAR: usize = 8; // as many nested deadlines as are armed without allocating
        let mut near = [None; NEAR];
        let mut far = Vec::new();
        let mut count = 0;
        let mut owner = self.owner();
        while let Some(node) = owner {
            if node.state.load() != View::AskClock {
                break;
            }
            match near.get_mut(count) {
                Some(slot) => *slot = Some(node),
                None => far.push(node),
            }
            count += 1;
            owner = node.above().and_then(Node::owner);
        }
        far.into_iter().rev().for_each(Node::arm);
        near.into_iter().rev().flatten().for_each(Node::arm);
    }

    /// Puts it into the timer, then says so in the state.
    pub(super) fn arm(&self) {
        self.clock.with_heap(|heap| {
            self.armed.store(true, Ordering::Relaxed);
            // Pairs with the fence in `disarm`: either that one sees `armed`, or this one sees the end.
            fence(Ordering::SeqCst);
            if self.state.done().is_none() && self.limit() != Tick::NEVER {
                self.enter(heap);
            }
        });
        self.state.arm();
    }

    fn enter(&self, heap: &mut crate::timer::heap::Heap) {
        let target = Target::Deadline(self.head.scope);
        // SAFETY: a node that is armed takes its entry out before it goes (T2).
        let _ = unsafe { heap.insert(&self.entry, self.limit(), self.head.id.number(), target) };
    }

    /// After its end is noted, or its last handle is gone: takes it out of the timer (C21).
    pub(super) fn disarm(&self) {
        fence(Ordering::SeqCst);
        if self.armed.load(Ordering::Relaxed) {
            self.clock.with_heap(|heap| heap.remove(&self.entry));
        }
    }

    /// Of a grace: its parent has ended, or will end earlier than it was said. Handed down to all below for whom this is
    /// the earliest now.
    pub(super) fn lower(&self, until: Tick, wake: Wake, panics: &mut Panics) {
        if !self.lower_graced(until) {
            return;
        }
        let mut todo = Vec::new();
        let mut seen = HashSet::new(); // merged contexts are come to by every parent
        let mut kept = Vec::new(); // so that no address is seen twice for two nodes
        self.collect_children(&mut todo);
        while let Some((child, source)) = todo.pop() {
            let node = child.scope();
            if seen.insert((child.node(), source)) {
                // SAFETY: an ancestor of the child.
                let source = unsafe { source.as_ref() };
                let lowered = match node.grace {
                    Some(grace) => node.lower_graced(source.limit().after(grace)),
                    None => node.adopt_owner(source),
                };
                if lowered {
                    node.collect_children(&mut todo);
                }
            }
            kept.push(child);
        }
        kept.into_iter().for_each(|context| let_go(context, wake, panics));
    }

    fn lower_graced(&self, until: Tick) -> bool {
        self.clock.with_heap(|heap| {
            let lower = until < self.graced();
            if lower {
                self.graced.store(until.nanos(), Ordering::Release);
                if self.armed.load(Ordering::Relaxed) && self.state.done().is_none() {
                    self.enter(heap);
                }
            }
            lower
        })
    }

    /// Makes `owner`, which is above, this node's, if its limit is earlier than that of the present one; of two equal ones
    /// the upper (C19). True if it is this node's now. Ticks of another clock say nothing.
    pub(super) fn adopt_owner(&self, owner: &Node) -> bool {
        if owner.clock != self.clock {
            return false;
        }
        let _lists = self.lists(); // a derive reads the owner under this lock, and so misses neither it nor the hand-down
        let (limit, present) = (owner.limit(), self.deadline());
        if limit < present || (limit == present && limit != Tick::NEVER && self.is_owner()) {
            self.owner.store(owner.head.scope.as_ptr(), Ordering::Release);
        }
        self.owner().is_some_and(|own| std::ptr::eq(own, owner))
    }

    /// Adds the children, each with the node whose deadline binds here.
    fn collect_children(&self, todo: &mut Vec<(Ref, NonNull<Node>)>) {
        self.for_children(|child| {
            if let (Some(owner), Some(child)) = (self.owner(), Ref::upgrade(child)) {
                todo.push((child, owner.head.scope));
            }
        });
    }
}
