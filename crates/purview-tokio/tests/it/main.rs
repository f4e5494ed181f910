//! Behaviour, on a real runtime.

mod aborts;
mod deaths;
mod groups;
mod maps;
mod runtimes;
mod streams;
mod tokens;
