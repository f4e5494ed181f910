//! A task as its runtime sees it: a future that tells its group how it came to its end, however that was.
#![expect(unsafe_code, reason = "projects a pin to the work it wraps")]

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use super::failure::Panicked;
use super::info::TaskKind;
use super::inside::Address;
use super::roster::{Record, Seat};
use super::shared::{Crew, Futures, Shared};
use crate::Context;
use crate::done::Done;
use crate::error::Cause;
use crate::sync::{Mutex, lock};

/// How a task came to its end.
pub(super) enum Outcome {
    Finished,
    Failed(Cause),
    /// Dropped, and not by its group.
    Lost,
    /// By its group, after its grace.
    Aborted,
}

/// A task's place in its group. Whatever becomes of the task, its group hears of it, once.
pub(super) struct Ticket<S: 'static> {
    member: Member<S>,
    place: Place,
}

/// What keeps the group from being over.
pub(super) enum Member<S> {
    Future(Arc<Futures<S>>),
    Thread(Arc<Crew<S>>),
}

enum Place {
    /// It has not come to an await, or not been begun.
    Standing(Record),
    Seated(Seat),
    /// It has told.
    Gone,
}

impl<S> Ticket<S> {
    pub(super) fn new(futures: Arc<Futures<S>>, mut record: Record) -> Ticket<S> {
        record.location = futures.crew.shared.task_location.unwrap_or(record.location);
        let member = match record.kind {
            TaskKind::Async => Member::Future(futures),
            TaskKind::Blocking => Member::Thread(Arc::clone(&futures.crew)),
        };
        let mut ticket = Ticket { member, place: Place::Standing(record) };
        ticket.shared().roster.count_taken();
        if ticket.shared().check.is_listed() {
            ticket.sit_down();
        }
        ticket
    }

    pub(super) fn shared(&self) -> &Shared<S> {
        match &self.member {
            Member::Future(futures) => &futures.crew.shared,
            Member::Thread(crew) => &crew.shared,
        }
    }

    /// From here on it can be seen.
    pub(super) fn sit_down(&mut self) {
        match std::mem::replace(&mut self.place, Place::Gone) {
            Place::Standing(mut record) => {
                record.begun = self.shared().now();
                self.place = Place::Seated(self.shared().roster.enter(record));
            }
            place => self.place = place,
        }
    }

    pub(super) fn finish(mut self, outcome: Outcome) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: Outcome) {
        let record = match std::mem::replace(&mut self.place, Place::Gone) {
            Place::Standing(record) => Some(record),
            Place::Seated(seat) => self.shared().roster.leave(seat),
            Place::Gone => None,
        };
        if let Some(record) = record {
            self.shared().ended(record, outcome);
        }
    }

    /// In two places: for where no thread can be started, what was to run on it is dropped, and the reason is told here.
    pub(super) fn split(self) -> (Either<S>, Either<S>) {
        let ticket = Arc::new(Mutex::new(Some(self)));
        (Either(Arc::clone(&ticket)), Either(ticket))
    }
}

/// One of two who may tell.
pub(super) struct Either<S: 'static>(Arc<Mutex<Option<Ticket<S>>>>);

impl<S> Either<S> {
    pub(super) fn finish(self, outcome: Outcome) {
        let ticket = lock(&self.0).take();
        if let Some(ticket) = ticket {
            ticket.finish(outcome);
        }
    }
}

impl<S> Drop for Ticket<S> {
    fn drop(&mut self) {
        self.tell(Outcome::Lost);
    }
}

/// A future of a group's. The work goes before the ticket tells: who hears of the end may count on the work being gone.
///
/// Most tasks are short, and never wait: so what a task needs while it waits is made when it first does.
pub(super) struct Tracked<F, Fut, E, S: 'static> {
    // In the order in which they are dropped.
    work: Work<F, Fut>,
    /// Ready when the work is to be dropped.
    abort: Option<Pin<Box<Done<'static>>>>,
    ticket: Option<Ticket<S>>,
    to_cause: fn(E) -> Cause,
}

enum Work<F, Fut> {
    New(F),
    Begun(Fut),
    Over,
}

impl<F, Fut, E, S> Tracked<F, Fut, E, S> {
    /// `task`, until the group has it dropped. Its error becomes a cause by `to_cause`.
    pub(super) fn new(task: F, ticket: Ticket<S>, to_cause: fn(E) -> Cause) -> Self {
        Tracked { work: Work::New(task), abort: None, ticket: Some(ticket), to_cause }
    }

    /// The work is pending. Whether it is to be dropped; if not, the task is woken when it is.
    fn is_over(&mut self, task: &mut Task<'_>) -> bool {
        let Some(ticket) = &mut self.ticket else { return false };
        let abort = self.abort.get_or_insert_with(|| {
            ticket.sit_down();
            // SAFETY: the ticket keeps what the group's tasks share, where it is, and goes after this future.
            let abort: &'static Context = unsafe { &*std::ptr::from_ref(&ticket.shared().abort) };
            Box::pin(abort.done())
        });
        abort.as_mut().poll(task).is_ready()
    }
}

impl<F, Fut, E, S> Future for Tracked<F, Fut, E, S>
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<()> {
        // SAFETY: a future that has begun is pinned with the whole, and only ever dropped in place.
        let this = unsafe { self.get_unchecked_mut() };
        // Unwind safety: what panicked is dropped and not looked at again.
        let _inside = this.ticket.as_ref().map(|it| Address::of(it.shared()).enter());
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let _checked = this.ticket.as_ref().and_then(|it| it.shared().check.enter());
            if let (Work::New(_), Some(ticket)) = (&this.work, &this.ticket) {
                let shared = ticket.shared();
                if shared.abort.is_done() {
                    return Poll::Ready(Outcome::Aborted);
                }
                // Not pinned yet, so it may be moved out.
                if let Work::New(task) = std::mem::replace(&mut this.work, Work::Over) {
                    this.work = Work::Begun(task(shared.context.clone()));
                }
            }
            let Work::Begun(work) = &mut this.work else { return Poll::Pending };
            // SAFETY: as above.
            match unsafe { Pin::new_unchecked(work) }.poll(task) {
                Poll::Ready(Ok(())) => Poll::Ready(Outcome::Finished),
                Poll::Ready(Err(error)) => Poll::Ready(Outcome::Failed((this.to_cause)(error))),
                Poll::Pending if this.is_over(task) => Poll::Ready(Outcome::Aborted),
                Poll::Pending => Poll::Pending,
            }
        }));
        let outcome = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(outcome)) => outcome,
            Err(panic) => Outcome::Failed(panicked(panic)),
        };
        // The work's own drop may panic, too; that does not hide how it ended.
        let dropped = catch_unwind(AssertUnwindSafe(|| this.work = Work::Over));
        let outcome = match (outcome, dropped) {
            (Outcome::Failed(cause), _) => Outcome::Failed(cause),
            (_, Err(panic)) => Outcome::Failed(panicked(panic)),
            (outcome, Ok(())) => outcome,
        };
        this.abort = None;
        if let Some(ticket) = this.ticket.take() {
            ticket.finish(outcome);
        }
        Poll::Ready(())
    }
}

/// Runs a closure of a group's to its end.
pub(super) fn run<E>(
    group: Address,
    to_cause: fn(E) -> Cause,
    work: impl FnOnce() -> Result<(), E>,
) -> Outcome {
    let _inside = group.enter();
    match catch_unwind(AssertUnwindSafe(|| work().map_err(to_cause))) {
        Ok(Ok(())) => Outcome::Finished,
        Ok(Err(error)) => Outcome::Failed(error),
        Err(panic) => Outcome::Failed(panicked(panic)),
    }
}

/// What a panic's payload says. The payload may panic when it is dropped.
pub(crate) fn panicked(payload: Box<dyn std::any::Any + Send>) -> Cause {
    let cause = Cause::from(Panicked::new(&*payload));
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
    cause
}
