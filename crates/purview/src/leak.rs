//! Finding what is left behind: contexts and tasks that should be gone.
//!
//! A [`Check`] keeps a list of every context that is derived for it, and takes each off again when its last handle goes. What is
//! on the list at the end of a test is a leak: somebody holds a handle, a guard that was forgotten, a task that waits for ever.
//! No stack is parsed and nothing is polled. The runtime's own threads, and contexts of other tests, are not on the list.
//!
//! # Whose a context is
//! - Its parent's check's, wherever it is derived: a request's contexts are those of the test that made the request.
//! - Below a parent that no check knows (a root, or a server's context from before): the check of the thread on which it is derived.
//! - A check is its own thread's. It is also that of the tasks of its groups, while they run; and of threads that
//!   [enter](Handle::enter).
//!
//! So tests may run side by side, each with a check of its own.
//!
//! # What it costs
//! Nothing before the first check in a process. From then on each derive, end and drop is told of, as to an
//! [observer](crate::observe), and takes a lock while there is a check: for tests, and for a look into a staging system.
//!
//! # What it does not see
//! A context that was derived before the check, and a task that was not started by a group, unless it holds a context, as a
//! goroutine does. A handle in a variable that is still in scope is a handle: drop it, or let a block end, before the check looks.

mod ledger;
mod report;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

#[cfg(unix)]
pub(crate) use ledger::{Held, hold};
pub(crate) use ledger::{Listed, check_of, derived, dropped, ended, register};
pub use report::{LeakedContext, Leaks};

use crate::Context;
use crate::park::block_on;

/// Of a check; see [`ledger`].
type Number = u64;

const NONE: Number = 0;

thread_local! {
    /// The checks that this thread has entered and not left. The last one gets what is derived from nowhere.
    static ENTERED: RefCell<Vec<Number>> = const { RefCell::new(Vec::new()) };
    /// What the library derives for itself belongs to no check.
    static UNSEEN: Cell<bool> = const { Cell::new(false) };
}

/// Lists the contexts and tasks that are born after it, on this thread or below such a context, until they are gone.
///
/// ```
/// use purview::{Context, leak};
/// use std::time::Duration;
///
/// let check = leak::Check::new();
/// {
///     let (ctx, _guard) = Context::background().with_cancel();
///     let (child, _guard) = ctx.with_timeout(Duration::from_secs(5));
///     assert_eq!(check.leaks().contexts().len(), 2);
/// }
/// check.assert_none(Duration::from_secs(1));
/// ```
///
/// The leak that is hardest to see elsewhere, a child of a live parent that nobody cancels:
///
/// ```should_panic
/// # use purview::{Context, leak};
/// # use std::time::Duration;
/// let (server, _guard) = Context::background().derive().name("server").build();
/// let check = leak::Check::new();
/// let (_request, guard) = server.derive().name("request").build();
/// std::mem::forget(guard);
/// drop(_request);
/// check.assert_none(Duration::ZERO); // 1 context is left: below server …: request (src/main.rs:7:33), live
/// ```
#[must_use = "a check that is dropped finds nothing"]
#[derive(Debug)]
pub struct Check {
    number: Number,
    _entered: Entered,
}

impl Check {
    /// Begins a list. Until it is dropped, roots that are derived on this thread are listed.
    ///
    /// A check within a check has what is born during its life for itself.
    #[expect(
        clippy::new_without_default,
        reason = "it is told by the thread and the time at which it is made"
    )]
    pub fn new() -> Check {
        let number = ledger::open();
        Check { number, _entered: enter(number) }
    }

    /// What there is now.
    ///
    /// ```
    /// use purview::{Context, leak};
    /// let check = leak::Check::new();
    /// let (ctx, guard) = Context::background().derive().name("job").build();
    /// let leaks = check.leaks();
    /// assert_eq!(leaks.contexts()[0].name(), Some("job"));
    /// println!("{leaks}");
    /// ```
    #[must_use]
    pub fn leaks(&self) -> Leaks {
        ledger::leaks(self.number)
    }

    /// Waits until nothing is left.
    ///
    /// ```
    /// use purview::{Context, leak};
    /// use std::time::Duration;
    /// # purview::thread::block_on(async {
    /// let check = leak::Check::new();
    /// let (ctx, guard) = Context::background().with_cancel();
    /// std::thread::spawn(move || drop((ctx, guard)));
    /// check.wait(Duration::from_secs(5)).await.unwrap();
    /// # })
    /// ```
    ///
    /// # Errors
    /// What is left after that time.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn wait(&self, time: Duration) -> Result<(), Leaks> {
        let (limit, _guard) = unseen(|| Context::background().with_timeout(time));
        let gone = poll_fn(|task| match ledger::is_empty(self.number, task.waker()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        match limit.run(gone).await {
            Ok(()) => Ok(()),
            Err(_too_late) => self.leaks().into_result(),
        }
    }

    /// The same, blocking the thread.
    ///
    /// # Errors
    /// What is left after that time.
    ///
    /// # Blocking
    /// Until nothing is left, or for that time. Not for use inside async code, which it may be waiting for.
    pub fn wait_blocking(&self, time: Duration) -> Result<(), Leaks> {
        block_on(pin!(self.wait(time)))
    }

    /// Waits until nothing is left, for so long at most, and panics with a tree of what is.
    ///
    /// In async code: `check.wait(time).await.unwrap()`, which says the same.
    ///
    /// # Panics
    /// If something is left after that time.
    ///
    /// # Blocking
    /// As [`wait_blocking`](Self::wait_blocking).
    #[track_caller]
    pub fn assert_none(&self, time: Duration) {
        if let Err(leaks) = self.wait_blocking(time) {
            panic!("{leaks}");
        }
    }

    /// For other threads, so that roots that are derived there are listed, too.
    ///
    /// ```
    /// use purview::{Context, leak};
    /// let check = leak::Check::new();
    /// let handle = check.handle();
    /// let held = std::thread::spawn(move || {
    ///     let _entered = handle.enter();
    ///     Context::background().with_cancel()
    /// });
    /// let held = held.join().unwrap();
    /// assert_eq!(check.leaks().contexts().len(), 1);
    /// # drop(held);
    /// ```
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(self.number)
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        ledger::close(self.number);
    }
}

/// Hands a [`Check`] on to other threads, such as a runtime's. Made by [`Check::handle`].
#[derive(Clone, Debug)]
pub struct Handle(Number);

impl Handle {
    /// Lists roots that are derived on this thread, until the guard is dropped. After its check is gone this does nothing.
    pub fn enter(&self) -> Entered {
        enter(self.0)
    }
}

/// Gives a check the roots that this thread derives, until it is dropped. Made by [`Handle::enter`].
///
/// Several on a thread may be dropped in any order: the check that was entered last, of those that are left, gets the roots.
#[must_use = "dropping it leaves the check"]
pub struct Entered {
    check: Number,
    /// It is the thread's.
    _here: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let _ = ENTERED.try_with(|entered| {
            let mut entered = entered.borrow_mut();
            if let Some(place) = entered.iter().rposition(|&check| check == self.check) {
                entered.remove(place);
            }
        });
    }
}

impl fmt::Debug for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entered")
    }
}

fn enter(check: Number) -> Entered {
    // A thread that is being torn down has no such list any more: what it derives is not listed.
    let _ = ENTERED.try_with(|entered| entered.borrow_mut().push(check));
    Entered { check, _here: PhantomData }
}

/// The check that this thread's roots belong to.
fn current() -> Number {
    let last = ENTERED.try_with(|entered| entered.borrow().last().copied());
    last.ok().flatten().unwrap_or(NONE)
}

fn is_unseen() -> bool {
    UNSEEN.get()
}

/// Derives what no list should have: the library's own.
pub(crate) fn unseen<R>(derive: impl FnOnce() -> R) -> R {
    /// Restores what was before, also by a panic.
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            UNSEEN.set(self.0);
        }
    }
    let _before = Before(UNSEEN.replace(true));
    derive()
}
