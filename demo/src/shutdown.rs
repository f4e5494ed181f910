//! The end, in four steps, each with a bound:
//!
//! ```text
//! signal ─▶ "server" ends: no new connections, the refresher stops
//!    │  grace: requests in flight go on
//!    ▼
//! "requests" ends: queries are interrupted, their requests answer 503
//!    │  WRAP_UP: the answers go out
//!    ▼
//! "wrap-up" ends: whoever is left is named
//! ```
//!
//! All three are contexts, each derived from the one before with `grace`: the first signal starts
//! the whole line of dominoes, every error along it has the signal as its cause, and there is no
//! timer or flag to keep in step. As soon as the last connection is closed, the rest is skipped.

use std::io;
use std::time::{Duration, Instant};

use purview::{CancelHandle, Context};
use tokio::task::JoinHandle;

use crate::say;
use crate::stats::Stats;

/// What requests get after their grace to notice and to answer.
const WRAP_UP: Duration = Duration::from_millis(500);

/// Ends a context on the first SIGINT (Ctrl-C) or SIGTERM, and the process on the next one.
#[cfg(unix)]
pub(crate) fn on_signals(stop: &CancelHandle) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    for (kind, name) in [(SignalKind::interrupt(), "SIGINT"), (SignalKind::terminate(), "SIGTERM")]
    {
        let mut signals = signal(kind)?;
        let stop = stop.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                told(&stop, name, 128 + kind.as_raw_value());
            }
        });
    }
    Ok(())
}

/// Ends a context on the first Ctrl-C, and the process on the next one.
#[cfg(not(unix))]
pub(crate) fn on_signals(stop: &CancelHandle) -> io::Result<()> {
    let stop = stop.clone();
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            told(&stop, "Ctrl-C", 130);
        }
    });
    Ok(())
}

fn told(stop: &CancelHandle, signal: &str, code: i32) {
    if stop.context().is_done() {
        say(&format!("{signal} again: stopped at once"));
        std::process::exit(code);
    }
    stop.cancel_with(format!("shutting down: {signal}"));
}

/// Waits for the signal and then for the server to drain, within the bounds; says what happened.
pub(crate) async fn drained(
    serving: &Context,
    requests: &Context,
    grace: Duration,
    server: JoinHandle<io::Result<()>>,
    refresher: JoinHandle<purview::Error>,
    stats: &Stats,
) {
    let ended = serving.done().await;
    let told = Instant::now();
    let before = stats.requests();
    let why = ended.cause().map_or_else(|| ended.to_string(), ToString::to_string);
    say(&format!("{why}; no new connections"));
    if before.in_flight > 0 {
        let grace = grace.as_millis();
        let in_flight = before.in_flight;
        say(&format!("{in_flight} in flight, with {grace} ms to finish; again to stop at once"));
    }

    let (wrap_up, _guard) = requests.derive().name("wrap-up").grace(WRAP_UP).build();
    let closed = wrap_up.run(server).await;
    let _ = wrap_up.run(refresher).await;

    let finished = stats.requests().answered() - before.answered();
    if finished > 0 {
        say(&format!("finished: {finished}"));
    }
    let hung_up = stats.requests().canceled_by_client - before.canceled_by_client;
    if hung_up > 0 {
        say(&format!("hung up: {hung_up}"));
    }
    for request in stats.shut_down() {
        say(&format!("canceled: {request}"));
    }
    let left = stats.under_way();
    for work in &left {
        say(&format!("left: {work}"));
    }
    if left.is_empty() {
        // A client that has sent half a request is no request yet, and is not waited for any longer.
        let cut = if closed.is_err() { " but half a request" } else { "" };
        let took = told.elapsed().as_millis();
        say(&format!("stopped after {took} ms, nothing left{cut}"));
    }
}
