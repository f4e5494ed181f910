//! Behaviour, through the public API. A module a topic; names say what holds; C-numbers cite the promises of the crate's
//! documentation ("What a context promises").

mod building;
mod callbacks;
mod canceling;
mod causes;
mod clocks;
mod corners;
mod deadlines;
mod deaths;
mod detaching;
mod dropping;
mod golang;
mod groups;
mod input;
mod memory;
mod observing;
mod reentry;
mod runtimes;
mod semaphores;
mod showing;
mod shutdowns;
mod support;
mod types;
mod values;
mod waiting;
