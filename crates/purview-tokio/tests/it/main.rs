//! Behaviour, on a real runtime.

mod aborts;
mod deaths;
mod ends;
mod groups;
mod maps;
mod runtimes;
mod streams;
mod tokens;

use std::sync::mpsc;
use std::time::Duration;

use purview::Semaphore;

/// Nothing here takes so long; it is for a machine that is busy.
const LONG: Duration = Duration::from_secs(100);

/// Runs `code` on a thread, and fails where that hangs.
fn watched(code: impl FnOnce() + Send + 'static) {
    let (tell, told) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let _tell = tell;
        code();
    });
    let hangs = told.recv_timeout(LONG) == Err(mpsc::RecvTimeoutError::Timeout);
    assert!(!hangs, "it hangs");
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Its borrowers are spawned: it has to be static. That it leaks is known to `xtask/src/sanitize/leaks.txt`.
fn a_semaphore_for_good() -> &'static Semaphore {
    Box::leak(Box::new(Semaphore::new(1)))
}
