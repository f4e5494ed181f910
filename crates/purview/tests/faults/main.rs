//! Faults: what is done to a context, or to the process it lives in, that should not be. FAULTS.md lists them, F1 to F40, and what
//! holds under each; a test's name begins with the number of its fault.
//!
//! What would end this process, or change it, is done to a child of it: [`child`].

mod callbacks;
#[cfg(unix)]
mod child;
mod clocks;
#[cfg(unix)]
mod forks;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod jumps;
#[cfg(target_os = "linux")]
mod limits;
mod many;
mod panics;
#[cfg(unix)]
mod process;
mod support;
mod values;
mod waiting;
mod wakers;
