//! Making contexts: roots, children, layers, merges.
#![expect(unsafe_code, reason = "a new node is linked into its parent by pointer")]

use std::mem::ManuallyDrop;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Manual, Tick};
use crate::error::Cause;
use crate::observe::{ContextId, Observer};
use crate::state::{Ended, Ending, View};
use crate::sync::Ordering;
use crate::value::Own;

use super::node::UNLISTED;
use super::parts::{Bound, Extra, Parts};
use super::{Kind, Node, Panics, Ref, Wake, count_up, expire};

/// The static roots lie like any node: with four free bits below the address.
#[cfg(not(all(test, purview_loom)))]
#[repr(align(16))]
struct Root(Node);

#[cfg(not(all(test, purview_loom)))]
static BACKGROUND: Root =
    Root(Node::root(Kind::Background, ContextId::BACKGROUND, Location::caller()));
#[cfg(not(all(test, purview_loom)))]
static TODO: Root = Root(Node::root(Kind::Todo, ContextId::TODO, Location::caller()));

/// What a child is to be.
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) place: &'static Location<'static>,
    pub(crate) name: Option<&'static str>,
    /// Its own deadline; never, for none.
    pub(crate) deadline: Tick,
    pub(crate) deadline_cause: Option<Cause>,
    pub(crate) grace: Option<Duration>,
    /// In the order in which they were set: the last is the nearest.
    pub(crate) values: Own,
    /// The time, if the caller has read the clock.
    pub(crate) now: Option<Tick>,
}

impl Plan {
    #[inline]
    pub(crate) fn new(kind: Kind, place: &'static Location<'static>) -> Plan {
        Plan {
            kind,
            place,
            name: None,
            deadline: Tick::NEVER,
            deadline_cause: None,
            grace: None,
            values: Own::none(),
            now: None,
        }
    }

    /// Whether a node has room for it without its rarer parts.
    #[inline]
    fn needs_no_extra(&self) -> bool {
        self.name.is_none() && self.deadline_cause.is_none() && self.values.len() == 0
    }
}

impl Ref {
    #[cfg(not(all(test, purview_loom)))]
    pub(crate) const fn background() -> Ref {
        Ref::to_static(&BACKGROUND.0)
    }

    #[cfg(not(all(test, purview_loom)))]
    pub(crate) const fn todo() -> Ref {
        Ref::to_static(&TODO.0)
    }

    /// In a model nothing is static: each call makes a root, which goes with its last handle.
    #[cfg(all(test, purview_loom))]
    #[track_caller]
    pub(crate) fn background() -> Ref {
        let node = Node::new(
            Kind::Background,
            Parts::Plain,
            ContextId::next(ContextId::TODO),
            Location::caller(),
            1,
        );
        Ref(Node::place(node, Tick::NEVER, || Extra::new(Clock::SYSTEM)).cast())
    }

    #[cfg(all(test, purview_loom))]
    #[track_caller]
    pub(crate) fn todo() -> Ref {
        Ref::background()
    }

    /// A child that has a way to be canceled and nothing else, and its two handles: the context's and the guard's.
    #[inline]
    pub(crate) fn derive_cancel(&self, place: &'static Location<'static>) -> [Ref; 2] {
        match self.derive_plain(Kind::Cancel, place) {
            Some(child) => child,
            None => self.derive(Plan::new(Kind::Cancel, place)),
        }
    }

    /// The most frequent case: a child of a node that can end, on the system's clock, without a deadline of its own.
    fn derive_plain(&self, kind: Kind, place: &'static Location<'static>) -> Option<[Ref; 2]> {
        let head = self.head();
        let above = head.scope();
        if !above.can_be_done() || above.clock() != Clock::SYSTEM {
            return None;
        }
        let mut node = Node::new(kind, Parts::Plain, ContextId::next(head.id), place, 2);
        node.head.parent = Some(self.0); // counted below
        node.head.values = head.values;
        let node = Node::place(node, Tick::NEVER, || Extra::new(Clock::SYSTEM));
        let child = [Ref(node.cast()), Ref(node.cast())];
        let node = child[0].scope();
        if !node.link_under(above, Tick::NEVER) {
            if let Some(done) = above.state().done() {
                node.choose_owner(above, Tick::NEVER);
                node.be_born_done(done.ending());
            }
        }
        node.keep_parent(self);
        child[0].announce(self, node.state().done().is_some());
        Some(child)
    }

    /// A child with a node of its own, and two handles: the context's and the guard's.
    pub(crate) fn derive(&self, plan: Plan) -> [Ref; 2] {
        let above = self.scope();
        let clock = above.clock();
        let parts = if clock != Clock::SYSTEM || plan.grace.is_some() || !plan.needs_no_extra() {
            Parts::Full
        } else if plan.deadline == Tick::NEVER {
            Parts::Plain
        } else if above.can_bind(plan.deadline) {
            Parts::Timed
        } else {
            Parts::Full // its deadline does not bind: it is kept to be shown
        };
        let (fixed, grace) = (plan.deadline, plan.grace);
        let now = plan.now.filter(|_| clock == Clock::SYSTEM);
        let id = ContextId::next_at(self.head().id, now);
        let mut node = Node::new(plan.kind, parts, id, plan.place, 2);
        node.head.parent = Some(self.0); // counted below
        let own_values = plan.values.len();
        node.head.values = plan.values.link(self.head().values);
        let node = Node::place(node, fixed, || Extra {
            grace,
            name: plan.name,
            deadline_cause: plan.deadline_cause,
            own_values,
            ..Extra::new(clock)
        });
        let child = [Ref(node.cast()), Ref(node.cast())];
        let node = child[0].scope();

        // A node that has to do with time asks whether time has ended its parent; others leave that to their own polls.
        let timed = fixed != Tick::NEVER || grace.is_some();
        let (now, ended) = if timed {
            (plan.now.unwrap_or_else(|| clock.now()), above.ending())
        } else {
            (Tick::NEVER, above.state().done().map(|done| done.ending()))
        };
        let born_done = node.begin(above, ended, fixed, now);
        node.keep_parent(self);
        child[0].announce(self, born_done);
        if clock.is_manual() && node.is_owner() && node.state().done().is_none() {
            node.arm();
        }
        if clock.is_manual() && node.is_owner() && node.timer_key().0 <= clock.now() {
            // The clock was advanced past it meanwhile, and may never be again.
            let mut panics = Panics::new();
            expire(&child[0], &mut Wake::Here, &mut panics);
            panics.resume();
        }
        child
    }

    /// A child that sees the values and nothing else (C26).
    pub(crate) fn without_cancel(&self, place: &'static Location<'static>) -> Ref {
        let clock = self.scope().clock();
        let parts = if clock == Clock::SYSTEM { Parts::Plain } else { Parts::Full };
        let mut node =
            Node::new(Kind::WithoutCancel, parts, ContextId::next(self.head().id), place, 1);
        node.head.parent = Some(self.clone().into_raw());
        node.head.values = self.head().values;
        let child = Ref(Node::place(node, Tick::NEVER, || Extra::new(clock)).cast());
        child.announce(self, false);
        child
    }

    /// Tells the observer of a new context, and of its end if it was born done.
    #[inline]
    pub(super) fn announce(&self, parent: &Ref, born_done: bool) {
        if let Some(observer) = crate::observe::observer() {
            self.announce_to(observer, parent, born_done);
        }
    }

    #[cold]
    fn announce_to(&self, observer: &dyn Observer, parent: &Ref, born_done: bool) {
        observer.derived(&crate::Context::from_ref(self.clone()), parent.head().id);
        if let Some(done) = self.scope().state().done().filter(|_| born_done) {
            observer.done(self.head().id, &crate::Error::new(done.ending()));
        }
    }
}

impl Node {
    /// Starts a new node's life under `above`, which `ended`, as far as could be told at `now`. True if it is born done.
    fn begin(&self, above: &Node, ended: Option<Ending>, fixed: Tick, now: Tick) -> bool {
        let own_over = fixed != Tick::NEVER && fixed <= now;
        if let (Some(ending), None) = (ended, self.grace()) {
            self.choose_owner(above, fixed);
            self.be_born_done(ending)
        } else if own_over {
            self.choose_owner(above, fixed);
            // Its own deadline, or one above that is no later and that the timer is about to notice (C19).
            let is_own = self.binding().is_none_or(|binding| std::ptr::eq(binding.owner, self));
            let above = if is_own { None } else { above.note_deadline() };
            self.be_born_done(above.unwrap_or_else(|| self.expiry()))
        } else if ended.is_some() || !self.link_under(above, fixed) {
            // The parent has ended: before, or while this was about to be linked.
            let Some(grace) = self.grace() else {
                self.choose_owner(above, fixed);
                return above.state().done().is_some_and(|done| self.be_born_done(done.ending()));
            };
            let now = self.clock().now();
            let until = now.after(grace);
            self.set_over_at(until);
            self.own_itself();
            until <= now && self.be_born_done(self.expiry())
        } else {
            false
        }
    }

    /// Enters the list of `above`'s children; false where that has ended. Where it never can end there is nothing to enter.
    #[inline]
    fn link_under(&self, above: &Node, fixed: Tick) -> bool {
        if !above.can_be_done() {
            self.choose_owner(above, fixed);
            return true;
        }
        let mut held = above.hold();
        if above.state().done().is_some() {
            return false; // D3
        }
        self.choose_owner(above, fixed);
        // SAFETY: new, so in no list; it takes itself out before it goes (L2).
        unsafe { held.list.push_front(Node::item(self.this())) };
        self.listed.store(held.shard, Ordering::Relaxed);
        if self.head.parent == Some(above.this().cast()) && held.keep() {
            self.keeper.store(held.shard, Ordering::Relaxed);
        }
        true
    }

    /// Of a new node: counts its parent, unless one of that one's shards keeps it.
    #[inline]
    fn keep_parent(&self, parent: &Ref) {
        if self.keeper.load(Ordering::Relaxed) == UNLISTED && parent.head().is_counted() {
            count_up(&parent.head().strong);
        }
    }

    /// Of a new node: which owner is the nearest, and whether that one is armed.
    #[inline]
    fn choose_owner(&self, above: &Node, fixed: Tick) {
        let has_none = above.parts != Parts::Timed && above.bound.load(Ordering::Relaxed) == 0;
        if fixed == Tick::NEVER && has_none && self.parts != Parts::Full {
            return;
        }
        self.choose_among(above, fixed);
    }

    /// Whether a deadline that is given to a child of this node can be the earliest there. Where those above may change, it is not
    /// worth to find out: it is an owner, and counts if it is the earliest.
    fn can_bind(&self, own: Tick) -> bool {
        let Some(owner) = self.nearest() else { return true };
        let is_fixed = owner.grace().is_none() && owner.merged().is_none() && !owner.moves();
        !is_fixed || own < owner.own_deadline()
    }

    fn choose_among(&self, above: &Node, fixed: Tick) {
        // A merged context's parents may be on another clock, whose ticks say nothing here.
        let inherited = above.nearest().filter(|owner| owner.clock() == self.clock());
        if let Some(owner) = inherited {
            self.note_moves(owner);
        }
        let binds = fixed != Tick::NEVER && (inherited.is_none() || above.can_bind(fixed));
        if self.grace().is_some() || self.parts == Parts::Timed || binds {
            self.own_itself();
        } else if let Some(owner) = inherited {
            self.set_bound(Bound::Above(owner.this()));
            let is_unarmed = match owner.state().load() {
                View::Live => false,
                View::AskClock => true,
                View::Done(done) => !done.was_live(),
            };
            if is_unarmed {
                self.state().start_asking();
            }
        }
    }

    /// Of a new node whose parent is done already: its grace begins now, and not with the parent's end.
    fn set_over_at(&self, until: Tick) {
        if let Some(extra) = self.extra() {
            extra.over_at.store(until.nanos(), Ordering::Relaxed);
        }
    }

    fn own_itself(&self) {
        self.set_bound(Bound::Own);
        self.state().start_asking();
    }

    /// True if this is what ended it. It is new, or the lock that guards its end is held.
    pub(super) fn be_born_done(&self, ending: Ending) -> bool {
        let won = matches!(self.state().end(ending, true), Ended::Won);
        self.set_complete();
        won
    }
}

/// A root on a manual clock.
pub(crate) fn manual_root(clock: &Arc<Manual>, place: &'static Location<'static>) -> Ref {
    let node = Node::new(Kind::Manual, Parts::Full, ContextId::next(ContextId::TODO), place, 1);
    let manual = ManuallyDrop::new(Some(Arc::clone(clock)));
    let node =
        Node::place(node, Tick::NEVER, || Extra { manual, ..Extra::new(Clock::manual(clock)) });
    Ref(node.cast())
}
