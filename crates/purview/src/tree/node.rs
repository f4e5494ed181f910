//! What every context has, what a node adds, and the counted pointer to either.
//!
//! # Layout
//! Bytes are time: a fresh page costs 0.4 ns a byte, so a node has what every node needs and no more. What some need lies
//! behind it in the same allocation, and `parts` says whether it is there.
//! ```text
//! Head 48 │ Link 16 · dependents 8 · deadline 8 · bytes 8 │ timer entry 16 │ Extra
//! └ value layer: scope, value                             │                │
//! └────────────────── Node 88 (malloc: 96) ───────────────┘                │
//! └──────────────────────────── Timed 104 (malloc: 112) ──────────────────┘│
//! └─────────────────────────────────── Full: names, graces, merges, manual clocks
//! ```
//! A node's address is exposed when it is allocated, so that its further parts can be found from a reference to the node.
#![expect(
    unsafe_code,
    reason = "a context is one word: a counted pointer to a head, static or on the heap"
)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::clock::{Clock, Manual, Tick};
use crate::error::Cause;
use crate::list::{Item, Link, Tag};
use crate::observe::ContextId;
use crate::state::{Done, Ending, State, View};
use crate::sync::{AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Lock, Ordering, fence};
use crate::timer::{Entry, Target};
use crate::value::ValueRef;

use super::dependents::Dependents;
use super::{Ref, count_up};

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
    /// Of a node: errors that point here, and one for all strong counts together. The memory goes with the last.
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
    /// Its place among its parent's dependents. After an end by a call: when and where that was (see [`Node::ended`]).
    /// In a sweep: the chain.
    pub(super) link: Link,
    pub(super) dependents: Dependents,
    /// Whose deadline binds here; see [`Bound`].
    pub(super) bound: AtomicU64,
    pub(crate) kind: Kind,
    pub(super) parts: Parts,
    /// Guards the dependents until there are shards of them; and the end of a node that is in no list.
    pub(super) lock: Lock,
    /// How often the lock was found taken; written under it.
    pub(super) heat: AtomicU8,
    /// Whether, and in which of its parent's shards, it is listed: [`UNLISTED`], or the shard. Written under that one's lock.
    pub(super) listed: AtomicU8,
    /// Whether the entry may be in the timer: written under the timer's lock.
    pub(super) armed: AtomicU8,
    /// The whole subtree is marked (C7). Written by the sweeper; only ever set.
    pub(super) complete: AtomicU8,
}

/// What a node has behind it. More of the later means that there are the earlier, too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Parts {
    Plain,
    Timed,
    Full,
}

pub(super) const UNLISTED: u8 = u8::MAX;

/// A node with a deadline of its own.
#[repr(C)]
pub(super) struct Timed {
    node: Node,
    entry: Entry,
}

/// A node with everything.
#[repr(C)]
pub(super) struct Full {
    timed: Timed,
    extra: Extra,
}

/// What few nodes need.
pub(super) struct Extra {
    pub(super) clock: Clock,
    /// Its own deadline, as given. Matters only where this node is its own owner.
    pub(super) fixed: Tick,
    /// For a grace: when it runs out, as far as is known. Only ever lowered, under the timer's lock.
    pub(super) graced: AtomicI64,
    /// For a grace: how long.
    pub(super) grace: Option<std::time::Duration>,
    /// For an end by `GraceOver`: the parent's [`Ending`], as a word. Set once, before the state; counted in its `memory`.
    pub(super) root: AtomicPtr<Node>,
    /// The parents of a merged context, in order. Moved out when the context is reclaimed, as is `manual`: by reading,
    /// since an error may be looking at the node.
    pub(super) merged: ManuallyDrop<Option<Box<[Merged]>>>,
    /// Lives as long as the memory: errors borrow it.
    pub(super) deadline_cause: Option<Cause>,
    pub(super) name: Option<&'static str>,
    /// The values that this node itself owns, which are the first so many of `head.values`.
    pub(super) own_values: usize,
    /// A root on a manual clock keeps it.
    pub(super) manual: ManuallyDrop<Option<Arc<Manual>>>,
}

impl Extra {
    pub(super) fn new(clock: Clock) -> Extra {
        Extra {
            clock,
            fixed: Tick::NEVER,
            graced: AtomicI64::new(Tick::NEVER.nanos()),
            grace: None,
            root: AtomicPtr::new(std::ptr::null_mut()),
            merged: ManuallyDrop::new(None),
            deadline_cause: None,
            name: None,
            own_values: 0,
            manual: ManuallyDrop::new(None),
        }
    }
}

/// One parent of a merged context. Lies in a box of that one's.
#[repr(C)]
pub(super) struct Merged {
    pub(super) link: Link,
    pub(super) listed: AtomicU8,
    pub(super) node: NonNull<Node>,
    pub(super) parent: Option<Ref>,
}

/// Something on a stack that is listed for a while.
#[repr(C)]
pub(super) struct Stand {
    pub(super) link: Link,
    pub(super) role: Role,
    /// The list it is in. Written under that one's lock, as is whether a sweep came by.
    pub(super) listed: AtomicU8,
    pub(super) passed: AtomicU8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A walk's place, while the lock is let go.
    Cursor,
    /// A child that has ended and whose subtree is being marked.
    Proxy,
}

/// The nearest node, this one or above, whose deadline binds at a node. Lowered when a grace begins above.
///
/// As a word: 0, none; odd, this node's own, and what is above the lowest bit is the tick; else, the address of one above.
#[derive(Clone, Copy)]
pub(super) enum Bound {
    None,
    Own(Tick),
    Above(NonNull<Node>),
}

impl Bound {
    /// Whether a tick fits above the lowest bit: 146 years to either side. Others are kept by a [`Full`] node.
    pub(super) fn fits(at: Tick) -> bool {
        at.nanos() << 1 >> 1 == at.nanos()
    }

    pub(super) fn word(self) -> u64 {
        match self {
            Bound::None => 0,
            Bound::Own(at) => (at.nanos() << 1 | 1).cast_unsigned(),
            Bound::Above(owner) => owner.as_ptr().expose_provenance() as u64,
        }
    }

    pub(super) fn from_word(word: u64) -> Bound {
        if word & 1 == 1 {
            return Bound::Own(Tick::from_nanos(word.cast_signed() >> 1));
        }
        let address = usize::try_from(word).unwrap_or(0);
        NonNull::new(std::ptr::with_exposed_provenance_mut(address))
            .map_or(Bound::None, Bound::Above)
    }
}

/// The facts of an end by a call.
pub(crate) struct Ended<'a> {
    pub(crate) at: Tick,
    pub(crate) place: &'static Location<'static>,
    pub(crate) cause: Option<&'a Cause>,
}

/// Where a call with a cause was, and the cause. In a box of its own, behind a tagged pointer.
struct Reason {
    place: &'static Location<'static>,
    cause: Cause,
}

const WITH_REASON: usize = 1;

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
            bound: AtomicU64::new(0),
            kind: $kind,
            parts: $parts,
            lock: Lock::new(),
            heat: AtomicU8::new(0),
            listed: AtomicU8::new(UNLISTED),
            armed: AtomicU8::new(0),
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

    #[inline]
    fn layout(parts: Parts) -> Layout {
        let size = match parts {
            Parts::Plain => size_of::<Node>(),
            Parts::Timed => size_of::<Timed>(),
            Parts::Full => size_of::<Full>(),
        };
        // SAFETY: a power of two, and far from the end of what can be addressed. The state word needs four free bits below
        // a node's address; the types themselves are not aligned so, since their size would be rounded up.
        unsafe { Layout::from_size_align_unchecked(size, Node::ALIGN) }
    }

    pub(crate) const ALIGN: usize = if align_of::<Full>() > 16 { align_of::<Full>() } else { 16 };

    /// Puts a node on the heap, with one handle.
    #[inline]
    pub(super) fn place(node: Node, extra: impl FnOnce() -> Extra) -> NonNull<Node> {
        let layout = Node::layout(node.parts);
        let parts = node.parts;
        // SAFETY: not of size zero.
        let place = unsafe { alloc(layout) }.cast::<Node>();
        let Some(new) = NonNull::new(place) else { handle_alloc_error(layout) };
        let _ = place.expose_provenance();
        // SAFETY: allocated for it.
        unsafe { new.write(node) };
        if parts >= Parts::Timed {
            // SAFETY: allocated with room for it.
            let entry = unsafe { &raw mut (*place.cast::<Timed>()).entry };
            // SAFETY: as above.
            unsafe { entry.write(Entry::new()) };
        }
        if parts == Parts::Full {
            // SAFETY: as above.
            let place = unsafe { &raw mut (*place.cast::<Full>()).extra };
            // SAFETY: as above.
            unsafe { place.write(extra()) };
        }
        new
    }

    /// Gives a merged node its parents.
    ///
    /// # Safety
    /// The node is full, and nobody else's yet.
    pub(super) unsafe fn set_merged(node: NonNull<Node>, links: Box<[Merged]>) {
        let whole: *mut Full = std::ptr::with_exposed_provenance_mut(node.as_ptr().addr());
        // SAFETY: by the contract.
        unsafe { (*whole).extra.merged = ManuallyDrop::new(Some(links)) };
    }

    /// This node's address, good for its further parts.
    #[inline]
    fn whole<T>(&self) -> *const T {
        std::ptr::with_exposed_provenance(std::ptr::from_ref(self).addr())
    }

    /// Its entry in the timer, where it has one.
    #[inline]
    pub(super) fn timer(&self) -> Option<Target> {
        // SAFETY: it is there, and lives as long as the node; the pointer is good for all of the allocation.
        let entry =
            (self.parts >= Parts::Timed).then(|| unsafe { &(*self.whole::<Timed>()).entry });
        entry.map(Target::node)
    }

    #[inline]
    pub(super) fn extra(&self) -> Option<&Extra> {
        // SAFETY: as above.
        (self.parts == Parts::Full).then(|| unsafe { &(*self.whole::<Full>()).extra })
    }

    /// The node of a timer's entry.
    ///
    /// # Safety
    /// The entry is a node's.
    pub(crate) unsafe fn of_entry(entry: *const Entry) -> NonNull<Node> {
        let address = entry.addr() - std::mem::offset_of!(Timed, entry);
        // SAFETY: an address within an allocation is not null.
        unsafe { NonNull::new_unchecked(std::ptr::with_exposed_provenance_mut(address)) }
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

    /// Writes down the facts of an end by a call.
    ///
    /// # Safety
    /// The node is in no list, is not done yet, and the lock that guards its end is held.
    pub(super) unsafe fn note_facts(
        &self,
        at: Tick,
        place: &'static Location<'static>,
        cause: Option<Cause>,
    ) {
        let place: *const () = match cause {
            None => std::ptr::from_ref(place).cast(),
            Some(cause) => {
                let reason: *const Reason = Box::into_raw(Box::new(Reason { place, cause }));
                reason.cast::<()>().map_addr(|address| address | WITH_REASON)
            }
        };
        // SAFETY: by the contract.
        unsafe { self.link.keep(at.nanos(), place) };
    }

    /// Takes the cause back out of what was noted.
    ///
    /// # Safety
    /// Facts were noted, and nobody else reads them.
    pub(super) unsafe fn take_cause(&self) -> Option<Cause> {
        // SAFETY: by the contract.
        let (_, place) = unsafe { self.link.kept() };
        if place.addr() & WITH_REASON == 0 {
            return None;
        }
        let reason = place.map_addr(|address| address & !WITH_REASON).cast::<Reason>();
        // SAFETY: put there by `note_facts`.
        Some(unsafe { Box::from_raw(reason.cast_mut()) }.cause)
    }

    /// The facts of the call that ended it. Asked of the origin of an end by a call only.
    pub(crate) fn ended(&self) -> Ended<'_> {
        // SAFETY: written before the state that says so was published; the caller has seen that.
        let (at, place) = unsafe { self.link.kept() };
        let at = Tick::from_nanos(at);
        if place.addr() & WITH_REASON == 0 {
            // SAFETY: put there by `note_facts`.
            return Ended { at, place: unsafe { &*place.cast() }, cause: None };
        }
        // SAFETY: as above; it lives as long as the node's memory.
        let reason = unsafe { &*place.map_addr(|it| it & !WITH_REASON).cast::<Reason>() };
        Ended { at, place: reason.place, cause: Some(&reason.cause) }
    }

    pub(crate) fn deadline_cause(&self) -> Option<&Cause> {
        self.extra()?.deadline_cause.as_ref()
    }

    /// Its own deadline, as given; of one that never bound, whatever binds.
    pub(crate) fn fixed(&self) -> Tick {
        match (self.extra(), self.bound()) {
            (Some(extra), _) => extra.fixed,
            (None, Bound::Own(at)) => at,
            (None, _) => self.deadline(),
        }
    }

    /// When a grace ran out.
    pub(crate) fn graced(&self) -> Tick {
        self.extra()
            .map_or(Tick::NEVER, |extra| Tick::from_nanos(extra.graced.load(Ordering::Acquire)))
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

    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire) != 0
    }

    pub(super) fn set_complete(&self) {
        self.complete.store(1, Ordering::Release);
    }

    /// One more error points here.
    pub(crate) fn keep_memory(&self) {
        count_up(&self.head.memory);
    }

    /// One fewer; the last one frees the memory, and drops the causes that lie in it.
    ///
    /// # Safety
    /// `node` came from a heap allocation, and the caller gives up a count of its memory.
    #[inline]
    pub(crate) unsafe fn release_memory(node: NonNull<Node>) {
        // SAFETY: the count that is given up keeps it so far.
        let memory = unsafe { &node.as_ref().head.memory };
        // As for an `Arc` that is unique: whoever has the one count there is has it for himself.
        if memory.load(Ordering::Acquire) != 1 {
            if memory.fetch_sub(1, Ordering::Release) != 1 {
                return;
            }
            fence(Ordering::Acquire);
        }
        // SAFETY: the last count: nobody else can reach it.
        unsafe { Node::free(node) };
    }

    unsafe fn free(node: NonNull<Node>) {
        // SAFETY: nobody else can reach it.
        let this = unsafe { node.as_ref() };
        let parts = this.parts;
        // Dropped last, when the memory has been given back: it is the user's.
        let mut reason = None;
        if let Some(done) = this.state().done() {
            let ending = done.ending();
            if ending.origin() == node && ending.by().is_call() {
                // SAFETY: noted by the call that ended it, and nobody looks any more.
                reason = unsafe { this.take_cause() };
            }
        }
        let root = this.extra().and_then(|extra| {
            NonNull::new(extra.root.load(Ordering::Relaxed)).map(Ending::from_word)
        });
        let mut deadline_cause = None;
        let whole: *mut Full = std::ptr::with_exposed_provenance_mut(node.as_ptr().addr());
        if parts == Parts::Full {
            // SAFETY: it has one; moved out here, and nothing else in it is to be dropped.
            let extra = unsafe { std::ptr::read(&raw const (*whole).extra) };
            deadline_cause = extra.deadline_cause;
        }
        // SAFETY: nobody can reach it; shards are freed with it.
        unsafe { std::ptr::drop_in_place(node.as_ptr()) };
        // SAFETY: allocated by `place` with this layout.
        unsafe { dealloc(whole.cast(), Node::layout(parts)) };
        if let Some(root) = root {
            // A root is never an end by grace itself, so this goes one level deep.
            // SAFETY: the count was taken when `root` was set.
            unsafe { Node::release_memory(root.origin()) };
        }
        drop(deadline_cause);
        drop(reason);
    }
}

impl Head {
    #[inline]
    pub(crate) fn is_layer(&self) -> bool {
        self.state.is_elsewhere()
    }

    #[inline]
    fn layer(&self) -> &Layer {
        // SAFETY: a head whose state is elsewhere is a layer's; its address was exposed when it was made.
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
