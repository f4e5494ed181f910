//! Making contexts: roots, children, layers, merges.
#![expect(unsafe_code, reason = "a new node is linked into its parent by pointer")]

use std::mem::ManuallyDrop;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Manual, Tick};
use crate::error::Cause;
use crate::key::Key;
use crate::observe::ContextId;
use crate::state::{Ended, Ending, View};
use crate::sync::{AtomicUsize, Ordering};
use crate::value::{Own, Typed};

use super::{Head, Kind, Node, Panics, Ref, Wake, expire};

#[cfg(not(all(test, purview_loom)))]
static BACKGROUND: Node =
    Node::new(Kind::Background, here(&BACKGROUND), ContextId::BACKGROUND, Location::caller());
#[cfg(not(all(test, purview_loom)))]
static TODO: Node = Node::new(Kind::Todo, here(&TODO), ContextId::TODO, Location::caller());

#[cfg(not(all(test, purview_loom)))]
const fn here(node: &'static Node) -> NonNull<Node> {
    // SAFETY: a reference is not null.
    unsafe { NonNull::new_unchecked((&raw const *node).cast_mut()) }
}

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
}

impl Plan {
    pub(crate) fn new(kind: Kind, place: &'static Location<'static>) -> Plan {
        Plan {
            kind,
            place,
            name: None,
            deadline: Tick::NEVER,
            deadline_cause: None,
            grace: None,
            values: Own::none(),
        }
    }
}

impl Ref {
    #[cfg(not(all(test, purview_loom)))]
    pub(crate) const fn background() -> Ref {
        Ref::to_static(&BACKGROUND)
    }

    #[cfg(not(all(test, purview_loom)))]
    pub(crate) const fn todo() -> Ref {
        Ref::to_static(&TODO)
    }

    /// In a model nothing is static: each call makes a root, which goes with its last handle.
    #[cfg(all(test, purview_loom))]
    #[track_caller]
    pub(crate) fn background() -> Ref {
        Ref::new(Node::new(
            Kind::Background,
            NonNull::dangling(),
            ContextId::next(),
            Location::caller(),
        ))
    }

    #[cfg(all(test, purview_loom))]
    #[track_caller]
    pub(crate) fn todo() -> Ref {
        Ref::background()
    }

    /// A child with a node of its own.
    pub(crate) fn derive(&self, plan: Plan) -> Ref {
        let above = self.scope();
        let clock = above.clock;
        let mut node = self.child_node(plan.kind, plan.place);
        node.clock = clock;
        node.name = plan.name;
        node.fixed = plan.deadline;
        node.deadline_cause = plan.deadline_cause;
        node.grace = plan.grace;
        node.own_values = plan.values.len();
        node.head.values = plan.values.link(self.head().values);
        let child = Ref::new(node);
        let node = child.scope();

        // A node that has to do with time asks whether time has ended its parent; others leave that to their own polls.
        let timed = plan.deadline != Tick::NEVER || plan.grace.is_some();
        let (now, ended) = if timed {
            (clock.now(), above.ending())
        } else {
            (Tick::NEVER, above.state.done().map(|done| done.ending()))
        };
        let born_done = node.begin(above, ended, now);
        child.announce(self);
        if born_done {
            child.announce_done();
        }
        if clock.is_manual() && node.is_owner() && node.state.done().is_none() {
            node.arm();
        }
        if clock.is_manual() && node.is_owner() && node.limit() <= clock.now() {
            // The clock was advanced past it meanwhile, and may never be again.
            let mut panics = Panics::new();
            expire(&child, Wake::Here, &mut panics);
            panics.resume();
        }
        child
    }

    /// A value layer: shares the scope of its parent.
    pub(crate) fn layer<T: Send + Sync + 'static>(
        &self,
        key: &'static Key<T>,
        value: T,
        place: &'static Location<'static>,
    ) -> Ref {
        #[repr(C)]
        struct Layer<T: 'static> {
            head: Head,
            value: Typed<T>,
        }
        unsafe fn free<T: 'static>(head: NonNull<Head>) {
            // SAFETY: stored in the head of a `Layer<T>` that came from a box.
            drop(unsafe { Box::from_raw(head.cast::<Layer<T>>().as_ptr()) });
        }

        let mut value = Typed::new(key, value);
        value.link(self.head().values);
        let head = Head {
            strong: AtomicUsize::new(1),
            scope: self.head().scope,
            parent: Some(self.clone().into_raw()),
            values: None,
            free_layer: Some(free::<T>),
            id: ContextId::next(),
            place,
            kind: Kind::Value,
        };
        let layer: *mut Layer<T> = Box::into_raw(Box::new(Layer { head, value }));
        // SAFETY: made here, so a place in the allocation.
        let first = unsafe { &raw mut (*layer).value };
        // SAFETY: nobody else's yet; the chain's first link is the layer's own.
        unsafe { (*layer).head.values = NonNull::new(first.cast()) };
        // SAFETY: not null; a layer begins with its head.
        let layer = Ref(unsafe { NonNull::new_unchecked(layer.cast::<Head>()) });
        layer.announce(self);
        layer
    }

    /// A child that sees the values and nothing else (C26).
    pub(crate) fn without_cancel(&self, place: &'static Location<'static>) -> Ref {
        let mut node = self.child_node(Kind::WithoutCancel, place);
        node.clock = self.scope().clock;
        let child = Ref::new(node);
        child.announce(self);
        child
    }

    fn child_node(&self, kind: Kind, place: &'static Location<'static>) -> Node {
        let mut node = Node::new(kind, NonNull::dangling(), ContextId::next(), place);
        node.head.parent = Some(self.clone().into_raw());
        node.head.values = self.head().values;
        node
    }

    /// Tells the observer of the end of a context that was born done.
    pub(super) fn announce_done(&self) {
        if let (Some(observer), Some(done)) =
            (crate::observe::observer(), self.scope().state.done())
        {
            observer.done(self.head().id, &crate::Error::new(done.ending()));
        }
    }

    fn announce(&self, parent: &Ref) {
        if let Some(observer) = crate::observe::observer() {
            observer.derived(&crate::Context::from_ref(self.clone()), parent.head().id);
        }
    }
}

impl Node {
    /// Starts a new node's life under `above`, which `ended`, as far as could be told at `now`. True if it is born done.
    fn begin(&self, above: &Node, ended: Option<Ending>, now: Tick) -> bool {
        let own_over = self.fixed != Tick::NEVER && self.fixed <= now;
        if let (Some(ending), None) = (ended, self.grace) {
            self.choose_owner(above);
            self.be_born_done(ending)
        } else if own_over {
            self.choose_owner(above);
            // Its own deadline, or one above that is no later and that the timer is about to notice (C19).
            let above = if self.is_owner() { None } else { above.note_deadline() };
            self.be_born_done(above.unwrap_or_else(|| self.note_expiry()))
        } else if ended.is_some() || !self.link_under(above) {
            // The parent has ended: before, or while this was about to be linked.
            let Some(grace) = self.grace else {
                self.choose_owner(above);
                return above.state.done().is_some_and(|done| self.be_born_done(done.ending()));
            };
            let now = self.clock.now();
            let until = now.after(grace);
            self.graced.store(until.nanos(), Ordering::Relaxed);
            self.own_itself();
            until <= now && self.be_born_done(self.expiry())
        } else {
            false
        }
    }

    /// Enters the list of `above`'s children; false where that has ended. Where it never can end there is nothing to enter.
    fn link_under(&self, above: &Node) -> bool {
        if !above.can_be_done() {
            self.choose_owner(above);
            return true;
        }
        let mut lists = above.lists();
        if above.state.done().is_some() {
            return false;
        }
        self.choose_owner(above);
        // SAFETY: new, so in no list; it takes itself out before it goes (I1).
        unsafe { lists.children.push_back(&self.place_in_parent, self.head.scope.as_ptr()) };
        above.counts.children.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Before it is shared: whose deadline binds here, and whether anybody watches that one.
    fn choose_owner(&self, above: &Node) {
        // A merged context's parents may be on another clock, whose ticks say nothing here.
        let inherited = above.owner().filter(|owner| owner.clock == self.clock);
        let limit = inherited.map_or(Tick::NEVER, Node::limit);
        if let Some(grace) = self.grace {
            if limit != Tick::NEVER {
                self.graced.store(limit.after(grace).nanos(), Ordering::Relaxed);
            }
            self.own_itself();
        } else if self.fixed < limit {
            self.own_itself();
        } else if let Some(owner) = inherited {
            self.owner.store(owner.head.scope.as_ptr(), Ordering::Relaxed);
            let unwatched = match owner.state.load() {
                View::Live => false,
                View::AskClock => true,
                View::Done(done) => !done.was_live(),
            };
            if unwatched {
                self.state.start_asking();
            }
        }
    }

    fn own_itself(&self) {
        self.owner.store(self.head.scope.as_ptr(), Ordering::Relaxed);
        self.state.start_asking();
    }

    /// True if this is what ended it.
    pub(super) fn be_born_done(&self, ending: Ending) -> bool {
        let won = matches!(self.state.end(ending, true), Ended::Won);
        self.complete.store(true, Ordering::Release);
        won
    }
}

/// A root on a manual clock.
pub(crate) fn manual_root(clock: &Arc<Manual>, place: &'static Location<'static>) -> Ref {
    let mut node = Node::new(Kind::Manual, NonNull::dangling(), ContextId::next(), place);
    node.clock = Clock::manual(clock);
    node.manual = ManuallyDrop::new(Some(Arc::clone(clock)));
    Ref::new(node)
}
