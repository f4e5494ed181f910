//! What a group's handle and its tasks share.

use std::collections::VecDeque;
use std::panic::Location;
use std::sync::{Arc, OnceLock};

use super::OnFailure;
use super::failure::{Dropped, Failure, KEPT};
use super::info::{First, TaskInfo};
use super::roster::{Record, Roster};
use super::spawn::Refused;
use super::task::Outcome;
use crate::clock::Tick;
use crate::error::{Cause, Error};
use crate::leak::{self, Listed};
use crate::semaphore::Semaphore;
use crate::sync::{AtomicBool, Mutex, Ordering, lock};
use crate::tree::Panics;
use crate::{CancelHandle, Context, OnDone};

pub(super) struct Shared<S> {
    pub(super) spawner: S,
    /// The tasks'.
    pub(super) context: Context,
    pub(super) cancel: CancelHandle,
    /// When this ends, futures are dropped at their next await.
    pub(super) abort: Context,
    pub(super) abort_now: CancelHandle,
    /// The check for leaks that it belongs to.
    pub(super) check: Listed,
    /// Ends when the group is closed and nobody is left.
    pub(super) idle: Context,
    idle_now: CancelHandle,
    pub(super) on_failure: OnFailure,
    /// The place that tasks are told by, if it is not their own.
    pub(super) task_location: Option<&'static Location<'static>>,
    pub(super) limit: Option<Semaphore>,
    pub(super) roster: Roster,
    /// Tasks that were taken and wait for room, in the order of arrival: for each there is a place in the limit's queue.
    backlog: Mutex<VecDeque<Waiting>>,
    /// Somebody starts what waits.
    starting: AtomicBool,
    outcomes: Mutex<Outcomes>,
    /// The hook for tasks that don't stop. It goes with the last of them.
    overdue: OnceLock<OnDone>,
}

/// Starts a task that has been waiting, which there is room for now.
type Waiting = Box<dyn FnOnce() + Send>;

/// What threads of a group keep, and its [`Futures`]. When it goes, all is over.
pub(super) struct Crew<S> {
    pub(super) shared: Arc<Shared<S>>,
}

impl<S> Drop for Crew<S> {
    fn drop(&mut self) {
        self.shared.idle_now.cancel();
    }
}

/// What futures of a group keep, and the group itself until it is closed: its count is theirs. When a thread of a closed group
/// spawns a future and no other is left, new ones are made.
pub(super) struct Futures<S> {
    pub(super) crew: Arc<Crew<S>>,
    /// Ends when the group is closed and no future is left.
    pub(super) still: Context,
    still_now: CancelHandle,
}

impl<S> Futures<S> {
    pub(super) fn new(crew: Arc<Crew<S>>) -> Futures<S> {
        let (still, guard) = leak::unseen(|| crew.shared.idle.without_cancel().with_cancel());
        Futures { crew, still, still_now: guard.disarm() }
    }
}

impl<S> Drop for Futures<S> {
    fn drop(&mut self) {
        self.still_now.cancel();
    }
}

/// How a task that did not do its work came to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Failed,
    /// Dropped, and not by its group.
    Lost,
    /// Its error is the end of its context.
    GaveUp,
}

#[derive(Default)]
struct Outcomes {
    failures: Vec<Failure>,
    failed: usize,
    /// Tasks that did not do what they were to: they gave up when they were told to stop, were not even begun, or came
    /// too late.
    gave_up: bool,
    aborted: First,
    /// Of those that failed: dropped by somebody else than their group.
    lost: usize,
    /// Of those that gave up: they were not even begun.
    unbegun: usize,
    /// Tasks that came from outside when the group was closed, and were dropped.
    refused: usize,
}

impl<S> Shared<S> {
    pub(super) fn new(
        spawner: S,
        (context, cancel): (Context, CancelHandle),
        grace: Option<std::time::Duration>,
        on_failure: OnFailure,
        limit: Option<usize>,
    ) -> Shared<S> {
        let check = leak::check_of(&context);
        let [(abort, abort_now), (idle, idle_now)] = leak::unseen(|| {
            let detached = context.without_cancel();
            let abort = match grace {
                Some(grace) => context.with_grace(grace),
                None => detached.with_cancel(),
            };
            [abort, detached.with_cancel()]
        });
        Shared {
            check,
            spawner,
            context,
            cancel,
            abort,
            abort_now: abort_now.disarm(),
            idle,
            idle_now: idle_now.disarm(),
            on_failure,
            task_location: None,
            limit: limit.map(|limit| Semaphore::new(limit.max(1))),
            roster: Roster::new(),
            backlog: Mutex::default(),
            starting: AtomicBool::new(false),
            outcomes: Mutex::default(),
            overdue: OnceLock::new(),
        }
    }

    pub(super) fn set_overdue(&self, hook: OnDone) {
        let _ = self.overdue.set(hook);
    }

    /// A task that comes after the end: it does not do what it was to.
    pub(super) fn refuse(&self, error: Error) -> Refused {
        lock(&self.outcomes).gave_up = true;
        Refused::Done(error)
    }

    /// Records a task that was refused and cannot be handed back.
    pub(super) fn count_refused(&self, refused: &Refused) {
        let mut outcomes = lock(&self.outcomes);
        match refused {
            Refused::Done(_) => outcomes.unbegun += 1,
            Refused::Closed | Refused::Full => outcomes.refused += 1,
        }
    }

    // ── the limit ──────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Takes the room for one more, if there is some.
    pub(super) fn has_room(&self) -> bool {
        match &self.limit {
            None => true,
            Some(limit) => limit.try_acquire(1).map(std::mem::forget).is_some(),
        }
    }

    pub(super) fn give_room(&self) {
        if let Some(limit) = &self.limit {
            limit.release(1);
        }
    }

    /// Has a task that has entered begin when there is room.
    pub(super) fn begin_later(&self, begin: Waiting) {
        lock(&self.backlog).push_back(begin);
        if let Some(limit) = &self.limit {
            limit.keep_one();
        }
        self.begin_waiting(); // somebody may have made room meanwhile
    }

    /// Begins what there is room for. Not within itself: a runtime may end a task while it is handed over.
    fn begin_waiting(&self) {
        let mut panics = Panics::new(); // of a runtime that does not take a task, and of drops
        while !lock(&self.backlog).is_empty() {
            // Pairs with the one below: who finds somebody at it has done his part before, and that one sees it.
            if self.starting.swap(true, Ordering::AcqRel) {
                break;
            }
            loop {
                let mut next = None;
                panics.catch(|| next = self.next_waiting()); // it may drop what the user's tasks have
                let Some(begin) = next else { break };
                panics.catch(begin);
            }
            self.starting.swap(false, Ordering::AcqRel);
            // Who came meanwhile has left it to this thread: so there is another look, unless there is no room.
            if !self.has_waiting_room() {
                break;
            }
        }
        panics.resume();
    }

    fn has_waiting_room(&self) -> bool {
        let room = self.context.is_done() || self.limit.as_ref().is_some_and(|it| it.kept() > 0);
        room && !lock(&self.backlog).is_empty()
    }

    fn next_waiting(&self) -> Option<Waiting> {
        if self.context.is_done() {
            self.drop_waiting();
            return None;
        }
        if self.limit.as_ref().is_some_and(|limit| !limit.take_kept()) {
            return None;
        }
        let next = lock(&self.backlog).pop_front();
        if next.is_none() {
            self.give_room();
        }
        next
    }

    /// After the end: what has not begun never does.
    pub(super) fn drop_waiting(&self) {
        let mut panics = Panics::new();
        loop {
            let Some(begin) = lock(&self.backlog).pop_front() else { break };
            let mut outcomes = lock(&self.outcomes);
            outcomes.gave_up = true;
            outcomes.unbegun += 1;
            drop(outcomes);
            panics.catch(|| drop(begin)); // the user's
        }
        panics.resume();
    }

    // ── the end of a task ──────────────────────────────────────────────────────────────────────────────────────────────

    pub(super) fn ended(&self, record: Record, outcome: Outcome) {
        if let Some(told) = self.told() {
            self.roster.note_stop(self.now().since(told));
        }
        let mut panics = Panics::new();
        match outcome {
            Outcome::Finished => self.roster.count_finished(),
            Outcome::Failed(cause) => {
                let mut how = How::Failed;
                panics.catch(|| {
                    // The user's error is asked, so no lock is held.
                    if self.context.err().is_some_and(|end| end.is_all_of(&*cause)) {
                        how = How::GaveUp;
                    }
                });
                panics.catch(|| self.failed(record, cause, how));
            }
            Outcome::Lost => panics.catch(|| self.failed(record, Cause::from(Dropped), How::Lost)),
            Outcome::Aborted => {
                let (now, told) = (self.now(), self.told());
                let mut outcomes = lock(&self.outcomes);
                outcomes.gave_up = true;
                outcomes.aborted.push(|| record.info(now, told));
            }
        }
        if self.limit.is_some() {
            panics.catch(|| self.give_room());
            panics.catch(|| self.begin_waiting());
        }
        // Of callbacks and wakers; the panic hook has reported them, and nobody here has called anything.
        panics.forget();
    }

    /// Records a failure in one step, so that counts that belong together are never seen apart.
    fn failed(&self, record: Record, cause: Cause, how: How) {
        let mut outcomes = lock(&self.outcomes);
        if how != How::Lost {
            self.roster.count_finished();
        }
        if how == How::GaveUp {
            outcomes.gave_up = true;
            drop(outcomes);
            return drop(cause); // the user's
        }
        outcomes.failed += 1;
        outcomes.lost += usize::from(how == How::Lost);
        if outcomes.failures.len() < KEPT {
            let Record { name, location, .. } = record;
            outcomes.failures.push(Failure { name, location, cause: cause.clone() });
        }
        // Another may be on its way to cancel: whoever comes first, what is seen is the first failure.
        let first = outcomes.failures.first().map(|first| first.cause.clone());
        drop(outcomes);
        if let (OnFailure::Cancel, Some(first)) = (self.on_failure, first) {
            self.cancel.cancel_with(first);
        }
        drop(cause); // the user's, and perhaps the last of it: no lock is held (C31)
    }

    // ── looking ────────────────────────────────────────────────────────────────────────────────────────────────────────

    pub(super) fn now(&self) -> Tick {
        self.context.clock().now()
    }

    /// When the tasks were told to stop.
    pub(super) fn told(&self) -> Option<Tick> {
        self.context.is_done().then(|| self.context.err()).flatten().map(|err| err.origin().tick())
    }

    pub(super) fn tasks(&self) -> Vec<TaskInfo> {
        let (now, told) = (self.now(), self.told());
        let mut tasks = Vec::new();
        self.roster.for_each(|record| tasks.push(record.info(now, told)));
        tasks.sort_by_key(|task| std::cmp::Reverse(task.age()));
        tasks
    }

    /// Takes all counts under one lock.
    pub(super) fn so_far(&self) -> SoFar {
        let outcomes = lock(&self.outcomes);
        let cut_short = outcomes.gave_up && outcomes.failed == 0;
        let mut so_far = SoFar {
            failures: outcomes.failures.clone(),
            finished: self.roster.finished(),
            failed: outcomes.failed,
            lost: outcomes.lost,
            aborted: outcomes.aborted.clone(),
            unbegun: outcomes.unbegun,
            refused: outcomes.refused,
            ended: None,
        };
        drop(outcomes);
        if cut_short {
            so_far.ended = self.context.err();
        }
        so_far
    }
}

/// What became of a group's tasks until one moment.
pub(super) struct SoFar {
    pub(super) failures: Vec<Failure>,
    /// Those that failed are among them, but for the lost.
    pub(super) finished: usize,
    pub(super) failed: usize,
    /// Of those that failed.
    pub(super) lost: usize,
    pub(super) aborted: First,
    pub(super) unbegun: usize,
    pub(super) refused: usize,
    /// The context's end, if it kept tasks from doing their work and none failed.
    pub(super) ended: Option<Error>,
}

/// Room that somebody waits for, who may not come: what waits behind him begins then.
pub(super) struct UnusedRoom<'a, S>(pub(super) &'a Shared<S>);

impl<S> Drop for UnusedRoom<'_, S> {
    fn drop(&mut self) {
        if self.0.limit.is_some() {
            self.0.begin_waiting();
        }
    }
}

#[cfg(all(test, not(purview_loom)))]
mod tests {
    use super::*;
    use crate::{Error, TaskGroup};
    use std::sync::mpsc;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("reported by the hook");
        }
    }

    /// As by a thread that has entered a task before the end, and hands it over only now.
    #[test]
    fn what_waits_for_room_goes_also_when_another_ones_drop_has_panicked() {
        let ctx = Context::background();
        let group: TaskGroup<Error> = TaskGroup::builder(&ctx).limit(1).build();
        group.spawn_thread(|ctx| Err(ctx.done().wait()));
        let bomb = Bomb;
        group.spawn_thread(move |_ctx| {
            std::mem::forget(bomb);
            unreachable!("it never begins")
        });
        group.cancel_with("enough");
        while !group.is_empty() {
            std::thread::yield_now();
        }
        let (late, is_gone) = mpsc::channel::<()>();
        group.shared.begin_later(Box::new(move || drop(late)));
        assert_eq!(is_gone.try_recv(), Err(mpsc::TryRecvError::Disconnected));
        assert_eq!(group.shared.so_far().unbegun, 2);
    }
}
