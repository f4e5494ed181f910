//! [`purview`] on tokio: task groups that own what they start, maps that work on many inputs at a time, of iterators and of
//! streams, the abort of tasks that know no context, and [`CancellationToken`](tokio_util::sync::CancellationToken) both ways.
//!
//! ```
//! use purview::Context;
//! use purview_tokio::{BoxError, TaskGroup};
//!
//! # #[tokio::main]
//! # async fn main() {
//! let group: TaskGroup = TaskGroup::new(&Context::background());
//! group.spawn_named("reader", async |ctx| {
//!     ctx.done().await; // works until it is told to stop
//!     Ok(())
//! });
//! group.spawn_named("writer", async |_ctx| Err("disk full".into()));
//! let err = group.join().await.unwrap_err();
//! assert!(err.to_string().ends_with("disk full"));
//! # }
//! ```

mod abort;
mod map;
mod token;

use std::io;

use purview::Spawn;
use tokio::runtime::Handle;

pub use purview::shutdown::Shutdown;

/// A context that ends on a signal, and one for the second: the crate `purview-signal`, which needs no runtime.
///
/// ```
/// # #[cfg(unix)] {
/// use purview::Context;
/// use purview_tokio::{Shutdown, signal::{Signal, notify}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let (ctx, signals) = notify(&Context::background(), [Signal::INTERRUPT, Signal::TERMINATE])?;
/// let shutdown = Shutdown::new(&ctx).force_on(&signals.again());
/// # signals.stop();
/// let report = shutdown.run().await; // when the signal has come
/// # Ok(())
/// # }
/// # }
/// ```
#[cfg(feature = "signal")]
pub use purview_signal as signal;

pub use abort::{AbortOnDone, abort_on_done};
pub use map::{MapStream, map_concurrent, map_stream, map_stream_unordered};
pub use token::{Bridge, from_token, to_token};

/// Any error: what tasks return that have none of their own.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Tasks of one context, on tokio. See [`purview::TaskGroup`].
pub type TaskGroup<E = BoxError> = purview::TaskGroup<E, Tokio>;

/// A tokio runtime, as a group needs it.
#[derive(Clone, Debug)]
pub struct Tokio(Handle);

impl Tokio {
    /// The runtime of `handle`.
    ///
    /// ```
    /// use purview_tokio::{BoxError, TaskGroup, Tokio};
    /// let runtime = tokio::runtime::Runtime::new().unwrap();
    /// // From outside the runtime.
    /// let group: TaskGroup = TaskGroup::builder(&purview::Context::background())
    ///     .build_on(Tokio::new(runtime.handle().clone()));
    /// group.spawn(async |_ctx| Ok(()));
    /// group.join_blocking().unwrap();
    /// ```
    #[must_use]
    pub fn new(handle: Handle) -> Tokio {
        Tokio(handle)
    }
}

impl Default for Tokio {
    /// The runtime that this is called in.
    ///
    /// # Panics
    /// Outside of one.
    #[track_caller]
    fn default() -> Self {
        Tokio(Handle::current())
    }
}

impl Spawn for Tokio {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        drop(self.0.spawn(task)); // detached: it tells its group of its end
    }

    fn spawn_blocking<F: FnOnce() + Send + 'static>(&self, task: F) -> io::Result<()> {
        drop(self.0.spawn_blocking(task));
        Ok(())
    }
}

/// The document whose code is run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
