//! What one `notify` listens for, and what it has heard.
//!
//! Hearing and ending are two steps. What was heard is noted under the hub's lock; the contexts are ended afterwards, with
//! no lock held, since that runs user code. Whoever comes may do the second step, and as often as it likes: it ends what the
//! notes say, in their order, and a context that has ended stays as it is. So the context of a second signal is never done
//! before that of the first.

use std::panic::{catch_unwind, resume_unwind};
use std::sync::OnceLock;

use purview::CancelHandle;

use crate::signal::{Signal, SignalReceived};

pub(crate) struct Listener {
    /// In order, each once.
    pub(crate) signals: Vec<Signal>,
    /// The context of the first signal.
    pub(crate) first: CancelHandle,
    /// The context of the second one, no relation of the other.
    pub(crate) again: CancelHandle,
    /// The first two signals that were heard. Written under the hub's lock.
    heard: [OnceLock<Signal>; 2],
}

impl Listener {
    pub(crate) fn new(signals: Vec<Signal>, first: CancelHandle, again: CancelHandle) -> Listener {
        Listener { signals, first, again, heard: [const { OnceLock::new() }; 2] }
    }

    pub(crate) fn listens_for(&self, signal: Signal) -> bool {
        self.signals.binary_search(&signal).is_ok()
    }

    /// Notes a signal. True if a context is to be ended now.
    pub(crate) fn hear(&self, signal: Signal) -> bool {
        self.heard.iter().any(|place| place.set(signal).is_ok())
    }

    /// Ends what the signals that were heard end. Resumes the first panic of a callback, after both.
    pub(crate) fn end(&self) {
        let [first, second] = &self.heard;
        let ended = catch_unwind(|| end(&self.first, first));
        end(&self.again, second);
        if let Err(panic) = ended {
            resume_unwind(panic);
        }
    }
}

fn end(context: &CancelHandle, heard: &OnceLock<Signal>) {
    if let Some(&signal) = heard.get() {
        context.cancel_with(SignalReceived(signal));
    }
}
