//! Behaviour, on a real runtime.

mod aborts;
mod groups;
mod maps;
mod streams;
mod tokens;
