//! One intrusive doubly linked list, for children and for waiters.
//!
//! A [`Link`] sits inside the thing that is listed, so linking allocates nothing and unlinking is O(1) from anywhere. The
//! list holds raw pointers down; it owns nothing.
//!
//! # Invariants
//! - **I1** Every field of a linked [`Link`], but `linked`, is touched only by who holds the lock around its [`List`].
//! - **I2** A link is in at most one list, and does not move while it is in one.
//! - **I3** `linked` goes from true to false as the last thing that unlinking does to the link, with Release. Who sees
//!   false with Acquire owns the link's memory again without taking the lock.
#![expect(
    unsafe_code,
    reason = "an intrusive list is raw pointers by nature; all of them are here"
)]

use std::ptr;

use crate::sync::{AtomicUsize, Ordering, UnsafeCell};

/// A place in a [`List`] of `T`.
#[derive(Debug)]
pub(crate) struct Link<T> {
    /// 0 or 1. A whole word, so that a link has no padding, which nobody may write while a reference to it is about.
    linked: AtomicUsize,
    fields: UnsafeCell<Fields<T>>,
}

#[derive(Debug)]
struct Fields<T> {
    prev: *const Link<T>,
    next: *const Link<T>,
    /// What is listed; null for a [cursor](List::cursor_after).
    item: *const T,
}

impl<T> Link<T> {
    #[cfg(not(all(test, purview_loom)))]
    pub(crate) const fn new() -> Self {
        let fields = Fields { prev: ptr::null(), next: ptr::null(), item: ptr::null() };
        Link { linked: AtomicUsize::new(0), fields: UnsafeCell::new(fields) }
    }

    #[cfg(all(test, purview_loom))]
    pub(crate) fn new() -> Self {
        let fields = Fields { prev: ptr::null(), next: ptr::null(), item: ptr::null() };
        Link { linked: AtomicUsize::new(0), fields: UnsafeCell::new(fields) }
    }

    /// Whether the link may still be in a list. False is final for a link that is linked only once.
    pub(crate) fn is_linked(&self) -> bool {
        self.linked.load(Ordering::Acquire) != 0
    }

    /// Runs `access` on the fields of `link`.
    ///
    /// # Safety
    /// The link is valid, and the caller holds its list's lock or has it for itself (I1).
    unsafe fn fields<R>(link: *const Self, access: impl FnOnce(&mut Fields<T>) -> R) -> R {
        // SAFETY: valid by the contract above.
        let link = unsafe { &*link };
        // SAFETY: by the contract above nobody else reads or writes the fields meanwhile.
        link.fields.with_mut(|fields| access(unsafe { &mut *fields }))
    }
}

/// The head of a list. Whoever has `&mut List` holds the lock around it.
#[derive(Debug)]
pub(crate) struct List<T> {
    first: *const Link<T>,
    last: *const Link<T>,
}

impl<T> List<T> {
    pub(crate) const fn new() -> Self {
        List { first: ptr::null(), last: ptr::null() }
    }

    /// Appends `link`, which stands for `item`.
    ///
    /// # Safety
    /// The link is in no list, and neither it nor the item moves or goes before it is removed (I2).
    pub(crate) unsafe fn push_back(&mut self, link: &Link<T>, item: *const T) {
        // SAFETY: `self.last` is in this list or null, and `link` is the caller's.
        unsafe { self.insert(self.last, link, item) };
    }

    /// Puts `link` behind `before`, or at the front where that is null.
    ///
    /// # Safety
    /// As for [`push_back`](Self::push_back); `before` is in this list or null.
    unsafe fn insert(&mut self, before: *const Link<T>, link: &Link<T>, item: *const T) {
        let next = if before.is_null() {
            std::mem::replace(&mut self.first, link)
        } else {
            // SAFETY: `before` is in this list, whose lock is held.
            unsafe { Link::fields(before, |fields| std::mem::replace(&mut fields.next, link)) }
        };
        if next.is_null() {
            self.last = link;
        } else {
            // SAFETY: `next` is in this list.
            unsafe { Link::fields(next, |fields| fields.prev = link) };
        }
        // SAFETY: the link is in no list yet, so it is the caller's alone.
        unsafe { Link::fields(link, |fields| *fields = Fields { prev: before, next, item }) };
        link.linked.store(1, Ordering::Relaxed); // published by the lock
    }

    /// Takes `link` out; false where it was not in.
    ///
    /// # Safety
    /// The link is in this list or in none.
    pub(crate) unsafe fn remove(&mut self, link: &Link<T>) -> bool {
        if link.linked.load(Ordering::Relaxed) == 0 {
            return false;
        }
        // SAFETY: it is in this list, whose lock is held.
        let (prev, next) = unsafe { Link::fields(link, |fields| (fields.prev, fields.next)) };
        if prev.is_null() {
            self.first = next;
        } else {
            // SAFETY: neighbours in this list are valid until they are removed from it.
            unsafe { Link::fields(prev, |fields| fields.next = next) };
        }
        if next.is_null() {
            self.last = prev;
        } else {
            // SAFETY: as above.
            unsafe { Link::fields(next, |fields| fields.prev = prev) };
        }
        link.linked.store(0, Ordering::Release); // I3: the last touch
        true
    }

    /// Takes the first item out.
    pub(crate) fn pop_front(&mut self) -> Option<*const T> {
        loop {
            // SAFETY: a non-null `first` is in this list.
            let link = unsafe { self.first.as_ref()? };
            // SAFETY: its lock is held.
            let item = unsafe { Link::fields(link, |fields| fields.item) };
            // SAFETY: it is in this list.
            unsafe { self.remove(link) };
            if !item.is_null() {
                return Some(item);
            }
        }
    }

    /// The links from `from` on, or from the front where that is null, with what they stand for. Cursors are skipped.
    ///
    /// The caller may stop anywhere, but must not remove the link it was last given before asking for the next.
    pub(crate) fn iter(&self) -> Iter<'_, T> {
        Iter { next: self.first, list: std::marker::PhantomData }
    }

    /// The items behind `cursor`.
    ///
    /// # Safety
    /// `cursor` is in this list.
    pub(crate) unsafe fn iter_after(&self, cursor: &Link<T>) -> Iter<'_, T> {
        // SAFETY: the lock is held.
        let next = unsafe { Link::fields(cursor, |fields| fields.next) };
        Iter { next, list: std::marker::PhantomData }
    }

    /// Puts `cursor`, a link that stands for nothing, behind `link`, so that a walk can let go of the lock and find its
    /// place again, whatever is removed meanwhile.
    ///
    /// # Safety
    /// `link` is in this list and `cursor` in this list or in none; the cursor is removed before it goes.
    pub(crate) unsafe fn move_cursor_after(&mut self, link: *const Link<T>, cursor: &Link<T>) {
        // SAFETY: by the contract above; a cursor never is its own `link`.
        unsafe { self.remove(cursor) };
        // SAFETY: as above.
        unsafe { self.insert(link, cursor, ptr::null()) };
    }
}

pub(crate) struct Iter<'a, T> {
    next: *const Link<T>,
    list: std::marker::PhantomData<&'a List<T>>,
}

impl<T> Iterator for Iter<'_, T> {
    type Item = (*const Link<T>, *const T);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let link = self.next;
            if link.is_null() {
                return None;
            }
            // SAFETY: not null, so in the list, whose lock the borrow stands for.
            let (next, item) = unsafe { Link::fields(link, |fields| (fields.next, fields.item)) };
            self.next = next;
            if !item.is_null() {
                return Some((link, item));
            }
        }
    }
}
