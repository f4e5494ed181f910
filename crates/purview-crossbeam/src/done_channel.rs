//! The end of a context as a channel that nothing is sent on: it loses its sender when the context ends.
//!
//! The sender lies in a callback at the context, so it goes when that is called, and also when it is unregistered. A receiver
//! that outlived its registration would therefore tell of an end that was none; so it is lent, and who clones it is warned.

use std::convert::Infallible;
use std::fmt;
use std::sync::OnceLock;

use crossbeam_channel::{Receiver, bounded, never};
use purview::{Context, OnDone};

/// The end of a context, for crossbeam-channel's `select!`.
///
/// It can be shared by threads, or each can have its own.
///
/// ```
/// use crossbeam_channel::{bounded, select};
/// use purview::Context;
/// use purview_crossbeam::DoneChannel;
/// use std::time::Duration;
///
/// let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(1));
/// let done = DoneChannel::new(&ctx);
/// let (_sender, lines) = bounded::<String>(16);
/// let end = select! {
///     recv(lines) -> _line => unreachable!(),
///     recv(done.receiver()) -> _ => done.context().err(),
/// };
/// assert!(end.unwrap().is_deadline_exceeded());
/// ```
///
/// # Blocking
/// Dropping it unregisters at the context, and waits if the receiver is just being disconnected, which does not take long.
pub struct DoneChannel {
    ctx: Context,
    made: OnceLock<Made>,
}

struct Made {
    receiver: Receiver<Infallible>,
    /// Has the sender. None where the end never comes.
    _registration: Option<OnDone>,
}

impl DoneChannel {
    /// The end of `ctx`. It makes nothing yet, and registers nothing.
    ///
    /// ```
    /// use purview::Context;
    /// use purview_crossbeam::DoneChannel;
    /// let (ctx, _guard) = Context::background().with_cancel();
    /// let done = DoneChannel::new(&ctx);
    /// assert_eq!(ctx.statistics().callbacks(), 0);
    /// done.receiver();
    /// assert_eq!(ctx.statistics().callbacks(), 1);
    /// ```
    #[must_use]
    pub fn new(ctx: &Context) -> DoneChannel {
        DoneChannel { ctx: ctx.clone(), made: OnceLock::new() }
    }

    /// A receiver that disconnects when the context ends, and never receives anything. It is the same each time.
    ///
    /// A clone of it must not be used longer than this value: when that is dropped, clones disconnect as well, though the context
    /// may not have ended.
    ///
    /// ```
    /// use crossbeam_channel::TryRecvError;
    /// use purview::Context;
    /// use purview_crossbeam::DoneChannel;
    /// let (ctx, cancel) = Context::background().with_cancel();
    /// let done = DoneChannel::new(&ctx);
    /// assert_eq!(done.receiver().try_recv(), Err(TryRecvError::Empty));
    /// cancel.cancel();
    /// assert_eq!(done.receiver().try_recv(), Err(TryRecvError::Disconnected));
    /// ```
    #[must_use]
    pub fn receiver(&self) -> &Receiver<Infallible> {
        &self.made.get_or_init(|| Made::new(&self.ctx)).receiver
    }

    /// The context: it knows why it ended.
    ///
    /// ```
    /// use purview::Context;
    /// use purview_crossbeam::DoneChannel;
    /// let (ctx, cancel) = Context::background().with_cancel();
    /// let done = DoneChannel::new(&ctx);
    /// cancel.cancel_with("enough");
    /// assert!(done.receiver().recv().is_err());
    /// assert_eq!(done.context().err().unwrap().to_string(), "context canceled: enough");
    /// ```
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.ctx
    }
}

impl Made {
    fn new(ctx: &Context) -> Made {
        if !ctx.can_be_done() {
            return Made { receiver: never(), _registration: None };
        }
        let (sender, receiver) = bounded(0);
        // If it has ended, the sender goes before this returns.
        let registration =
            ctx.on_done(move |_| drop::<crossbeam_channel::Sender<Infallible>>(sender));
        Made { receiver, _registration: Some(registration) }
    }
}

impl fmt::Debug for DoneChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DoneChannel").field(&self.ctx).finish()
    }
}
