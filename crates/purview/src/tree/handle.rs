//! The counted pointer to a context.
#![expect(unsafe_code, reason = "a handle is a count of what it points at")]

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use crate::sync::{AtomicU32, Ordering};

use super::node::UNLISTED;
use super::{Dead, Head, Node};

/// A strong pointer to a context.
#[repr(transparent)]
pub(crate) struct Ref(pub(super) NonNull<Head>);

// SAFETY: a counted pointer to what is `Send + Sync`.
unsafe impl Send for Ref {}
// SAFETY: as above.
unsafe impl Sync for Ref {}

impl Ref {
    /// A static root.
    #[cfg(not(all(test, purview_loom)))]
    pub(super) const fn to_static(node: &'static Node) -> Ref {
        // SAFETY: a reference is not null; a node begins with its head.
        Ref(unsafe { NonNull::new_unchecked((&raw const *node).cast_mut().cast::<Head>()) })
    }

    /// A handle of a node that is only known to be in memory: None once its last handle is gone.
    pub(crate) fn upgrade(node: NonNull<Node>) -> Option<Ref> {
        // SAFETY: the caller found it in a list or a heap, under that one's lock (I1, T2).
        let strong = &unsafe { node.as_ref() }.head.strong;
        let mut count = strong.load(Ordering::Relaxed);
        while count != 0 {
            if count > MOST {
                std::process::abort(); // as in `count_up`
            }
            match strong.compare_exchange_weak(
                count,
                count + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(Ref(node.cast())),
                Err(now) => count = now,
            }
        }
        None
    }

    /// The pointer, with the count that this handle is.
    pub(super) fn into_raw(self) -> NonNull<Head> {
        ManuallyDrop::new(self).0
    }

    #[inline]
    pub(crate) fn head(&self) -> &Head {
        // SAFETY: this handle keeps it.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub(crate) fn scope(&self) -> &Node {
        self.head().scope()
    }

    /// The node itself, of a handle to a node and not to a value layer.
    #[inline]
    pub(super) fn node(&self) -> NonNull<Node> {
        self.0.cast()
    }

    /// Gives the handle up. If it was the last, what is left of the context is to be reclaimed by the caller.
    #[must_use]
    pub(crate) fn release(self) -> Option<Dead> {
        // SAFETY: the handle is given up.
        unsafe { Dead::release(self.into_raw()) }
    }
}

impl Clone for Ref {
    #[inline]
    fn clone(&self) -> Ref {
        let head = self.head();
        if head.is_counted() {
            count_up(&head.strong);
        }
        Ref(self.0)
    }
}

impl Drop for Ref {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the handle is given up.
        if let Some(dead) = unsafe { Dead::release(self.0) } {
            dead.reclaim_here();
        }
    }
}

/// A context for as long as a registration lasts: by a count, or by one of its shards, at which threads don't meet.
pub(crate) struct Kept {
    context: ManuallyDrop<Ref>,
    keeper: u8,
}

impl Kept {
    pub(crate) fn by_count(context: &Ref) -> Kept {
        Kept { context: ManuallyDrop::new(context.clone()), keeper: UNLISTED }
    }

    /// The shard has been told.
    pub(super) fn by_shard(context: &Ref, shard: u8) -> Kept {
        Kept { context: ManuallyDrop::new(Ref(context.0)), keeper: shard }
    }

    pub(crate) fn context(&self) -> &Ref {
        &self.context
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: by what this is; it is given up.
        if let Some(dead) = unsafe { Dead::release_kept(self.context.0, self.keeper) } {
            dead.reclaim_here();
        }
    }
}

/// More cannot be counted safely: 16 GiB of handles, if they are not forgotten.
pub(super) const MOST: u32 = u32::MAX / 2;

/// Adds one, as `Arc` does: without ordering, since the caller has a count already, and never past what can be counted.
#[inline]
pub(super) fn count_up(count: &AtomicU32) {
    if count.fetch_add(1, Ordering::Relaxed) > MOST {
        std::process::abort();
    }
}

#[cfg(all(test, not(purview_loom)))]
mod tests {
    use super::MOST;
    use crate::Context;
    use crate::sync::Ordering;

    /// Runs this test again, in a child, which is to say "the last" and end before it says "one too many". False in that child.
    fn ends_a_child() -> bool {
        const IS_CHILD: &str = "PURVIEW_FAULT";
        if std::env::var_os(IS_CHILD).is_some() {
            return false;
        }
        let name = std::thread::current().name().map(str::to_string);
        let mut child = std::process::Command::new(std::env::current_exe().expect("known"));
        child.args(["--exact", "--nocapture", &name.unwrap_or_default()]).env(IS_CHILD, "1");
        let output = child.output().expect("started as this was");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains("the last"), "{said}");
        assert!(!said.contains("one too many"), "{said}");
        true
    }

    #[test]
    fn f32_more_handles_than_can_be_counted_end_the_process_before_the_count_comes_round() {
        if ends_a_child() {
            return;
        }
        let (ctx, guard) = Context::background().with_cancel();
        // As if all but one of them had been forgotten.
        let strong = &ctx.as_ref().head().strong;
        strong.store(MOST - 1, Ordering::Relaxed);
        let (child, _guard) = guard.context().with_cancel();
        std::mem::forget((ctx.clone(), child));
        println!("the last");
        std::mem::forget(ctx.clone());
        println!("one too many");
    }

    #[test]
    fn f32_more_children_than_a_shard_can_count_end_the_process() {
        if ends_a_child() {
            return;
        }
        let (ctx, _guard) = Context::background().with_cancel();
        ctx.scope().split();
        // All on this thread, and so in one shard.
        ctx.scope().hold().set_kept(MOST);
        std::mem::forget(ctx.with_cancel());
        println!("the last");
        std::mem::forget(ctx.with_cancel());
        println!("one too many");
    }
}
