//! Two groups: one that fails as a whole, and one that is shut down.
//!
//! Teaches what a group is for:
//! - it owns what it starts: when `join` or `shutdown` returns, nothing of its tasks runs any more, or it is named;
//! - the first failure cancels the others, and is the cause that they see;
//! - a task that does not listen is dropped after a grace, and the report says which one it was.
//!
//! Run it: `cargo run -p purview-examples --bin task_group`
#![expect(clippy::print_stdout, reason = "printing is what it does")]

use std::future::pending;
use std::time::Duration;

use purview::Context;
use purview_tokio::{BoxError, TaskGroup};

#[tokio::main]
async fn main() {
    let ctx = Context::background();

    let shards: TaskGroup = TaskGroup::new(&ctx);
    for n in 1..=2 {
        shards.spawn_named(format!("shard {n}"), async move |ctx: Context| {
            let stopped = ctx.done().await; // waits for an answer that does not come
            println!("Shard {n} stopped: {stopped}");
            Err(stopped.into())
        });
    }
    shards.spawn_named("shard 3", async |_ctx| Err(BoxError::from("no such index")));
    let err = shards.join().await.expect_err("one of them fails");
    for failure in err.failures() {
        println!("Failed: {} ({})", failure.name().unwrap_or("?"), failure.cause());
    }

    let service: TaskGroup = TaskGroup::new(&ctx);
    service.spawn_named("listener", async |ctx: Context| {
        ctx.done().await;
        Ok(())
    });
    service.spawn_named("forgetful", async |_ctx| pending().await);
    let report = service.shutdown("a new version", Duration::from_millis(100)).await;
    println!("Finished: {}", report.finished());
    for task in report.aborted() {
        println!("Aborted: {}", task.name().unwrap_or("?"));
    }
}
