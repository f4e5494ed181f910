//! The model: each context's parents, kind and place in time, from which follows what a cancel must have ended.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use purview::{CancelGuard, CancelHandle, Context, Error, Key, OnDone};

use crate::report::Call;
use crate::rng::Rng;
use crate::seen::{Kept, Ledger, Mark, Numbered};
use crate::team::spin_until;

pub(crate) static VALUE: Key<Mark> = Key::new("value");
const HOUR: Duration = Duration::from_secs(3600);

/// What a context is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Kind {
    Cancel,
    /// Shares the node of its parent.
    Value,
    Timeout(Duration),
    Deadline(Duration),
    Grace(Duration),
    /// A child that also has a value and a cause for its deadline.
    Full(Duration),
    Merge,
    WithoutCancel,
}

impl Kind {
    /// Whether the end of its parents passes it by: for a while, or permanently.
    pub(crate) fn is_shield(self) -> bool {
        matches!(self, Kind::Grace(_) | Kind::WithoutCancel)
    }

    pub(crate) fn random(rng: &mut Rng, flavor: Flavor) -> Kind {
        let chance = rng.below(100);
        match flavor {
            Flavor::Plain => Kind::Cancel,
            Flavor::Merges if chance < 12 => Kind::Merge,
            Flavor::Merges if chance < 16 => Kind::Timeout(HOUR),
            Flavor::Merges => Kind::Cancel,
            Flavor::Mixed => match chance {
                0..56 => Kind::Cancel,
                56..64 => Kind::Value,
                64..70 => Kind::Timeout(HOUR),
                70..74 => Kind::Timeout(Duration::from_micros(rng.magnitude(5, 2_000) as u64)),
                74..78 => Kind::Deadline(HOUR),
                78..80 => Kind::Deadline(Duration::from_micros(rng.magnitude(5, 2_000) as u64)),
                80..84 => Kind::Grace(Duration::from_nanos(rng.below(3_000) as u64)),
                84..87 => Kind::Grace(Duration::from_micros(rng.below(100) as u64)),
                87..90 => Kind::Full(HOUR),
                90..92 => Kind::Full(Duration::from_micros(rng.between(5, 200) as u64)),
                92..98 => Kind::Merge,
                _ => Kind::WithoutCancel,
            },
        }
    }
}

/// Which kinds a round has.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Flavor {
    Plain,
    Merges,
    Mixed,
}

/// A callback's registration, and how often the callback has run.
pub(crate) struct Callback {
    /// Kept by the slot, or detached.
    pub(crate) _registration: Option<OnDone>,
    pub(crate) runs: Arc<AtomicU32>,
}

/// A context, and what is known of it.
pub(crate) struct Slot {
    pub(crate) context: Context,
    pub(crate) handle: Option<CancelHandle>,
    pub(crate) guard: Mutex<Option<CancelGuard>>,
    /// Their numbers are lower than its own.
    pub(crate) parents: Vec<usize>,
    pub(crate) kind: Kind,
    /// Registered right after it was derived, and before the stamp.
    pub(crate) callbacks: Vec<Callback>,
    /// Taken when it was derived, and its callbacks registered: its place in the order of all that happens.
    pub(crate) stamp: u64,
    /// When its derivation had returned.
    pub(crate) derived: Instant,
    /// Its deadline as it was then; that can only come earlier.
    pub(crate) deadline: Option<Instant>,
    /// Whether it is sure to end once the tree's top has.
    pub(crate) is_mortal: bool,
    /// Whether a grace is above it, or is it.
    pub(crate) has_grace: bool,
    /// How many calls have begun to cancel it.
    pub(crate) calls: AtomicU32,
}

/// A round of the shape.
pub(crate) struct Board {
    /// Never ends: what the top leaves behind in its parent is counted here.
    pub(crate) root: (Context, CancelGuard),
    slots: Vec<OnceLock<Slot>>,
    taken: AtomicUsize,
    clock: AtomicU64,
    pub(crate) flavor: Flavor,
    /// What each thread does.
    pub(crate) steps: OnceLock<Vec<Vec<super::plan::Step>>>,
    pub(crate) logs: Mutex<Vec<Log>>,
    /// What callbacks, on whatever thread, have seen.
    pub(crate) told: Mutex<Log>,
    pub(crate) values: Arc<Ledger>,
    pub(crate) causes: Arc<Ledger>,
    cause: AtomicU64,
    threads: usize,
    met: AtomicUsize,
}

/// What a thread has seen in a round.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) calls: Vec<Call>,
    pub(crate) kept: Vec<Kept>,
    /// Registrations that were stopped, with how often each is to have run at the end.
    pub(crate) stopped: Vec<(Arc<AtomicU32>, u32)>,
    pub(crate) registered: Vec<(OnDone, Arc<AtomicU32>)>,
    pub(crate) waits: u64,
}

impl Board {
    pub(crate) fn new(size: usize, flavor: Flavor, threads: usize) -> Board {
        Board {
            root: Context::background().with_cancel(),
            slots: (0..size).map(|_| OnceLock::new()).collect(),
            taken: AtomicUsize::new(0),
            clock: AtomicU64::new(1),
            flavor,
            steps: OnceLock::new(),
            logs: Mutex::new(Vec::new()),
            told: Mutex::default(),
            values: Arc::default(),
            causes: Arc::default(),
            cause: AtomicU64::new(0),
            threads,
            met: AtomicUsize::new(0),
        }
    }

    /// Waits until all threads have come to this phase.
    pub(crate) fn meet(&self, phase: usize) {
        self.met.fetch_add(1, Ordering::AcqRel);
        spin_until(|| self.met.load(Ordering::Acquire) >= phase * self.threads);
    }

    /// What happens from here on has a stamp that is not below this one.
    pub(crate) fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    pub(crate) fn cause(&self) -> (u64, Numbered) {
        let number = self.cause.fetch_add(1, Ordering::Relaxed);
        (number, Numbered { number, _mark: self.causes.mark() })
    }

    /// How many numbers are taken; some slots may not be filled yet.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst).min(self.slots.len())
    }

    pub(crate) fn get(&self, number: usize) -> Option<&Slot> {
        self.slots.get(number)?.get()
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = (usize, &Slot)> {
        let all = self.slots[..self.taken()].iter().enumerate();
        all.filter_map(|(number, slot)| Some((number, slot.get()?)))
    }

    pub(crate) fn into_slots(self) -> Vec<Slot> {
        self.slots.into_iter().filter_map(OnceLock::into_inner).collect()
    }

    /// Derives a context below `parents`, and registers its callbacks. `None` if the round is full.
    pub(crate) fn derive(
        &self,
        kind: Kind,
        parents: &[usize],
        callbacks: impl FnOnce(&Context) -> Vec<Callback>,
    ) -> Option<usize> {
        let above: Vec<&Slot> = parents.iter().filter_map(|it| self.get(*it)).collect();
        let parent = above.first().map_or(&self.root.0, |slot| &slot.context);
        let (context, guard) = match kind {
            Kind::Cancel => split(parent.with_cancel()),
            Kind::Value => (parent.with_value(&VALUE, self.values.mark()), None),
            Kind::Timeout(time) => split(parent.with_timeout(time)),
            Kind::Deadline(time) => split(parent.with_deadline(Instant::now() + time)),
            Kind::Grace(time) => split(parent.with_grace(time)),
            Kind::Full(time) => {
                let derive = parent.derive().name("full").timeout(time);
                let derive = derive.deadline_cause(self.cause().1);
                split(derive.value(&VALUE, self.values.mark()).build())
            }
            Kind::Merge => split(Context::any_of(above.iter().map(|slot| &slot.context))),
            Kind::WithoutCancel => (parent.without_cancel(), None),
        };
        let deadline = context.deadline();
        let derived = Instant::now();
        self.check_born(kind, &above, deadline, derived);
        let callbacks = callbacks(&context);
        let number = self.taken.fetch_add(1, Ordering::SeqCst);
        let place = self.slots.get(number)?;
        let inherits = |of: fn(&Slot) -> bool| above.iter().any(|slot| of(slot));
        let slot = Slot {
            handle: guard.as_ref().map(CancelGuard::handle),
            guard: Mutex::new(guard),
            parents: parents.to_vec(),
            kind,
            callbacks,
            stamp: self.clock.fetch_add(1, Ordering::SeqCst),
            derived,
            deadline,
            is_mortal: kind != Kind::WithoutCancel
                && (above.is_empty() || inherits(|slot| slot.is_mortal)),
            has_grace: matches!(kind, Kind::Grace(_))
                || kind != Kind::WithoutCancel && inherits(|slot| slot.has_grace),
            calls: AtomicU32::new(0),
            context,
        };
        assert!(place.set(slot).is_ok(), "numbers are taken once");
        Some(number)
    }

    /// A new context's deadline is not later than that of any parent.
    fn check_born(&self, kind: Kind, above: &[&Slot], deadline: Option<Instant>, derived: Instant) {
        let own = match kind {
            Kind::WithoutCancel => {
                if deadline.is_some() {
                    let seen = format!("{deadline:?}");
                    crate::report::broken("without_cancel() has no deadline (C26)", seen);
                }
                return;
            }
            Kind::Timeout(time) | Kind::Deadline(time) | Kind::Full(time) => Some(derived + time),
            _ => None,
        };
        let from = |it: Instant| match kind {
            Kind::Grace(time) => it.max(derived) + time, // of a parent that is done, it begins now
            _ => it,
        };
        let parents = above.iter().filter_map(|slot| slot.deadline).map(from);
        if let Some(latest) = parents.chain(own).min() {
            if deadline.is_none_or(|it| it > latest) {
                crate::report::broken(
                    "deadline() is the earliest of a context's own and its ancestors' (C15)",
                    format_args!("{deadline:?} of a new {kind:?}, and not {latest:?}"),
                );
            }
        }
    }

    /// A context and what is above it, by first parents, for a report.
    pub(crate) fn describe(&self, number: usize) -> String {
        let mut path = Vec::new();
        let mut at = Some(number);
        while let Some((number, slot)) = at.and_then(|it| Some((it, self.get(it)?))) {
            let more = slot.parents.get(1..).unwrap_or(&[]);
            let more = if more.is_empty() { String::new() } else { format!(" and {more:?}") };
            path.push(format!("{number} {:?}{more}", slot.kind));
            at = slot.parents.first().copied();
        }
        path.join(" < ")
    }

    /// Whether `above` is this context or one of its ancestors, whatever shields there are between them.
    pub(crate) fn is_at_or_above(&self, above: usize, below: usize) -> bool {
        let mut left = vec![below];
        while let Some(number) = left.pop() {
            if number == above {
                return true;
            }
            if number > above {
                left.extend(self.get(number).iter().flat_map(|slot| &slot.parents));
            }
        }
        false
    }

    /// Whether a grace is done, and is still to be reached by the end of its parent. One that was live when that end reached it is
    /// out of reach of later cancels above (C7).
    pub(crate) fn has_ended_before_its_parent(&self, grace: usize) -> bool {
        let Some(slot) = self.get(grace).filter(|slot| slot.context.is_done()) else {
            return false;
        };
        // In this order: a parent that is live now was live when the grace ended.
        slot.parents.iter().all(|it| self.get(*it).is_some_and(|it| !it.context.is_done()))
    }

    /// What a cancel of `target` reaches: all below it that was derived before the stamp, but for what is below a shield.
    /// Of the shields, `ended` were over before.
    pub(crate) fn reach(&self, target: usize, before: u64, ended: &[usize]) -> Vec<Reached> {
        let taken = self.taken();
        let mut reached: Vec<Option<bool>> = vec![None; taken];
        let mut all = Vec::new();
        for number in target..taken {
            let Some(slot) = self.get(number).filter(|slot| slot.stamp < before) else { continue };
            let is_called = slot.calls.load(Ordering::SeqCst) > 0;
            let contested = if number == target {
                Some(false)
            } else if slot.kind.is_shield() && !ended.contains(&number) {
                None
            } else {
                let above = slot.parents.iter().filter_map(|it| reached[*it]);
                above.reduce(|a, b| a || b).map(|it| it || is_called)
            };
            reached[number] = contested;
            if let Some(is_contested) = contested {
                all.push(Reached { number, is_contested });
            }
        }
        all
    }
}

/// A context that a cancel reaches.
pub(crate) struct Reached {
    pub(crate) number: usize,
    /// Whether another call has begun at it, or between it and the target: then that one may call its callbacks.
    pub(crate) is_contested: bool,
}

fn split((context, guard): (Context, CancelGuard)) -> (Context, Option<CancelGuard>) {
    (context, Some(guard))
}

/// Reads a context's error and keeps it.
pub(crate) fn keep(log: &mut Log, number: usize, slot: &Slot) -> Option<Error> {
    let error = slot.context.err()?;
    log.kept.push(Kept::new(number, error.clone()));
    Some(error)
}
