//! Behaviour, on a real runtime.

mod aborts;
mod deaths;
mod groups;
mod maps;
mod streams;
mod tokens;
