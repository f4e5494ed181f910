//! Waking who waits at a node that has ended: the last step of three; see tree.rs. User code runs here, and no lock is held.
#![expect(unsafe_code, reason = "waiters lie in futures and callbacks, and are listed by pointer")]

use crate::error::Error;
use crate::list::Tag;
use crate::observe::observer;
use crate::on_done::Callback;
use crate::state::{Done, Ending};
use crate::timer::runner;
use crate::waiter::{Waiter, Who};

use super::dependents::SHARDS;
use super::parts::Stand;
use super::{Node, Panics, Ref};

/// Who runs the callbacks of what ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The thread that ends it.
    Here,
    /// The thread that is kept for callbacks: this one is the timer's.
    FromTimer,
}

/// Drops a handle where that may run the user's code: not on the timer's thread.
pub(super) fn let_go(context: Ref, wake: Wake, panics: &mut Panics) {
    match wake {
        Wake::Here => panics.release(context),
        Wake::FromTimer => runner::release(context),
    }
}

impl Node {
    /// Tells the observer and whoever waits here; and the timer, that it need not.
    pub(super) fn tell(&self, wake: Wake, panics: &mut Panics) {
        let Some(ending) = self.state().done().map(Done::ending) else { return };
        if let Some(observer) = observer() {
            panics.catch(|| observer.done(self.head.id, &Error::new(ending)));
        }
        self.disarm();
        self.wake_waiters(ending, wake, panics);
    }

    /// Takes what waits here out, one by one, and wakes it with no lock held.
    fn wake_waiters(&self, ending: Ending, wake: Wake, panics: &mut Panics) {
        let mut fronts = Fronts::new(self);
        while let Some(who) = fronts.pop(self) {
            match who {
                Who::Nobody => {}
                Who::Task(waker) => panics.catch(|| waker.wake()),
                Who::Callback(callback) => {
                    // SAFETY: the list's count, taken out with the waiter.
                    let callback = unsafe { Callback::from_list(callback) };
                    let error = Error::new(ending);
                    match wake {
                        Wake::Here => panics.catch(|| callback.call(&error)),
                        Wake::FromTimer => runner::call(callback, error),
                    }
                }
            }
        }
    }
}

/// The order of arrival over several lists: the earliest that each list may have at its front. Nobody arrives any more, so
/// a front only ever gets later, and what was seen of it is a lower bound.
struct Fronts {
    earliest: [u64; SHARDS],
    lists: usize,
}

impl Fronts {
    const EMPTY: u64 = u64::MAX;

    fn new(node: &Node) -> Fronts {
        Fronts { earliest: [0; SHARDS], lists: node.lists() }
    }

    fn pop(&mut self, node: &Node) -> Option<Who> {
        loop {
            let mut first = 0;
            let mut second = Self::EMPTY;
            for list in 1..self.lists {
                if self.earliest[list] < self.earliest[first] {
                    second = self.earliest[first];
                    first = list;
                } else {
                    second = second.min(self.earliest[list]);
                }
            }
            if self.earliest[first] == Self::EMPTY {
                return None;
            }
            let mut held = node.hold_shard(first);
            let item = held.list.0;
            if item.is_none() {
                self.earliest[first] = Self::EMPTY;
                continue;
            }
            if item.tag() == Tag::Stand {
                // SAFETY: in this list, whose lock is held; so below.
                let stand = unsafe { Stand::of(item) };
                stand.set_linked(None); // a walk's: there is nothing left to walk
                // SAFETY: as above.
                unsafe { held.list.remove(item) };
                continue;
            }
            // SAFETY: as above. Children are out, so it is a waiter's; once the lock is let go, its owner may free it (W2).
            let waiter = unsafe { Waiter::of(item) };
            let stamp = waiter.stamp();
            self.earliest[first] = stamp;
            if stamp > second {
                continue;
            }
            // SAFETY: as above.
            unsafe { held.list.remove(item) };
            // SAFETY: the lock is held (W1).
            let who = unsafe { waiter.who(|who| std::mem::replace(who, Who::Nobody)) };
            waiter.set_unlisted();
            return Some(who);
        }
    }
}
