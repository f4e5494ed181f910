//! [`purview`] for HTTP: a request's context, from the client's deadline to the last spawned task.
//!
//! ```
//! use axum::{Router, routing::get};
//! use purview::Context;
//! use purview_http::deadline::{DeadlineHeader, DeadlineHeaders};
//! use purview_http::{ContextLayer, Ctx};
//! use std::time::Duration;
//!
//! let (server, _stop) = Context::background().with_cancel();
//! let app: Router = Router::new()
//!     .route("/", get(async |Ctx(ctx): Ctx| match ctx.sleep(Duration::from_millis(1)).await {
//!         Ok(()) => "done".to_string(),
//!         Err(ended) => ended.to_string(), // the client went away, the time was up, or the server goes down
//!     }))
//!     .layer(
//!         ContextLayer::new(&server)
//!             .limit(Duration::from_secs(30))
//!             .believe(DeadlineHeaders::new([DeadlineHeader::relative(), DeadlineHeader::Grpc])),
//!     );
//! # drop(app);
//! ```
//!
//! | to | use |
//! |---|---|
//! | give each request a context | [`ContextLayer`], around any tower service |
//! | get at it | [`RequestExt`], or the extractor [`Ctx`] |
//! | know why it ended | [`RequestEnded`] |
//! | let handlers come to an end when nobody waits | [`DetachLayer`] |
//! | read and write deadlines in headers | [`deadline`] |
//! | have values travel | [`propagation`] |
#![cfg_attr(not(feature = "axum"), allow(rustdoc::broken_intra_doc_links))]

mod answer;
mod body;
pub mod deadline;
mod detach;
mod ended;
mod extract;
mod future;
mod layer;
mod names;
pub mod propagation;
mod request;

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
