//! A request on its way: from the call of the service to the last byte of the answer.

use std::sync::Arc;
use std::thread;

use http::HeaderMap;
use purview::{CancelGuard, Context};

use crate::answer::Form;
use crate::layer::{Causes, Config};

/// The duty to end a request's context, with the cause that fits. It is handed from the response's future to its body; wherever it
/// is dropped before the end, the client has gone; unless that is because of a panic.
pub(crate) struct Running {
    guard: CancelGuard,
    /// Ends when the handler, or the body, is to be dropped: with the request's context, or a grace later.
    dropped: Context,
    config: Arc<Config>,
    pub(crate) form: Form,
    /// The answer has no body to be read, whatever the handler gives.
    pub(crate) is_head: bool,
    /// As much of the answer has been handed over as was said that there is. Who drops the rest has not gone.
    is_whole: bool,
    is_over: bool,
}

impl Running {
    pub(crate) fn new(
        guard: CancelGuard,
        dropped: Context,
        config: Arc<Config>,
        form: Form,
        is_head: bool,
    ) -> Running {
        Running { guard, dropped, config, form, is_head, is_whole: false, is_over: false }
    }

    /// The request's own context.
    pub(crate) fn request(&self) -> &Context {
        self.guard.context()
    }

    pub(crate) fn dropped(&self) -> &Context {
        &self.dropped
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// The time is up, or the server goes down, and the grace after that is over.
    pub(crate) fn is_ended(&self) -> bool {
        !self.is_over && self.dropped.is_done()
    }

    /// Why it [is ended](Self::is_ended), if it is.
    pub(crate) fn ended(&self) -> Option<purview::Error> {
        if self.is_over { None } else { self.dropped.err() }
    }

    /// Writes what an answer says of its request.
    pub(crate) fn sign(&self, headers: &mut HeaderMap) {
        if let Some(id) = self.config.propagation().request_id_of(&self.dropped) {
            id.write_if_none(headers);
        }
    }

    /// Nothing more of the answer has to be asked for.
    pub(crate) fn note_whole(&mut self) {
        self.is_whole = true;
    }

    /// The whole answer has been handed over.
    pub(crate) fn finish(&mut self) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.guard.cancel_with(self.config.causes().finished.clone());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_whole {
            self.finish();
        } else if !self.is_over {
            let Causes { panicked, client_gone, .. } = self.config.causes();
            let cause = if thread::panicking() { panicked } else { client_gone };
            self.guard.cancel_with(cause.clone());
        }
    }
}
