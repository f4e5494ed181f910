//! Entering and leaving a node's list of waiters.
#![expect(unsafe_code, reason = "waiters lie in futures and callbacks, and are listed by pointer")]

use crate::order;
use crate::waiter::{Waiter, Who};

use super::dependents::Held;
use super::{Kept, Node, Ref};

impl Node {
    /// Lists `waiter` as `who`, at the end. Where the node has ended it gives `who` back.
    ///
    /// After `Ok`, the caller calls [`watch`](Node::watch) and looks once more whether the node has ended.
    ///
    /// # Safety
    /// The waiter is in no list, and does not move or go before it has [left](Node::leave) (W2).
    #[inline]
    pub(crate) unsafe fn enroll(&self, waiter: &Waiter, who: Who) -> Result<(), Who> {
        // SAFETY: by the contract.
        unsafe { self.enroll_and(waiter, who, |_| ()) }
    }

    /// The same, and keeps `context`, which is this node's, for as long as the waiter's owner likes.
    ///
    /// # Safety
    /// As for [`enroll`](Self::enroll).
    #[inline]
    pub(crate) unsafe fn enroll_kept(
        &self,
        context: &Ref,
        waiter: &Waiter,
        who: Who,
    ) -> Result<Kept, Who> {
        let keep = |held: &Held<'_>| {
            let keeps = !context.head().is_layer() && held.keep();
            keeps.then_some(held.shard)
        };
        // SAFETY: by the contract.
        let shard = unsafe { self.enroll_and(waiter, who, keep) }?;
        Ok(match shard {
            Some(shard) => Kept::by_shard(context, shard),
            None => Kept::by_count(context),
        })
    }

    #[inline]
    unsafe fn enroll_and<R>(
        &self,
        waiter: &Waiter,
        who: Who,
        also: impl FnOnce(&Held<'_>) -> R,
    ) -> Result<R, Who> {
        let mut held = self.hold();
        if self.state().done().is_some() {
            return Err(who); // D3
        }
        // SAFETY: the waiter is the caller's until it is in the list.
        let _nobody = unsafe { waiter.who(|place| std::mem::replace(place, who)) };
        // SAFETY: in no list, and stays by this function's contract.
        unsafe { held.list.push_back(waiter.item()) };
        // Order among shards is told by stamps; what was listed before there were any has come first.
        let stamp = if self.lists() > 1 { order::next(0, None) } else { 0 };
        waiter.set_listed(held.shard, stamp);
        Ok(also(&held))
    }

    /// Has a listed waiter be `who` from now on, and gives back who it was: dropped by the caller, with no lock held. If
    /// it has been taken out meanwhile, `who` comes back as an error.
    ///
    /// # Safety
    /// The waiter waits at this node or at none.
    pub(crate) unsafe fn change(&self, waiter: &Waiter, who: Who) -> Result<Who, Who> {
        let Some(shard) = waiter.listed() else { return Err(who) };
        let _held = self.hold_shard(shard);
        if waiter.listed().is_none() {
            return Err(who);
        }
        // SAFETY: its list's lock is held (W1).
        Ok(unsafe { waiter.who(|place| std::mem::replace(place, who)) })
    }

    /// Takes `waiter` out. Gives back who it was: nobody, if it has been taken out to be woken.
    ///
    /// # Safety
    /// The waiter waits at this node or at none.
    #[inline]
    pub(crate) unsafe fn leave(&self, waiter: &Waiter) -> Who {
        let Some(shard) = waiter.listed() else { return Who::Nobody };
        let mut held = self.hold_shard(shard);
        if waiter.listed().is_none() {
            return Who::Nobody;
        }
        // SAFETY: in this list.
        unsafe { held.list.remove(waiter.item()) };
        // SAFETY: its list's lock is held (W1).
        let who = unsafe { waiter.who(|who| std::mem::replace(who, Who::Nobody)) };
        waiter.set_unlisted();
        who
    }
}
