//! Which groups' tasks run on this thread: a spawn from inside one is let into its group when that is closed.
//!
//! Each thread has a list, innermost last, since an executor may run a task of one group while it runs one of another. A group is
//! identified by the address of what its tasks share, which a running task keeps.

use std::cell::RefCell;
use std::marker::PhantomData;

use super::shared::Shared;
use crate::sync::thread_local;

thread_local! {
    static INSIDE: RefCell<Vec<Address>> = const { RefCell::new(Vec::new()) };
}

/// A group, as this list knows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Address(usize);

impl Address {
    pub(super) fn of<S>(group: &Shared<S>) -> Address {
        Address(std::ptr::from_ref(group).addr())
    }

    /// Called where a task of the group runs. A thread that is being torn down has no such list any more: there it is outside.
    pub(super) fn enter(self) -> Inside {
        let _ = INSIDE.try_with(|groups| groups.borrow_mut().push(self));
        Inside(PhantomData)
    }

    pub(super) fn is_entered(self) -> bool {
        INSIDE.try_with(|groups| groups.borrow().contains(&self)).unwrap_or(false)
    }
}

/// A task of a group runs on this thread while this is there.
#[must_use]
pub(super) struct Inside(PhantomData<*const ()>);

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = INSIDE.try_with(|groups| groups.borrow_mut().pop());
    }
}
