//! Who listens for what, in this process, and the thread that tells them.
//!
//! ```text
//! signal ─▶ handler: writes its number to a line     (unix.rs; no lock)
//!               ▼
//!           thread "purview-signal": reads, notes what each listener has heard   (under the hub's lock)
//!               ▼
//!           a thread for each listener: ends its contexts, callbacks run   (no lock)
//! ```
//!
//! What always holds, outside of the hub's lock:
//!
//! - **H1**: a signal's action is ours if and only if somebody listens for it; save that others may have set theirs since.
//! - **H2**: what a listener hears came while it was listed. So whoever lists or unlists one first has everybody hear what
//!   has come until then.
//!
//! There is one lock, the hub's. No code of the user's runs under it: not a callback, and not the drop of a context either,
//! since whoever takes a listener out of the list holds a count of it. A handler takes no lock.
//!
//! It is tempting to end the contexts on the reading thread. But that runs callbacks, and one of them may block; then the
//! second Ctrl-C, by which somebody wants to get rid of just that program, would not be heard. There are at most two such
//! threads for each `notify`, and none before a signal comes.

use std::collections::btree_map::{BTreeMap, Entry};
use std::io;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::listener::Listener;
use crate::signal::Signal;
use crate::sys;

static HUB: Mutex<Hub> =
    Mutex::new(Hub { line: None, taken: BTreeMap::new(), listeners: Vec::new() });

pub(crate) struct Hub {
    /// Between the handler and the reading thread; made by the first who listens. In the child of a fork it is the
    /// parent's, until somebody listens there.
    line: Option<sys::Line>,
    /// The signals whose action is ours, and the one that each had before.
    taken: BTreeMap<Signal, sys::Action>,
    /// Who listens, in the order of their coming.
    listeners: Vec<Arc<Listener>>,
}

/// Has `listener` hear its signals from here on.
pub(crate) fn add(listener: &Arc<Listener>) -> io::Result<()> {
    #[cfg(unix)]
    crate::fork::watch();
    let mut hub = lock();
    hub.open()?;
    let heard = hub.hear(); // H2: not by the new one
    let taken = hub.take(&listener.signals);
    match taken {
        Ok(()) => hub.listeners.push(Arc::clone(listener)),
        Err(_) => hub.give_back(), // H1: some of them may be taken already
    }
    drop(hub);
    tell(heard);
    taken
}

/// Has `listener` hear nothing any more. Does nothing if it is not listed.
pub(crate) fn remove(listener: &Arc<Listener>) {
    let mut hub = lock();
    let heard = hub.hear(); // H2: by this one, too
    hub.listeners.retain(|other| !Arc::ptr_eq(other, listener));
    hub.give_back();
    drop(hub);
    tell(heard);
}

impl Hub {
    /// Sees that this process has a line and a thread that reads it.
    fn open(&mut self) -> io::Result<()> {
        if self.is_open() {
            return Ok(());
        }
        let line = sys::Line::new()?;
        let reader = line.reader();
        thread::Builder::new().name("purview-signal".into()).spawn(move || read(&reader))?;
        line.open();
        self.line = Some(line);
        // In the child of a fork, some actions may have been given back by the handler itself, and what has come of each came
        // to the parent.
        self.taken.keys().try_for_each(|&signal| sys::take(signal).map(drop))
    }

    /// Makes the actions of these signals ours.
    fn take(&mut self, signals: &[Signal]) -> io::Result<()> {
        for &signal in signals {
            if let Entry::Vacant(place) = self.taken.entry(signal) {
                place.insert(sys::take(signal)?);
            }
        }
        Ok(())
    }

    /// Restores the action of each signal for which nobody listens.
    fn give_back(&mut self) {
        let Hub { taken, listeners, .. } = self;
        taken.retain(|&signal, former| {
            let wanted = listeners.iter().any(|listener| listener.listens_for(signal));
            if !wanted {
                sys::restore(signal, former);
            }
            wanted
        });
    }

    /// Has everybody hear what has come. Returns whose contexts are to be ended: a listener once for each signal that was
    /// news to it.
    fn hear(&mut self) -> Vec<Arc<Listener>> {
        let mut heard = Vec::new();
        // A line from before a fork is the parent's, and so is what was counted then.
        let Some(line) = self.line.as_ref().filter(|line| line.is_open_here()) else {
            return heard;
        };
        let mut hear = |signal: Signal| {
            for listener in &self.listeners {
                if listener.listens_for(signal) && listener.hear(signal) {
                    heard.push(Arc::clone(listener));
                }
            }
        };
        let taken = || self.taken.keys().copied();
        line.empty(|number| {
            taken().filter(|signal| signal.number() == i32::from(number)).for_each(&mut hear);
        });
        for signal in taken() {
            let times = sys::counted(signal).min(2); // nobody cares for a third
            (0..times).for_each(|_| hear(signal));
        }
        heard
    }

    fn is_open(&self) -> bool {
        self.line.as_ref().is_some_and(sys::Line::is_open_here)
    }
}

/// The thread of the hub: for the life of the process.
fn read(line: &sys::Reader) {
    // The line goes only if somebody closes files that are not his. Then nobody hears anything; there is nobody to say it to.
    while line.wait() {
        let heard = lock().hear();
        tell(heard);
    }
}

/// Ends contexts, each time on a thread of its own. Where a listener is there for both of its signals, one thread may be
/// held up by the callbacks of the first; the other finds the first ended, and ends the second.
fn tell(heard: Vec<Arc<Listener>>) {
    for listener in heard {
        let its = Arc::clone(&listener);
        let thread = thread::Builder::new().name("purview-heard".into());
        if thread.spawn(move || its.end()).is_err() {
            // Here, then. A panic was reported by its hook, and is not this thread's.
            let _ = catch_unwind(|| listener.end());
        }
    }
}

pub(crate) fn lock() -> MutexGuard<'static, Hub> {
    HUB.lock().unwrap_or_else(PoisonError::into_inner)
}
