//! Whose deadline binds, whether it has passed, and who watches it.
//!
//! Of the deadlines on a node's path one binds: the earliest. The node it belongs to is the `owner`; of two equal ones it
//! is the upper one, so that an error names the deadline that would have fired anyway (C19). `deadline()` is a few loads,
//! however deep the tree.
//!
//! A deadline starts *unwatched*: no timer, and each poll below its owner asks the clock. It becomes *armed* with the first
//! waiter below it: in the timer, a poll is one load, and the timer decides. On a manual clock it is armed from the start.
//!
//! A grace's deadline is known only when its parent ends; see [`grace`](super::grace).
#![expect(
    unsafe_code,
    reason = "owners and roots are ancestors, which the strong pointers up keep"
)]

use crate::clock::Tick;
use crate::error::By;
use crate::state::{Done, Ending, View};
use crate::sync::{Ordering, fence};
use crate::timer::{Timers, this_threads_wheel};

use super::Node;
use super::parts::{Bound, Parts};

/// In a node's `wheel`: its entry may be in there. The number of the wheel is above.
const ARMED: u8 = 1;
const WHEEL: u8 = 1;

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
        self.owner().map_or(Tick::NEVER, Node::ends_at)
    }

    /// Of an owner: when its own deadline, or its grace, ends it. Of a grace that is over, when that was, even if it was found by an
    /// estimate that is later.
    fn ends_at(&self) -> Tick {
        match self.grace() {
            None => self.own_deadline(),
            Some(_) => self.own_deadline().min(self.graced().min(self.over_at())),
        }
    }

    #[inline]
    pub(super) fn bound(&self) -> Bound {
        Bound::from_word(self.bound.load(Ordering::Acquire))
    }

    #[inline]
    pub(super) fn set_bound(&self, bound: Bound) {
        self.bound.store(bound.word(), Ordering::Release);
    }

    /// The node whose deadline binds here. What is above may have been an owner when this node was derived, and have another one
    /// above itself by now, of a grace that has begun: then that one binds here, too.
    #[inline]
    pub(super) fn owner(&self) -> Option<&Node> {
        let mut node = self;
        loop {
            match node.bound() {
                Bound::None => return None,
                Bound::Own => return Some(node),
                // SAFETY: an ancestor.
                Bound::Above(owner) => node = unsafe { &*owner.as_ptr() },
            }
        }
    }

    /// Of an owner: when it is to be ended by time, as far as is known. The timer's key.
    #[inline]
    pub(super) fn limit(&self) -> Tick {
        self.own_deadline().min(self.graced())
    }

    /// When the timer is to end it, and its place among others of that time.
    pub(crate) fn timer_key(&self) -> (Tick, u64) {
        (self.limit(), self.head.id.number())
    }

    #[inline]
    pub(super) fn is_owner(&self) -> bool {
        matches!(self.bound(), Bound::Own)
    }

    /// The poll of a node whose deadline nobody watches.
    #[cold]
    pub(super) fn ask_clock(&self) -> Option<Done> {
        self.ask_clock_at(|| self.clock().now())
    }

    /// The same, of any node and at a time that may be known; nothing, where a timer watches.
    pub(super) fn ask_clock_at(&self, now: impl FnOnce() -> Tick) -> Option<Done> {
        if self.state().load() != View::AskClock {
            return self.state().done();
        }
        let owner = self.owner()?;
        match owner.state().load() {
            View::Live => self.state().arm(), // it is armed by now: from here on, this node's poll is one load, too
            View::Done(_) => self.follow_unswept(owner),
            View::AskClock => {
                let limit = owner.limit();
                if limit == Tick::NEVER || now() < limit {
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

    /// Of a node whose deadline has passed: notes the end of its owner, ahead of the timer, and follows it.
    pub(crate) fn note_deadline(&self) -> Option<Ending> {
        let owner = self.owner()?;
        let _ = owner.note_expiry();
        self.follow(owner, Node::note);
        self.state().done().map(Done::ending)
    }

    /// Of an owner whose limit has passed: the end it has come to.
    pub(super) fn expiry(&self) -> Ending {
        let this = self.this();
        if self.grace().is_none() || !self.is_grace_over() {
            return Ending::new(this, By::Deadline);
        }
        if let Some(extra) = self.extra().filter(|_| self.grace_root().is_none()) {
            let (root, over_at) = self.find_root();
            // Before the root, which says that both are there. All that come here write the same instant: it is a function of the parent's
            // end, and not of `graced`, which is an estimate until that end has been handed down.
            let _ = extra.over_at.compare_exchange(
                Tick::NEVER.nanos(),
                over_at.nanos(),
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            // SAFETY: an ancestor, kept by this node.
            unsafe { root.origin().as_ref() }.keep_memory();
            let null = std::ptr::null_mut();
            if extra
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

    /// Its own deadline, if that had passed at `at` by a clock that anybody could read: then it ended by that, whoever
    /// comes along now. An armed deadline on the system's clock is the timer's to note (C18).
    pub(super) fn own_end_before(&self, at: Tick) -> Option<Ending> {
        let Bound::Own = self.bound() else { return None };
        let fixed = self.own_deadline();
        let passed = self.grace().is_none() && fixed <= at && fixed != Tick::NEVER;
        let told_by_clock =
            passed && (self.clock().is_manual() || self.state().load() == View::AskClock);
        told_by_clock.then(|| Ending::new(self.this(), By::Deadline))
    }

    /// Arms the deadline that binds here and those above it, the uppermost first (I7). Called with no lock held, after
    /// something was registered that has to hear of the end; the caller then checks once more whether it has come.
    #[inline]
    pub(crate) fn watch(&self) {
        if self.state().load() == View::AskClock {
            self.watch_all();
        }
    }

    /// From the top down. Below an owner that is done nothing is armed, up to the next grace, whose time goes on: a node that is armed
    /// is not polled any more, and would never notice an end that a poll has recorded above and that no sweep follows. Such an end
    /// is followed down to this node instead, where the caller finds it.
    fn watch_all(&self) {
        let mut owners = Way::new();
        let mut owner = self.owner();
        while let Some(node) = owner {
            owners.push(node);
            if node.state().load() != View::AskClock {
                break; // armed, and so are those above; or done
            }
            owner = node.above().and_then(Node::owner);
        }
        let mut ended: Option<&Node> = None;
        for node in owners.down() {
            // Polled before it is armed: one whose deadline has passed ends now, and not when the timer comes.
            if node.done().is_none() {
                match ended.filter(|_| node.grace().is_none()) {
                    Some(above) => node.follow_unswept(above),
                    None if node.state().load() == View::AskClock => node.arm(),
                    None => {}
                }
            }
            // Read after that: another thread's poll may have been faster than `arm`.
            ended = node.state().done().map(|_| node).or(ended.filter(|_| node.grace().is_none()));
        }
        if let Some(above) = ended {
            self.follow_unswept(above);
        }
    }

    /// Follows the end of `owner`, which is done, down to here, unless a sweep is on its way, which will visit this node.
    fn follow_unswept(&self, owner: &Node) {
        if owner.state().done().is_some_and(|done| !done.was_live()) {
            self.follow(owner, |node, ending| _ = node.state().expire(ending));
        }
    }

    /// Before it is shared: its entry goes into this thread's wheel.
    #[inline]
    pub(super) fn choose_wheel(&self) {
        self.wheel.store((this_threads_wheel() as u8) << WHEEL, Ordering::Relaxed);
    }

    /// Whether its entry may be in there: written under that one's lock.
    #[inline]
    pub(super) fn is_armed(&self) -> bool {
        self.wheel.load(Ordering::Relaxed) & ARMED != 0
    }

    #[inline]
    pub(super) fn with_timers<R>(&self, change: impl FnOnce(Timers<'_>) -> R) -> R {
        let wheel = self.wheel.load(Ordering::Relaxed) >> WHEEL;
        self.clock().with_timers(usize::from(wheel), change)
    }

    /// Puts it into the timer, then says so in the state.
    pub(super) fn arm(&self) {
        self.with_timers(|timers| {
            self.wheel.store(self.wheel.load(Ordering::Relaxed) | ARMED, Ordering::Relaxed);
            // Pairs with the fence in `disarm`: either that one sees `armed`, or this one sees the end.
            fence(Ordering::SeqCst);
            if self.state().done().is_none() && self.limit() != Tick::NEVER {
                self.enter(timers);
            }
        });
        self.state().arm();
    }

    pub(super) fn enter(&self, mut timers: Timers<'_>) {
        let Some(entry) = self.timer() else { return }; // an owner has one
        // SAFETY: a node that is armed takes its entry out before it goes (T2).
        unsafe { timers.insert(entry) };
    }

    /// After its end is noted, or its last handle is gone: takes it out of the timer (C21).
    #[inline]
    pub(super) fn disarm(&self) {
        if self.parts == Parts::Plain {
            return;
        }
        fence(Ordering::SeqCst);
        if self.is_armed() {
            let entry = self.timer();
            self.with_timers(|mut timers| entry.map(|entry| timers.remove(entry)));
        }
    }
}
