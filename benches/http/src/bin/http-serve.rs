//! Serves what its argument names, on one thread, until its standard input ends. It says where on its standard output.

#![expect(clippy::print_stdout, reason = "it says where it serves")]

use std::error::Error;
use std::io::{Read, stdin};
use std::{env, thread};

use purview::Context;
use purview::shutdown::Shutdown;
use purview_http::serve::{Phases, Server};
use purview_http_benches::{ALL, service};
use tokio::net::TcpListener;

fn main() -> Result<(), Box<dyn Error>> {
    let name = env::args().nth(1).unwrap_or_default();
    let (own, name) = name.strip_prefix("server-").map_or((false, &*name), |name| (true, name));
    let around = ALL.iter().find(|(known, _)| *known == name).ok_or("what is that?")?.1;
    let (signal, stop) = Context::background().with_cancel();
    thread::spawn(move || {
        let _ = stdin().read_to_end(&mut Vec::new());
        stop.cancel();
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let mut shutdown = Shutdown::new(&signal);
        let phases = Phases::new(&mut shutdown, std::time::Duration::from_secs(1));
        if own {
            let server = Server::new(phases);
            let service = service(around, server.context());
            server.spawn(listener, service);
            shutdown.run().await;
        } else {
            let service = service(around, &signal);
            let stopped = async move { drop(signal.done().await) };
            axum::serve(listener, service).with_graceful_shutdown(stopped).await?;
        }
        Ok(())
    })
}
