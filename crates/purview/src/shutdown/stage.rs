//! What a phase's handles, its holds and its shutdown share.

use std::borrow::Cow;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use super::hooks::Hook;
use super::nested::Nested;
use crate::clock::Tick;
use crate::error::{By, Cause};
use crate::group::{Failure, Record, Roster};
use crate::{CancelHandle, Context, TaskGroup, TaskInfo, TaskKind, leak, tree};

pub(super) use crate::group::Seat;

/// As many that were too late are told of by name; the rest is counted.
const KEPT: usize = 64;

/// What a phase was told to be.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) name: &'static str,
    pub(super) location: &'static Location<'static>,
    pub(super) budget: Duration,
}

pub(super) struct Stage {
    pub(super) place: Place,
    /// Ends when the whole way down begins.
    down: Context,
    /// Ends when the phase begins.
    pub(super) context: Context,
    /// Ends when it is over.
    pub(super) over: Context,
    over_now: CancelHandle,
    /// What it waits for.
    crew: OnceLock<Weak<Crew>>,
    next: OnceLock<Arc<Stage>>,
    roster: Roster,
    left: Mutex<Left>,
    taking_part: Mutex<TakingPart>,
}

/// The holds that were dropped since the shutdown began.
#[derive(Clone, Default)]
pub(super) struct Left {
    /// Before the phase was over.
    pub(super) finished: usize,
    /// When it was over.
    pub(super) late: usize,
    pub(super) first_late: Vec<TaskInfo>,
}

#[derive(Default)]
struct TakingPart {
    /// They have begun: there is room for no more.
    is_begun: bool,
    /// The shutdown is over, and lets go of all.
    is_over: bool,
    hooks: Vec<Hook>,
    failures: Vec<Failure>,
    groups: Vec<Arc<dyn Owned>>,
    nested: Vec<Arc<Nested>>,
}

/// A group, whatever its tasks' error is and whatever starts them.
pub(super) trait Owned: Send + Sync {
    fn close(&self);
    fn tasks(&self) -> Vec<TaskInfo>;
    fn name(&self) -> &'static str;
    /// The failures; how many tasks never began; and how many were refused.
    fn told_so_far(&self) -> (Vec<Failure>, usize, usize);
}

impl<E: 'static, S: Send + Sync + 'static> Owned for TaskGroup<E, S> {
    fn close(&self) {
        TaskGroup::close(self);
    }

    fn tasks(&self) -> Vec<TaskInfo> {
        TaskGroup::tasks(self)
    }

    fn name(&self) -> &'static str {
        self.context().name().unwrap_or("group")
    }

    fn told_so_far(&self) -> (Vec<Failure>, usize, usize) {
        TaskGroup::told_so_far(self)
    }
}

impl Stage {
    pub(super) fn new(
        place: Place,
        [down, context, over]: [Context; 3],
        over_now: CancelHandle,
    ) -> Stage {
        Stage {
            place,
            down,
            context,
            over,
            over_now,
            crew: OnceLock::new(),
            next: OnceLock::new(),
            roster: Roster::new(),
            left: Mutex::default(),
            taking_part: Mutex::default(),
        }
    }

    /// The phase after this one.
    pub(super) fn follow(&self, next: &Arc<Stage>) {
        let _ = self.next.set(Arc::clone(next));
    }

    /// What keeps it, or the first after it that is not over.
    pub(super) fn crew(&self) -> Option<Arc<Crew>> {
        let mut stage = self;
        loop {
            if let Some(crew) = stage.crew.get().and_then(Weak::upgrade) {
                return Some(crew);
            }
            stage = stage.next.get()?;
        }
    }

    pub(super) fn enter(
        &self,
        name: Cow<'static, str>,
        kind: TaskKind,
        location: &'static Location<'static>,
    ) -> Seat {
        let begun = self.context.clock().now();
        self.roster.enter(Record { name: Some(name), location, kind, begun })
    }

    pub(super) fn leave(&self, seat: Seat) {
        if !self.down.is_done() {
            drop(self.roster.leave(seat)); // not counted
            return;
        }
        let (now, told) = (self.context.clock().now(), self.told());
        // In one step, so that a report has it in one place: it is either there or counted.
        let mut left = self.left();
        let Some(record) = self.roster.leave(seat) else { return };
        if told.is_none() {
            left.finished += 1;
            return;
        }
        left.late += 1;
        if left.first_late.len() < KEPT {
            left.first_late.push(record.info(now, told));
        }
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it was over.
    fn told(&self) -> Option<Tick> {
        self.over.err().map(|error| error.origin().tick())
    }

    /// A context that ends when the phase's time is up, counted from now.
    pub(super) fn time_from_now(&self) -> Context {
        let (context, guard) = leak::unseen(|| self.over.with_grace(self.place.budget));
        let _ = guard.disarm();
        context
    }

    /// How long it took, as far as it has come.
    pub(super) fn took(&self) -> Option<Duration> {
        let begun = self.context.err()?.origin().tick();
        let over = self.told().unwrap_or_else(|| self.context.clock().now());
        Some(over.since(begun))
    }

    pub(super) fn held(&self) -> Vec<TaskInfo> {
        self.held_and_left().0
    }

    /// What is there, and what was there, at one moment.
    pub(super) fn held_and_left(&self) -> (Vec<TaskInfo>, Left) {
        let (now, told) = (self.context.clock().now(), self.told());
        let left = self.left();
        let mut held = Vec::new();
        self.roster.for_each(|record| held.push(record.info(now, told)));
        let was = left.clone();
        drop(left);
        held.sort_by_key(|task| std::cmp::Reverse(task.age()));
        (held, was)
    }

    // ── what takes part ────────────────────────────────────────────────────────────────────────────────────────────────

    fn taking_part(&self) -> MutexGuard<'_, TakingPart> {
        self.taking_part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_hook(&self, hook: Hook) {
        let mut parts = self.taking_part();
        if !parts.is_begun {
            return parts.hooks.push(hook);
        }
        parts.failures.push(hook.too_late());
        drop(parts);
        drop(hook);
    }

    pub(super) fn begin_hooks(&self) -> Vec<Hook> {
        let mut parts = self.taking_part();
        parts.is_begun = true;
        std::mem::take(&mut parts.hooks)
    }

    pub(super) fn add_group(&self, group: Arc<dyn Owned>) {
        let mut parts = self.taking_part();
        let is_over = parts.is_over;
        if !is_over {
            parts.groups.push(Arc::clone(&group));
        }
        drop(parts);
        if is_over || self.context.is_done() {
            group.close();
        }
    }

    pub(super) fn groups(&self) -> Vec<Arc<dyn Owned>> {
        self.taking_part().groups.clone()
    }

    pub(super) fn close_groups(&self) {
        self.groups().iter().for_each(|group| group.close());
    }

    pub(super) fn add_nested(&self, nested: Arc<Nested>) {
        let mut parts = self.taking_part();
        if !parts.is_over {
            parts.nested.push(nested); // or else no report will ask for it
        }
    }

    pub(super) fn remove_nested(&self, nested: &Arc<Nested>) {
        let mut parts = self.taking_part();
        let place = parts.nested.iter().position(|other| Arc::ptr_eq(other, nested));
        let removed = place.map(|place| parts.nested.remove(place));
        drop(parts);
        drop(removed);
    }

    pub(super) fn nested(&self) -> Vec<Arc<Nested>> {
        self.taking_part().nested.clone()
    }

    pub(super) fn let_go_of_nested(&self) {
        let nested = std::mem::take(&mut self.taking_part().nested);
        drop(nested); // with the users' causes
    }

    pub(super) fn failures(&self) -> Vec<Failure> {
        self.taking_part().failures.clone()
    }

    /// What is nested stays, and what failed: a shutdown that this one is nested in may have to tell of it.
    pub(super) fn let_go(&self) {
        let mut parts = self.taking_part();
        (parts.is_begun, parts.is_over) = (true, true);
        let before = (std::mem::take(&mut parts.hooks), std::mem::take(&mut parts.groups));
        drop(parts);
        drop(before); // the user's, so under no lock
    }
}

/// What a phase's holds keep, and its shutdown until the phase begins. When it goes, the phase is over.
pub(super) struct Crew {
    stage: Arc<Stage>,
    /// A phase waits for those of the one before.
    next: OnceLock<Arc<Crew>>,
}

impl Crew {
    pub(super) fn of(stage: &Arc<Stage>) -> Arc<Crew> {
        let crew = Arc::new(Crew { stage: Arc::clone(stage), next: OnceLock::new() });
        let _ = stage.crew.set(Arc::downgrade(&crew));
        crew
    }

    pub(super) fn keep(&self, next: &Arc<Crew>) {
        let _ = self.next.set(Arc::clone(next));
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        let Stage { over_now, context, place, .. } = &*self.stage;
        // For the reason for which it began, if it has.
        let cause: Option<Cause> = context.err().and_then(|error| error.cause().cloned());
        tree::cancel(over_now.context().as_ref(), By::Call, cause, place.location);
    }
}
