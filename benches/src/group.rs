//! P12: a hundred thousand tasks that have nothing to do, spawned by one of them and waited for, on two workers.

use std::future::Future;
use std::time::Instant;

use purview::Context;
use purview_tokio::TaskGroup;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::case::Peer::{Floor, Purview, TokioUtil};
use crate::case::{Case, Outcome, Scale};
use crate::machine;

const BESIDE_TRACKER: &str = "beside a TaskTracker and a token";
const BESIDE_SET: &str = "beside a JoinSet";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::whole("P12", BESIDE_TRACKER, Purview, |scale| on_a_worker(scale, group)),
        Case::whole("P12", BESIDE_TRACKER, TokioUtil, |scale| on_a_worker(scale, tracker)),
        // The least that a runtime asks for.
        Case::whole("P12", BESIDE_TRACKER, Floor, |scale| on_a_worker(scale, bare)),
        Case::whole("P12", BESIDE_SET, Purview, |scale| on_a_worker(scale, group)),
        Case::whole("P12", BESIDE_SET, TokioUtil, |scale| on_a_worker(scale, set)),
    ]
}

async fn group(tasks: usize) {
    let group: TaskGroup = TaskGroup::new(&Context::background());
    for _ in 0..tasks {
        group.spawn(async |_ctx| Ok(()));
    }
    group.join().await.expect("nothing fails");
}

async fn tracker(tasks: usize) {
    let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
    for _ in 0..tasks {
        let token = token.clone();
        tracker.spawn(async move { drop(token) });
    }
    tracker.close();
    tracker.wait().await;
}

async fn set(tasks: usize) {
    let mut set = JoinSet::new();
    for _ in 0..tasks {
        set.spawn(async {});
    }
    while let Some(done) = set.join_next().await {
        done.expect("nothing fails");
    }
}

async fn bare(tasks: usize) {
    let handles: Vec<_> = (0..tasks).map(|_| tokio::spawn(async {})).collect();
    for handle in handles {
        handle.await.expect("nothing fails");
    }
}

fn on_a_worker<F>(scale: &Scale, spawn_and_join: fn(usize) -> F) -> Outcome
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let tasks = scale.tasks;
    let measured = runtime.spawn(async move {
        spawn_and_join(tasks).await; // once for the memory
        let before = machine::waited_by_all();
        let begin = Instant::now();
        spawn_and_join(tasks).await;
        let elapsed = begin.elapsed().as_secs_f64();
        (elapsed, machine::waited_by_all().saturating_sub(before) as f64 / 1e9)
    });
    let (elapsed, waited) = runtime.block_on(measured).expect("nothing fails");
    Outcome {
        disturbed: waited / (2.0 * elapsed),
        ..Outcome::of([("ns a task", elapsed * 1e9 / tasks as f64)])
    }
}
