//! Many inputs, a few at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use purview::Context;
use purview_tokio::{BoxError, map_concurrent};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_come_in_the_order_of_the_items_and_no_more_run_at_a_time_than_may() {
    let now = Arc::new(AtomicUsize::new(0));
    let doubled = map_concurrent(&Context::background(), 0..1_000_u32, 7, move |_ctx, n| {
        let now = Arc::clone(&now);
        async move {
            assert!(now.fetch_add(1, Ordering::SeqCst) < 7);
            for _ in 0..n % 5 {
                tokio::task::yield_now().await;
            }
            now.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, BoxError>(n * 2)
        }
    });
    let expected: Vec<u32> = (0..1_000).map(|n| n * 2).collect();
    assert_eq!(doubled.await.expect("none failed"), expected);
}

#[tokio::test]
async fn the_first_failure_ends_it_and_no_further_item_is_taken() {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let endless = std::iter::from_fn(move || Some(count.fetch_add(1, Ordering::SeqCst)));
    let work = async |_ctx: Context, n: usize| {
        if n == 50 { Err(BoxError::from("fifty")) } else { Ok(n) }
    };
    let err = map_concurrent(&Context::background(), endless, 4, work).await.expect_err("it ends");
    assert_eq!(err.failures()[0].cause().to_string(), "fifty");
    assert!(taken.load(Ordering::SeqCst) < 100);
}

#[tokio::test]
async fn an_end_from_outside_is_told_as_such_and_nothing_is_made_of_nothing() {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel_with("shutdown");
    let work = async |_ctx: Context, n: u32| Ok::<_, BoxError>(n);
    let err = map_concurrent(&ctx, [1, 2, 3], 2, work).await.expect_err("it had ended");
    assert_eq!(err.to_string(), "context canceled: shutdown");
    let none = map_concurrent(&Context::background(), [], 2, work).await.expect("nothing to do");
    assert!(none.is_empty());
}

#[tokio::test]
async fn a_failure_is_told_by_the_place_of_the_call() {
    let work =
        async |_ctx: Context, n: u32| if n < 3 { Ok(n) } else { Err(BoxError::from("three")) };
    let line = line!() + 1;
    let err = map_concurrent(&Context::background(), 0..9, 2, work).await.expect_err("it fails");
    let place = err.failures()[0].location();
    assert_eq!((place.file(), place.line()), (file!(), line));
}
