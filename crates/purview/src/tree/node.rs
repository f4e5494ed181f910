//! What every context has, what a node adds, and the counted pointer to either.
#![expect(
    unsafe_code,
    reason = "a context is one word: a counted pointer to a head, static or on the heap"
)]

use std::mem::ManuallyDrop;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::clock::{Clock, Manual, Tick};
use crate::error::Cause;
use crate::list::{Link, List};
use crate::observe::ContextId;
use crate::state::{Done, Ending, State, View};
use crate::sync::{
    AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicUsize, Mutex, MutexGuard, Ordering,
    UnsafeCell, fence, lock,
};
use crate::timer::Entry;
use crate::value::ValueRef;
use crate::waiter::Waiter;

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
    /// Handles, and children of any sort. Unused for the two static roots.
    pub(super) strong: AtomicUsize,
    /// The node that decides for this context: itself, or the one above its value layers. Kept by `parent`.
    pub(super) scope: NonNull<Node>,
    /// Strong; taken when this context is reclaimed. None at a root.
    pub(super) parent: Option<NonNull<Head>>,
    /// The nearest value that is visible from here. Owned by this context or by an ancestor.
    pub(crate) values: Option<ValueRef>,
    /// How to drop what a value layer owns and free it; None for a node.
    pub(super) free_layer: Option<unsafe fn(NonNull<Head>)>,
    pub(crate) id: ContextId,
    /// Where it was derived.
    pub(crate) place: &'static Location<'static>,
    pub(crate) kind: Kind,
}

/// A context that can differ from its parent in being done: all but value layers.
#[repr(C, align(16))] // four tag bits below its address: see state.rs
pub(crate) struct Node {
    pub(super) head: Head,
    /// Errors that point here, and one for all strong counts together. The memory goes with the last.
    pub(super) memory: AtomicUsize,
    pub(crate) state: State,
    /// The whole subtree is marked (C7). Written by the sweeper; only ever set.
    pub(super) complete: AtomicBool,
    pub(crate) clock: Clock,

    /// The nearest node, this one or above, whose deadline binds here; null without a deadline. Lowered (under this node's
    /// lock) when a grace begins above. Kept by `parent`.
    pub(super) owner: AtomicPtr<Node>,
    /// Its own deadline, as given. Matters only where this node is its own owner.
    pub(super) fixed: Tick,
    /// For a grace: when it runs out, as far as is known. Only ever lowered, under the heap's lock.
    pub(super) graced: AtomicI64,
    /// For a grace: how long.
    pub(super) grace: Option<std::time::Duration>,
    /// For an end by `GraceOver`: the parent's [`Ending`], as a word. Set once, before the state; counted in its `memory`.
    pub(crate) root: AtomicPtr<Node>,
    /// The timer's: in the heap while armed.
    pub(super) entry: Entry,
    /// Whether the entry may be in a heap: written under the heap's lock.
    pub(super) armed: AtomicBool,

    pub(super) lists: Mutex<Lists>,
    /// The lists' lengths, for `statistics()`: written under the lock, read without.
    pub(super) counts: Counts,
    /// This node's place in its parent's children. Guarded by that one's lock.
    pub(super) place_in_parent: Link<Node>,
    /// The parents of a merged context, in order; `head.parent` repeats the first without a count. Moved out when the
    /// context is reclaimed, as is `manual`: by reading, since an error may be looking at the node.
    pub(super) merged: ManuallyDrop<Option<Box<[Merged]>>>,
    /// The next in a sweep's chain. Only the claimant's (I6).
    pub(super) work: UnsafeCell<Option<NonNull<Node>>>,

    /// Set when it is ended by a call (I5). Lives as long as the memory: errors borrow it.
    pub(super) ended: UnsafeCell<Option<Ended>>,
    /// Lives as long as the memory, too.
    pub(super) deadline_cause: Option<Cause>,
    pub(crate) name: Option<&'static str>,
    /// The values that this node itself owns, which are the first so many of `head.values`.
    pub(super) own_values: usize,
    /// A root on a manual clock keeps it.
    pub(super) manual: ManuallyDrop<Option<Arc<Manual>>>,
}

/// One parent of a merged context.
pub(super) struct Merged {
    pub(super) parent: Option<Ref>,
    pub(super) place: Link<Node>,
}

pub(super) struct Lists {
    pub(super) children: List<Node>,
    pub(super) waiters: List<Waiter>,
}

pub(super) struct Counts {
    pub(super) children: AtomicU32,
    pub(super) waiters: AtomicU32,
    pub(super) callbacks: AtomicU32,
}

/// The facts of an end by a call.
#[derive(Clone)]
pub(crate) struct Ended {
    pub(crate) at: Tick,
    pub(crate) place: &'static Location<'static>,
    pub(crate) cause: Option<Cause>,
}

/// Everything a new node has; a macro because loom's atomics are not const, and the static roots must be.
macro_rules! new_node {
    ($kind:expr, $scope:expr, $id:expr, $place:expr) => {
        Node {
            head: Head {
                strong: AtomicUsize::new(1),
                scope: $scope,
                parent: None,
                values: None,
                free_layer: None,
                id: $id,
                place: $place,
                kind: $kind,
            },
            memory: AtomicUsize::new(1),
            state: State::live(),
            complete: AtomicBool::new(false),
            clock: Clock::SYSTEM,
            owner: AtomicPtr::new(std::ptr::null_mut()),
            fixed: Tick::NEVER,
            graced: AtomicI64::new(Tick::NEVER.nanos()),
            grace: None,
            root: AtomicPtr::new(std::ptr::null_mut()),
            entry: Entry::new(),
            armed: AtomicBool::new(false),
            lists: Mutex::new(Lists { children: List::new(), waiters: List::new() }),
            counts: Counts {
                children: AtomicU32::new(0),
                waiters: AtomicU32::new(0),
                callbacks: AtomicU32::new(0),
            },
            place_in_parent: Link::new(),
            merged: ManuallyDrop::new(None),
            work: UnsafeCell::new(None),
            ended: UnsafeCell::new(None),
            deadline_cause: None,
            name: None,
            own_values: 0,
            manual: ManuallyDrop::new(None),
        }
    };
}

// SAFETY: what several threads write is atomic, or guarded by a lock as each field says; values, causes and wakers are
// `Send + Sync` by the bounds of what puts them in.
unsafe impl Send for Node {}
// SAFETY: as above.
unsafe impl Sync for Node {}

impl Node {
    /// A node with nothing set but what it is. `scope` is to be set to its own address once it has one.
    #[cfg(not(all(test, purview_loom)))]
    pub(super) const fn new(
        kind: Kind,
        scope: NonNull<Node>,
        id: ContextId,
        place: &'static Location<'static>,
    ) -> Node {
        new_node!(kind, scope, id, place)
    }

    #[cfg(all(test, purview_loom))]
    pub(super) fn new(
        kind: Kind,
        scope: NonNull<Node>,
        id: ContextId,
        place: &'static Location<'static>,
    ) -> Node {
        new_node!(kind, scope, id, place)
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// Whether it, or an ancestor, can end it (C35).
    pub(crate) fn can_be_done(&self) -> bool {
        match self.head.kind {
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
        match self.state.load() {
            View::Live => None,
            View::Done(done) => Some(done),
            View::AskClock => self.ask_clock(),
        }
    }

    #[inline]
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.done().map(Done::ending)
    }

    pub(super) fn lists(&self) -> MutexGuard<'_, Lists> {
        lock(&self.lists)
    }

    /// The node above: the scope of its parent.
    pub(super) fn above(&self) -> Option<&Node> {
        // SAFETY: a node that anybody can reach has its parent until it is reclaimed.
        self.head.parent.map(|parent| unsafe { parent.as_ref() }.scope())
    }

    /// The facts of the call that ended it, where one did.
    pub(crate) fn ended(&self) -> Option<&Ended> {
        // SAFETY: written before the state word that says so was published (I5); the caller has seen that word.
        self.ended.with(|ended| unsafe { &*ended }.as_ref())
    }

    pub(crate) fn deadline_cause(&self) -> Option<&Cause> {
        self.deadline_cause.as_ref()
    }

    /// Its own deadline, as given.
    pub(crate) fn fixed(&self) -> Tick {
        self.fixed
    }

    /// When a grace ran out.
    pub(crate) fn graced(&self) -> Tick {
        Tick::from_nanos(self.graced.load(Ordering::Acquire))
    }

    pub(crate) fn grace(&self) -> Option<std::time::Duration> {
        self.grace
    }

    pub(crate) fn own_values(&self) -> usize {
        self.own_values
    }

    pub(crate) fn counts(&self) -> [usize; 3] {
        let counts = &self.counts;
        [&counts.children, &counts.waiters, &counts.callbacks]
            .map(|count| count.load(Ordering::Relaxed) as usize)
    }

    /// One more error points here.
    pub(crate) fn keep_memory(&self) {
        count_up(&self.memory);
    }

    /// One fewer; the last one frees the memory, and drops the causes that lie in it.
    ///
    /// # Safety
    /// `node` came from a heap allocation, and the caller gives up a count of its memory.
    pub(crate) unsafe fn release_memory(node: NonNull<Node>) {
        // SAFETY: the count that is given up keeps it so far.
        if unsafe { node.as_ref() }.memory.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        // SAFETY: the last count: nobody else can reach it.
        let node = unsafe { Box::from_raw(node.as_ptr()) };
        if let Some(root) = NonNull::new(node.root.load(Ordering::Relaxed)) {
            // A root is never an end by grace itself, so this goes one level deep.
            // SAFETY: the count was taken when `root` was set.
            unsafe { Node::release_memory(Ending::from_word(root).origin()) };
        }
    }
}

impl Head {
    #[inline]
    pub(crate) fn scope(&self) -> &Node {
        // SAFETY: it is this context's own node, or one that its ancestors keep.
        unsafe { self.scope.as_ref() }
    }

    /// The context above.
    pub(crate) fn parent(&self) -> Option<&Head> {
        // SAFETY: a context that anybody can reach has its parent until it is reclaimed.
        self.parent.map(|parent| unsafe { parent.as_ref() })
    }

    /// Whether handles of it are counted: all but the two static roots.
    #[inline]
    pub(super) fn is_counted(&self) -> bool {
        cfg!(all(test, purview_loom)) || !matches!(self.kind, Kind::Background | Kind::Todo)
    }
}
