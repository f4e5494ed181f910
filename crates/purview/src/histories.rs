//! Histories of three threads, played through by shuttle, and held against the model of the promises.
//!
//! A history is what each thread does, a few operations on one small tree, generated from a number. Shuttle plays it in many ways, one
//! thread at a time: what began and returned when is one list. Then an order is looked for in which the model does the same
//! (`purview_conformance::History::allows` says what is linearizable, and what is promised to be less). Shuttle knows no weak
//! memory; for that there are the models.
//!
//! `cargo xtask shuttle` runs them. What fails prints the history's number and shuttle's schedule; both, given in `SEED` and
//! `SCHEDULE`, play it again.

use std::env;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use purview_conformance::{Action, Answer, End, Event, History, Numbers, Op, STEPS, Seen, THREADS};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, FailurePersistence, Runner, thread};

use crate::time::ManualClock;
use crate::{CancelHandle, Context, Key, OnDone};

#[test]
fn histories_have_an_order_in_which_the_model_does_the_same() {
    for seed in seeds() {
        let history = History::generate(&mut Numbers::Seed(seed));
        let play = move || play(seed, &history);
        if let Ok(schedule) = env::var("SCHEDULE") {
            return shuttle::replay(play, &schedule);
        }
        let ways = number("WAYS", 100);
        Runner::new(RandomScheduler::new_from_seed(seed, ways), config()).run(play.clone());
        // As many that are preempted twice at the most: what needs few preemptions, in the right places, is found sooner.
        Runner::new(PctScheduler::new_from_seed(seed, 3, ways), config()).run(play);
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::Print;
    config
}

/// Of the histories to be played.
fn seeds() -> std::ops::Range<u64> {
    let first = number("SEED", 0);
    first..first + number("HISTORIES", 1)
}

fn number<N: FromStr>(name: &str, default: N) -> N {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

static KEYS: [Key<u32>; purview_conformance::KEYS] = [Key::new("a"), Key::new("b"), Key::new("c")];

/// A cause that is a number.
#[derive(Debug)]
struct Number(u32);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Number {}

/// One context, and the way to cancel it.
type Made = (Context, Option<CancelHandle>);

/// What all threads have. Its locks are not shuttle's, and nothing of the crate's happens under them.
#[derive(Clone)]
struct Shared {
    clock: ManualClock,
    begin: Instant,
    registrations: Arc<Mutex<Vec<Option<OnDone>>>>,
    events: Arc<Mutex<Vec<Event>>>,
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn note(&self, event: Event) {
        hold(&self.events).push(event);
    }

    fn derive(&self, parent: &Context, op: Op) -> Made {
        let guarded = |(context, guard): (Context, crate::CancelGuard)| {
            let handle = guard.disarm();
            (context, Some(handle))
        };
        match op {
            Op::Value(_, key, value) => (parent.with_value(&KEYS[key], value), None),
            Op::Detach(_) => (parent.without_cancel(), None),
            Op::Deadline(_, at, cause) => {
                let far = Duration::from_micros(at.unsigned_abs());
                let at = if at < 0 { self.begin - far } else { self.begin + far };
                let child = parent.derive().deadline(at);
                let child = if cause == 0 { child } else { child.deadline_cause(Number(cause)) };
                guarded(child.build())
            }
            _ => guarded(parent.with_cancel()),
        }
    }

    fn watch(&self, context: &Context, name: usize) {
        let shared = self.clone();
        let registration = context.on_done(move |_| shared.note(Event::Ran(name)));
        hold(&self.registrations)[name] = Some(registration);
    }

    fn look(&self, context: &Context) -> Seen {
        let end = context.err().map(|err| {
            let cause = err.cause().and_then(|cause| cause.downcast_ref::<Number>());
            let cause = cause.map_or(0, |number| number.0);
            if err.is_canceled() { End::Canceled(cause) } else { End::DeadlineExceeded(cause) }
        });
        let deadline = context.deadline().map(|at| {
            let after = at.saturating_duration_since(self.begin).as_micros() as i64;
            after - self.begin.saturating_duration_since(at).as_micros() as i64
        });
        Seen::new(end, deadline, KEYS.each_ref().map(|key| context.value(key).copied()))
    }

    fn act(
        &self,
        history: &History,
        made: &mut [Option<Made>],
        thread: usize,
        step: usize,
    ) -> Answer {
        let context = |name: usize| made[name].as_ref().expect("its own, or there before");
        match history.threads[thread][step] {
            Action::Look(name) => return Answer::Seen(self.look(&context(name).0)),
            Action::Do(Op::End(name, cause)) => {
                if let Some(handle) = &context(name).1 {
                    if cause == 0 { handle.cancel() } else { handle.cancel_with(Number(cause)) }
                }
            }
            Action::Do(Op::Advance(by)) => {
                self.clock.advance(Duration::from_micros(by.unsigned_abs()))
            }
            Action::Do(Op::Watch(name)) => {
                let own = History::name(history.registrations(), thread, step);
                self.watch(&context(name).0, own);
            }
            Action::Do(Op::Stop(name)) => {
                let registration = hold(&self.registrations)[name].take();
                return Answer::Stopped(registration.is_some_and(OnDone::stop));
            }
            Action::Do(op) => {
                let parent = op.parent().expect("it derives");
                let child = self.derive(&context(parent).0, op);
                made[History::name(history.contexts(), thread, step)] = Some(child);
            }
            _ => unreachable!("no history has it"),
        }
        Answer::Done
    }
}

/// Once, in the way that shuttle has chosen.
fn play(seed: u64, history: &History) {
    let clock = ManualClock::new();
    let root = if history.is_timed { clock.root() } else { Context::background() };
    let (begin, names) = (clock.now(), THREADS * STEPS);
    let registrations = (0..history.registrations() + names).map(|_| None).collect();
    let registrations = Arc::new(Mutex::new(registrations));
    let shared = Shared { clock, begin, registrations, events: Arc::default() };
    let mut made = vec![Some((root, None))];
    let mut watched = 0;
    for op in &history.before {
        if let Op::Watch(name) = *op {
            shared.watch(&made[name].as_ref().expect("made before").0, watched);
            watched += 1;
        } else {
            let parent = op.parent().expect("it derives");
            let child = shared.derive(&made[parent].as_ref().expect("made before").0, *op);
            made.push(Some(child));
        }
    }
    made.resize_with(history.contexts() + names, || None);
    hold(&shared.events).clear();
    let threads = [0, 1, 2].map(|me| {
        let (shared, history, mut made) = (shared.clone(), history.clone(), made.clone());
        thread::spawn(move || {
            for step in 0..STEPS {
                shared.note(Event::Begins(me));
                let answer = shared.act(&history, &mut made, me, step);
                shared.note(Event::Returns(me, answer));
            }
            made
        })
    });
    let made = threads.map(|thread| thread.join().expect("no panic"));
    let at_last: Vec<_> = (0..history.contexts() + names)
        .filter_map(|name| Some((name, made.iter().find_map(|made| made[name].as_ref())?)))
        .map(|(name, (context, _))| (name, shared.look(context)))
        .collect();
    let events = hold(&shared.events).clone();
    if !history.allows(&events, &at_last) {
        let mut text =
            format!("history {seed}, {history}what happened:\n{}", history.tell(&events));
        at_last.iter().for_each(|(name, seen)| text += &format!("at last {name}: {seen}\n"));
        panic!("{text}and there is no order in which the model does the same");
    }
}
