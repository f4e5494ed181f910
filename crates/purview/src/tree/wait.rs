//! Entering and leaving a node's list of waiters.
#![expect(unsafe_code, reason = "waiters lie in futures and callbacks, and are listed by pointer")]

use crate::sync::Ordering;
use crate::waiter::{Waiter, Who};

use super::Node;

impl Node {
    /// Lists `waiter` as `who`, at the end, or changes who it is if it is listed. Gives back what it was before; or, where
    /// the node has ended, `who` itself. What is given back is the user's and is dropped by the caller, with no lock held.
    ///
    /// After `Ok`, the caller calls [`watch`](Node::watch) and looks once more whether the node has ended.
    ///
    /// # Safety
    /// The waiter waits at this node only, and does not move or go before it has [left](Node::leave) (W2).
    pub(crate) unsafe fn enroll(&self, waiter: &Waiter, who: Who) -> Result<Who, Who> {
        let mut lists = self.lists();
        if self.state.done().is_some() {
            return Err(who); // I3
        }
        if !waiter.link.is_linked() {
            // SAFETY: in no list, and stays by this function's contract.
            unsafe { lists.waiters.push_back(&waiter.link, waiter) };
            self.count_of(&who).fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the lock is held (W1).
        Ok(unsafe { waiter.who(|place| std::mem::replace(place, who)) })
    }

    /// Takes `waiter` out. Gives back who it was: nobody, if it has been taken out to be woken.
    ///
    /// # Safety
    /// The waiter waits at this node or at none.
    pub(crate) unsafe fn leave(&self, waiter: &Waiter) -> Who {
        let mut lists = self.lists();
        // SAFETY: in this list or in none.
        if !unsafe { lists.waiters.remove(&waiter.link) } {
            return Who::Nobody;
        }
        // SAFETY: the lock is held (W1).
        let who = unsafe { waiter.who(|place| std::mem::replace(place, Who::Nobody)) };
        self.count_of(&who).fetch_sub(1, Ordering::Relaxed);
        who
    }

    /// Whether `waiter` is listed and waking it wakes the same task as `waker`.
    pub(crate) fn would_wake(&self, waiter: &Waiter, waker: &std::task::Waker) -> bool {
        let _lists = self.lists();
        // SAFETY: the lock is held (W1). `will_wake` compares two pointers and runs nothing of the user's.
        let same =
            unsafe { waiter.who(|who| matches!(who, Who::Task(task) if task.will_wake(waker))) };
        same && waiter.link.is_linked()
    }

    pub(super) fn count_of(&self, who: &Who) -> &crate::sync::AtomicU32 {
        match who {
            Who::Callback(_) => &self.counts.callbacks,
            Who::Task(_) | Who::Nobody => &self.counts.waiters,
        }
    }
}
