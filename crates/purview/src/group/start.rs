//! Handing tasks over to who runs them.

use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::thread;

use super::info::TaskKind;
use super::inside::Address;
use super::roster::Record;
use super::shared::{Futures, Shared};
use super::spawn::Spawn;
use super::task::{self, Outcome, Ticket, Tracked};
use crate::Context;
use crate::clock::Tick;
use crate::error::Cause;

/// For a task that has entered, and for which there is room.
pub(super) fn start_now<F, Fut, E, S: Spawn>(
    shared: &Shared<S>,
    futures: Arc<Futures<S>>,
    location: &'static Location<'static>,
    task: F,
    to_cause: fn(E) -> Cause,
) where
    F: FnOnce(Context) -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: 'static,
{
    let record = Record { name: None, location, kind: TaskKind::Async, begun: Tick::NEVER };
    start(shared, Ticket::new(futures, record), task, to_cause);
}

/// Hands a task to the runtime.
pub(super) fn start<F, Fut, E, S: Spawn>(
    shared: &Shared<S>,
    ticket: Ticket<S>,
    task: F,
    to_cause: fn(E) -> Cause,
) where
    F: FnOnce(Context) -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: 'static,
{
    shared.spawner.spawn(Tracked::new(task, ticket, to_cause));
}

/// Has a task run by `spawn`; where that cannot be, that is the task's failure.
pub(super) fn start_blocking<F, E, S>(
    shared: &Shared<S>,
    mut ticket: Ticket<S>,
    task: F,
    to_cause: fn(E) -> Cause,
    spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> std::io::Result<()>,
) where
    F: FnOnce(Context) -> Result<(), E> + Send + 'static,
    E: 'static,
    S: Send + Sync + 'static,
{
    ticket.sit_down();
    let context = shared.context.clone();
    let group = Address::of(shared);
    let (ticket, theirs) = ticket.split();
    let check = shared.check;
    // In the order in which they are dropped, if it never runs: what is the user's goes before the group hears of it (G2).
    let both = (task, theirs);
    let run = move || {
        let (task, theirs) = both;
        let _checked = check.enter();
        theirs.finish(task::run(group, to_cause, || task(context)));
    };
    if let Err(error) = spawn(Box::new(run)) {
        ticket.finish(Outcome::Failed(Cause::from(error)));
    }
}

pub(super) fn named_thread(name: Option<&str>) -> thread::Builder {
    // The system's names have no zero byte, and a builder panics at one.
    match name.filter(|name| !name.contains('\0')) {
        Some(name) => thread::Builder::new().name(name.to_string()),
        None => thread::Builder::new(),
    }
}
