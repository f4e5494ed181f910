//! Maps over streams.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::stream::{self, FusedStream};
use futures_util::{FutureExt, Stream, StreamExt, TryStreamExt};
use purview::{Context, Dropped, GroupError, Panicked};
use purview_tokio::{BoxError, map_stream, map_stream_unordered};
use tokio::sync::{Barrier, Notify, mpsc};

/// Nothing takes as long, unless it hangs. The limit is polled first: polled last, it would wake what was forgotten, and hide it.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("it hangs"),
        done = work => done,
    }
}

fn never_done() -> Context {
    Context::background()
}

/// Counts what is taken of a stream.
fn counted<St: Stream>(input: St) -> (Arc<AtomicUsize>, impl Stream<Item = St::Item>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    (taken, input.inspect(move |_| _ = count.fetch_add(1, Ordering::SeqCst)))
}

async fn yield_times(times: u32) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

/// Says when it is dropped.
struct Told(mpsc::UnboundedSender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_come_in_the_order_of_the_items_and_no_more_are_held_than_may() {
    let (taken, input) = counted(stream::iter(0..1_000_u32));
    let mut doubled = map_stream(&never_done(), input, 7, async |_ctx, n| {
        yield_times(n % 5).await;
        Ok::<_, BoxError>(n * 2)
    });
    for n in 0..1_000 {
        let held = taken.load(Ordering::SeqCst) - n as usize;
        assert!(held <= 7, "{held}");
        assert_eq!(soon(doubled.next()).await.expect("there are more").expect("none fails"), n * 2);
    }
    assert!(soon(doubled.next()).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unordered_each_comes_once_and_no_more_are_held_than_may() {
    let (taken, input) = counted(stream::iter(0..1_000_u32));
    let mut results = map_stream_unordered(&never_done(), input, 7, async |_ctx, n| {
        yield_times(n % 5).await;
        Ok::<_, BoxError>(n)
    });
    let mut seen = BTreeSet::new();
    while let Some(n) = soon(results.next()).await {
        assert!(seen.insert(n.expect("none fails")));
        assert!(taken.load(Ordering::SeqCst) - seen.len() <= 7);
    }
    assert_eq!(seen, (0..1_000).collect());
}

#[tokio::test]
async fn a_slow_item_holds_back_those_behind_it_only_where_the_order_matters() {
    let slow = Arc::new(Notify::new());
    let work = |slow: Arc<Notify>| {
        move |_ctx: Context, n: u32| {
            let slow = Arc::clone(&slow);
            async move {
                if n == 0 {
                    slow.notified().await;
                }
                Ok::<_, BoxError>(n)
            }
        }
    };
    let (taken, input) = counted(stream::iter(0..100));
    let ordered = map_stream(&never_done(), input, 4, work(Arc::clone(&slow)));
    let mut ordered = std::pin::pin!(ordered);
    for _ in 0..100 {
        assert!(ordered.next().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    assert_eq!(taken.load(Ordering::SeqCst), 4, "they make the input wait");
    slow.notify_one();
    let all: Vec<u32> = soon(ordered.try_collect()).await.expect("none fails");
    assert_eq!(all, (0..100).collect::<Vec<_>>());

    let unordered =
        map_stream_unordered(&never_done(), stream::iter(0..100), 4, work(Arc::clone(&slow)));
    let mut unordered = std::pin::pin!(unordered);
    for _ in 1..100 {
        assert_ne!(soon(unordered.next()).await.expect("more").expect("none fails"), 0);
    }
    slow.notify_one();
    assert_eq!(soon(unordered.next()).await.expect("the last").expect("none fails"), 0);
    assert!(soon(unordered.next()).await.is_none());
}

#[tokio::test]
async fn the_work_goes_on_while_the_consumer_is_busy() {
    let (finished, mut finishes) = mpsc::unbounded_channel();
    let mut results = map_stream(&never_done(), stream::iter(0..), 3, move |_ctx, n: u32| {
        let finished = finished.clone();
        async move {
            yield_times(10).await;
            finished.send(n)?;
            Ok::<_, BoxError>(n)
        }
    });
    assert_eq!(soon(results.next()).await.expect("endless").expect("none fails"), 0);
    // Nobody polls the stream. What was begun comes to its end; and so does the one that had its room.
    for n in 0..=3 {
        assert_eq!(soon(finishes.recv()).await, Some(n));
    }
    yield_times(100).await;
    assert!(finishes.try_recv().is_err(), "and no more is begun");
}

#[tokio::test]
async fn a_failure_cancels_the_rest_is_told_once_with_its_place_and_is_the_end() {
    let (taken, input) = counted(stream::iter(0..));
    let stopped = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&stopped);
    let line = line!() + 1;
    let mut results = map_stream_unordered(&never_done(), input, 4, move |ctx: Context, n: u32| {
        let count = Arc::clone(&count);
        async move {
            match n {
                0..10 => Ok(n),
                12 => Err(std::io::Error::other("the twelfth")),
                _ => {
                    let end = ctx.done().await;
                    assert_eq!(end.to_string(), "context canceled: the twelfth");
                    count.fetch_add(1, Ordering::SeqCst);
                    Err(end.into())
                }
            }
        }
    });
    for _ in 0..10 {
        assert!(soon(results.next()).await.expect("more").is_ok());
    }
    let err = soon(results.next()).await.expect("it is told").expect_err("it failed");
    assert_eq!(stopped.load(Ordering::SeqCst), 3, "they have ended when it is told");
    assert_eq!((err.failed(), err.error().expect("ours").to_string()), (1, "the twelfth".into()));
    let place = err.failures()[0].location();
    assert_eq!((place.file(), place.line()), (file!(), line));
    assert!(err.ended().is_none());
    assert!(results.is_terminated());
    for _ in 0..3 {
        assert!(soon(results.next()).await.is_none());
    }
    assert_eq!(taken.load(Ordering::SeqCst), 14);
}

#[tokio::test]
async fn a_panic_in_the_work_is_a_failure_like_an_error() {
    let work = async |_ctx, n: u32| {
        assert_ne!(n, 2, "at two");
        Ok::<_, BoxError>(n)
    };
    let mut results = map_stream(&never_done(), stream::iter(0..), 1, work);
    assert_eq!(soon(results.next()).await.expect("more").expect("fine"), 0);
    assert_eq!(soon(results.next()).await.expect("more").expect("fine"), 1);
    let err = soon(results.next()).await.expect("it is told").expect_err("it panicked");
    let panicked = err.failures()[0].cause().downcast_ref::<Panicked>().expect("a panic");
    assert!(panicked.message().contains("at two"));
    assert!(soon(results.next()).await.is_none());
}

/// Of four items, 2 fails when the others have finished, and the consumer comes only then.
async fn fails_after_three<St: Stream<Item = Result<u32, GroupError<BoxError>>> + Unpin>(
    map: impl FnOnce(Context, Arc<AtomicUsize>, Arc<Notify>) -> St,
) -> Vec<Result<u32, String>> {
    let (finished, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let mut results = map(never_done(), finished, Arc::clone(&failed));
    assert!(results.next().now_or_never().is_none(), "begins");
    soon(failed.notified()).await;
    yield_times(10).await;
    let all = results.map(|result| result.map_err(|err| err.failures()[0].cause().to_string()));
    soon(all.collect()).await
}

async fn two_fails_last(
    n: u32,
    finished: Arc<AtomicUsize>,
    failed: Arc<Notify>,
) -> Result<u32, BoxError> {
    if n == 2 {
        while finished.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        failed.notify_one();
        return Err("two".into());
    }
    finished.fetch_add(1, Ordering::SeqCst);
    Ok(n)
}

#[tokio::test]
async fn what_was_finished_before_the_failure_comes_before_the_error() {
    let ordered = fails_after_three(|ctx, finished, failed| {
        map_stream(&ctx, stream::iter(0..100), 4, move |_ctx, n| {
            two_fails_last(n, Arc::clone(&finished), Arc::clone(&failed))
        })
    });
    assert_eq!(ordered.await, [Ok(0), Ok(1), Err("two".into())], "up to where one is missing");
    let unordered = fails_after_three(|ctx, finished, failed| {
        map_stream_unordered(&ctx, stream::iter(0..100), 4, move |_ctx, n| {
            two_fails_last(n, Arc::clone(&finished), Arc::clone(&failed))
        })
    });
    assert_eq!(unordered.await, [Ok(0), Ok(1), Ok(3), Err("two".into())]);
}

#[tokio::test]
async fn an_end_from_outside_is_an_error_and_never_a_silent_end() {
    let (ctx, guard) = never_done().with_cancel();
    guard.cancel_with("shutdown");
    let (taken, input) = counted(stream::iter(0..));
    let mut late = map_stream(&ctx, input, 4, async |_ctx, n: u32| Ok::<_, BoxError>(n));
    let err = soon(late.next()).await.expect("it is told").expect_err("it had ended");
    assert_eq!(err.ended().expect("an end").to_string(), "context canceled: shutdown");
    assert!(soon(late.next()).await.is_none());
    assert_eq!(taken.load(Ordering::SeqCst), 0);

    // All that was begun is finished and taken; what waits is the input.
    let (ctx, guard) = never_done().with_cancel();
    let input = stream::iter(0..2).chain(stream::pending());
    let mut idle = map_stream(&ctx, input, 4, async |_ctx, n: u32| Ok::<_, BoxError>(n));
    assert!(soon(idle.next()).await.expect("more").is_ok());
    assert!(soon(idle.next()).await.expect("more").is_ok());
    let (next, ()) = tokio::join!(soon(idle.next()), async {
        yield_times(10).await;
        guard.cancel_with("while it waits");
    });
    let err = next.expect("it is told").expect_err("it ended");
    assert_eq!(err.to_string(), "context canceled: while it waits");
    assert!(soon(idle.next()).await.is_none());

    // The work gives up.
    let (ctx, guard) = never_done().with_timeout(Duration::from_millis(1));
    let work = async |ctx: Context, _n: u32| Err::<u32, BoxError>(ctx.done().await.into());
    let mut busy = map_stream(&ctx, stream::iter(0..2), 4, work);
    let err = soon(busy.next()).await.expect("it is told").expect_err("its time was up");
    assert!(err.ended().is_some_and(purview::Error::is_deadline_exceeded));
    assert!(soon(busy.next()).await.is_none());
    drop(guard);
}

#[tokio::test]
async fn work_that_is_finished_in_spite_of_the_end_is_finished() {
    let (ctx, guard) = never_done().with_cancel();
    let work = async |ctx: Context, n: u32| {
        ctx.done().await;
        Ok::<_, BoxError>(n)
    };
    let mut results = map_stream(&ctx, stream::iter(0..3), 4, work);
    assert!(results.next().now_or_never().is_none());
    guard.cancel();
    let all: Vec<u32> = soon(results.try_collect()).await.expect("all was done");
    assert_eq!(all, [0, 1, 2]);
}

#[tokio::test]
async fn dropping_it_cancels_what_runs_and_takes_no_more_of_the_input() {
    let (told, mut tells) = mpsc::unbounded_channel();
    let (taken, input) = counted(stream::iter(0..));
    let of_input = Told(told.clone());
    let input = input.inspect(move |_| _ = &of_input);
    let (ctx, _guard) = never_done().with_cancel();
    let mut results = map_stream(&ctx, input, 4, move |ctx: Context, n: u32| {
        let told = Told(told.clone());
        async move {
            let _told = told;
            if n > 0 {
                std::future::pending::<()>().await;
            }
            Ok::<_, BoxError>(ctx.is_done())
        }
    });
    assert!(!soon(results.next()).await.expect("more").expect("fine"));
    yield_times(10).await;
    drop(results);
    let mut dropped = 0;
    while soon(tells.recv()).await.is_some() {
        dropped += 1;
    }
    assert_eq!(dropped, 1 + 5, "the input, and five items");
    assert_eq!(taken.load(Ordering::SeqCst), 5);
    assert_eq!(ctx.statistics().children(), 0);
}

#[tokio::test]
async fn a_panic_of_the_input_is_the_consumers_and_afterwards_there_is_an_error() {
    let input = stream::iter(0..).inspect(|n| assert_ne!(*n, 3, "at three"));
    let mut results = map_stream(&never_done(), input, 8, async |ctx: Context, n: u32| {
        if n == 2 {
            return Err(ctx.done().await.into()); // it is told
        }
        Ok::<_, BoxError>(n)
    });
    let panic = soon(AssertUnwindSafe(results.next()).catch_unwind()).await;
    assert!(panic.expect_err("it panics").downcast_ref::<String>().unwrap().contains("at three"));
    let mut rest: Vec<_> = soon(results.collect()).await;
    let err = rest.pop().expect("an error").expect_err("not all was done");
    assert_eq!(err.to_string(), "context canceled: the input stream panicked");
    assert!(rest.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_limit_of_zero_is_one_and_one_without_end_begins_at_leisure() {
    let now = Arc::new(AtomicUsize::new(0));
    let one = map_stream(&never_done(), stream::iter(0..20), 0, move |_ctx, n: u32| {
        let now = Arc::clone(&now);
        async move {
            assert_eq!(now.fetch_add(1, Ordering::SeqCst), 0);
            tokio::task::yield_now().await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, BoxError>(n)
        }
    });
    assert_eq!(soon(one.try_collect::<Vec<_>>()).await.expect("none fails").len(), 20);

    let (taken, input) = counted(stream::iter(0..));
    let work = async |_ctx, n: usize| Ok::<_, BoxError>(n);
    let mut all = map_stream(&never_done(), input, usize::MAX, work);
    for n in 0..100 {
        assert_eq!(soon(all.next()).await.expect("endless").expect("none fails"), n);
    }
    assert!(taken.load(Ordering::SeqCst) < 20_000);
}

#[tokio::test]
async fn of_nothing_comes_nothing_and_the_input_may_borrow_and_stay_on_its_thread() {
    let work = async |_ctx, n: u32| Ok::<_, BoxError>(n);
    let mut none = map_stream(&never_done(), stream::empty(), 4, work);
    assert!(!none.is_terminated());
    assert!(soon(none.next()).await.is_none());
    assert!(none.is_terminated() && soon(none.next()).await.is_none());

    let numbers = vec![1, 2, 3];
    let here = Rc::new(10);
    let input = stream::iter(&numbers).map(|n| n * *here);
    let all: Vec<u32> =
        soon(map_stream(&never_done(), input, 2, work).try_collect()).await.unwrap();
    assert_eq!(all, [10, 20, 30]);
}

#[tokio::test]
async fn errors_of_the_input_are_items_like_others() {
    let input = stream::iter([Ok(1), Err("line 2 is no number"), Ok(3)]);
    let work = async |_ctx, item: Result<u32, &'static str>| Ok::<_, BoxError>(item);
    let all: Vec<_> = soon(map_stream(&never_done(), input, 2, work).try_collect()).await.unwrap();
    assert_eq!(all, [Ok(1), Err("line 2 is no number"), Ok(3)]);
    // Who wants them to be failures says so.
    let input = stream::iter([Ok(1), Err("line 2 is no number"), Ok(3)]);
    let work = async |_ctx, item: Result<u32, &'static str>| Ok::<u32, BoxError>(item?);
    let all = soon(map_stream(&never_done(), input, 2, work).try_collect::<Vec<_>>()).await;
    assert!(all.expect_err("the second").to_string().ends_with("line 2 is no number"));
}

#[tokio::test]
async fn the_size_is_told_as_far_as_it_is_known() {
    let work = async |_ctx, n: u32| if n < 5 { Ok(n) } else { Err(BoxError::from("five")) };
    let mut fine = map_stream(&never_done(), stream::iter(0..4), 2, work);
    assert_eq!(fine.size_hint(), (1, Some(5)), "an error may come as well");
    for left in (0..4).rev() {
        assert!(soon(fine.next()).await.expect("more").is_ok());
        let (least, most) = fine.size_hint();
        assert!(least <= left && most.is_some_and(|most| most >= left), "{least}, {most:?}");
    }
    assert!(soon(fine.next()).await.is_none());
    assert_eq!(fine.size_hint(), (0, Some(0)));

    let mut fails = map_stream(&never_done(), stream::iter(5..10), 2, work);
    assert_eq!(fails.size_hint(), (1, Some(6)));
    assert!(soon(fails.next()).await.expect("told").is_err());
    assert_eq!(fails.size_hint(), (0, Some(0)));

    let endless = map_stream(&never_done(), stream::repeat(1), 2, work);
    assert_eq!(endless.size_hint(), (1, None));
    let unknown =
        map_stream(&never_done(), stream::iter(0..9).filter(|_| std::future::ready(true)), 2, work);
    assert_eq!(unknown.size_hint(), (0, Some(10)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_next_that_is_given_up_loses_nothing() {
    let work = async |_ctx, n: u32| {
        yield_times(n % 3).await;
        Ok::<_, BoxError>(n)
    };
    let mut results = map_stream(&never_done(), stream::iter(0..500), 8, work);
    let mut all = Vec::new();
    while all.len() < 500 {
        tokio::select! {
            biased;
            next = results.next() => all.push(next.expect("more").expect("none fails")),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(all, (0..500).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_comes_while_it_is_asked_for_wakes_who_asks() {
    // One at a time: who is not woken for it, is woken for nothing else.
    let work = async |_ctx, n: u32| Ok::<_, BoxError>(n);
    let mut results = map_stream(&never_done(), stream::iter(0..), 1, work);
    for n in 0..50_000 {
        assert_eq!(soon(results.next()).await.expect("endless").expect("none fails"), n);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_comes_while_the_input_ends_is_not_lost() {
    let metrics = tokio::runtime::Handle::current().metrics();
    let mut items = 0..3;
    let input = stream::poll_fn(move |_task| {
        let item = items.next();
        while item.is_none() && metrics.num_alive_tasks() > 0 {
            std::thread::yield_now(); // the first poll returns when all have ended
        }
        Poll::Ready(item)
    });
    let work = async |_ctx, n: u32| Ok::<_, BoxError>(n);
    let all = soon(map_stream(&never_done(), input, 8, work).try_collect::<Vec<_>>()).await;
    assert_eq!(all.expect("none fails"), [0, 1, 2]);
}

#[tokio::test]
async fn results_that_nobody_takes_are_dropped_once() {
    let (told, mut tells) = mpsc::unbounded_channel();
    let all = Arc::new(Barrier::new(4));
    let mut results = map_stream(&never_done(), stream::iter(0..100), 4, move |_ctx, n: u32| {
        let (told, all) = (told.clone(), Arc::clone(&all));
        async move {
            all.wait().await;
            if n == 0 { Err(BoxError::from("the first")) } else { Ok(Told(told)) }
        }
    });
    assert!(soon(results.next()).await.expect("told").is_err());
    for _ in 1..4 {
        assert!(tells.try_recv().is_ok(), "with the error they are gone");
    }
    assert!(tells.try_recv().is_err());
    drop(results);
    assert!(soon(tells.recv()).await.is_none());
}

#[test]
fn a_runtime_that_is_gone_is_told_and_nothing_hangs() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let entered = runtime.enter();
    let work = async |_ctx, _n: u32| std::future::pending::<Result<u32, BoxError>>().await;
    let mut before = map_stream(&never_done(), stream::iter(0..100), 4, work);
    let mut after = map_stream(&never_done(), stream::iter(0..100), 4, work);
    assert!(before.next().now_or_never().is_none());
    drop(entered);
    runtime.shutdown_timeout(Duration::from_secs(60));
    for results in [&mut before, &mut after] {
        let next = purview::thread::block_on(results.next());
        let err = next.expect("told").expect_err("the tasks are gone");
        assert!(err.failures()[0].cause().downcast_ref::<Dropped>().is_some());
        assert!(purview::thread::block_on(results.next()).is_none());
    }
}

#[test]
fn an_end_at_any_moment_is_told_unless_all_was_done() {
    const ITEMS: usize = 40;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    for round in 0..400_u32 {
        runtime.block_on(async {
            let (ctx, guard) = never_done().with_cancel();
            let canceler = tokio::spawn(async move {
                yield_times(round / 4).await;
                guard.cancel_with("in the midst");
            });
            let work = async |ctx: Context, n: usize| {
                tokio::task::yield_now().await;
                ctx.check()?;
                Ok::<_, BoxError>(n)
            };
            let input = stream::iter(0..ITEMS);
            let results: Vec<_> = if round % 2 == 0 {
                soon(map_stream(&ctx, input, 5, work).collect()).await
            } else {
                soon(map_stream_unordered(&ctx, input, 5, work).collect()).await
            };
            match results.last() {
                Some(Err(err)) => assert_eq!(err.to_string(), "context canceled: in the midst"),
                _ => assert_eq!(results.len(), ITEMS),
            }
            let fine: Vec<usize> = results.into_iter().filter_map(Result::ok).collect();
            if round % 2 == 0 {
                assert_eq!(fine, (0..fine.len()).collect::<Vec<_>>(), "there is no gap");
            }
            canceler.await.expect("no panic");
        });
    }
}

#[tokio::test]
async fn it_can_be_sent_and_moved_and_says_what_it_does() {
    fn is_send_and_unpin<T: Send + Unpin + 'static>(_: &T) {}
    let work = async |_ctx, n: u32| Ok::<_, BoxError>(n);
    let results = map_stream(&never_done(), stream::iter(0..9), 3, work);
    is_send_and_unpin(&results);
    assert_eq!(
        format!("{results:?}"),
        "MapStream { context: Context(background.cancel, live), limit: 3, begun: 0, .. }"
    );
}
