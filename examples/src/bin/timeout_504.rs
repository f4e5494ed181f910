//! A handler that answers 504 when its two seconds are up, while the slow work is told to stop.
//!
//! The work runs on a blocking thread, as database drivers and compression do. Dropping a future
//! frees the *handler*; the thread would go on for nobody. Teaches that
//! - one context does both: `run` gives up waiting, and the thread finds out by `check`;
//! - a deadline has a cause, and a kind of its own: it is a 504, where a cancellation would be a 503;
//! - `?` is enough to stop in the middle of a loop.
//!
//! It serves on a free port of the loopback, and makes the request itself.
//!
//! Run it: `cargo run -p purview-examples --bin timeout_504`
#![expect(clippy::print_stdout, reason = "printing is what it does")]

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use purview::{Context, Error};
use purview_examples::{get, read_request, respond};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_blocking;

#[tokio::main]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;

    let server = async {
        let (mut connection, _) = listener.accept().await?;
        handle(&Context::background(), &mut connection).await
    };
    let client = async {
        let (status, body) = get(address, "/report").await?;
        println!("client: {status}: {body}");
        Ok(())
    };
    tokio::try_join!(server, client)?;
    // The runtime waits for its blocking threads. Had the report not been told to stop, we would
    // now wait for it, for more than an hour.
    Ok(())
}

/// Answers one request, in two seconds at the most.
async fn handle(ctx: &Context, connection: &mut TcpStream) -> io::Result<()> {
    let (ctx, _guard) = ctx
        .derive()
        .name("request")
        .timeout(Duration::from_secs(2))
        .deadline_cause("a report has two seconds")
        .build();

    let path = ctx.run(read_request(connection)).await??;
    println!("server: GET {path}");

    let work = spawn_blocking({
        let ctx = ctx.clone();
        move || slow_report(&ctx)
    });
    let outcome = ctx.run(work).await.and_then(|work| work.expect("the report does not panic"));
    match outcome {
        Ok(report) => respond(connection, "200 OK", &report).await,
        Err(ended) if ended.is_deadline_exceeded() => {
            respond(connection, "504 Gateway Timeout", &ended.to_string()).await
        }
        Err(ended) => respond(connection, "503 Service Unavailable", &ended.to_string()).await,
    }
}

/// A report of many pages, each of which takes a while: more than an hour in all.
fn slow_report(ctx: &Context) -> Result<String, Error> {
    for _page in 0..100_000 {
        ctx.check().inspect_err(|told| println!("report: told to stop: {told}"))?;
        std::thread::sleep(Duration::from_millis(50)); // work that nobody can interrupt
    }
    Ok("100,000 pages".to_owned())
}
