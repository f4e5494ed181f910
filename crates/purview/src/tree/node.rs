//! What every context has, what a node adds, and the counted pointer to either.
//!
//! # Layout
//! Bytes are time: a fresh page costs 0.4 ns a byte, so a node has what every node needs and no more. What some need lies
//! behind it in the same allocation, and `parts` says whether it is there.
//! ```text
//! Head 48 │ Link 16 · dependents 8 · record 16 · bound 8 · bytes 8 │ timer entry 16 │ Extra
//! └ value layer: scope, value                                         │              │
//! └──────────────────────── Node 104 (malloc: 112) ───────────────────┘              │
//! └──────────────────────────────── Timed 120 (malloc: 128) ─────────────────────────┘
//! └─────────────────────────────────────────── Full: names, graces, merges, manual clocks
//! ```
//! A node's address is exposed when it is allocated, so that its further parts can be found from a reference to the node.
#![expect(
    unsafe_code,
    reason = "a context is one word: a counted pointer to a head, static or on the heap"
)]

use std::panic::Location;
use std::ptr::NonNull;

use crate::clock::{Clock, Tick};
use crate::error::Cause;
use crate::list::{Item, Link, Tag};
use crate::observe::ContextId;
use crate::state::{Done, Ending, State, View};
use crate::sync::{AtomicU8, AtomicU32, AtomicU64, Lock, Ordering};
use crate::value::ValueRef;

use super::dependents::Dependents;
use super::parts::{Merged, Parts};
use super::record::Record;

/// What a context is derived by; for Debug, and for what can end it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Background,
    Todo,
    Manual,
    Cancel,
    Timeout,
    Deadline,
    Grace,
    AnyOf,
    WithoutCancel,
    Value,
}

/// What every context begins with. A [`Context`](crate::Context) is a pointer to one.
#[repr(C)]
pub(crate) struct Head {
    /// Handles, and children of any sort. [`UNCOUNTED`] for the two static roots.
    pub(super) strong: AtomicU32,
    /// Of a node: errors that point here, and one for all strong counts together. The memory goes with the last. Of a value
    /// layer, at which no error points: 0, and so the two are told apart.
    pub(super) memory: AtomicU32,
    /// A node's; of a value layer it says that the scope's tells.
    pub(crate) state: State,
    /// Strong; taken when this context is reclaimed. None at a root. Of a merged node the first parent, without a count.
    pub(super) parent: Option<NonNull<Head>>,
    /// The nearest value that is visible from here. Owned by this context or by an ancestor.
    pub(crate) values: Option<ValueRef>,
    pub(crate) id: ContextId,
    /// Where it was derived.
    pub(crate) place: &'static Location<'static>,
}

/// The strong count of what is static.
pub(super) const UNCOUNTED: u32 = 0;

/// The memory count of a value layer: nothing but its handles keeps it.
pub(super) const LAYERS: u32 = 0;

/// A context that shares the node above it, its scope.
#[repr(C)]
pub(crate) struct Layer {
    pub(super) head: Head,
    /// The node that decides for this context. Kept by the parent.
    pub(super) scope: NonNull<Node>,
    /// Drops what it owns and frees it.
    pub(super) free: unsafe fn(NonNull<Head>),
}

/// A context that can differ from its parent in being done: all but value layers.
#[repr(C)]
pub(crate) struct Node {
    pub(super) head: Head,
    /// Its place among its parent's dependents. In a sweep that has taken it out there: the chain.
    pub(super) link: Link,
    pub(super) dependents: Dependents,
    pub(super) record: Record,
    /// Which owner is the nearest, or a deadline of its own; see [`Bound`](super::parts::Bound). Written before the node is shared.
    pub(super) bound: AtomicU64,
    pub(crate) kind: Kind,
    pub(super) parts: Parts,
    /// Guards the dependents until there are shards of them; and the end of a node that is in no list.
    pub(super) lock: Lock,
    /// How often the lock was found taken; written under it.
    pub(super) heat: AtomicU8,
    /// Whether, and in which of its parent's shards, it is listed: [`UNLISTED`], or the shard. Written under that one's lock.
    pub(super) listed: AtomicU8,
    /// Which of its clock's wheels its entry goes into, and whether it may be in there; see `deadline.rs`.
    pub(super) wheel: AtomicU8,
    /// Which of its parent's shards keeps that one for it: [`UNLISTED`], if none does and it has a count of its own. Written
    /// once, before it is anybody's.
    pub(super) keeper: AtomicU8,
    /// The whole subtree is marked (C7). Written by the sweeper; only ever set.
    pub(super) complete: AtomicU8,
}

pub(super) const UNLISTED: u8 = u8::MAX;

/// Everything a new node has; a macro because loom's atomics are not const, and the static roots must be.
macro_rules! new_node {
    ($kind:expr, $strong:expr, $parts:expr, $id:expr, $place:expr) => {
        Node {
            head: Head {
                strong: AtomicU32::new($strong),
                memory: AtomicU32::new(1),
                state: State::live(),
                parent: None,
                values: None,
                id: $id,
                place: $place,
            },
            link: Link::new(),
            dependents: Dependents::new(),
            record: Record::new(),
            bound: AtomicU64::new(0),
            kind: $kind,
            parts: $parts,
            lock: Lock::new(),
            heat: AtomicU8::new(0),
            listed: AtomicU8::new(UNLISTED),
            wheel: AtomicU8::new(0),
            keeper: AtomicU8::new(UNLISTED),
            complete: AtomicU8::new(0),
        }
    };
}

// SAFETY: what several threads write is atomic, or guarded by a lock as each field says; values, causes and wakers are
// `Send + Sync` by the bounds of what puts them in.
unsafe impl Send for Node {}
// SAFETY: as above.
unsafe impl Sync for Node {}

impl Node {
    #[cfg(not(all(test, purview_loom)))]
    pub(super) const fn root(kind: Kind, id: ContextId, place: &'static Location<'static>) -> Node {
        new_node!(kind, UNCOUNTED, Parts::Plain, id, place)
    }

    /// A node with nothing set but what it is.
    #[inline(always)]
    pub(super) fn new(
        kind: Kind,
        parts: Parts,
        id: ContextId,
        place: &'static Location<'static>,
        strong: u32,
    ) -> Node {
        new_node!(kind, strong, parts, id, place)
    }

    /// Its address.
    #[inline]
    pub(super) fn this(&self) -> NonNull<Node> {
        NonNull::from(self)
    }

    /// As an item of its parent's list.
    #[inline]
    pub(super) fn item(node: NonNull<Node>) -> Item {
        // SAFETY: the caller has a node there.
        Item::new(unsafe { &raw const (*node.as_ptr()).link }, Tag::Child)
    }

    /// The node of an item that is a child's.
    ///
    /// # Safety
    /// The item was made by [`item`](Self::item).
    #[inline]
    pub(super) unsafe fn of_item(item: Item) -> NonNull<Node> {
        // SAFETY: by the contract, it lies in a node.
        let node = unsafe { item.link().byte_sub(std::mem::offset_of!(Node, link)) };
        // SAFETY: as above.
        unsafe { NonNull::new_unchecked(node.cast_mut().cast()) }
    }

    #[inline]
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    pub(crate) fn clock(&self) -> Clock {
        self.extra().map_or(Clock::SYSTEM, |extra| extra.clock)
    }

    /// Whether it, or an ancestor, can end it (C35).
    #[inline]
    pub(crate) fn can_be_done(&self) -> bool {
        match self.kind {
            Kind::Background | Kind::Todo | Kind::Manual | Kind::WithoutCancel => false,
            Kind::Cancel
            | Kind::Timeout
            | Kind::Deadline
            | Kind::Grace
            | Kind::AnyOf
            | Kind::Value => true,
        }
    }

    /// The end, noted or found by looking at the clock. Takes no lock.
    #[inline]
    pub(crate) fn done(&self) -> Option<Done> {
        match self.head.state.load() {
            View::Live => None,
            View::Done(done) => Some(done),
            View::AskClock => self.ask_clock(),
        }
    }

    #[inline]
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.done().map(Done::ending)
    }

    #[inline]
    pub(super) fn state(&self) -> &State {
        &self.head.state
    }

    /// The node above: the scope of its parent.
    pub(super) fn above(&self) -> Option<&Node> {
        // SAFETY: a node that anybody can reach has its parent until it is reclaimed.
        self.head.parent.map(|parent| unsafe { parent.as_ref() }.scope())
    }

    pub(crate) fn deadline_cause(&self) -> Option<&Cause> {
        self.extra()?.deadline_cause.as_ref()
    }

    /// The limit of a grace under which it is in the timer.
    pub(super) fn alarm(&self) -> Tick {
        self.extra()
            .map_or(Tick::NEVER, |extra| Tick::from_nanos(extra.alarm.load(Ordering::Acquire)))
    }

    /// When a grace ran out: of a node that ended by that.
    pub(crate) fn over_at(&self) -> Tick {
        self.extra()
            .map_or(Tick::NEVER, |extra| Tick::from_nanos(extra.over_at.load(Ordering::Acquire)))
    }

    pub(crate) fn grace(&self) -> Option<std::time::Duration> {
        self.extra()?.grace
    }

    pub(crate) fn name(&self) -> Option<&'static str> {
        self.extra()?.name
    }

    pub(crate) fn own_values(&self) -> usize {
        self.extra().map_or(0, |extra| extra.own_values)
    }

    pub(super) fn merged(&self) -> Option<&[Merged]> {
        self.extra()?.merged.as_deref()
    }

    /// The end of the parent that its grace followed.
    pub(crate) fn grace_root(&self) -> Option<Ending> {
        NonNull::new(self.extra()?.root.load(Ordering::Acquire)).map(Ending::from_word)
    }

    #[cfg(all(test, purview_loom))]
    pub(crate) fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire) != UNLISTED
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire) != 0
    }

    pub(super) fn set_complete(&self) {
        self.complete.store(1, Ordering::Release);
    }
}

impl Head {
    #[inline]
    pub(crate) fn is_layer(&self) -> bool {
        self.memory.load(Ordering::Relaxed) == LAYERS
    }

    #[inline]
    fn layer(&self) -> &Layer {
        // SAFETY: a head that no error points at is a layer's; its address was exposed when it was made.
        unsafe { &*std::ptr::with_exposed_provenance(std::ptr::from_ref(self).addr()) }
    }

    #[inline]
    pub(super) fn free_layer(&self) -> Option<unsafe fn(NonNull<Head>)> {
        self.is_layer().then(|| self.layer().free)
    }

    /// The node that decides for this context: itself, or the one above its value layers.
    #[inline]
    pub(crate) fn scope_ptr(&self) -> NonNull<Node> {
        if self.is_layer() {
            return self.layer().scope;
        }
        let node = std::ptr::with_exposed_provenance_mut(std::ptr::from_ref(self).addr());
        // SAFETY: a reference's address is not null.
        unsafe { NonNull::new_unchecked(node) }
    }

    #[inline]
    pub(crate) fn scope(&self) -> &Node {
        // SAFETY: it is this context's own node, or one that its ancestors keep.
        unsafe { &*self.scope_ptr().as_ptr() }
    }

    /// Whether it has ended: one load, where the state alone tells.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        match self.state.known() {
            Some(done) => done,
            None => self.look_further(),
        }
    }

    #[inline(never)]
    fn look_further(&self) -> bool {
        self.scope().done().is_some()
    }

    /// The context above.
    pub(crate) fn parent(&self) -> Option<&Head> {
        // SAFETY: a context that anybody can reach has its parent until it is reclaimed.
        self.parent.map(|parent| unsafe { parent.as_ref() })
    }

    pub(crate) fn kind(&self) -> Kind {
        if self.is_layer() { Kind::Value } else { self.scope().kind }
    }

    /// Whether handles of it are counted: all but those of the two static roots.
    #[inline]
    pub(super) fn is_counted(&self) -> bool {
        self.strong.load(Ordering::Relaxed) != UNCOUNTED
    }
}
