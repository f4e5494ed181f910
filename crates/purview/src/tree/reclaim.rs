//! What happens when the last handle of a context goes: it leaves its parent and the timer, drops its values, and gives its
//! parent's handle up, which may be the last of that one. A loop, not recursion: chains may be a million long (C13).
#![expect(unsafe_code, reason = "frees what nobody can reach any more")]

use std::ptr::NonNull;

use crate::error::Error;
use crate::state::Done;
use crate::sync::Ordering;
use crate::value;

use super::node::{UNCOUNTED, UNLISTED};
use super::{Head, Job, Node, Panics};

/// A context whose last handle is gone. To be reclaimed where it is allowed to run the user's code.
#[must_use]
pub(crate) struct Dead(NonNull<Head>);

// SAFETY: what it points at is `Send`, and nobody else's.
unsafe impl Send for Dead {}

impl Dead {
    /// Gives a handle up; Some if it was the last.
    ///
    /// # Safety
    /// The caller has a count of `head`, and gives it up.
    #[inline]
    pub(super) unsafe fn release(head: NonNull<Head>) -> Option<Dead> {
        // SAFETY: the count that is given up keeps it so far.
        let strong = unsafe { &head.as_ref().strong };
        // Acquire: what the others did with it happens before it is reclaimed. Pairs with the Release below.
        let mut count = strong.load(Ordering::Acquire);
        loop {
            match count {
                UNCOUNTED => return None,
                // SAFETY: the caller's count is the only one.
                1 => return unsafe { Dead::last(head) },
                // Release: what this handle's user did happens before the reclaim. Never to 0: the shards come first.
                _ => match strong.compare_exchange_weak(
                    count,
                    count - 1,
                    Ordering::Release,
                    Ordering::Acquire,
                ) {
                    Ok(_) => return None,
                    Err(now) => count = now,
                },
            }
        }
    }

    /// The only count there is. Nobody can clone it; but who finds the node in a list or in the timer can, under that
    /// one's lock. So it is taken out there first, and then it is seen whether somebody has. And where shards keep the node
    /// for children, they take the count over.
    unsafe fn last(head: NonNull<Head>) -> Option<Dead> {
        // SAFETY: kept by the caller's count.
        let context = unsafe { head.as_ref() };
        if context.is_layer() {
            return Some(Dead(head));
        }
        // SAFETY: as above, and what is not a layer is a node.
        let node = unsafe { head.cast::<Node>().as_ref() };
        if !node.orphan() {
            node.unlink();
            node.disarm();
            if context.strong.load(Ordering::Acquire) == 1 {
                return Some(Dead(head));
            }
        }
        // SAFETY: the caller's count. There are others now, so this ends; whoever has them gives them up in the same way.
        unsafe { Dead::release(head) }
    }

    /// Gives up what a child or a registration had of `head`; Some if that was the last.
    ///
    /// # Safety
    /// That was a count; or, of a node, that its shard `keeper` kept it.
    #[inline]
    pub(super) unsafe fn release_kept(head: NonNull<Head>, keeper: u8) -> Option<Dead> {
        if keeper != UNLISTED {
            // SAFETY: the shard keeps it so far. Its lock is the last that is touched, unless a count is taken over.
            if !unsafe { head.cast::<Node>().as_ref() }.give_up(keeper) {
                return None;
            }
        }
        // SAFETY: the count is the caller's.
        unsafe { Dead::release(head) }
    }

    /// Frees it on the spot, and goes on with a panic of the user's code.
    #[cold]
    fn reclaim_slowly(self) {
        let mut panics = Panics::new();
        self.reclaim(&mut panics);
        panics.resume();
    }

    /// Frees it where user code may run. Most contexts own nothing and have a parent that lives on: that is all there is to it.
    #[inline]
    pub(super) fn reclaim_here(self) {
        let head = self.0;
        // SAFETY: nobody else has it.
        if unsafe { head.as_ref() }.is_layer() || crate::observe::observer().is_some() {
            return self.reclaim_slowly();
        }
        // SAFETY: what is not a layer is a node.
        let node = unsafe { head.cast::<Node>().as_ref() };
        if !node.owns_nothing() {
            return self.reclaim_slowly();
        }
        let (parent, keeper) = (node.head.parent, node.keeper.load(Ordering::Relaxed));
        // SAFETY: the count that all handles together had.
        unsafe { Node::release_own_memory(head.cast()) };
        // SAFETY: what the freed context had.
        let last = parent.and_then(|parent| unsafe { Dead::release_kept(parent, keeper) });
        if let Some(dead) = last {
            dead.reclaim_slowly();
        }
    }

    /// Frees the context, and its ancestors as far as this was what kept them. Deep inside other drops: soon (see `drops.rs`).
    #[inline]
    pub(crate) fn reclaim(self, panics: &mut Panics) {
        Job::Context(self).run(panics);
    }

    pub(super) fn reclaim_now(self, panics: &mut Panics) {
        let mut next = Some(self);
        let mut others = Vec::new(); // further parents of merged contexts
        while let Some(dead) = next.take() {
            let parent = dead.free(&mut others, panics);
            // SAFETY: what the freed context had.
            next =
                parent.and_then(|(parent, keeper)| unsafe { Dead::release_kept(parent, keeper) });
            while next.is_none() {
                let Some(parent) = others.pop() else { break };
                // SAFETY: as above.
                next = unsafe { Dead::release(parent) };
            }
        }
    }

    /// Frees this one; its parents' counts are the caller's now.
    fn free(
        self,
        others: &mut Vec<NonNull<Head>>,
        panics: &mut Panics,
    ) -> Option<(NonNull<Head>, u8)> {
        let head = self.0;
        // SAFETY: nobody else can reach it but by a list or a heap, which only look at its count and its fixed fields; so a
        // shared reference, until it is out of those.
        let context = unsafe { head.as_ref() };
        let id = context.id;
        let parent = context.parent;
        if let Some(free) = context.free_layer() {
            // SAFETY: made for this layer. A value that panics in its drop does not keep the layer from being freed.
            panics.catch(|| unsafe { free(head) });
            note_dropped(id, panics);
            return parent.map(|parent| (parent, UNLISTED));
        }
        let node = head.cast::<Node>();
        // SAFETY: a head without `free_layer` is a node's.
        let context = unsafe { node.as_ref() };
        let keeper = context.keeper.load(Ordering::Relaxed);
        if let (Some(observer), Some(done)) = (crate::observe::observer(), context.state().done()) {
            if !done.is_claimed() {
                panics.catch(|| observer.done(id, &Error::new(Done::ending(done))));
            }
        }
        note_dropped(id, panics);
        let mut own = context.head.values;
        for _ in 0..context.own_values() {
            let Some(link) = own else { break };
            // SAFETY: a link of this node's own, in front of its parent's.
            own = unsafe { value::next(link) };
            // SAFETY: as above, and nobody looks any more.
            panics.catch(|| unsafe { value::free_boxed(link) });
        }
        let (mut merged, mut manual) = (None, None);
        if let Some(extra) = context.extra() {
            // SAFETY: moved out once, here; what frees the node leaves it alone.
            merged = unsafe { std::ptr::read(&raw const *extra.merged) };
            // SAFETY: as above.
            manual = unsafe { std::ptr::read(&raw const *extra.manual) };
        }
        let parent = parent.filter(|_| merged.is_none());
        for link in merged.into_iter().flatten() {
            others.extend(link.parent.map(super::Ref::into_raw));
        }
        drop(manual);
        // SAFETY: the count that all handles together had. A cause that panics in its drop is caught.
        panics.catch(|| unsafe { Node::release_memory(node) });
        parent.map(|parent| (parent, keeper))
    }
}

fn note_dropped(id: crate::ContextId, panics: &mut Panics) {
    if let Some(observer) = crate::observe::observer() {
        panics.catch(|| observer.dropped(id));
    }
}
