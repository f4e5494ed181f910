//! Go's `context` for Rust, and past it: a tree of cancellation, deadlines, causes and request-scoped values, for async code on
//! any runtime and for plain threads; and the tasks that obey it. No dependencies.
//!
//! A program does work on somebody's behalf: a request, a job, a shutdown. A [`Context`] is what that work may know (its
//! values), how long it may take (its deadline) and when it must stop (its end). Deriving gives a child; when a context
//! ends, everything below it does, at once, with one [`Error`] that says why, where and by whom.
//!
//! ```
//! use purview::{Context, Key};
//! use std::{thread, time::Duration};
//!
//! static USER_ID: Key<u64> = Key::new("user_id");
//!
//! let (request, cancel) = Context::background().with_timeout(Duration::from_secs(2));
//! let request = request.with_value(&USER_ID, 123);
//!
//! thread::scope(|s| {
//!     s.spawn(|| {
//!         while request.sleep_blocking(Duration::from_millis(10)).is_ok() { /* work */ }
//!     });
//!     cancel.cancel_with("the client went away");
//! });
//! assert_eq!(request.err().unwrap().to_string(), "context canceled: the client went away");
//! ```
//!
//! # Where to look
//!
//! | to | use |
//! |---|---|
//! | begin a tree | [`Context::background`], or [`time::ManualClock::root`] in tests |
//! | be able to stop work | [`Context::with_cancel`]: its [`CancelGuard`] cancels when it is dropped |
//! | bound it in time | [`Context::with_timeout`], [`Context::with_deadline`] |
//! | hand a value along | [`Context::with_value`] and a [`Key`] |
//! | several of these at once, a name, a cause for the deadline | [`Context::derive`] |
//! | stop when told to | [`Context::check`] in loops, [`Context::done`] to wait (in tasks and threads), [`Context::run`] around a future |
//! | act on the end | [`Context::on_done`] |
//! | clean up afterwards | [`Context::with_grace`], which has a bound; [`Context::without_cancel`], which has none |
//! | obey two masters | [`Context::any_of`] |
//! | learn why | [`Error::cause`], [`Error::origin`] |
//! | run tasks that end before you do | [`TaskGroup`]; [`thread::scope`] for threads that borrow; [`Semaphore`] |
//! | find what is left behind | [`leak::Check`] |
//! | end a service in phases | [`shutdown::Shutdown`] |
//! | see what goes on | Debug, [`Context::statistics`], [`observe`] |
//!
//! # When not to use it
//!
//! A future that owns all it does needs no context to be stopped: drop it, or put it under your runtime's timeout. A flag that
//! one thread polls is an `AtomicBool`. Parameters are parameters: values are for what crosses interfaces that should not know it.
//!
//! What a context promises, numbered: [`promises`].

mod builder;
mod clock;
mod context;
mod done;
mod error;
mod group;
mod guard;
#[cfg(all(test, purview_shuttle))]
mod histories;
mod key;
pub mod leak;
mod leaked;
mod list;
#[cfg_attr(all(test, purview_loom), expect(dead_code, reason = "loom's mutex waits"))]
mod lock;
#[cfg(all(test, purview_loom))]
mod models;
pub mod observe;
mod on_done;
mod order;
mod park;
mod path;
mod run;
mod semaphore;
pub mod shutdown;
mod sleep;
mod state;
mod sync;
pub mod thread;
pub mod time;
mod timer;
mod tree;
mod value;
mod waiter;

pub use builder::Derive;
pub use context::Context;
pub use done::Done;
pub use error::{By, Cause, Error, ErrorKind, Origin};
pub use group::{
    Dropped, Failure, GroupBuilder, GroupError, GroupWatch, NoSpawn, OnFailure, Panicked, Report,
    Spawn, StopTimes, TaskGroup, TaskInfo, TaskKind, TaskState, TrySpawnError,
};
pub use guard::{CancelGuard, CancelHandle};
pub use key::Key;
pub use observe::{ContextId, Statistics};
pub use on_done::OnDone;
pub use run::Run;
pub use semaphore::{Permit, Semaphore};
pub use sleep::Sleep;

#[doc = include_str!("../PROMISES.md")]
pub mod promises {}

/// For the project's fuzzer alone: the timing wheel beside an ordered set.
#[cfg(purview_check)]
#[doc(hidden)]
pub fn try_the_wheel(uptime: i64, steps: u32, mut numbers: impl FnMut(u64) -> u64) {
    timer::wheel::trial::play(uptime, steps, &mut numbers);
}

/// The documents whose code is run with the tests.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../GO.md")]
    mod go {}
    #[doc = include_str!("../COMPARE.md")]
    mod compare {}
}
