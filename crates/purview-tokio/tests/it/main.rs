//! Behaviour, on a real runtime.

mod groups;
mod maps;
mod streams;
mod tokens;
