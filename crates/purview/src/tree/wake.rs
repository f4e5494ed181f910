//! Waking who waits at a node that has ended: the last step of three; see tree.rs. User code runs here, and no lock is held.
#![expect(unsafe_code, reason = "waiters lie in futures and callbacks, and are listed by pointer")]

use std::task::Waker;

use crate::error::Error;
use crate::list::Tag;
use crate::observe::observer;
use crate::on_done::{Callback, Counted};
use crate::state::{Done, Ending};
use crate::timer::runner::Batch;
use crate::waiter::{Waiter, Who};

use super::dependents::SHARDS;
use super::parts::Cursor;
use super::{Node, Panics, Ref};

/// Who runs the callbacks of what ends.
pub(crate) enum Wake<'a> {
    /// The thread that ends it.
    Here,
    /// The thread that is kept for callbacks: this one is the timer's.
    FromTimer(&'a mut Batch),
}

/// Drops a handle where that may run the user's code: not on the timer's thread.
pub(super) fn let_go(context: Ref, wake: &mut Wake<'_>, panics: &mut Panics) {
    match wake {
        Wake::Here => panics.release(context),
        Wake::FromTimer(batch) => batch.release(context),
    }
}

/// Of a context that has ended: tells the observer and whoever waits there; and the timer, that it need not. Lets it go.
pub(super) fn tell(context: Ref, wake: &mut Wake<'_>, panics: &mut Panics) {
    let node = context.scope();
    let Some(ending) = node.state().done().map(Done::ending) else { return };
    if let Some(observer) = observer() {
        panics.catch(|| observer.done(node.head.id, &Error::new(ending)));
    }
    node.disarm();
    if node.is_leaf() {
        return let_go(context, wake, panics);
    }
    // Whoever is woken comes at once, maybe on another core, and lets the context go, too: so that is done here before the last
    // is woken, as long as the count is at hand.
    let mut fronts = Fronts::new(node);
    let mut last = None;
    while let Some(waiter) = fronts.pop(node).map(|who| Woken::new(who, ending)) {
        if let Some(before) = last.replace(waiter) {
            before.wake(wake, panics);
        }
    }
    let_go(context, wake, panics);
    if let Some(last) = last {
        last.wake(wake, panics);
    }
}

/// A waiter, taken out to be woken.
enum Woken {
    Task(Waker),
    Callback(Counted, Error),
    Nobody,
}

impl Woken {
    fn new(who: Who, ending: Ending) -> Woken {
        match who {
            Who::Nobody => Woken::Nobody,
            Who::Task(waker) => Woken::Task(waker),
            Who::Callback(callback) => {
                // SAFETY: the list's count, taken out with the waiter.
                let callback = unsafe { Callback::from_list(callback) };
                Woken::Callback(callback, Error::new(ending))
            }
        }
    }

    /// Runs the user's code; no lock is held.
    fn wake(self, wake: &mut Wake<'_>, panics: &mut Panics) {
        match self {
            Woken::Nobody => {}
            Woken::Task(waker) => panics.catch(|| waker.wake()),
            Woken::Callback(callback, error) => match wake {
                Wake::Here => {
                    panics.catch(|| callback.call(&error));
                    // The last error of a cause, or the last owner of a callback, drops what is the user's. Each is caught by itself:
                    // a second panic while the first one unwinds would abort.
                    panics.catch(|| drop(error));
                    panics.catch(|| drop(callback));
                }
                Wake::FromTimer(batch) => batch.call(callback, error),
            },
        }
    }
}

/// The order of arrival over several lists: the earliest that each list may have at its front. Nobody arrives any more, so
/// a front only ever gets later, and what was seen of it is a lower bound.
struct Fronts {
    earliest: [u64; SHARDS],
    lists: usize,
    /// How many lists may have somebody.
    left: usize,
}

impl Fronts {
    const EMPTY: u64 = u64::MAX;

    fn new(node: &Node) -> Fronts {
        let lists = node.lists();
        Fronts { earliest: [0; SHARDS], lists, left: lists }
    }

    fn is_empty(&mut self, list: usize) {
        self.earliest[list] = Self::EMPTY;
        self.left -= 1;
    }

    fn pop(&mut self, node: &Node) -> Option<Who> {
        while self.left > 0 {
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
            let mut held = node.hold_shard(first);
            let item = held.list.0;
            if item.is_none() {
                self.is_empty(first);
                continue;
            }
            if item.tag() == Tag::Cursor {
                // SAFETY: in this list, whose lock is held; so below.
                let cursor = unsafe { Cursor::of(item) };
                cursor.set_linked(None); // there is nothing left to walk
                // SAFETY: as above.
                unsafe { held.list.remove(item) };
                continue;
            }
            // Children are out: the sweep has marked every list before this. Read as a waiter, one would be memory misused, so this is
            // checked in release builds, too.
            assert!(item.tag() == Tag::Waiter, "a child is listed below a context that is marked");
            // SAFETY: as above, and a waiter's; once the lock is released, its owner may free it (W2).
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
            if held.list.0.is_none() {
                self.is_empty(first);
            }
            return Some(who);
        }
        None
    }
}
