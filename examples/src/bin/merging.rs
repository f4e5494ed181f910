//! One context of two: a request's, and the server's shutdown.
//!
//! A request ends when its client goes away; it should also end when the server stops, though the two
//! were derived from different trees. Teaches `Context::any_of`:
//! - it is done when the first of its parents is, with that one's error: the reason says which it was;
//! - it has the earliest of their deadlines, and their values, the first parent's before the others';
//! - it leaves nothing behind in a parent that lives on.
//!
//! Run it: `cargo run -p purview-examples --bin merging`
#![expect(clippy::print_stdout, reason = "printing is what it does")]

use std::thread;

use purview::{CancelGuard, Context, Key};

static USER: Key<&str> = Key::new("user");

fn main() {
    let (shutdown, stop) = Context::background().derive().name("shutdown").build();

    // The first client hangs up.
    let (request, hang_up) = request_of("ann");
    thread::scope(|scope| {
        scope.spawn(|| handle(&request, &shutdown));
        hang_up.cancel_with("the client hung up");
    });
    println!("the server goes on, with {} requests\n", shutdown.statistics().children());

    // The second one would wait, but the server stops.
    let (request, _hang_up) = request_of("ben");
    thread::scope(|scope| {
        scope.spawn(|| handle(&request, &shutdown));
        stop.cancel_with("maintenance");
    });
    println!("the request itself: {}", if request.is_done() { "done" } else { "live" });
}

/// A request's context, as a server's front would make it.
fn request_of(user: &'static str) -> (Context, CancelGuard) {
    Context::background().derive().name("request").value(&USER, user).build()
}

/// Serves a request for as long as both its client and the server want it.
fn handle(request: &Context, shutdown: &Context) {
    let (ctx, _guard) = Context::any_of([request, shutdown]);
    let user = ctx.value(&USER).copied().unwrap_or("somebody");

    let why = ctx.done().wait(); // the work itself

    let began = why.origin().name().unwrap_or("no name");
    println!("{user}: {why} [{began}]");
}
