//! Records of what must not change: what each error said when it was read, and that each value and cause is dropped once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use purview::{By, ContextId, Error, ErrorKind};

use crate::report::broken;

/// All that an error says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Facts {
    pub(crate) kind: ErrorKind,
    pub(crate) by: By,
    pub(crate) origin: ContextId,
    pub(crate) name: Option<&'static str>,
    pub(crate) place: (&'static str, u32, u32),
    pub(crate) at: Instant,
    pub(crate) cause: Option<String>,
    pub(crate) display: String,
}

impl Facts {
    pub(crate) fn of(error: &Error) -> Facts {
        let origin = error.origin();
        let place = origin.location();
        Facts {
            kind: error.kind(),
            by: origin.by(),
            origin: origin.context(),
            name: origin.name(),
            place: (place.file(), place.line(), place.column()),
            at: origin.at(),
            cause: error.cause().map(ToString::to_string),
            display: error.to_string(),
        }
    }
}

/// An error that is kept, and what it said when it was read.
pub(crate) struct Kept {
    /// Which context it was read from, in the round's own numbers.
    pub(crate) of: usize,
    pub(crate) error: Error,
    pub(crate) facts: Facts,
}

impl Kept {
    pub(crate) fn new(of: usize, error: Error) -> Kept {
        let facts = Facts::of(&error);
        let kept = Kept { of, error, facts };
        kept.check("when read a second time");
        kept
    }

    /// Reads the error again.
    pub(crate) fn check(&self, when: &str) {
        let now = Facts::of(&self.error);
        if now != self.facts {
            let was = &self.facts;
            broken(
                "an error never changes (C2)",
                format_args!("context {}, {when}: was {was:?}, is {now:?}", self.of),
            );
        }
    }
}

/// Counts things made and dropped, each of which is to be dropped once.
#[derive(Default)]
pub(crate) struct Ledger {
    made: AtomicU64,
    dropped: AtomicU64,
}

impl Ledger {
    pub(crate) fn mark(self: &Arc<Self>) -> Mark {
        self.made.fetch_add(1, Ordering::Relaxed);
        Mark { ledger: Arc::clone(self), dropped: AtomicU64::new(0) }
    }

    /// Made and dropped so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.made.load(Ordering::Acquire), self.dropped.load(Ordering::Acquire))
    }
}

/// A thing that is to be dropped once: a value, or a part of a cause.
pub(crate) struct Mark {
    ledger: Arc<Ledger>,
    dropped: AtomicU64,
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.ledger.dropped.fetch_add(1, Ordering::AcqRel);
        if self.dropped.fetch_add(1, Ordering::AcqRel) > 0 {
            broken("a value is dropped once (C24)", "one that was dropped before");
        }
    }
}

/// A cause whose number tells it from all others.
pub(crate) struct Numbered {
    pub(crate) number: u64,
    pub(crate) _mark: Mark,
}

impl fmt::Display for Numbered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cause {}", self.number)
    }
}

impl fmt::Debug for Numbered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Numbered {}
