//! Counts the allocations of a request to what its argument names, without a network: of the second thousand.
#![expect(unsafe_code, reason = "an allocator is unsafe to be")]
#![expect(clippy::print_stdout, reason = "it says what it counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::{Body, HttpBody};
use axum::http::Request;
use purview::Context;
use purview_http_benches::{ALL, service};
use std::future::poll_fn;
use std::pin::Pin;
use tower::ServiceExt;

/// The system's allocator, and how often it was asked.
struct Counting(AtomicU64);

#[global_allocator]
static HEAP: Counting = Counting(AtomicU64::new(0));

// SAFETY: all of it is the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

const REQUESTS: u64 = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (server, _stop) = Context::background().with_cancel();
    for (name, around) in ALL {
        let service = service(around, &server);
        let many = async || -> Result<u64, Box<dyn Error>> {
            let before = HEAP.0.load(Ordering::Relaxed);
            for _ in 0..REQUESTS {
                let request =
                    Request::get("/").header("x-request-timeout", "10").body(Body::empty())?;
                let response = service.clone().oneshot(request).await?;
                let mut body = response.into_body();
                while poll_fn(|task| Pin::new(&mut body).poll_frame(task)).await.is_some() {}
            }
            Ok(HEAP.0.load(Ordering::Relaxed) - before)
        };
        runtime.block_on(many())?;
        let count = runtime.block_on(many())?;
        println!("{name} {:.2}", count as f64 / REQUESTS as f64);
    }
    Ok(())
}
