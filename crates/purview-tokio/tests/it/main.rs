//! Behaviour, on a real runtime.

mod groups;
mod maps;
mod tokens;
