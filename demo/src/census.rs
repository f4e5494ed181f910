//! How many contexts there are in this process, whoever made them: what an observer hears, counted.
//!
//! A context counts for as long as somebody holds it, ended or not. So what is left when nothing is
//! asked for is what is always there, and a number that grows is held by somebody who forgets.

use std::sync::atomic::{AtomicUsize, Ordering};

use purview::observe::{self, Observer};
use purview::{Context, ContextId};
use serde::Serialize;

static CONTEXTS: AtomicUsize = AtomicUsize::new(0);

/// What there is now.
#[derive(Debug, Serialize)]
pub(crate) struct Census {
    /// Contexts that somebody holds.
    contexts: usize,
    /// Deadlines and sleeps that somebody waits for.
    timers: usize,
}

/// Counts from here on.
pub(crate) fn begin() {
    let _ = observe::install(Box::new(Counter)); // a second one would count twice
}

/// Looks.
pub(crate) fn now() -> Census {
    Census { contexts: CONTEXTS.load(Ordering::Relaxed), timers: observe::timers() }
}

struct Counter;

impl Observer for Counter {
    fn derived(&self, _ctx: &Context, _parent: ContextId) {
        CONTEXTS.fetch_add(1, Ordering::Relaxed);
    }

    fn dropped(&self, _ctx: ContextId) {
        CONTEXTS.fetch_sub(1, Ordering::Relaxed);
    }
}
