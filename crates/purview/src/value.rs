//! The chain of values, and the index that keeps a long chain as fast as a short one.
//!
//! ```text
//! entry 10 ─► 9 ─► 8* ─► 7 ─► … ─► 1          * every eighth entry may have an index of all that it can see,
//!                  │                             made by the first lookup that gets so far
//!                  └─► { key: entry, key: entry, … }
//! ```
//!
//! An entry lies in the context that set it: in the layer itself, or in a box of its own where a `derive()` set several.
//! A child keeps its ancestors, so pointers outward need no counts.
//!
//! # Invariants
//! - **V1** What an entry points at, by `next` or by its index, belongs to the same context or to an ancestor of it.
//! - **V2** An entry does not change once it is visible, but for its index, which is set once.
//! - **V3** A key's address is its identity; an entry found by a key's address holds that key's type (see [`Key`]).
//!
//! # Why this way
//! A copied map, as OpenTelemetry has, finds a key at once but copies 4 KB to add the 65th. A bare chain, as Go has, pays
//! for every layer. Here adding is one link, a lookup walks at most a few links to an index, and making indexes costs at most
//! eight steps a link: one is made only where the way to the next is at least 8 links, or an eighth of what that one holds.
#![expect(unsafe_code, reason = "one chain holds values of many types; entries belong to contexts")]

use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::Context;
use crate::key::Key;
use crate::tree::Panics;

/// Every so many links there can be an index.
const STRIDE: usize = 8;

pub(crate) type ValueRef = NonNull<Entry>;

/// A link of the chain, whatever its type.
#[repr(C)]
pub(crate) struct Entry {
    /// The key's address; null for a [`fork`], which is nothing but its index.
    key: *const (),
    next: Option<ValueRef>,
    /// How many links there are from here outward.
    depth: usize,
    index: AtomicPtr<Index>,
    describe: unsafe fn(ValueRef, &mut fmt::Formatter<'_>) -> fmt::Result,
    free: unsafe fn(ValueRef),
}

/// A link with its value.
#[repr(C)]
pub(crate) struct Typed<T: 'static> {
    entry: Entry,
    key: Option<&'static Key<T>>,
    value: T,
}

impl<T> Typed<T> {
    pub(crate) fn new(key: &'static Key<T>, value: T) -> Self {
        let address = std::ptr::from_ref(key).cast();
        Typed { entry: Entry::new::<T>(address), key: Some(key), value }
    }

    /// Before it is visible: puts it in front of a chain.
    pub(crate) fn link(&mut self, next: Option<ValueRef>) {
        self.entry.link(next);
    }
}

impl Entry {
    fn new<T: 'static>(key: *const ()) -> Self {
        Entry {
            key,
            next: None,
            depth: 1,
            index: AtomicPtr::new(std::ptr::null_mut()),
            describe: describe::<T>,
            free: free::<T>,
        }
    }

    fn link(&mut self, next: Option<ValueRef>) {
        self.next = next;
        // SAFETY: it belongs to an ancestor (V1).
        self.depth = next.map_or(0, |next| unsafe { next.as_ref() }.depth) + 1;
    }

    /// The index at this link, if there is one or it is worth making one. `this` is the link itself, as the chain has it:
    /// a pointer to all of it, which a reference to its entry is not.
    fn index(&self, this: ValueRef, may_make: &mut bool) -> Option<&Index> {
        // SAFETY: set once and freed with the entry.
        if let Some(index) = unsafe { self.index.load(Ordering::Acquire).as_ref() } {
            return Some(index);
        }
        // One attempt a lookup: where this link is too near the next index, those between are nearer.
        if self.depth % STRIDE != 0 || !std::mem::take(may_make) {
            return None;
        }
        let (way, found) = self.way_to_index();
        if way < STRIDE.max(found.map_or(0, |index| index.len) / STRIDE) {
            return None;
        }
        let mut index = Index::with_capacity(way + found.map_or(0, |index| index.len));
        index.add_chain(this);
        let index = Box::into_raw(Box::new(index));
        let null = std::ptr::null_mut();
        match self.index.compare_exchange(null, index, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: it is this entry's now.
            Ok(_) => Some(unsafe { &*index }),
            Err(other) => {
                // SAFETY: nobody has seen it.
                drop(unsafe { Box::from_raw(index) });
                // SAFETY: set once and freed with the entry.
                Some(unsafe { &*other })
            }
        }
    }

    /// The links from here to the next index outward, and that index.
    fn way_to_index(&self) -> (usize, Option<&Index>) {
        let mut way = 0;
        let mut at = Some(self);
        while let Some(entry) = at {
            // SAFETY: as in `index`.
            let index = unsafe { entry.index.load(Ordering::Acquire).as_ref() };
            if index.is_some() {
                return (way, index);
            }
            way += 1;
            // SAFETY: V1.
            at = entry.next.map(|next| unsafe { &*next.as_ptr() });
        }
        (way, None)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(index) = NonNull::new(*self.index.get_mut()) {
            // SAFETY: set by `index` or `fork`, and this entry's alone.
            drop(unsafe { Box::from_raw(index.as_ptr()) });
        }
    }
}

/// The nearest value of `key` that `context` shows.
pub(crate) fn find<'a, T: 'static>(context: &'a Context, key: &'static Key<T>) -> Option<&'a T> {
    let chain = context.as_ref().head().values;
    let entry = find_entry(chain, std::ptr::from_ref(key).cast())?;
    // SAFETY: an entry of that key is a `Typed<T>` (V3); the context keeps it as long as it is borrowed (V1).
    Some(unsafe { &entry.cast::<Typed<T>>().as_ref().value })
}

fn find_entry(chain: Option<ValueRef>, key: *const ()) -> Option<ValueRef> {
    let mut at = chain;
    let mut may_make = true;
    while let Some(link) = at {
        // SAFETY: V1.
        let entry = unsafe { link.as_ref() };
        if entry.key == key {
            return at;
        }
        if let Some(index) = entry.index(link, &mut may_make) {
            return index.get(key);
        }
        at = entry.next;
    }
    None
}

/// A link in a box of its own, for a context that owns several.
pub(crate) struct Boxed(ValueRef);

// SAFETY: the value in it is `Send + Sync`, by the bounds of who makes one.
unsafe impl Send for Boxed {}
// SAFETY: as above.
unsafe impl Sync for Boxed {}

impl Boxed {
    pub(crate) fn new<T: Send + Sync + 'static>(key: &'static Key<T>, value: T) -> Self {
        Boxed(NonNull::from(Box::leak(Box::new(Typed::new(key, value)))).cast())
    }

    /// A link that shows, for each key, the value of the first of `chains` that has it.
    pub(crate) fn fork(chains: &[Option<ValueRef>]) -> Self {
        let mut index = Index::with_capacity(0);
        for chain in chains.iter().copied().flatten() {
            index.add_chain(chain);
        }
        let mut entry = Entry::new::<()>(std::ptr::null());
        entry.index = AtomicPtr::new(Box::into_raw(Box::new(index)));
        let fork = Typed { entry, key: None::<&'static Key<()>>, value: () };
        Boxed(NonNull::from(Box::leak(Box::new(fork))).cast())
    }

    /// Puts it in front of a chain; whoever holds the chain frees it.
    fn link(self, next: Option<ValueRef>) -> ValueRef {
        let mut link = std::mem::ManuallyDrop::new(self).0;
        // SAFETY: nobody else has it yet.
        unsafe { link.as_mut() }.link(next);
        link
    }
}

impl Drop for Boxed {
    fn drop(&mut self) {
        // SAFETY: made by `new` or `fork`, and not linked.
        unsafe { free_boxed(self.0) };
    }
}

/// The values that a context is going to own, the nearest first.
pub(crate) struct Own {
    first: Option<ValueRef>,
    len: usize,
}

// SAFETY: as for a `Boxed`.
unsafe impl Send for Own {}
// SAFETY: as above.
unsafe impl Sync for Own {}

impl Own {
    pub(crate) const fn none() -> Self {
        Own { first: None, len: 0 }
    }

    pub(crate) fn push(&mut self, value: Boxed) {
        self.first = Some(value.link(self.first));
        self.len += 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Puts them in front of `outer`; whoever holds the chain frees them.
    pub(crate) fn link(self, outer: Option<ValueRef>) -> Option<ValueRef> {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: belongs to an ancestor of the context that is going to own these (V1).
        let mut depth = outer.map_or(0, |outer| unsafe { outer.as_ref() }.depth) + this.len;
        let mut at = this.first;
        while let Some(mut link) = at {
            // SAFETY: nobody else has it yet.
            let entry = unsafe { link.as_mut() };
            entry.depth = depth;
            depth -= 1;
            at = entry.next;
            if at.is_none() {
                entry.next = outer;
            }
        }
        this.first.or(outer)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let mut panics = Panics::new();
        while let Some(link) = self.first {
            // SAFETY: the chain is this one's alone.
            self.first = unsafe { next(link) };
            // SAFETY: as above.
            panics.catch(|| unsafe { free_boxed(link) });
        }
        panics.resume();
    }
}

/// Frees a [`Boxed`] link and drops its value.
///
/// # Safety
/// The link was made as a [`Boxed`], and nobody uses it any more.
pub(crate) unsafe fn free_boxed(link: ValueRef) {
    // SAFETY: by the contract.
    let free = unsafe { link.as_ref() }.free;
    // SAFETY: made for the type that it holds.
    unsafe { free(link) };
}

/// The link outward of `link`.
///
/// # Safety
/// The link is valid.
pub(crate) unsafe fn next(link: ValueRef) -> Option<ValueRef> {
    // SAFETY: by the contract.
    unsafe { link.as_ref() }.next
}

/// Writes a link's name, and its value if its key is visible; nothing for a fork.
///
/// # Safety
/// The link is valid.
pub(crate) unsafe fn describe_link(link: ValueRef, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // SAFETY: by the contract.
    let describe = unsafe { link.as_ref() }.describe;
    // SAFETY: made for the type that it holds.
    unsafe { describe(link, f) }
}

unsafe fn describe<T: 'static>(link: ValueRef, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // SAFETY: stored in the entry of a `Typed<T>`.
    let typed = unsafe { link.cast::<Typed<T>>().as_ref() };
    typed.key.map_or(Ok(()), |key| key.describe(&typed.value, f))
}

unsafe fn free<T: 'static>(link: ValueRef) {
    // SAFETY: stored in the entry of a boxed `Typed<T>`.
    drop(unsafe { Box::from_raw(link.cast::<Typed<T>>().as_ptr()) });
}

/// Open addressing over the addresses of keys.
struct Index {
    slots: Box<[Option<(*const (), ValueRef)>]>,
    len: usize,
}

impl Index {
    fn with_capacity(len: usize) -> Self {
        Index { slots: vec![None; (len * 2).next_power_of_two().max(2 * STRIDE)].into(), len: 0 }
    }

    fn get(&self, key: *const ()) -> Option<ValueRef> {
        self.slots[self.slot(key)].map(|(_, entry)| entry)
    }

    /// Where `key` is, or would be. There always is a free slot.
    fn slot(&self, key: *const ()) -> usize {
        let mask = self.slots.len() - 1;
        // Fibonacci hashing: keys lie at multiples of 8 or so; the product's high half mixes all of the address.
        let hash = (key.addr() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let mut slot = usize::try_from(hash).unwrap_or(0) & mask;
        while self.slots[slot].is_some_and(|(other, _)| other != key) {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Adds what `chain` shows and this does not have yet.
    fn add_chain(&mut self, chain: ValueRef) {
        let mut at = Some(chain);
        while let Some(link) = at {
            // SAFETY: V1.
            let entry = unsafe { link.as_ref() };
            if !entry.key.is_null() {
                self.add(entry.key, link);
            }
            // SAFETY: set once and freed with the entry.
            if let Some(index) = unsafe { entry.index.load(Ordering::Acquire).as_ref() } {
                for (key, link) in index.slots.iter().flatten() {
                    self.add(*key, *link);
                }
                return;
            }
            at = entry.next;
        }
    }

    fn add(&mut self, key: *const (), entry: ValueRef) {
        if (self.len + 1) * 2 > self.slots.len() {
            let mut larger = Index::with_capacity(self.len * 2);
            for (key, link) in self.slots.iter().flatten() {
                larger.add(*key, *link);
            }
            *self = larger;
        }
        let slot = self.slot(key);
        if self.slots[slot].is_none() {
            self.slots[slot] = Some((key, entry));
            self.len += 1;
        }
    }
}

#[cfg(all(test, not(purview_loom)))]
mod tests {
    use super::*;

    #[test]
    fn c25_indexes_are_made_every_eight_links_or_an_eighth_of_what_the_last_one_holds() {
        const DEPTH: usize = 256;
        static KEYS: [Key<u32>; DEPTH] = [const { Key::new("key") }; DEPTH];
        static MISSING: Key<u32> = Key::new("missing");
        let mut ctx = Context::background();
        let (mut last, mut expected) = (0, Vec::new());
        for (key, depth) in KEYS.iter().zip(1..) {
            ctx = ctx.with_value(key, 0);
            assert!(ctx.value(&MISSING).is_none());
            if depth % STRIDE == 0 && depth - last >= STRIDE.max(last / STRIDE) {
                last = depth;
                expected.push(depth);
            }
            // SAFETY: the context has it.
            let entry = unsafe { ctx.as_ref().head().values.expect("its own").as_ref() };
            let (way, index) = entry.way_to_index();
            assert_eq!((way, index.map_or(0, |index| index.len)), (depth - last, last));
            assert!(index.is_none_or(|index| index.slots.len() >= 2 * index.len));
        }
        let mut made = Vec::new();
        let mut at = ctx.as_ref().head().values;
        while let Some(link) = at {
            // SAFETY: V1.
            let entry = unsafe { link.as_ref() };
            if !entry.index.load(Ordering::Acquire).is_null() {
                made.insert(0, entry.depth);
            }
            at = entry.next;
        }
        assert_eq!(made, expected);
        assert!(made.len() > 8 && made[..8].iter().eq(&[8, 16, 24, 32, 40, 48, 56, 64]));
    }
}
