//! The way down: four phases, each with a bound, none of them waited for longer than it is needed.
//!
//! ```text
//! signal ─▶ "stop accepting"  no new connections, the refresher stops
//!              │
//!           "drain"           requests in flight go on, for the grace
//!              │
//!           "cancel"          queries are interrupted, their requests answer 503
//!              │
//!           "close"           connections are cut; whoever is left is named
//! ```
//!
//! Each phase is a context that ends when the phase begins, with the signal as its cause. So whoever
//! takes part derives from the phase that is to stop it, and says for how long it is to be waited for.
//! A second signal forces everything.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use purview::Context;
use purview::shutdown::{Report, Shutdown};
use purview_http::serve::Phases;
use purview_signal::{Notify, Signal, SignalReceived, notify};

use crate::say;
use crate::stats::Stats;

const STOP_ACCEPTING: Duration = Duration::from_millis(500);
/// What requests get after their grace to notice and to answer.
const CANCEL: Duration = Duration::from_secs(2);
/// What a blocking thread that nothing could stop gets before the process leaves it behind.
const CLOSE: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub(crate) struct WayDown {
    pub(crate) phases: Phases,
    shutdown: Shutdown,
    /// Listens until all is over.
    signals: Option<Notify>,
}

impl WayDown {
    /// Listens for SIGINT (Ctrl-C) and SIGTERM from here on. Where there are no signals to listen for,
    /// Ctrl-C does what it always does.
    pub(crate) fn new(grace: Duration) -> io::Result<WayDown> {
        let (signal, signals) =
            match notify(&Context::background(), [Signal::INTERRUPT, Signal::TERMINATE]) {
                Ok((signal, signals)) => (signal, Some(signals)),
                Err(err) if err.kind() == ErrorKind::Unsupported => (Context::background(), None),
                Err(err) => return Err(err),
            };
        let mut shutdown = Shutdown::new(&signal);
        if let Some(signals) = &signals {
            shutdown = shutdown.force_on(&signals.again());
        }
        let phases = Phases::of([
            shutdown.phase("stop accepting", STOP_ACCEPTING),
            shutdown.phase("drain", grace),
            shutdown.phase("cancel", CANCEL),
            shutdown.phase("close", CLOSE),
        ]);
        Ok(WayDown { phases, shutdown, signals })
    }

    /// Waits for the signal, and for all who take part, within the bounds. Says what happened, and
    /// gives the exit code.
    pub(crate) async fn run(self, grace: Duration, stats: Arc<Stats>) -> u8 {
        let WayDown { phases, shutdown, signals, .. } = self;
        let (told, books) = (phases.stop_accepting.context().clone(), Arc::clone(&stats));
        phases.stop_accepting.on_begin("announcement", async move |_ctx| {
            announce(&told, grace, &books);
            Ok::<(), purview::Error>(())
        });
        let report = shutdown.run().await;
        drop(signals);
        say(&report.to_string());
        let left = stats.under_way();
        for work in &left {
            say(&format!("left: {work}"));
        }
        if report.is_clean() && left.is_empty() {
            say("nothing left");
        }
        exit_code(&report)
    }
}

fn announce(told: &Context, grace: Duration, stats: &Stats) {
    if let Some(ended) = told.err() {
        let why = ended.cause().map_or_else(|| ended.to_string(), ToString::to_string);
        say(&format!("{why}; no new connections"));
    }
    let in_flight = stats.requests().in_flight;
    if in_flight > 0 {
        let grace = grace.as_millis();
        say(&format!("{in_flight} in flight, with {grace} ms to finish; again to stop at once"));
    }
}

/// Of who leaves on a second signal, what a shell expects.
fn exit_code(report: &Report) -> u8 {
    let forced = report.forced().and_then(|ended| ended.cause()?.downcast_ref::<SignalReceived>());
    match forced.and_then(|received| u8::try_from(128 + received.signal().number()).ok()) {
        Some(code) => code,
        None => report.exit_code(),
    }
}
