//! A blocking thread and an async task, waiting for the same context.
//!
//! Teaches that there is one way to wait, and both worlds use it: `done()` is a future that a task
//! awaits, on any executor, and that a thread waits for with `wait`. No channel between them, no task
//! that polls, no runtime on the thread's side. Both are in one list, of which `statistics` tells the
//! length; waiting allocates nothing, and leaves nothing behind.
//!
//! Run it: `cargo run -p purview-examples --bin thread_and_task`
#![expect(clippy::print_stdout, reason = "printing is what it does")]

use std::thread;

use purview::Context;

#[tokio::main]
async fn main() {
    let (ctx, cancel) = Context::background().with_cancel();

    let task = tokio::spawn({
        let ctx = ctx.clone();
        async move { println!("the task heard: {}", ctx.done().await) }
    });
    let thread = thread::spawn({
        let ctx = ctx.clone();
        move || println!("the thread heard: {}", ctx.done().wait())
    });

    // Until both wait. For them it makes no difference: who comes late hears of it at once.
    while ctx.statistics().waiters() < 2 {
        tokio::task::yield_now().await;
    }
    println!("{} wait", ctx.statistics().waiters());

    cancel.cancel_with("that will do");

    task.await.expect("the task does not panic");
    thread.join().expect("the thread does not panic");
    println!("{} wait", ctx.statistics().waiters());
}
