//! A stream's items, a few at a time, as a stream of results.
//!
//! ```text
//! Taking ──► Joining ──► Joined
//!    │ items are begun     │ tasks end      │ what they said is told, once
//!    └ until the input is over, a task fails, or the context ends
//! ```
//! In each stage what has come is given out first; so it is in the last, before the error.
//!
//! - **M1** `begun` items are in work, or finished and not taken; there are never more than `limit` of them.
//! - **M2** Each of them leaves a result, or has ended the group's context: so who waits for both misses nothing.
//! - **M3** Nothing of a task runs when the end of the stream is told, or its error.
//!
//! It is tempting to give the input to a task of its own, which would take items while the consumer is busy. But it would have
//! to be `Send` and `'static` then, which a stream that borrows a connection is not, and there is nothing to gain for more than
//! the first items: the room for others comes only when the consumer takes results. A channel in between does the same.

use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use futures_core::{FusedStream, Stream};
use purview::{Context, Done, GroupError};

use super::results::{Order, Results};
use crate::{BoxError, TaskGroup};

/// So many items are taken at a time at most, so that an input that is always ready does not keep others from the thread.
const AT_ONCE: usize = 64;

/// Works on the items of `input`, on so many of them at a time, and gives the results as a stream, in the order of the items.
///
/// The work is done by tasks of a group, on tokio's current runtime. So it goes on while nobody polls the stream, because its
/// consumer is busy with a result: futures' `buffered` stands still then, and what it works on waits, with its locks,
/// connections and timeouts. The input is only asked for items when the stream is polled, and may borrow.
///
/// No more than `limit` items (at least one) are in work, or finished and not taken: a consumer that is slow makes the input
/// wait, and an input may be endless. One slow item holds back the results behind it, and in time the input; where the order
/// does not matter, [`map_stream_unordered`] is quicker.
///
/// ```
/// use futures_util::{StreamExt, stream};
/// use purview::Context;
/// use purview_tokio::{BoxError, map_stream};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), BoxError> {
/// let words = stream::iter(["one", "three"]);
/// let mut lengths = map_stream(&Context::background(), words, 16, async |_ctx, word: &str| {
///     Ok::<_, BoxError>(word.len())
/// });
/// assert_eq!(lengths.next().await.transpose()?, Some(3));
/// assert_eq!(lengths.next().await.transpose()?, Some(5));
/// assert!(lengths.next().await.is_none());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The first failure cancels the rest, and no more items are taken. When all tasks have ended, the stream gives what was
/// finished before it (in the order of the items: up to the first that was not), then the error, and ends. The error is that
/// of a [group](purview::TaskGroup::join): [`error`](GroupError::error) is what was returned,
/// [`failures`](GroupError::failures) tells of panics, too, and the place is that of this call. It is also told when `ctx` ends
/// first, [as such](GroupError::ended): the stream ends without an error only if all of the input was worked on.
///
/// Tasks that have been told to stop are waited for, as long as they take. Who cannot wait drops the stream.
///
/// # Panics
/// Outside of a tokio runtime. Polling it panics when the input does; after that it gives an error.
///
/// # Cancel safety
/// Nothing is lost by a `next()` that is dropped, in a `select!`, say. Dropping the stream cancels what runs, which is dropped
/// at its next await, and takes no more of the input.
#[track_caller]
pub fn map_stream<St, T, E, F, Fut>(
    ctx: &Context,
    input: St,
    limit: usize,
    work: F,
) -> MapStream<St, F, T, E>
where
    St: Stream,
    St::Item: Send + 'static,
    T: Send + 'static,
    E: Into<BoxError> + 'static,
    F: Fn(Context, St::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    MapStream::new(ctx, input, limit, work, Order::OfItems)
}

/// As [`map_stream`], which says the rest, but gives the results in the order in which they come.
///
/// ```
/// use futures_util::{TryStreamExt, stream};
/// use purview::Context;
/// use purview_tokio::{BoxError, map_stream_unordered};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), BoxError> {
/// let numbers = stream::iter(1..=100);
/// let squares = map_stream_unordered(&Context::background(), numbers, 16, async |_ctx, n: u64| {
///     Ok::<_, BoxError>(n * n)
/// });
/// let sum = squares.try_fold(0, async |sum, square| Ok(sum + square));
/// assert_eq!(sum.await?, 338_350);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`map_stream`]'s. All that was finished comes before the error.
///
/// # Panics
/// As [`map_stream`].
///
/// # Cancel safety
/// As [`map_stream`]'s.
#[track_caller]
pub fn map_stream_unordered<St, T, E, F, Fut>(
    ctx: &Context,
    input: St,
    limit: usize,
    work: F,
) -> MapStream<St, F, T, E>
where
    St: Stream,
    St::Item: Send + 'static,
    T: Send + 'static,
    E: Into<BoxError> + 'static,
    F: Fn(Context, St::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    MapStream::new(ctx, input, limit, work, Order::OfResults)
}

/// The results of work on a stream's items, made by [`map_stream`] and [`map_stream_unordered`].
///
/// It is [`Unpin`], and fused: after its end it goes on saying so.
///
/// ```
/// use futures_util::{StreamExt, TryStreamExt, stream};
/// use purview::Context;
/// use purview_tokio::{BoxError, map_stream};
///
/// # #[tokio::main]
/// # async fn main() {
/// let (ctx, cancel) = Context::background().with_cancel();
/// let endless = stream::iter(1..);
/// let mut results = map_stream(&ctx, endless, 4, async |_ctx, n: u32| Ok::<_, BoxError>(n));
/// assert_eq!(results.next().await.unwrap().unwrap(), 1);
/// cancel.cancel_with("that will do");
/// let end = results.try_for_each(async |_more| Ok(())).await;
/// assert_eq!(end.unwrap_err().to_string(), "context canceled: that will do");
/// # }
/// ```
#[must_use = "a stream does nothing unless it is polled, and dropping it cancels its tasks"]
pub struct MapStream<St, F, T, E> {
    stage: Stage<St, E>,
    work: Arc<F>,
    results: Arc<Results<T>>,
    limit: usize,
    /// Items that were begun and whose results were not taken.
    begun: usize,
}

enum Stage<St, E> {
    Taking(Taking<St, E>),
    Joining(Pin<Box<dyn Future<Output = Outcome<E>> + Send>>),
    /// An error that was told is not kept.
    Joined(Outcome<E>),
}

type Outcome<E> = Result<(), GroupError<E>>;

struct Taking<St, E> {
    group: TaskGroup<E>,
    input: Pin<Box<St>>,
    /// Of the group's context.
    end: Pin<Box<Done<'static>>>,
}

impl<St, F, T, E> MapStream<St, F, T, E> {
    #[track_caller]
    fn new(ctx: &Context, input: St, limit: usize, work: F, order: Order) -> Self {
        let group = TaskGroup::builder(ctx).task_location(Location::caller()).build();
        let end = Box::pin(group.context().clone().into_done());
        let taking = Taking { group, input: Box::pin(input), end };
        MapStream {
            stage: Stage::Taking(taking),
            work: Arc::new(work),
            results: Results::new(order),
            limit: limit.max(1),
            begun: 0,
        }
    }

    /// One result less that is not taken.
    fn took(&mut self, result: Option<T>) -> Option<T> {
        self.begun -= usize::from(result.is_some());
        result
    }
}

impl<St, F, Fut, T, E> MapStream<St, F, T, E>
where
    St: Stream,
    St::Item: Send + 'static,
    T: Send + 'static,
    E: Into<BoxError> + 'static,
    F: Fn(Context, St::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    /// Ready when all tasks have ended.
    fn proceed(&mut self, task: &mut Task<'_>) -> Poll<()> {
        if let Stage::Taking(taking) = &mut self.stage {
            for taken in 0.. {
                if taking.has_ended(task) {
                    break;
                }
                if self.begun == self.limit {
                    return Poll::Pending;
                }
                if taken == AT_ONCE {
                    task.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let Some(item) = ready!(taking.poll_item(task)) else { break };
                let (work, results) = (Arc::clone(&self.work), Arc::clone(&self.results));
                let place = results.begin();
                taking.group.spawn(move |ctx| results.put(place, work(ctx, item)));
                self.begun += 1;
            }
            let taking = std::mem::replace(&mut self.stage, Stage::Joined(Ok(())));
            if let Stage::Taking(Taking { group, input: _input, end: _end }) = taking {
                self.stage = Stage::Joining(Box::pin(group.join()));
            }
        }
        if let Stage::Joining(join) = &mut self.stage {
            self.stage = Stage::Joined(ready!(join.as_mut().poll(task)));
        }
        Poll::Ready(())
    }
}

impl<St: Stream, E: Into<BoxError> + 'static> Taking<St, E> {
    /// Whether the context has ended: by a failure, or from outside.
    fn has_ended(&mut self, task: &mut Task<'_>) -> bool {
        let has_ended = self.end.as_mut().poll(task).is_ready();
        if has_ended {
            // Stands for the rest of the input, so that the group knows of work that was not done. It never runs.
            self.group.spawn(async |_ctx| Ok(()));
        }
        has_ended
    }

    fn poll_item(&mut self, task: &mut Task<'_>) -> Poll<Option<St::Item>> {
        let input = self.input.as_mut();
        // Unwind safety: with its context ended, it is dropped and not polled again.
        let polled = catch_unwind(AssertUnwindSafe(|| input.poll_next(task)));
        polled.unwrap_or_else(|panic| {
            self.group.cancel_with("the input stream panicked");
            resume_unwind(panic)
        })
    }
}

impl<St, F, Fut, T, E> Stream for MapStream<St, F, T, E>
where
    St: Stream,
    St::Item: Send + 'static,
    T: Send + 'static,
    E: Into<BoxError> + 'static,
    F: Fn(Context, St::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    type Item = Result<T, GroupError<E>>;

    fn poll_next(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let next = this.results.take_or_wait(task.waker());
        let mut next = this.took(next);
        // After that, so that its room is used while the consumer is busy with it.
        let joined = this.proceed(task).is_ready();
        if joined && next.is_none() {
            let last = this.results.take(); // it may have come in between
            next = this.took(last);
        }
        match next {
            Some(result) => Poll::Ready(Some(Ok(result))),
            None if joined => {
                // Behind one that was not finished there may be others.
                this.begun = 0;
                drop(this.results.take_all());
                let outcome = std::mem::replace(&mut this.stage, Stage::Joined(Ok(())));
                let Stage::Joined(Err(error)) = outcome else { return Poll::Ready(None) };
                Poll::Ready(Some(Err(error)))
            }
            None => Poll::Pending,
        }
    }

    /// At least one, as long as there is anything to tell: a failure may come at any time, and takes the place of the rest.
    fn size_hint(&self) -> (usize, Option<usize>) {
        let begun = self.begun;
        let (least, most) = match &self.stage {
            Stage::Taking(taking) => taking.input.size_hint(),
            Stage::Joining(_) => (0, Some(0)),
            Stage::Joined(Ok(())) => return (begun, Some(begun)),
            Stage::Joined(Err(_)) => (1, Some(0)),
        };
        let some = usize::from(begun > 0 || least > 0);
        (some, most.and_then(|most| most.checked_add(begun)?.checked_add(1)))
    }
}

impl<St, F, Fut, T, E> FusedStream for MapStream<St, F, T, E>
where
    St: Stream,
    St::Item: Send + 'static,
    T: Send + 'static,
    E: Into<BoxError> + 'static,
    F: Fn(Context, St::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    fn is_terminated(&self) -> bool {
        self.begun == 0 && matches!(self.stage, Stage::Joined(Ok(())))
    }
}

impl<St, F, T, E> fmt::Debug for MapStream<St, F, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("MapStream");
        if let Stage::Taking(taking) = &self.stage {
            debug.field("context", taking.group.context());
        }
        debug.field("limit", &self.limit).field("begun", &self.begun).finish_non_exhaustive()
    }
}
