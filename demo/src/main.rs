//! A small HTTP search service that lives by purview: every request, every query and the shutdown
//! itself are contexts.
//!
//! ```text
//! background ─ signal ─ stop accepting ─┬─ background ─ refresh          (refresher.rs)
//!                                       └─ drain ─ cancel ─ close ─ connections
//! requests ─┬─ search ─ shards   (search.rs)
//!           ├─ report            (report.rs)
//!           └─ trace             (trace.rs)
//! ```
//!
//! `stop accepting` ends on a signal, and each of the others when the one before has taken its time,
//! or is no longer needed (shutdown.rs); `requests` with `cancel`. A request's context also ends at its `timeout_ms`, or when
//! its client hangs up (scope.rs). Below a request there is only SQLite, which asks the context as it
//! goes (store.rs). What runs besides the requests runs in groups: the refresher, a search's shards,
//! the server itself.

mod args;
mod census;
mod failure;
mod params;
mod refresher;
mod report;
mod scope;
mod search;
mod seed;
mod server;
mod shutdown;
mod stats;
mod store;
mod trace;
mod words;

use std::io::{self, ErrorKind, Write};
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;

use purview::Context;
use purview_http::serve::{Phases, Server};
use purview_tokio::TaskGroup;
use tokio::net::TcpListener;

use crate::args::{Args, Command};
use crate::seed::{Data, Unusable};
use crate::server::App;
use crate::shutdown::WayDown;
use crate::stats::Stats;
use crate::store::Store;
use crate::trace::Upstream;

fn main() -> ExitCode {
    let args = match Command::parse(std::env::args_os().skip(1)) {
        Ok(Command::Serve(args)) => args,
        Ok(Command::Help) => {
            say(args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(sentence) => {
            complain(&sentence);
            return ExitCode::from(2);
        }
    };
    census::begin();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|err| format!("cannot start the runtime: {err}"))
        .and_then(|runtime| {
            let outcome = runtime.block_on(serve(args));
            runtime.shutdown_background(); // who is left has had its time, and was named
            outcome
        });
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(sentence) => {
            complain(&sentence);
            ExitCode::FAILURE
        }
    }
}

/// From the port to the last line, and the exit code. The error is a sentence.
async fn serve(args: Args) -> Result<u8, String> {
    // The port first: a busy one is no reason to make people wait for the data.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port))
        .await
        .map_err(|err| no_port(args.port, &err))?;
    let address = listener.local_addr().map_err(|err| err.to_string())?;

    let way_down =
        WayDown::new(args.grace).map_err(|err| format!("cannot listen for signals: {err}"))?;
    let phases = &way_down.phases;

    let serving = phases.stop_accepting.context();
    let Some(data) = prepare(serving, &args).await? else { return Ok(0) };
    let path = args.data.display();
    say(&match data.seeded_in {
        Some(took) => format!("made {} notes in {:.1} s: {path}", data.rows, took.as_secs_f64()),
        None => format!("{} notes: {path}", data.rows),
    });

    let stats = Arc::new(Stats::default());
    let store = Store::new(args.data, Arc::clone(&stats));
    refresh(phases, &store, &stats);
    let upstream = args.upstream.map(Upstream::new);
    let server = Server::new(phases.clone());
    let phases = phases.clone();
    let requests = server.context().clone();
    let app = App { phases, requests, store, upstream, stats: Arc::clone(&stats) };
    server.spawn(listener, server::routes(Arc::new(app)));

    say(&format!(
        "listening on http://{address}/

open it in a browser, or try
  curl 'http://{address}/search?q=storm&slow=1&timeout_ms=500'   # a part of the answer, in time
  curl 'http://{address}/report?timeout_ms=300'                  # 504, and where its end came from
  curl -m 0.5 'http://{address}/report'; curl 'http://{address}/stats'   # hang up: its query stops

Ctrl-C stops it\n"
    ));
    Ok(way_down.run(args.grace, stats).await)
}

/// The refresher runs beside the requests, until the service stops accepting.
fn refresh(phases: &Phases, store: &Store, stats: &Arc<Stats>) {
    let phase = &phases.stop_accepting;
    let group: TaskGroup<purview::Error> =
        TaskGroup::builder(phase.context()).name("background").build();
    stats.watch(group.watch());
    let (store, books) = (store.clone(), Arc::clone(stats));
    group.spawn_named("refresher", async |ctx| Err(refresher::run(ctx, store, books).await));
    phase.own(group);
}

/// The data, or `None` if Ctrl-C came first.
async fn prepare(ctx: &Context, args: &Args) -> Result<Option<Data>, String> {
    let (ctx, path, rows) = (ctx.clone(), args.data.clone(), args.rows);
    let prepared = tokio::task::spawn_blocking(move || {
        let announce = || say(&format!("making {rows} notes in {} …", path.display()));
        seed::prepare(&ctx, &path, rows, announce)
    });
    match prepared.await {
        Ok(Ok(data)) => Ok(Some(data)),
        Ok(Err(Unusable::Ended(ended))) => {
            let why = ended.cause().map_or_else(|| ended.to_string(), ToString::to_string);
            say(&format!("{why}; the notes were not finished, the next start makes them anew"));
            Ok(None)
        }
        Ok(Err(Unusable::Because(sentence))) => Err(sentence),
        Err(panic) => Err(panic.to_string()),
    }
}

fn no_port(port: u16, err: &io::Error) -> String {
    match err.kind() {
        ErrorKind::AddrInUse => format!(
            "port {port} on 127.0.0.1 is in use; choose another with --port N, or --port 0 for any free one"
        ),
        ErrorKind::PermissionDenied => {
            format!("port {port} on 127.0.0.1 is not for this user; choose another with --port N")
        }
        _ => format!("cannot listen on 127.0.0.1:{port}: {err}"),
    }
}

/// A line for the person who started the service. If they closed the pipe, it goes nowhere.
fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// The same for what went wrong.
fn complain(sentence: &str) {
    let _ = writeln!(io::stderr().lock(), "purview-demo: {sentence}");
}
