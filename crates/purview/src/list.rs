//! One intrusive, circular, doubly linked list, for all that has to hear of a node's end.
//!
//! ```text
//! head ─► newest child ⇄ … ⇄ oldest child ⇄ oldest waiter ⇄ … ⇄ newest waiter ─┐
//!           ▲                                                                  │
//!           └──────────────────────────────────────────────────────────────────┘
//! ```
//! Children are put in at the front and waiters at the back, so one word is head of both, and each comes out in order:
//! children first, the newest before the older; waiters after them, in order of arrival.
//!
//! A [`Link`] sits inside the thing that is listed, so linking allocates nothing and unlinking is O(1) from anywhere. The
//! list owns nothing. What a link stands for is said by two low bits of every pointer to it: an [`Item`].
//!
//! # Invariants
//! - **L1** A linked [`Link`] is touched only by who holds the lock around its list.
//! - **L2** A link is in at most one list, and does not move while it is in one.
//! - **L3** An unlinked link is its owner's; of a node that is being swept, the sweep's (see `chain.rs`).
#![expect(
    unsafe_code,
    reason = "an intrusive list is raw pointers by nature; all of them are here"
)]

use std::ptr;

use crate::sync::UnsafeCell;

/// A place in a list: two words.
#[repr(align(8))] // three free bits below its address: two tags, and one for `dependents.rs`
pub(crate) struct Link(UnsafeCell<Ends>);

/// Its neighbours.
#[derive(Clone, Copy)]
struct Ends {
    next: Item,
    prev: Item,
}

impl Link {
    const EMPTY: Ends = Ends { next: Item::NONE, prev: Item::NONE };

    #[cfg(not(all(test, purview_loom)))]
    pub(crate) const fn new() -> Self {
        Link(UnsafeCell::new(Self::EMPTY))
    }

    #[cfg(all(test, purview_loom))]
    pub(crate) fn new() -> Self {
        Link(UnsafeCell::new(Self::EMPTY))
    }
}

/// What a link stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tag {
    /// A node, at its parent.
    Child = 0,
    /// A task, a thread or a callback.
    Waiter = 1,
    /// The place of a walk whose lock is let go.
    Cursor = 2,
    /// A merged node, at one of its parents.
    Merged = 3,
}

/// A link and what it stands for, in one word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item(*const Link);

const TAGS: usize = 0b11;

impl Item {
    pub(crate) const NONE: Item = Item(ptr::null());

    /// The pointer should be good for all of what the link lies in.
    #[inline]
    pub(crate) fn new(link: *const Link, tag: Tag) -> Item {
        Item(link.map_addr(|address| address | tag as usize))
    }

    /// As it lies in an atomic word, and back.
    #[inline]
    pub(crate) fn word(self) -> *mut Link {
        self.0.cast_mut()
    }

    #[inline]
    pub(crate) fn from_word(word: *mut Link) -> Item {
        Item(word)
    }

    #[inline]
    pub(crate) fn is_none(self) -> bool {
        self.0.is_null()
    }

    #[inline]
    pub(crate) fn tag(self) -> Tag {
        match self.0.addr() & TAGS {
            0 => Tag::Child,
            1 => Tag::Waiter,
            2 => Tag::Cursor,
            _ => Tag::Merged,
        }
    }

    #[inline]
    pub(crate) fn link(self) -> *const Link {
        self.0.map_addr(|address| address & !TAGS)
    }

    #[inline]
    unsafe fn ends<R>(self, access: impl FnOnce(&mut Ends) -> R) -> R {
        // SAFETY: the caller says that it is valid.
        let link = unsafe { &*self.link() };
        // SAFETY: and that its list's lock is held, or the link is the caller's alone (L1).
        link.0.with_mut(|ends| access(unsafe { &mut *ends }))
    }

    /// Its successor; of the last, the first.
    ///
    /// # Safety
    /// It is linked, and its list's lock is held; or it is in a chain that is the caller's (see `chain.rs`).
    #[inline]
    pub(crate) unsafe fn next(self) -> Item {
        // SAFETY: by the contract.
        unsafe { self.ends(|ends| ends.next) }
    }

    /// Uses an unlinked link's first word for a chain of the caller's own.
    ///
    /// # Safety
    /// It is in no list, and the caller's alone.
    pub(crate) unsafe fn chain_to(self, next: Item) {
        // SAFETY: by the contract.
        unsafe { self.ends(|ends| *ends = Ends { next, prev: Item::NONE }) };
    }
}

/// Where a list begins. Whoever has it mutably holds the lock around it.
pub(crate) struct Head(pub(crate) Item);

impl Head {
    /// Puts it in before the first.
    ///
    /// # Safety
    /// It is in no list, and neither moves nor goes before it is removed (L2).
    #[inline]
    pub(crate) unsafe fn push_front(&mut self, item: Item) {
        // SAFETY: by the contract.
        unsafe { self.push_back(item) };
        self.0 = item;
    }

    /// Puts it in behind the last.
    ///
    /// # Safety
    /// As for [`push_front`](Self::push_front).
    #[inline]
    pub(crate) unsafe fn push_back(&mut self, item: Item) {
        if self.0.is_none() {
            // SAFETY: the caller's own.
            unsafe { item.ends(|ends| *ends = Ends { next: item, prev: item }) };
            self.0 = item;
        } else {
            // SAFETY: the first is in the list; the item becomes its predecessor.
            unsafe { Self::put_before(self.0, item) };
        }
    }

    /// Puts `item` behind `place`, which is in this list.
    ///
    /// # Safety
    /// So it is; for `item` as for [`push_front`](Self::push_front).
    pub(crate) unsafe fn put_behind(&mut self, place: Item, item: Item) {
        // SAFETY: in the list. Behind the last is before the first, which stays the first.
        let next = unsafe { place.next() };
        // SAFETY: as above.
        unsafe { Self::put_before(next, item) };
    }

    #[inline]
    unsafe fn put_before(next: Item, item: Item) {
        // SAFETY: the caller says that `next` is linked; so is its neighbour, here and below.
        let prev = unsafe { next.ends(|ends| std::mem::replace(&mut ends.prev, item)) };
        // SAFETY: as above.
        unsafe { prev.ends(|ends| ends.next = item) };
        // SAFETY: the caller's own until here.
        unsafe { item.ends(|ends| *ends = Ends { next, prev }) };
    }

    /// Takes it out.
    ///
    /// # Safety
    /// It is in this list.
    #[inline]
    pub(crate) unsafe fn remove(&mut self, item: Item) {
        // SAFETY: in the list, and so are its neighbours, here and below.
        let Ends { next, prev } = unsafe { item.ends(|ends| *ends) };
        if next == item {
            self.0 = Item::NONE;
            return;
        }
        // SAFETY: as above.
        unsafe { prev.ends(|ends| ends.next = next) };
        // SAFETY: as above.
        unsafe { next.ends(|ends| ends.prev = prev) };
        if self.0 == item {
            self.0 = next;
        }
    }
}
