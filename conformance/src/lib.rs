//! purview held against a plain model of its promises, and against real Go.
//!
//! A [`Program`] is a list of operations on numbered contexts. It runs in a [`World`]: the [`Model`], which is
//! [`Ours`], purview, or Go's `context`, by the program in `go/`. What is to be seen after each operation is one line of
//! text; two worlds agree if all lines are the same.

mod explain;
mod generate;
mod history;
mod model;
mod ours;
mod program;
mod race;
mod races;
mod world;

pub mod go;

pub use generate::{Numbers, Scope};
pub use history::{Action, Answer, Event, History, STEPS, THREADS};
pub use model::Model;
pub use ours::Ours;
pub use program::{Op, Program};
pub use race::{Outcomes, Race};
pub use races::RACES;
pub use world::{End, Seen, World, run};

/// How many different keys of values there are.
pub const KEYS: usize = 3;
