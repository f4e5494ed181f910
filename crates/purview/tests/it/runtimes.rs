//! That a group needs no particular runtime: the same on smol. (On tokio: `purview-tokio`. On threads: groups.rs.)

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use purview::{Context, Error, OnFailure, Spawn, TaskGroup};

#[derive(Default)]
struct Smol;

impl Spawn for Smol {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        smol::spawn(task).detach();
    }

    fn spawn_blocking<F: FnOnce() + Send + 'static>(&self, task: F) -> std::io::Result<()> {
        smol::unblock(task).detach();
        Ok(())
    }
}

#[test]
fn on_smol_a_group_keeps_its_limit_isolates_failures_and_joins_all() {
    const TASKS: usize = 10_000;
    const LIMIT: usize = 16;
    smol::block_on(async {
        let (now, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let group: TaskGroup<std::io::Error, Smol> = TaskGroup::builder(&Context::background())
            .limit(LIMIT)
            .on_failure(OnFailure::Isolate)
            .build();
        for n in 0..TASKS {
            let (now, done) = (Arc::clone(&now), Arc::clone(&done));
            let task = async move |_ctx| {
                assert!(now.fetch_add(1, Ordering::SeqCst) < LIMIT);
                smol::future::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                done.fetch_add(1, Ordering::SeqCst);
                assert!(n != TASKS / 2, "in the middle");
                if n == TASKS / 3 { Err(std::io::Error::other("at a third")) } else { Ok(()) }
            };
            assert!(group.spawn_ready(task).await.is_ok(), "it isolates");
        }
        let err = group.join().await.expect_err("two failed");
        assert_eq!((done.load(Ordering::SeqCst), err.failed()), (TASKS, 2));
    });
}

#[test]
fn on_smol_a_shutdown_tells_waits_and_drops() {
    smol::block_on(async {
        let group: TaskGroup<Error, Smol> = TaskGroup::new(&Context::background());
        group.spawn_named("polite", async |ctx: Context| Err(ctx.done().await));
        group.spawn_named("deaf", async |_ctx| pending().await);
        group.spawn_blocking(|ctx| Err(ctx.done().wait()));
        while group.tasks().len() < 3 {
            smol::future::yield_now().await;
        }
        group.cancel_with("deploy");
        while group.len() > 1 {
            smol::future::yield_now().await;
        }
        let report = group.shutdown("too late to say why", Duration::from_millis(1)).await;
        assert_eq!((report.finished(), report.failed(), report.abandoned().len()), (2, 0, 0));
        assert_eq!(report.aborted()[0].name(), Some("deaf"));
    });
}
