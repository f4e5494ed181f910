//! Why a context ended: the error, its cause and its origin.
//!
//! An [`Error`] is one word: a counted pointer to the *memory* of the node at which the end began, with the manner of the
//! end in its low bits. The facts lie there anyway, so that ending a context and asking why allocate nothing. The count
//! is not the node's own: an error that is kept for years keeps that one piece of memory, and no context, value or parent.
#![expect(unsafe_code, reason = "an error is a counted pointer to a node's memory")]

mod chain;

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::Location;
use std::sync::Arc;
use std::time::Instant;

use crate::clock::Tick;
use crate::observe::ContextId;
use crate::state::Ending;
use crate::tree::{Job, Node, Panics};
pub(crate) use chain::{Chain, source_of_shown};
use chain::{Nested, content, links, text};

/// Why a context ended: what [`Context::err`](crate::Context::err) and every wait give.
///
/// One word, cheap to clone, and one type to [find](Error::find) in any error chain. It tells the [kind](Error::kind), the
/// [cause](Error::cause) that was given, and the [origin](Error::origin): who ended it, where and when.
///
/// ```
/// use purview::Context;
///
/// let (ctx, cancel) = Context::background().with_cancel();
/// cancel.cancel_with("the client went away");
/// let err = ctx.err().expect("it is done");
/// assert!(err.is_canceled());
/// assert_eq!(err.to_string(), "context canceled: the client went away");
/// assert_eq!(err.origin().context(), ctx.id());
/// ```
///
/// Displayed, it is "context canceled" or "context deadline exceeded", and the cause.
///
/// It keeps no context alive: what it tells is read from a piece of memory that the context leaves behind.
pub struct Error(Origin);

impl Error {
    /// The error that says so. The node at which it began must be kept by the caller, as every descendant keeps it.
    pub(crate) fn new(ending: Ending) -> Error {
        // SAFETY: kept by the caller.
        unsafe { ending.origin().as_ref() }.keep_memory();
        Error(Origin(ending))
    }

    /// The kind of end.
    ///
    /// ```
    /// use purview::{Context, ErrorKind};
    /// use std::time::Duration;
    /// let (ctx, _guard) = Context::background().with_timeout(Duration::ZERO);
    /// assert_eq!(ctx.err().expect("done").kind(), ErrorKind::DeadlineExceeded);
    /// ```
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self.root().by() {
            By::Deadline => ErrorKind::DeadlineExceeded,
            By::Call | By::GuardDropped | By::GraceOver => ErrorKind::Canceled,
        }
    }

    /// Whether it was canceled: by a call, or by dropping the guard.
    ///
    /// ```
    /// let (ctx, cancel) = purview::Context::background().with_cancel();
    /// cancel.cancel();
    /// assert!(ctx.err().expect("done").is_canceled());
    /// ```
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        self.kind() == ErrorKind::Canceled
    }

    /// Whether its deadline, or an ancestor's, passed.
    ///
    /// ```
    /// use std::time::Duration;
    /// let (ctx, _guard) = purview::Context::background().with_timeout(Duration::ZERO);
    /// assert!(ctx.err().expect("done").is_deadline_exceeded());
    /// ```
    #[must_use]
    pub fn is_deadline_exceeded(&self) -> bool {
        self.kind() == ErrorKind::DeadlineExceeded
    }

    /// What the canceler said, if he did, or what the deadline was given as its cause. To pass it on:
    /// `other.cancel_with(cause.clone())`.
    ///
    /// ```
    /// let (ctx, cancel) = purview::Context::background().with_cancel();
    /// cancel.cancel_with(std::io::Error::other("disk full"));
    /// let err = ctx.err().expect("done");
    /// let cause = err.cause().expect("one was given");
    /// assert!(cause.downcast_ref::<std::io::Error>().is_some());
    /// ```
    #[must_use]
    pub fn cause(&self) -> Option<&Cause> {
        let root = self.root();
        // SAFETY: this error keeps the memory of its origin, and that keeps its root's.
        let node = unsafe { &*root.origin().as_ptr() };
        match root.by() {
            By::Deadline => node.deadline_cause(),
            By::Call | By::GuardDropped => node.ended().cause,
            By::GraceOver => None,
        }
    }

    /// Who ended it, where and when.
    ///
    /// ```
    /// use purview::{By, Context};
    /// let (ctx, guard) = Context::background().with_cancel();
    /// drop(guard);
    /// let err = ctx.err().expect("done");
    /// assert_eq!(err.origin().by(), By::GuardDropped);
    /// assert_eq!(err.origin().location().file(), file!());
    /// ```
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.0
    }

    /// Finds a context's error in an error chain: `err` itself, or anything that [`source`](std::error::Error::source)
    /// leads to, also behind an [`io::Error`] and in a [`GroupError`](crate::GroupError).
    ///
    /// [`cause`](Self::cause) of the error that is found is its cause; `source()` is the cause's own source, since an `Error` displays
    /// its cause and a chain should not say it twice.
    ///
    /// ```
    /// use purview::{Context, Error};
    /// use std::io;
    ///
    /// let (ctx, cancel) = Context::background().with_cancel();
    /// cancel.cancel();
    /// let wrapped = io::Error::from(ctx.err().expect("done"));
    /// assert!(Error::find(&wrapped).is_some_and(Error::is_canceled));
    /// assert!(Error::find(&io::Error::other("something else")).is_none());
    /// ```
    #[must_use]
    pub fn find<'a>(err: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
        links(err).find_map(|link| link.downcast_ref())
    }

    /// Whether `err` is an end by the [rule of groups](crate::TaskGroup#failures-and-ends), this being the context's error.
    pub(crate) fn is_all_of(&self, err: &(dyn std::error::Error + 'static)) -> bool {
        let is_this = |found: &Error| found.origin().context() == self.origin().context();
        // An error that cannot be displayed has no text.
        links(err).any(|link| link.downcast_ref().is_some_and(is_this))
            || text(err).is_ok_and(|theirs| text(self).is_ok_and(|ours| theirs == ours))
    }

    fn root(&self) -> Ending {
        self.0.root()
    }
}

impl Clone for Error {
    fn clone(&self) -> Self {
        // SAFETY: this error keeps it.
        unsafe { self.0.0.origin().as_ref() }.keep_memory();
        Error(Origin(self.0.0))
    }
}

impl Drop for Error {
    fn drop(&mut self) {
        // SAFETY: the count that this error holds is given up. Only nodes on the heap end.
        unsafe { Node::release_memory(self.0.0.origin()) };
    }
}

/// Without recursion, where the cause is another context's error.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut link: &(dyn std::error::Error + 'static) = self;
        loop {
            let next = content(link);
            if let Some(error) = link.downcast_ref::<Error>() {
                f.write_str(match error.kind() {
                    ErrorKind::Canceled => "context canceled",
                    ErrorKind::DeadlineExceeded => "context deadline exceeded",
                })?;
                f.write_str(if next.is_some() { ": " } else { "" })?;
            } else if next.is_none() {
                return write!(f, "{link}");
            }
            // An io::Error displays its content and nothing else.
            let Some(next) = next else { return Ok(()) };
            link = next;
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Nested(self, 0), f)
    }
}

/// The text contains the cause, so `source()` is the cause's own source: a chain that is displayed says nothing twice.
impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let innermost = std::iter::successors(Some(self as _), |link| content(*link)).last()?;
        if innermost.is::<Error>() { None } else { innermost.source() }
    }
}

/// [`TimedOut`](io::ErrorKind::TimedOut) for a deadline, [`Other`](io::ErrorKind::Other) for a cancellation. Never
/// `Interrupted`: std's loops try again on that.
impl From<Error> for io::Error {
    fn from(err: Error) -> Self {
        let kind = match err.kind() {
            ErrorKind::DeadlineExceeded => io::ErrorKind::TimedOut,
            ErrorKind::Canceled => io::ErrorKind::Other,
        };
        io::Error::new(kind, err)
    }
}

/// The two ways in which a context ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Somebody canceled it, or an ancestor.
    Canceled,
    /// Its deadline passed, or an ancestor's.
    DeadlineExceeded,
}

/// By what means a context ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum By {
    /// A call of `cancel` or `cancel_with`.
    Call = 0,
    /// Its guard was dropped.
    GuardDropped = 1,
    /// Its deadline passed.
    Deadline = 2,
    /// Its parent had ended, and the grace since then ran out. Kind, cause, context and place are those of the parent's
    /// end; the instant is that at which the grace was over.
    GraceOver = 3,
}

impl By {
    pub(crate) fn from_bits(bits: usize) -> By {
        match bits {
            0 => By::Call,
            1 => By::GuardDropped,
            2 => By::Deadline,
            _ => By::GraceOver,
        }
    }
}

/// Who ended a context, where and when. Part of an [`Error`].
///
/// ```
/// use purview::{By, Context};
/// use std::time::Duration;
///
/// let (request, _guard) = Context::background().derive().name("request").timeout(Duration::ZERO).build();
/// let (query, _guard) = request.with_cancel();
/// let err = query.err().expect("done");
/// let origin = err.origin();
/// assert_eq!(origin.context(), request.id()); // not the query: its parent's deadline
/// assert_eq!(origin.name(), Some("request"));
/// assert_eq!(origin.by(), By::Deadline);
/// assert_eq!(origin.location().file(), file!()); // where the deadline was set
/// assert_eq!(Some(origin.at()), request.deadline());
/// ```
#[repr(transparent)]
pub struct Origin(Ending);

impl Origin {
    /// The context at which it began: the one that was canceled or whose deadline passed, perhaps an ancestor.
    #[must_use]
    pub fn context(&self) -> ContextId {
        self.began().head().id
    }

    /// The name of that context.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        self.began().name()
    }

    /// Where: the call of `cancel`; where the context was derived, if its guard was dropped or its deadline passed.
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        let node = self.began();
        match self.root().by() {
            By::Call | By::GuardDropped => node.ended().place,
            By::Deadline | By::GraceOver => node.head().place,
        }
    }

    /// When. For a deadline: the deadline itself, however much later it was noticed.
    #[must_use]
    pub fn at(&self) -> Instant {
        // What is further away than the platform's clock can tell is told as the epoch of this process.
        let at = self.tick().to_instant().or_else(|| Tick::from_nanos(0).to_instant());
        at.unwrap_or_else(Instant::now)
    }

    pub(crate) fn tick(&self) -> Tick {
        let node = self.node();
        match self.0.by() {
            By::Call | By::GuardDropped => node.ended().at,
            By::Deadline => node.own_deadline(),
            By::GraceOver => node.over_at(),
        }
    }

    /// By what means.
    #[must_use]
    pub fn by(&self) -> By {
        self.0.by()
    }

    /// The node that ended, of the context that the error was taken from or an ancestor.
    fn node(&self) -> &Node {
        // SAFETY: the error that this is part of keeps its memory.
        unsafe { &*self.0.origin().as_ptr() }
    }

    /// Where it began: behind a grace that ran out, its parent's end.
    fn root(&self) -> Ending {
        match self.0.by() {
            By::Call | By::GuardDropped | By::Deadline => self.0,
            By::GraceOver => self.node().grace_root().unwrap_or(self.0),
        }
    }

    fn began(&self) -> &Node {
        // SAFETY: the node keeps its root's memory, and this error the node's.
        unsafe { &*self.root().origin().as_ptr() }
    }
}

// SAFETY: a pointer to what may be shared, counted by the error that this is part of.
unsafe impl Send for Origin {}
// SAFETY: as above.
unsafe impl Sync for Origin {}
impl std::panic::UnwindSafe for Origin {}
impl std::panic::RefUnwindSafe for Origin {}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin")
            .field("context", &self.context())
            .field("name", &self.name())
            .field("location", &format_args!("{}", self.location()))
            .field("at", &self.at())
            .field("by", &self.by())
            .finish()
    }
}

/// What a canceler gives as the reason: any error, or a text. Shared, and handed down as it is.
///
/// ```
/// use purview::Cause;
/// use std::io;
///
/// let cause = Cause::from("too much load");
/// assert_eq!(cause.to_string(), "too much load");
/// let cause = Cause::from(io::Error::other("disk full"));
/// assert!(cause.downcast_ref::<io::Error>().is_some()); // it is an error, and keeps its type
/// ```
#[derive(Clone)]
pub struct Cause(ManuallyDrop<Arc<dyn std::error::Error + Send + Sync>>);

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for Cause {
    fn from(cause: E) -> Self {
        Cause(ManuallyDrop::new(cause.into().into()))
    }
}

/// Without recursion, where causes hold causes, or contexts, or are errors.
impl Drop for Cause {
    fn drop(&mut self) {
        // SAFETY: taken out once, here.
        let cause = unsafe { ManuallyDrop::take(&mut self.0) };
        let mut panics = Panics::new();
        Job::Cause(cause).run(&mut panics);
        panics.resume();
    }
}

impl Deref for Cause {
    type Target = dyn std::error::Error + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &**self.0
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
