//! What some nodes have besides, behind them in the same allocation; and that allocation.
#![expect(unsafe_code, reason = "one allocation holds a node and what it needs besides")]

use std::alloc::{Layout, handle_alloc_error};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::clock::{Clock, Manual, Tick};
use crate::error::Cause;
use crate::list::Link;
use crate::state::Ending;
use crate::sync::{AtomicI64, AtomicPtr, AtomicU8, Ordering, alloc, dealloc, is_last};
use crate::timer::{Entry, Target};

use super::{Node, Ref, count_up};

/// What a node has behind it. More of the later means that there are the earlier, too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Parts {
    Plain,
    Timed,
    Full,
}

/// A node with a deadline of its own, which lies in its `bound`.
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
    /// Its own deadline, as given; never, if it has none. Errors and the timer's key read it, whichever deadline binds.
    pub(super) own: Tick,
    /// For a grace: the limit under which it is in the timer. Changes under the timer's lock only.
    pub(super) alarm: AtomicI64,
    /// For a grace: how long.
    pub(super) grace: Option<std::time::Duration>,
    /// For a grace whose parent is done: when it is over. Never, before it is known; then it does not change.
    pub(super) over_at: AtomicI64,
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
            own: Tick::NEVER,
            alarm: AtomicI64::new(Tick::NEVER.nanos()),
            over_at: AtomicI64::new(Tick::NEVER.nanos()),
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

/// A walk's place in a list, while the lock is let go. Lies on the walker's stack.
#[repr(C)]
pub(super) struct Cursor {
    pub(super) link: Link,
    /// The list it is in. Written under that one's lock.
    pub(super) listed: AtomicU8,
}

/// The nearest owner, this node or one above (see `deadline.rs`). Written once, before the node is shared.
///
/// As a word: 0, none; 1, this node; else, the address of one above. A `Timed` node is its own owner, and has its deadline there.
#[derive(Clone, Copy)]
pub(super) enum Bound {
    None,
    Own,
    Above(NonNull<Node>),
}

impl Bound {
    pub(super) fn word(self) -> u64 {
        match self {
            Bound::None => 0,
            Bound::Own => 1,
            Bound::Above(owner) => owner.as_ptr().expose_provenance() as u64,
        }
    }

    pub(super) fn from_word(word: u64) -> Bound {
        if word == 1 {
            return Bound::Own;
        }
        let address = usize::try_from(word).unwrap_or(0);
        NonNull::new(std::ptr::with_exposed_provenance_mut(address))
            .map_or(Bound::None, Bound::Above)
    }
}

impl Node {
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

    /// Puts a node on the heap, with its own deadline, if its parts have a place for one.
    #[inline]
    pub(super) fn place(node: Node, own: Tick, extra: impl FnOnce() -> Extra) -> NonNull<Node> {
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
            // SAFETY: written above, and nobody else's yet.
            unsafe { new.as_ref() }.choose_wheel();
        }
        if parts == Parts::Timed {
            // SAFETY: as above.
            unsafe { new.as_ref() }.bound.store(own.nanos() as u64, Ordering::Relaxed);
        }
        if parts == Parts::Full {
            // SAFETY: as above.
            let place = unsafe { &raw mut (*place.cast::<Full>()).extra };
            // SAFETY: as above.
            unsafe { place.write(Extra { own, ..extra() }) };
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

    /// Its own deadline, as given, whether it binds or not; never, if it has none.
    #[inline]
    pub(crate) fn own_deadline(&self) -> Tick {
        match self.parts {
            Parts::Plain => Tick::NEVER,
            Parts::Timed => Tick::from_nanos(self.bound.load(Ordering::Relaxed) as i64),
            Parts::Full => self.extra().map_or(Tick::NEVER, |extra| extra.own),
        }
    }

    #[inline]
    pub(super) fn bound(&self) -> Bound {
        match self.parts {
            Parts::Timed => Bound::Own,
            Parts::Plain | Parts::Full => Bound::from_word(self.bound.load(Ordering::Relaxed)),
        }
    }

    /// Of a new node.
    #[inline]
    pub(super) fn set_bound(&self, bound: Bound) {
        if self.parts != Parts::Timed {
            self.bound.store(bound.word(), Ordering::Relaxed);
        }
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
        // SAFETY: by the contract.
        if unsafe { Node::is_last_of_memory(node) } {
            // SAFETY: the last count: nobody else can reach it.
            unsafe { Node::free(node) };
        }
    }

    /// The same, of a node that [owns nothing](Self::owns_nothing): runs none of the user's code.
    ///
    /// # Safety
    /// So it is; and as for [`release_memory`](Self::release_memory).
    #[inline]
    pub(super) unsafe fn release_own_memory(node: NonNull<Node>) {
        // SAFETY: by the contract.
        if unsafe { Node::is_last_of_memory(node) } {
            // SAFETY: as above.
            let parts = unsafe { node.as_ref() }.parts;
            // SAFETY: the last count: nobody else can reach it.
            unsafe { Node::give_back(node, parts) };
        }
    }

    #[inline]
    unsafe fn is_last_of_memory(node: NonNull<Node>) -> bool {
        // SAFETY: the count that is given up keeps it so far.
        is_last(unsafe { &node.as_ref().head.memory })
    }

    /// Whether nothing of the user's goes with it: no value, no cause.
    #[inline]
    pub(super) fn owns_nothing(&self) -> bool {
        self.parts != Parts::Full && !self.has_cause()
    }

    unsafe fn free(node: NonNull<Node>) {
        // SAFETY: nobody else can reach it.
        let this = unsafe { node.as_ref() };
        let parts = this.parts;
        // Dropped last, when the memory has been given back: it is the user's.
        // SAFETY: nobody else can reach it.
        let cause = unsafe { this.take_cause() };
        let root = this.extra().and_then(|extra| {
            NonNull::new(extra.root.load(Ordering::Relaxed)).map(Ending::from_word)
        });
        let mut deadline_cause = None;
        let whole: *mut Full = std::ptr::with_exposed_provenance_mut(node.as_ptr().addr());
        if parts == Parts::Full {
            // SAFETY: it has one; moved out here, and nothing else in it is to be dropped.
            let extra = unsafe { &raw const (*whole).extra };
            // SAFETY: as above.
            let extra = unsafe { extra.read() };
            deadline_cause = extra.deadline_cause;
        }
        // SAFETY: nobody can reach it, and what it owned is taken out.
        unsafe { Node::give_back(node, parts) };
        if let Some(root) = root {
            // A root is never an end by grace itself, so this goes one level deep.
            // SAFETY: the count was taken when `root` was set.
            unsafe { Node::release_memory(root.origin()) };
        }
        drop(deadline_cause);
        drop(cause);
    }

    #[inline]
    unsafe fn give_back(node: NonNull<Node>, parts: Parts) {
        // SAFETY: nobody can reach it; shards are freed with it.
        unsafe { std::ptr::drop_in_place(node.as_ptr()) };
        let whole: *mut u8 = std::ptr::with_exposed_provenance_mut(node.as_ptr().addr());
        // SAFETY: allocated by `place` with this layout.
        unsafe { dealloc(whole, Node::layout(parts)) };
    }
}
