//! Many inputs, a few at a time: of an iterator, all results in order; of a stream, results as a stream.

mod results;
mod stream;

use std::panic::Location;
use std::sync::Arc;

use purview::{Context, GroupError};

pub use stream::{MapStream, map_stream, map_stream_unordered};

use crate::{BoxError, TaskGroup};
use results::{Order, Results};

/// Works on all of `items`, on so many of them at a time, and gives the results in the order of the items. The first failure
/// cancels the rest.
///
/// An item is taken when there is room for it, so the iterator may be as long as it likes, or never end. Where results are
/// wanted before all are there, or the items come as a stream, there is [`map_stream`].
///
/// ```
/// use purview::Context;
/// use purview_tokio::{BoxError, map_concurrent};
///
/// # #[tokio::main]
/// # async fn main() {
/// let ctx = Context::background();
/// let lengths = map_concurrent(&ctx, ["one", "three"], 16, async |_ctx, word: &str| {
///     Ok::<_, BoxError>(word.len())
/// });
/// assert_eq!(lengths.await.unwrap(), [3, 5]);
/// # }
/// ```
///
/// # Errors
/// What failed; or the end of `ctx`, if that came first.
///
/// # Panics
/// Outside of a tokio runtime.
///
/// # Cancel safety
/// Dropping the future cancels what has begun, and begins no more.
#[track_caller]
pub fn map_concurrent<I, T, E, F, Fut>(
    ctx: &Context,
    items: I,
    limit: usize,
    work: F,
) -> impl Future<Output = Result<Vec<T>, GroupError<E>>> + use<I, T, E, F, Fut>
where
    I: IntoIterator,
    I::Item: Send + 'static,
    T: Send + 'static,
    E: Into<BoxError> + 'static,
    F: Fn(Context, I::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    let here = Location::caller();
    let group: TaskGroup<E> = TaskGroup::builder(ctx).limit(limit).task_location(here).build();
    let items = items.into_iter();
    async move {
        let work = Arc::new(work);
        let results = Results::new(Order::OfItems);
        for item in items {
            let (work, results, place) = (Arc::clone(&work), Arc::clone(&results), results.begin());
            let task = move |ctx| results.put(place, work(ctx, item));
            if group.spawn_ready(task).await.is_err() {
                break;
            }
        }
        group.join().await?;
        Ok(results.take_all().collect())
    }
}
