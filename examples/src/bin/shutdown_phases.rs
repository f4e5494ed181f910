//! A service goes down in phases: it stops accepting, drains, cancels, closes.
//!
//! Each phase is a context that ends when the phase begins, and holds for which it waits. Three jobs are
//! under way when the signal comes:
//! - one finishes while the service drains;
//! - one takes too long, and stops when it is canceled;
//! - one does not listen. It is left behind, and named.
//!
//! Teaches `Shutdown`, `Phase::context`, `hold` and `on_begin`, and the report. Here the signal is a
//! guard; in a service it is `purview_signal::notify`, whose second signal forces everything.
//!
//! Run it: `cargo run -p purview-examples --bin shutdown_phases`
#![expect(clippy::print_stdout, reason = "printing is what it does")]

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use purview::Context;
use purview::shutdown::Shutdown;

fn main() {
    let (signal, stop) = Context::background().with_cancel();
    let mut shutdown = Shutdown::new(&signal);
    let accepting = shutdown.phase("stop accepting", Duration::from_secs(1));
    let draining = shutdown.phase("drain", Duration::from_secs(1));
    let canceling = shutdown.phase("cancel", Duration::from_secs(1));
    let closing = shutdown.phase("close", Duration::from_secs(1));

    let (told, hold) = (accepting.context().clone(), draining.hold("quick job"));
    thread::spawn(move || {
        told.done().wait(); // as if this were how long it takes
        drop(hold);
    });
    let (ctx, hold) = (canceling.context().clone(), draining.hold("slow job"));
    thread::spawn(move || {
        if let Err(err) = ctx.sleep_blocking(Duration::from_secs(3600)) {
            println!("The slow job stops: {err}");
        }
        drop(hold);
    });
    let (end, ends) = mpsc::channel::<()>();
    let hold = draining.hold("deaf job");
    let deaf = thread::spawn(move || {
        let _ = ends.recv();
        drop(hold);
    });
    closing.on_begin("database", async |_ctx| {
        println!("The database is closed.");
        Ok::<(), purview::Error>(())
    });

    stop.cancel_with("SIGTERM");
    let report = shutdown.run_blocking();
    for phase in report.phases() {
        let (name, finished, canceled) = (phase.name(), phase.finished(), phase.canceled());
        println!("{name}: {finished} finished, {canceled} canceled");
    }
    for task in report.abandoned() {
        println!("Abandoned: {}", task.name().unwrap_or("?"));
    }
    println!("Exit code: {}", report.exit_code());

    drop(end);
    let _ = deaf.join();
}
