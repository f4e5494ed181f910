//! Who has to hear of a node's end: its children and its waiters, in one list, or, where threads collide, in several.
//!
//! One word. At first it is the head of a [list](crate::list), guarded by the node's own lock. Where that lock is found taken
//! a few times, the list becomes the first of [`SHARDS`] lists, each with a lock and a cache line of its own, and each
//! thread puts what it adds into its own shard: from then on threads that derive from one parent, or wait for one context,
//! don't meet. A kilobyte is too much for a request's context and nothing for a server's root, which is where they meet.
//!
//! # Invariants
//! - **D1** The word is written under the node's lock. Once it points at shards it does not change any more.
//! - **D2** What is listed knows its shard, and is taken out under that one's lock.
//! - **D3** Who adds looks at the node's state under the lock of the list it adds to. Who ends a node sets the state first,
//!   and then takes the lock of each list: what is added is seen by him, or sees the end.
#![expect(unsafe_code, reason = "the word is a pointer to a list's first or to shards")]

use std::ptr::NonNull;

use crate::list::{Head, Item, Link, Tag};
use crate::sync::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, Lock, Locked, MODELED, Ordering};

use super::handle::MOST;
use super::node::UNLISTED;
use super::parts::{Cursor, Merged};
use super::{Node, count_up};
use crate::order::thread_number;

/// Lists of a node that is in demand. A power of two.
pub(crate) const SHARDS: usize = if MODELED { 2 } else { 8 };

/// How often a lock is found taken before there are shards: once or twice is chance.
const HOT: u8 = if MODELED { 1 } else { 4 };

pub(crate) struct Dependents(AtomicPtr<Link>);

/// Two cache lines: processors fetch lines in pairs.
#[repr(align(128))]
struct Shard {
    lock: Lock,
    head: AtomicPtr<Link>,
    /// Children that keep the node through this shard, and not by a count each (see `reclaim.rs`). Under the lock, as the
    /// next.
    kept: AtomicU32,
    /// Whether the node's handles are gone, and the shard has a count of it in their stead until `kept` is 0.
    orphaned: AtomicBool,
}

struct Shards([Shard; SHARDS]);

const _: () = assert!(align_of::<Link>() >= 8, "two tags and this one lie below a link's address");
const IN_SHARDS: usize = 0b100;

impl Dependents {
    #[cfg(not(all(test, purview_loom)))]
    pub(super) const fn new() -> Self {
        Dependents(AtomicPtr::new(std::ptr::null_mut()))
    }

    #[cfg(all(test, purview_loom))]
    pub(super) fn new() -> Self {
        Dependents(AtomicPtr::new(std::ptr::null_mut()))
    }

    #[inline]
    fn shards(&self) -> Option<&[Shard; SHARDS]> {
        let word = self.0.load(Ordering::Acquire);
        if word.addr() & IN_SHARDS == 0 {
            return None;
        }
        let shards = word.map_addr(|address| address & !IN_SHARDS).cast::<Shards>();
        // SAFETY: made by `split`, and freed with this.
        Some(unsafe { &(*shards).0 })
    }

    /// The lock of the node is held. Makes the list the first of several.
    #[cold]
    fn split(&self) {
        let shards = Box::new(Shards(std::array::from_fn(|_| Shard {
            lock: Lock::new(),
            head: AtomicPtr::new(std::ptr::null_mut()),
            kept: AtomicU32::new(0),
            orphaned: AtomicBool::new(false),
        })));
        shards.0[0].head.store(self.0.load(Ordering::Relaxed), Ordering::Relaxed);
        let word = Box::into_raw(shards).cast::<Link>();
        self.0.store(word.map_addr(|address| address | IN_SHARDS), Ordering::Release);
    }
}

impl Drop for Dependents {
    fn drop(&mut self) {
        let word = self.0.load(Ordering::Relaxed);
        if word.addr() & IN_SHARDS != 0 {
            let shards = word.map_addr(|address| address & !IN_SHARDS).cast::<Shards>();
            // SAFETY: made by `split`; nobody looks any more.
            drop(unsafe { Box::from_raw(shards) });
        }
    }
}

/// A list of a node's, locked.
pub(super) struct Held<'a> {
    pub(super) list: Head,
    pub(super) shard: u8,
    word: &'a AtomicPtr<Link>,
    of: Option<&'a Shard>,
    lock: Locked<'a>,
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        self.word.store(self.list.0.word(), Ordering::Relaxed); // the lock is let go after this
    }
}

impl<'a> Held<'a> {
    #[inline]
    fn new(word: &'a AtomicPtr<Link>, of: Option<(u8, &'a Shard)>, lock: Locked<'a>) -> Self {
        let list = Head(Item::from_word(word.load(Ordering::Relaxed)));
        let (shard, of) = of.map_or((0, None), |(number, shard)| (number, Some(shard)));
        Held { list, shard, word, of, lock }
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.lock.is_awaited()
    }

    /// Has the shard, if it is one, keep the node for one more child.
    #[inline]
    pub(super) fn keep(&self) -> bool {
        let Some(shard) = self.of else { return false };
        let kept = shard.kept.load(Ordering::Relaxed);
        if kept > MOST {
            std::process::abort(); // as in `count_up`
        }
        shard.kept.store(kept + 1, Ordering::Relaxed);
        true
    }

    /// As if the shard kept the node for `kept` children.
    #[cfg(test)]
    pub(super) fn set_kept(&self, kept: u32) {
        let shard = self.of.expect("a shard");
        shard.kept.store(kept, Ordering::Relaxed);
    }

    /// For one fewer. True if that was the last of an orphaned shard, whose count is the caller's now.
    fn give_up(&self) -> bool {
        let Some(shard) = self.of else { return false };
        let kept = shard.kept.load(Ordering::Relaxed) - 1;
        shard.kept.store(kept, Ordering::Relaxed);
        let last = kept == 0 && shard.orphaned.load(Ordering::Relaxed);
        if last {
            shard.orphaned.store(false, Ordering::Relaxed);
        }
        last
    }

    /// Has the shard take a count of the node, if it keeps it for anybody.
    fn orphan(&self) -> bool {
        let keeps = self.of.filter(|shard| shard.kept.load(Ordering::Relaxed) > 0);
        keeps.is_some_and(|shard| !shard.orphaned.swap(true, Ordering::Relaxed))
    }
}

impl Node {
    /// Locks the list that this thread adds to.
    #[inline]
    pub(super) fn hold(&self) -> Held<'_> {
        if self.dependents.shards().is_none() {
            let lock = match self.lock.try_lock() {
                Some(lock) => Some(lock),
                None => self.contended(),
            };
            if let Some(held) = lock.and_then(|lock| self.held(lock)) {
                return held;
            }
        }
        self.hold_shard(thread_number() % SHARDS)
    }

    /// After a batch of a walk over the list of `shard`, whose lock has been released: lets a thread that waited for it in.
    #[cold]
    pub(super) fn stay_away(&self, shard: usize) {
        let lock = self.dependents.shards().map_or(&self.lock, |shards| &shards[shard].lock);
        let _ = lock.stay_away();
    }

    /// Locks the list that something is in.
    #[inline]
    pub(super) fn hold_shard(&self, shard: usize) -> Held<'_> {
        if self.dependents.shards().is_none() {
            if let Some(held) = self.held(self.lock.lock()) {
                return held;
            }
        }
        match self.dependents.shards() {
            Some(shards) => {
                let of = &shards[shard];
                Held::new(&of.head, Some((shard as u8, of)), of.lock.lock())
            }
            None => self.hold_shard(shard), // not so: it is split for good
        }
    }

    /// The one list, if it is not split.
    #[inline]
    fn held<'a>(&'a self, lock: Locked<'a>) -> Option<Held<'a>> {
        if self.dependents.0.load(Ordering::Relaxed).addr() & IN_SHARDS != 0 {
            return None;
        }
        Some(Held::new(&self.dependents.0, None, lock))
    }

    /// Of a node whose last handle is about to go: has each shard that keeps it for a child take a count. True if any has.
    #[inline]
    pub(super) fn orphan(&self) -> bool {
        self.dependents.shards().is_some() && self.orphan_shards()
    }

    #[cold]
    fn orphan_shards(&self) -> bool {
        let mut any = false;
        for shard in 0..SHARDS {
            let held = self.hold_shard(shard);
            if held.orphan() {
                count_up(&self.head.strong);
                any = true;
            }
        }
        any
    }

    /// A child that was kept by a shard is gone. True if the shard's count of this node is the caller's now.
    pub(super) fn give_up(&self, shard: u8) -> bool {
        self.hold_shard(usize::from(shard)).give_up()
    }

    /// The lock was taken: waits for it, and notes that; None, if there are shards now.
    #[cold]
    fn contended(&self) -> Option<Locked<'_>> {
        let lock = self.lock.lock();
        let heat = self.heat.load(Ordering::Relaxed).saturating_add(1);
        self.heat.store(heat, Ordering::Relaxed);
        if self.dependents.shards().is_some() {
            return None;
        }
        if heat >= HOT {
            self.dependents.split();
            return None;
        }
        Some(lock)
    }

    /// As if it had been in demand.
    #[cfg(test)]
    pub(crate) fn split(&self) {
        let _lock = self.lock.lock();
        self.dependents.split();
    }

    /// How many lists there are: one, or one a shard. A thread that has to see all of them asks again after each lock it takes
    /// here: a split by another thread is certain to be seen only after that.
    pub(super) fn lists(&self) -> usize {
        if self.dependents.shards().is_some() { SHARDS } else { 1 }
    }

    /// Whether nobody is listed, and there are no shards. It lasts as long as the caller holds the node's lock; and for ever,
    /// once the node is done and its lock has been taken after that (D3).
    #[inline]
    pub(super) fn is_leaf(&self) -> bool {
        self.dependents.0.load(Ordering::Relaxed).is_null()
    }

    /// Of a node that is done: whether it has no child to be ended, and never will (D3). Of one with shards it is not known.
    #[inline]
    pub(super) fn is_childless(&self) -> bool {
        let childless = |list: Item| list.is_none() || list.tag() == Tag::Waiter;
        let seems = |node: &Node| {
            let word = node.dependents.0.load(Ordering::Relaxed);
            word.addr() & IN_SHARDS == 0 && childless(Item::from_word(word))
        };
        seems(self) && {
            let _lock = self.lock.lock();
            seems(self)
        }
    }

    /// Visits all that is listed, each list under its lock, which is let go every so often: a cursor keeps the place.
    /// Somebody may empty a list meanwhile; then what was in it is no longer this walk's to visit.
    pub(super) fn for_each(&self, mut visit: impl FnMut(Item)) {
        let cursor = Cursor::new();
        let mut shard = 0;
        while shard < self.lists() {
            let mut at = None;
            loop {
                let mut held = self.hold_shard(shard);
                let first = held.list.0;
                let mut item = match at {
                    None => first,
                    Some(()) if cursor.listed().is_none() => break,
                    Some(()) => {
                        let here = cursor.item();
                        // SAFETY: linked, and the lock is held.
                        let next = unsafe { here.next() };
                        let was_last = next == held.list.0;
                        // SAFETY: as above.
                        unsafe { held.list.remove(here) };
                        cursor.set_linked(None);
                        if was_last { Item::NONE } else { next }
                    }
                };
                let mut walked = 0;
                while !item.is_none() {
                    if item.tag() != Tag::Cursor {
                        visit(item);
                    }
                    // SAFETY: in the list, whose lock is held.
                    let next = unsafe { item.next() };
                    walked += 1;
                    if next == held.list.0 {
                        item = Item::NONE;
                    } else if walked == super::BATCH {
                        // SAFETY: the cursor is in no list; it leaves this one above, or is taken out by a sweep.
                        unsafe { held.list.put_behind(item, cursor.item()) };
                        cursor.set_linked(Some(held.shard));
                        at = Some(());
                        break;
                    } else {
                        item = next;
                    }
                }
                let awaited = held.is_awaited();
                drop(held);
                if item.is_none() {
                    break;
                }
                if awaited {
                    self.stay_away(shard); // a cancel, maybe: it must not wait for the whole walk, or for walk after walk
                }
            }
            shard += 1;
        }
    }

    /// Children, waiting tasks and threads, and callbacks.
    pub(crate) fn counts(&self) -> [usize; 3] {
        let mut counts = [0; 3];
        // SAFETY: a child in the list, whose lock is held.
        let is_live = |child: NonNull<Node>| unsafe { child.as_ref() }.state().done().is_none();
        self.for_each(|item| match item.tag() {
            // SAFETY: as above.
            Tag::Child => counts[0] += usize::from(is_live(unsafe { Node::of_item(item) })),
            // SAFETY: as above.
            Tag::Merged => counts[0] += usize::from(is_live(unsafe { Merged::of(item) }.node)),
            Tag::Waiter => {
                // SAFETY: a waiter in the list, whose lock is held.
                let callback = unsafe { crate::waiter::Waiter::is_callback(item) };
                counts[1 + usize::from(callback)] += 1;
            }
            Tag::Cursor => {}
        });
        counts
    }
}

impl Cursor {
    fn new() -> Cursor {
        Cursor { link: Link::new(), listed: AtomicU8::new(UNLISTED) }
    }

    pub(super) fn item(&self) -> Item {
        Item::new(std::ptr::from_ref(self).cast(), Tag::Cursor)
    }

    /// The cursor of an item that is one's.
    ///
    /// # Safety
    /// The item is listed, and its list's lock is held.
    pub(super) unsafe fn of<'a>(item: Item) -> &'a Cursor {
        // SAFETY: by the contract; its link is what it begins with.
        unsafe { &*item.link().cast() }
    }

    fn listed(&self) -> Option<usize> {
        let shard = self.listed.load(Ordering::Relaxed);
        (shard != UNLISTED).then_some(usize::from(shard))
    }

    /// Under the list's lock.
    pub(super) fn set_linked(&self, shard: Option<u8>) {
        self.listed.store(shard.unwrap_or(UNLISTED), Ordering::Relaxed);
    }
}
