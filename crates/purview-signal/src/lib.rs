#![doc = include_str!("../README.md")]

#[cfg(unix)]
mod fork;
mod hub;
mod listener;
mod notify;
mod signal;
#[cfg(unix)]
#[path = "unix.rs"]
mod sys;
#[cfg(not(unix))]
#[path = "unsupported.rs"]
mod sys;

pub use notify::{Notify, notify};
pub use signal::{Signal, SignalReceived};
