//! Drops inside drops, without recursion (C13): a value may hold a context whose values hold contexts, and an error's cause
//! may be an error, however long that goes on.
//!
//! What runs the user's drops (reclaiming a context, dropping a cause or a callback's captures) goes through here. A drop that is inside
//! fewer than [`NESTED`] others runs at once. What is dropped inside the innermost of these is put on a list, and is dropped when
//! the drop that it is inside of has returned. So a chain of any length takes the stack of a few links.
//!
//! # Invariants
//! - **N1** What is put on the list is dropped before the innermost drop that ran at once returns, on the same thread, in the
//!   order in which recursion would have come to it.
//! - **N2** Every job catches its panics. So levels are entered and left in pairs.
//!
//! # Why a few levels, and not one
//! A user's drop may rely on what it drops being gone when that returns: it joins a thread that waits for it, say. Nearly all
//! drops are inside few others, and for these nothing is different from recursion.
#![expect(unsafe_code, reason = "the list lies on the stack of the innermost drop")]

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::Arc;

use super::{Dead, Panics};
use crate::on_done::Uncalled;
use crate::sync::thread_local;

/// How many drops may be inside one another before the next is put off.
const NESTED: usize = 4;

/// What drops something of the user's.
pub(crate) enum Job {
    Context(Dead),
    Cause(Arc<dyn std::error::Error + Send + Sync>),
    Callback(Uncalled),
}

type List = RefCell<Vec<Job>>;

thread_local! {
    /// How many drops this thread is inside of.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Of the innermost that runs at once, if it runs: what is to be dropped after it.
    static LATER: Cell<*const List> = const { Cell::new(ptr::null()) };
}

impl Job {
    /// Drops it, now or soon (N1). The first panic is kept in `panics`, or in those of the drop that this one is inside of.
    pub(crate) fn run(self, panics: &mut Panics) {
        // A thread that is being torn down may have no thread-locals any more; and loom's threads have one set for all.
        let depth = match DEPTH.try_with(Cell::get) {
            Ok(depth) if cfg!(not(all(test, purview_loom))) => depth,
            _ => return self.run_now(panics),
        };
        if depth == NESTED {
            let later = LATER.try_with(Cell::get).unwrap_or(ptr::null());
            // SAFETY: not null only while the drop runs on whose stack the list lies, and this one is inside of that.
            match unsafe { later.as_ref() } {
                Some(later) => later.borrow_mut().push(self),
                None => self.run_now(panics),
            }
            return;
        }
        let _ = DEPTH.try_with(|place| place.set(depth + 1));
        if depth + 1 == NESTED {
            self.run_flat(panics)
        } else {
            self.run_now(panics)
        }
        let _ = DEPTH.try_with(|place| place.set(depth));
    }

    /// The innermost: what is dropped inside it comes after it.
    fn run_flat(self, panics: &mut Panics) {
        let later = List::default();
        let _ = LATER.try_with(|place| place.set(&raw const later));
        let mut next = Some(self);
        while let Some(job) = next {
            let from = later.borrow().len();
            job.run_now(panics);
            // The last on the list is the next to go. So what this job has put on it is turned round: the first of that goes
            // first, and what it holds goes before the second.
            later.borrow_mut()[from..].reverse();
            next = later.borrow_mut().pop();
        }
        let _ = LATER.try_with(|place| place.set(ptr::null()));
    }

    fn run_now(self, panics: &mut Panics) {
        match self {
            Job::Context(dead) => dead.reclaim_now(panics),
            Job::Cause(cause) => panics.catch(|| drop(cause)),
            Job::Callback(callback) => panics.catch(|| callback.drop_code()),
        }
    }
}
