//! The face of it: a context, and the right to stop listening.

use std::fmt;
use std::io;
use std::sync::Arc;

use purview::{CancelGuard, Context};

use crate::hub;
use crate::listener::Listener;
use crate::signal::Signal;

/// Derives a context that ends on the first of `signals`, with [`SignalReceived`](crate::SignalReceived) as the cause, or when
/// `parent` ends. Go's `signal.NotifyContext`.
///
/// It listens until the [`Notify`] is dropped or stopped, also after the context has ended: until then the signals have no
/// other effect, and a second Ctrl-C does not kill the process. If `parent` is done already, it does not listen at all.
///
/// # Errors
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for no signals at all. (Go would listen for all there are; which these are
/// should be said.) What the system says, if it gives no socket or no thread, or if it refuses the signal.
/// [`Unsupported`](io::ErrorKind::Unsupported) where the system is no Unix.
///
/// ```
/// use purview::Context;
/// use purview_signal::{Signal, notify};
///
/// let (server, stop) = Context::background().with_cancel();
/// # #[cfg(unix)] {
/// let (running, signals) = notify(&server, [Signal::INTERRUPT, Signal::TERMINATE]).unwrap();
/// assert!(!running.is_done());
/// stop.cancel_with("out of memory");
/// assert_eq!(running.err().unwrap().to_string(), "context canceled: out of memory");
/// drop(signals); // Ctrl-C kills again
/// # }
/// ```
#[track_caller]
pub fn notify(
    parent: &Context,
    signals: impl IntoIterator<Item = Signal>,
) -> io::Result<(Context, Notify)> {
    let mut signals: Vec<Signal> = signals.into_iter().collect();
    signals.sort_unstable();
    signals.dedup();
    if signals.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no signals to listen for"));
    }
    let (ctx, first) = parent.derive().name("signal").build();
    let (_, again) = Context::background().derive().name("second signal").build();
    let listener = Arc::new(Listener::new(signals, first.handle(), again.handle()));
    if !ctx.is_done() {
        hub::add(&listener)?;
    }
    Ok((ctx, Notify { listener, first, again }))
}

/// The right to stop listening, and the duty: dropping it stops. Made by [`notify`].
///
/// When it is dropped or stopped, its contexts end, if they have not, and a signal for which nobody else listens does again
/// what it did before. Several at once may listen for the same signal: all hear it.
///
/// ```
/// # #[cfg(unix)] {
/// use purview::{By, Context};
/// use purview_signal::{Signal, notify};
///
/// let (ctx, signals) = notify(&Context::background(), [Signal::USER1]).unwrap();
/// assert!(format!("{signals:?}").starts_with("Notify([SIGUSR1], "));
/// drop(signals);
/// assert_eq!(ctx.err().unwrap().origin().by(), By::GuardDropped);
/// # }
/// ```
///
/// # Panics
/// Stopping, by a call or by the drop, ends contexts, and that resumes a panic of a callback that it called: see
/// [`CancelGuard`].
#[must_use = "dropping it stops listening and cancels the context at once; keep it as long as signals are to be heard"]
pub struct Notify {
    listener: Arc<Listener>,
    first: CancelGuard,
    again: CancelGuard,
}

impl Notify {
    /// A context that ends on the second of the signals, with [`SignalReceived`](crate::SignalReceived) as the cause: somebody
    /// has lost patience. The second may be another one than the first, and counts from [`notify`] on, not from this call.
    ///
    /// It is no child of any other, so neither the first signal nor the end of the parent ends it. It is canceled without a
    /// cause when nobody can end it any more, because the `Notify` is dropped or stopped: who waits for it asks for the
    /// cause. When it ends on a signal, the context of the first has ended.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use purview::Context;
    /// use purview_signal::{Signal, notify};
    ///
    /// let (_running, signals) = notify(&Context::background(), [Signal::INTERRUPT]).unwrap();
    /// let again = signals.again();
    /// let forced = std::thread::spawn(move || match again.done().wait().cause() {
    ///     Some(_signal) => std::process::exit(130),
    ///     None => "everything was finished in time",
    /// });
    /// drop(signals);
    /// assert_eq!(forced.join().unwrap(), "everything was finished in time");
    /// # }
    /// ```
    #[must_use]
    pub fn again(&self) -> Context {
        self.again.context().clone()
    }

    /// Stops listening. When this returns, its contexts are done, and each signal for which nobody else listens does what it
    /// did before. May be called more than once, and from several threads.
    ///
    /// A signal that came earlier is still the cause.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use purview::Context;
    /// use purview_signal::{Signal, notify};
    ///
    /// let (ctx, signals) = notify(&Context::background(), [Signal::INTERRUPT]).unwrap();
    /// signals.stop();
    /// signals.stop(); // changes nothing
    /// assert_eq!(ctx.err().unwrap().to_string(), "context canceled");
    /// # }
    /// ```
    #[track_caller]
    pub fn stop(&self) {
        self.stop_listening();
        self.first.cancel();
        self.again.cancel();
    }

    fn stop_listening(&self) {
        hub::remove(&self.listener);
        self.listener.end();
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        self.stop_listening(); // and then the guards go
    }
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Notify").field(&self.listener.signals).field(self.first.context()).finish()
    }
}
