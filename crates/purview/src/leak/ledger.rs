//! Who belongs to which check. One lock, and nothing of the user's under it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use super::report::{LeakedContext, Leaks, Origin};
use super::{Entered, NONE, Number, current, is_unseen};
use crate::observe;
use crate::timer::driver;
use crate::tree::Panics;
use crate::{Context, ContextId, Error, GroupWatch};

static LEDGER: Mutex<Ledger> =
    Mutex::new(Ledger { opened: 0, checks: BTreeMap::new(), contexts: BTreeMap::new() });

/// As many checks as are open: where there are none, no lock is taken. Written under the lock; who misses a change by a
/// moment has derived before the check was made, as far as anybody can tell.
static OPEN: AtomicUsize = AtomicUsize::new(0);

struct Ledger {
    opened: Number,
    checks: BTreeMap<Number, Open>,
    /// By number, so in the order of derivation.
    contexts: BTreeMap<ContextId, Born>,
}

#[derive(Default)]
struct Open {
    /// Its contexts.
    left: usize,
    groups: Vec<(ContextId, GroupWatch)>,
    waiting: Vec<Waker>,
}

/// A context, since it was derived.
struct Born {
    check: Number,
    parent: ContextId,
    /// The parent, where it is not listed itself.
    outside: Option<Origin>,
    what: Origin,
    at: Instant,
    ended: Option<Error>,
}

fn ledger() -> MutexGuard<'static, Ledger> {
    LEDGER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ledger, as it is held while the process is forked.
#[cfg(unix)]
pub(crate) struct Held(#[expect(dead_code, reason = "held")] MutexGuard<'static, Ledger>);

/// Keeps the ledger as it is while the process is forked. No other lock is taken under this one, so it may be taken last.
#[cfg(unix)]
pub(crate) fn hold() -> Held {
    Held(ledger())
}

fn is_quiet() -> bool {
    OPEN.load(Ordering::Relaxed) == 0
}

pub(super) fn open() -> Number {
    driver::watch_forks();
    observe::begin();
    let mut ledger = ledger();
    ledger.opened += 1;
    let number = ledger.opened;
    ledger.checks.insert(number, Open::default());
    OPEN.store(ledger.checks.len(), Ordering::Relaxed);
    number
}

pub(super) fn close(check: Number) {
    let mut ledger = ledger();
    let open = ledger.checks.remove(&check);
    OPEN.store(ledger.checks.len(), Ordering::Relaxed);
    let all = std::mem::take(&mut ledger.contexts);
    let (its, others) = all.into_iter().partition(|(_, born)| born.check == check);
    ledger.contexts = others;
    drop(ledger);
    let _: (Option<Open>, BTreeMap<ContextId, Born>) = (open, its); // causes and wakers are the user's
}

// ── what is told of contexts ───────────────────────────────────────────────────────────────────────────────────────────────

pub(crate) fn derived(ctx: &Context, parent: ContextId) {
    if is_quiet() || is_unseen() {
        return;
    }
    let here = current();
    // Who ends it at this moment tells of that before it is in the list: so it is asked.
    let ended = ctx.err();
    let mut ledger = ledger();
    let above = ledger.contexts.get(&parent).map(|born| born.check);
    let Some(check) = ledger.checks.get_mut(&above.unwrap_or(here)) else {
        drop(ledger);
        return;
    };
    check.left += 1;
    let outside = if above.is_some() { None } else { Origin::above(ctx) };
    let born = Born {
        check: above.unwrap_or(here),
        parent,
        outside,
        what: Origin::of(ctx),
        at: Instant::now(),
        ended,
    };
    ledger.contexts.insert(ctx.id(), born);
}

pub(crate) fn ended(ctx: ContextId, error: &Error) {
    if is_quiet() {
        return;
    }
    let error = error.clone();
    let mut ledger = ledger();
    let before = match ledger.contexts.get_mut(&ctx) {
        Some(born) => born.ended.replace(error),
        None => Some(error),
    };
    drop(ledger);
    drop(before); // maybe the last that has its cause
}

pub(crate) fn dropped(ctx: ContextId) {
    if is_quiet() {
        return;
    }
    let mut ledger = ledger();
    let Some(born) = ledger.contexts.remove(&ctx) else { return };
    let mut waiting = Vec::new();
    if let Some(check) = ledger.checks.get_mut(&born.check) {
        check.left -= 1;
        if check.left == 0 {
            waiting = std::mem::take(&mut check.waiting);
        }
    }
    drop(ledger);
    let mut panics = Panics::new(); // of a cause's drop and of wakers: each waker is woken (C32)
    panics.catch(|| drop(born));
    for waker in waiting {
        panics.catch(|| waker.wake());
    }
    panics.resume();
}

/// Whether nothing is left; if something is, `waker` is woken when that changes.
pub(super) fn is_empty(check: Number, waker: &Waker) -> bool {
    let waker = waker.clone();
    let mut ledger = ledger();
    let Some(open) = ledger.checks.get_mut(&check).filter(|open| open.left > 0) else {
        drop(ledger);
        drop(waker);
        return true;
    };
    let known = open.waiting.iter().any(|known| known.will_wake(&waker));
    let spare = if known {
        Some(waker)
    } else {
        open.waiting.push(waker);
        None
    };
    drop(ledger);
    drop(spare);
    false
}

// ── groups ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// The check that a group's tasks belong to.
#[derive(Clone, Copy)]
pub(crate) struct Listed(Number);

impl Listed {
    /// Whether its tasks are listed from the start.
    #[inline]
    pub(crate) fn is_listed(self) -> bool {
        self.0 != NONE
    }

    /// While a task of the group runs: what it derives from nowhere is its check's.
    #[inline]
    pub(crate) fn enter(self) -> Option<Entered> {
        self.is_listed().then(|| super::enter(self.0))
    }
}

/// The check to which `ctx` belongs.
pub(crate) fn check_of(ctx: &Context) -> Listed {
    if is_quiet() {
        return Listed(NONE);
    }
    Listed(ledger().contexts.get(&ctx.id()).map_or(NONE, |born| born.check))
}

/// Lists the tasks of a group, whose context is `ctx`.
pub(crate) fn register(check: Listed, ctx: &Context, group: impl FnOnce() -> GroupWatch) {
    if !check.is_listed() {
        return;
    }
    let group = group();
    let mut ledger = ledger();
    let Some(open) = ledger.checks.get_mut(&check.0) else { return };
    let mut over = Vec::new();
    if open.groups.len() == open.groups.capacity() {
        let all = std::mem::take(&mut open.groups);
        (over, open.groups) = all.into_iter().partition(|(_, group)| group.is_gone());
    }
    open.groups.push((ctx.id(), group));
    drop(ledger);
    drop(over);
}

// ── what is left ───────────────────────────────────────────────────────────────────────────────────────────────────────────

pub(super) fn leaks(check: Number) -> Leaks {
    let ledger = ledger();
    let now = Instant::now();
    let mut contexts = Vec::new();
    for (&id, born) in &ledger.contexts {
        if born.check == check {
            contexts.push(LeakedContext {
                id,
                parent: born.parent,
                outside: born.outside,
                what: born.what,
                age: now.saturating_duration_since(born.at),
                ended: born.ended.clone(),
            });
        }
    }
    let groups = ledger.checks.get(&check).map(|open| open.groups.clone()).unwrap_or_default();
    drop(ledger);
    let mut tasks = Vec::new();
    for (ctx, group) in groups {
        tasks.extend(group.tasks().into_iter().map(|task| (ctx, task)));
    }
    Leaks::new(contexts, tasks)
}

#[cfg(all(test, not(purview_loom)))]
mod tests {
    use super::*;
    use crate::leak::Check;
    use crate::{Error, TaskGroup};

    #[test]
    fn groups_that_are_gone_are_not_kept() {
        let check = Check::new();
        let new_group = || TaskGroup::<Error>::new(&Context::background());
        let kept: Vec<_> = (0..20).map(|_| new_group()).collect();
        (0..1000).for_each(|_| drop(new_group()));
        let groups = || ledger().checks[&check.number].groups.len();
        assert!((20..100).contains(&groups()), "{}", groups());
        drop(kept);
        check.assert_none(std::time::Duration::from_secs(3600));
    }

    #[test]
    fn a_check_that_is_gone_keeps_nothing() {
        let check = Check::new();
        let number = check.number;
        let _held = Context::background().with_cancel();
        let listed = || ledger().contexts.values().filter(|born| born.check == number).count();
        assert_eq!((listed(), ledger().checks.contains_key(&number)), (1, true));
        drop(check);
        assert_eq!((listed(), ledger().checks.contains_key(&number)), (0, false));
    }
}
