//! A server that stops gracefully on Ctrl-C.
//!
//! Two contexts, one below the other, say it all:
//! - `serving` ends on Ctrl-C, with that as its cause: the server stops accepting at once;
//! - `requests` ends a grace later. Requests derive from it, so those in flight may finish, and those
//!   that take longer are told to stop. Nothing waits for ever.
//!
//! Teaches `with_grace`, `run`, `sleep`, and that a signal is just one more holder of the right to
//! cancel.
//!
//! Run it: `cargo run -p purview-examples --bin graceful_server`, then in another terminal
//! `curl` the two paths that it prints, and press Ctrl-C here meanwhile.
#![expect(clippy::print_stdout, reason = "printing is what it does")]

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use purview::{CancelGuard, Context};
use purview_examples::{read_request, respond};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How long requests may go on after Ctrl-C.
const GRACE: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> io::Result<()> {
    let (serving, stop) = Context::background().derive().name("server").build();
    // In this order, so that we listen for the signal before anybody knows where we are.
    tokio::try_join!(biased; stop_on_ctrl_c(&stop), serve(&serving))?;
    Ok(())
}

async fn stop_on_ctrl_c(stop: &CancelGuard) -> io::Result<()> {
    tokio::signal::ctrl_c().await?;
    stop.cancel_with("Ctrl-C");
    Ok(())
}

/// Serves until `serving` ends, and then until the last request has.
async fn serve(serving: &Context) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    println!("serving http://{address}/second and http://{address}/hour");

    let (requests, _guard) = serving.with_grace(GRACE);
    let mut in_flight = JoinSet::new();
    while let Ok(accepted) = serving.run(listener.accept()).await {
        let (connection, _) = accepted?;
        let ctx = requests.clone();
        in_flight.spawn(async move {
            if let Err(lost) = handle(&ctx, connection).await {
                println!("connection lost: {lost}");
            }
        });
        while in_flight.try_join_next().is_some() {} // forget those that are finished
    }
    drop(listener); // from here on, connections are refused

    println!("stopping: {}", serving.done().await);
    while in_flight.join_next().await.is_some() {}
    println!("stopped");
    Ok(())
}

/// Answers one request: with 200 when its work is finished, with 503 when `ctx` ends first.
async fn handle(ctx: &Context, mut connection: TcpStream) -> io::Result<()> {
    let path = ctx.run(read_request(&mut connection)).await??;
    let work = match &*path {
        "/second" => Duration::from_secs(1),
        "/hour" => Duration::from_secs(60 * 60),
        _ => return respond(&mut connection, "404 Not Found", "try /second or /hour\n").await,
    };

    println!("{path}: started");
    match ctx.sleep(work).await {
        Ok(()) => {
            println!("{path}: finished");
            respond(&mut connection, "200 OK", "finished\n").await
        }
        Err(told) => {
            println!("{path}: told to stop: {told}");
            respond(&mut connection, "503 Service Unavailable", &format!("{told}\n")).await
        }
    }
}
