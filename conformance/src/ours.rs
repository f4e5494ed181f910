//! purview, on a manual clock.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use purview::time::ManualClock;
use purview::{CancelGuard, Context, Done, Key, OnDone};

use crate::KEYS;
use crate::program::{Op, Program};
use crate::world::{End, Seen, World, run};

static VALUES: [Key<u32>; KEYS] = [Key::new("a"), Key::new("b"), Key::new("c")];

/// A cause that is a number.
#[derive(Debug)]
struct Number(u32);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::error::Error for Number {}

/// Who hears of an end. In a program they take turns: nobody is to notice which it was.
pub(crate) enum Registration {
    Callback(OnDone),
    /// A task that waits, and goes on when it is woken.
    Task(Pin<Box<Done<'static>>>, Arc<Task>),
}

pub(crate) struct Task {
    number: usize,
    is_woken: AtomicBool,
    ran: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            self.ran.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        }
    }
}

impl Registration {
    fn task(mut done: Pin<Box<Done<'static>>>, task: Task) -> Registration {
        let task = Arc::new(task);
        if poll(done.as_mut(), &Waker::from(Arc::clone(&task))) {
            Arc::clone(&task).wake(); // it goes on at once
        }
        Registration::Task(done, task)
    }

    pub(crate) fn stop(self) -> bool {
        match self {
            Registration::Callback(callback) => callback.stop(),
            Registration::Task(mut done, task) => {
                let is_woken = task.is_woken.load(Ordering::Acquire);
                assert!(!is_woken || poll(done.as_mut(), Waker::noop()), "woken for nothing");
                drop(done);
                !is_woken
            }
        }
    }
}

fn poll(done: Pin<&mut Done<'static>>, waker: &Waker) -> bool {
    done.poll(&mut std::task::Context::from_waker(waker)).is_ready()
}

/// purview's contexts.
pub struct Ours {
    clock: ManualClock,
    /// The clock stands still, then, and the contexts are on the system's.
    is_on_the_systems: bool,
    begin: Instant,
    pub(crate) contexts: Vec<(Context, Option<CancelGuard>)>,
    pub(crate) registrations: Vec<Option<Registration>>,
    pub(crate) ran: Arc<Mutex<Vec<usize>>>,
}

impl Default for Ours {
    fn default() -> Self {
        Ours::on(ManualClock::new())
    }
}

impl Ours {
    /// One for each way in which a clock may have its deadlines served: those of a manual one are armed as they are made; those of the
    /// system's when somebody waits for them, and until then it is who asks that finds them passed. The latter is here a manual clock,
    /// too, and there only where the crate was built for checks (`--cfg purview_check`).
    #[must_use]
    pub fn on_every_clock() -> Vec<Ours> {
        vec![
            Ours::default(),
            #[cfg(purview_check)]
            Ours::on(ManualClock::like_the_systems()),
        ]
    }

    /// What is shown of a program, on whichever clock, that is not what was `promised`.
    #[must_use]
    pub fn differing(program: &Program, promised: &[String]) -> Option<Vec<String>> {
        let shown = Ours::on_every_clock().into_iter().map(|mut ours| run(program, &mut ours));
        shown.into_iter().find(|shown| shown != promised)
    }

    /// One on the system's clock: for programs that are [still](Program::still). Its contexts are as small and quick as anybody's; on a
    /// manual clock they have more to them.
    #[must_use]
    pub fn on_the_systems_clock() -> Ours {
        let (root, guard) = Context::background().with_cancel();
        let _ = guard.disarm(); // a root that counts its children
        let mut ours = Ours { is_on_the_systems: true, ..Ours::default() };
        ours.contexts = vec![(root, None)];
        ours
    }

    fn on(clock: ManualClock) -> Ours {
        Ours {
            begin: clock.now(),
            contexts: vec![(clock.root(), None)],
            clock,
            is_on_the_systems: false,
            registrations: Vec::new(),
            ran: Arc::default(),
        }
    }
}

impl fmt::Debug for Ours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ours").field("contexts", &self.contexts.len()).finish_non_exhaustive()
    }
}

fn micros(time: i64) -> Duration {
    Duration::from_micros(time.unsigned_abs())
}

impl Ours {
    /// Drops all contexts but the root, and all registrations, beginning where `from` says. How many children the root has then.
    #[must_use]
    pub fn let_go(mut self, from: usize) -> usize {
        let root = self.contexts.remove(0);
        let count = self.contexts.len().max(1);
        self.contexts.rotate_left(from % count);
        if from.is_multiple_of(2) {
            self.registrations.clear();
            self.contexts.clear();
        } else {
            self.contexts.clear();
            self.registrations.clear();
        }
        root.0.statistics().children()
    }

    /// A context, by one of the operations that make one. None, of another.
    pub(crate) fn make<'a>(
        &self,
        op: Op,
        parent: impl Fn(usize) -> &'a Context,
    ) -> Option<(Context, Option<CancelGuard>)> {
        let guarded = |(context, guard)| (context, Some(guard));
        Some(match op {
            Op::Cancel(it) => guarded(parent(it).with_cancel()),
            Op::Deadline(it, after, cause) => {
                // Relative and absolute take turns.
                let child = parent(it).derive();
                let child = if after < 0 {
                    let now = self.clock.now();
                    child.deadline(now.checked_sub(micros(after)).unwrap_or(now))
                } else if after % 2 == 0 || self.is_on_the_systems {
                    child.deadline(self.clock.now() + micros(after))
                } else {
                    child.timeout(micros(after))
                };
                let child = if cause == 0 { child } else { child.deadline_cause(Number(cause)) };
                guarded(child.build())
            }
            Op::Value(it, key, value) => (parent(it).with_value(&VALUES[key % KEYS], value), None),
            Op::Detach(it) => (parent(it).without_cancel(), None),
            Op::Grace(it, time) => guarded(parent(it).with_grace(micros(time))),
            Op::Merge(one, other) => guarded(Context::any_of([parent(one), parent(other)])),
            _ => return None,
        })
    }

    pub(crate) fn register(&self, context: &Context, number: usize) -> Registration {
        let ran = Arc::clone(&self.ran);
        if number.is_multiple_of(2) {
            let call = move |_: &_| ran.lock().unwrap_or_else(PoisonError::into_inner).push(number);
            return Registration::Callback(context.on_done(call));
        }
        let task = Task { number, is_woken: AtomicBool::new(false), ran };
        Registration::task(Box::pin(context.clone().into_done()), task)
    }

    pub(crate) fn pass(&self, time: i64) {
        self.clock.advance(micros(time));
    }

    pub(crate) fn seen(&self, context: &Context) -> Seen {
        let deadline = context.deadline().map(|at| {
            let after = at.saturating_duration_since(self.begin).as_micros() as i64;
            if at >= self.begin { after } else { -((self.begin - at).as_micros() as i64) }
        });
        let values = VALUES.each_ref().map(|key| context.value(key).copied());
        Seen { end: end(context), deadline, values }
    }
}

pub(crate) fn cancel(guard: &CancelGuard, cause: u32) {
    match cause {
        0 => guard.cancel(),
        cause => guard.cancel_with(Number(cause)),
    }
}

/// How it ended; no cause is 0 (D1).
pub(crate) fn end(context: &Context) -> Option<End> {
    let err = context.err()?;
    let cause = err.cause().and_then(|cause| cause.downcast_ref::<Number>());
    let cause = cause.map_or(0, |number| number.0);
    Some(if err.is_canceled() { End::Canceled(cause) } else { End::DeadlineExceeded(cause) })
}

impl World for Ours {
    fn derive(&mut self, op: Op) {
        let made = self.make(op, |parent| &self.contexts[parent].0);
        self.contexts.extend(made);
    }

    fn end(&mut self, context: usize, cause: u32) {
        self.contexts[context].1.iter().for_each(|guard| cancel(guard, cause));
    }

    fn drop_guard(&mut self, context: usize) {
        // A handle remains, so that it can still be canceled, to no effect.
        if let Some(guard) = self.contexts[context].1.take() {
            drop(guard);
        }
    }

    fn advance(&mut self, by: i64) {
        self.pass(by);
    }

    fn watch(&mut self, context: usize) {
        let registration = self.register(&self.contexts[context].0, self.registrations.len());
        self.registrations.push(Some(registration));
    }

    fn stop(&mut self, registration: usize) -> bool {
        self.registrations[registration].take().is_some_and(Registration::stop)
    }

    fn release(&mut self, context: usize) {
        let root = (self.contexts[0].0.clone(), None);
        let (context, guard) = std::mem::replace(&mut self.contexts[context], root);
        let handle = guard.map(CancelGuard::disarm);
        drop((context, handle));
    }

    fn look(&self, context: usize) -> Seen {
        self.seen(&self.contexts[context].0)
    }

    fn take_ran(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.ran.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
