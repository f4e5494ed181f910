//! Many inputs, a few at a time, results in order.

use std::sync::{Arc, Mutex, PoisonError};

use purview::{Context, GroupError};

use crate::{BoxError, TaskGroup};

/// Works on all of `items`, on so many of them at a time, and gives the results in the order of the items. The first failure
/// cancels the rest.
///
/// An item is taken when there is room for it, so the iterator may be as long as it likes, or never end.
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
    let group: TaskGroup<E> = TaskGroup::builder(ctx).limit(limit).build();
    let items = items.into_iter();
    async move {
        let work = Arc::new(work);
        let results: Arc<Mutex<Vec<Option<T>>>> = Arc::default();
        for (place, item) in items.enumerate() {
            let (work, slots) = (Arc::clone(&work), Arc::clone(&results));
            let task = async move |ctx: Context| {
                let result = work(ctx, item).await?;
                let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
                if slots.len() <= place {
                    slots.resize_with(place + 1, || None);
                }
                slots[place] = Some(result);
                Ok(())
            };
            if group.spawn_ready(task).await.is_err() {
                break;
            }
        }
        group.join().await?;
        let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *results).into_iter().flatten().collect())
    }
}
