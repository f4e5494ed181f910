//! Behaviour, on a real runtime.

mod aborts;
mod deaths;
mod groups;
mod maps;
mod runtimes;
mod streams;
mod tokens;

use purview::Semaphore;

/// Its borrowers are spawned: it has to be static. That it leaks is known to `xtask/src/sanitize/leaks.txt`.
fn a_semaphore_for_good() -> &'static Semaphore {
    Box::leak(Box::new(Semaphore::new(1)))
}
