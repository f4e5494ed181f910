//! Behaviour, on real threads and in real selects.

mod ending;
mod making;
mod selecting;
