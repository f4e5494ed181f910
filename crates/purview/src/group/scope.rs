//! Threads that borrow: `std::thread::scope` under a context.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::Arc;
use std::thread;

use super::inside::Address;
use super::roster::Record;
use super::shared::Futures;
use super::task::{Outcome, Ticket};
use super::{GroupError, NoSpawn, TaskGroup, TaskInfo, TaskKind};
use crate::Context;
use crate::clock::Tick;
use crate::error::Cause;

/// Runs `code`, which may spawn threads that borrow from outside, and waits for all of them. The first failure cancels the
/// others' context, with itself as the cause; a panic is a failure like an error.
///
/// ```
/// use purview::{Context, Error, thread};
/// use std::time::Duration;
///
/// let mut left = vec![1, 2, 3];
/// let mut right = vec![4, 5, 6];
/// thread::scope(&Context::background(), |s| {
///     s.spawn(|ctx| -> Result<(), Error> { left.iter_mut().try_for_each(|n| { *n *= 2; ctx.check() }) });
///     s.spawn(|_ctx| { right.clear(); Ok(()) });
/// }).unwrap();
/// assert_eq!((left, right), (vec![2, 4, 6], vec![]));
/// ```
///
/// # Errors
/// The threads that failed; or, if none did, the end that kept some of them from doing their work.
///
/// # Panics
/// With the panic of `code` itself; the threads are told, and waited for, before.
///
/// # Blocking
/// Until the last thread has ended.
#[track_caller]
pub fn scope<'env, R, E>(
    ctx: &Context,
    code: impl for<'scope> FnOnce(&Scope<'scope, 'env, E>) -> R,
) -> Result<R, GroupError<E>> {
    let (group, members) = TaskGroup::<E>::builder(ctx).build_with_members(NoSpawn);
    let result = thread::scope(|threads| {
        /// A panic of the scope's own code tells the threads, which are waited for all the same.
        struct Tell<'a, E>(&'a TaskGroup<E>);
        impl<E> Drop for Tell<'_, E> {
            fn drop(&mut self) {
                self.0.guard.cancel();
            }
        }
        let tell = Tell(&group);
        let result = code(&Scope { threads, members, of: PhantomData });
        std::mem::forget(tell);
        result
    });
    group.close();
    group.outcome().map(|()| result)
}

/// Where threads that borrow are spawned, made by [`scope`]. A clone can be moved into a thread, to spawn more from there.
///
/// ```
/// use purview::{Context, Error, thread};
/// let result = thread::scope(&Context::background(), |s| {
///     let more = s.clone();
///     s.spawn_named("first", move |_ctx| -> Result<(), Error> {
///         more.spawn(|ctx| ctx.check());
///         Ok(())
///     });
///     s.context().id()
/// });
/// assert!(result.is_ok());
/// ```
pub struct Scope<'scope, 'env: 'scope, E> {
    threads: &'scope thread::Scope<'scope, 'env>,
    members: Arc<Futures<NoSpawn>>,
    of: PhantomData<fn() -> E>,
}

impl<'scope, E> Scope<'scope, '_, E> {
    /// The threads' context.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.members.crew.shared.context
    }

    /// The threads that have not ended, the oldest first.
    #[must_use]
    pub fn tasks(&self) -> Vec<TaskInfo> {
        self.members.crew.shared.tasks()
    }

    /// Starts a thread. One that cannot be started is a failure; after the context's end none is.
    #[track_caller]
    pub fn spawn<F>(&self, task: F)
    where
        F: FnOnce(&Context) -> Result<(), E> + Send + 'scope,
        E: Into<Cause>,
    {
        self.spawn_as(None, Location::caller(), task);
    }

    /// The same, with a name: the thread's, too.
    #[track_caller]
    pub fn spawn_named<F>(&self, name: impl Into<Cow<'static, str>>, task: F)
    where
        F: FnOnce(&Context) -> Result<(), E> + Send + 'scope,
        E: Into<Cause>,
    {
        self.spawn_as(Some(name.into()), Location::caller(), task);
    }

    fn spawn_as<F>(
        &self,
        name: Option<Cow<'static, str>>,
        location: &'static Location<'static>,
        task: F,
    ) where
        F: FnOnce(&Context) -> Result<(), E> + Send + 'scope,
        E: Into<Cause>,
    {
        let shared = &self.members.crew.shared;
        if let Some(error) = shared.context.err() {
            return shared.count_refused(&shared.refuse(error));
        }
        let thread = super::start::named_thread(name.as_deref());
        let kind = TaskKind::Blocking;
        let record = Record { name, location, kind, begun: Tick::NEVER };
        let mut ticket = Ticket::new(Arc::clone(&self.members), record);
        ticket.sit_down();
        let (ticket, theirs) = ticket.split();
        let context = shared.context.clone();
        let (check, group) = (shared.check, Address::of(shared));
        let run = move || {
            let _checked = check.enter();
            theirs.finish(super::task::run(group, Into::into, || task(&context)));
        };
        if let Err(error) = thread.spawn_scoped(self.threads, run) {
            ticket.finish(Outcome::Failed(Cause::from(error)));
        }
    }
}

impl<E> Clone for Scope<'_, '_, E> {
    fn clone(&self) -> Self {
        Scope { threads: self.threads, members: Arc::clone(&self.members), of: PhantomData }
    }
}

impl<E> fmt::Debug for Scope<'_, '_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("context", self.context()).finish_non_exhaustive()
    }
}
