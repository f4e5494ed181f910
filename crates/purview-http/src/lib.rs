#![cfg_attr(feature = "axum", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "axum"),
    doc = "[`purview`] for HTTP: a request's context, as tower layers."
)]

mod answer;
mod body;
pub mod client;
pub mod deadline;
mod detach;
mod ended;
mod extract;
mod future;
mod layer;
mod names;
pub mod propagation;
mod request;
#[cfg(feature = "server")]
pub mod serve;

pub use answer::Style;
pub use body::ResponseBody;
pub use detach::{DetachLayer, DetachService, DetachedFuture};
pub use ended::RequestEnded;
pub use extract::RequestExt;
#[cfg(feature = "axum")]
pub use extract::{Ctx, NoContext};
pub use future::ResponseFuture;
pub use layer::{ContextLayer, ContextService};

/// Any error, as bodies have them.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
