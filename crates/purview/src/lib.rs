//! Go's `context` for Rust: a tree of cancellation, deadlines, causes and request-scoped values.
//!
//! (placeholder, see below)

mod builder;
mod clock;
mod context;
mod done;
mod error;
mod guard;
mod key;
mod list;
#[cfg(all(test, purview_loom))]
mod models;
pub mod observe;
mod on_done;
mod park;
mod path;
mod run;
mod sleep;
mod state;
mod sync;
pub mod time;
mod timer;
mod tree;
mod value;
mod waiter;

pub use builder::Derive;
pub use context::Context;
pub use done::Done;
pub use error::{By, Cause, Error, ErrorKind, Origin};
pub use guard::{CancelGuard, CancelHandle};
pub use key::Key;
pub use observe::{ContextId, Statistics};
pub use on_done::OnDone;
pub use run::Run;
pub use sleep::Sleep;
