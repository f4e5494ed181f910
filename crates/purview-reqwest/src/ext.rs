//! One request, under a context.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll};

use purview::Context;
use purview_http::client::{ContextLayer, Error, WithContext};
use reqwest::{Body, RequestBuilder, Response};
use tower_layer::Layer;
use tower_service::Service;

use crate::ClientService;

/// Sends a request under a context.
///
/// The client's own timeouts still count, and the request's. None is made of the context's deadline: the context ends the request
/// itself, and its error is the same in every phase.
pub trait RequestBuilderExt: Sized {
    /// Sends the request; it ends with `ctx`, and so does reading its answer, by whichever of [`Response`]'s methods.
    ///
    /// ```
    /// use purview::{Context, Error};
    /// use purview_reqwest::RequestBuilderExt;
    ///
    /// # async fn example(ctx: &Context) -> Result<String, Box<dyn std::error::Error>> {
    /// let client = reqwest::Client::new();
    /// let text = client.get("http://localhost/").send_with(ctx).await?.text().await?;
    /// # Ok(text)
    /// # }
    /// ```
    ///
    /// # Errors
    /// When `ctx` has ended, without sending anything, or ends; and where reqwest's `send` gives one, which is then the source. In the
    /// errors of reading, [`purview::Error::find`] finds the end, too.
    ///
    /// # Cancel safety
    /// Dropping the future drops the request.
    fn send_with(self, ctx: &Context) -> ResponseFuture {
        self.send_through(&ContextLayer::new(), ctx)
    }

    /// As [`send_with`](Self::send_with), with what `layer` says: in which headers the time that is left is told, how much of it is kept
    /// back, and which values travel.
    ///
    /// ```
    /// use purview::Context;
    /// use purview_http::client::ContextLayer;
    /// use purview_http::deadline::{DeadlineHeader, DeadlineHeaders};
    /// use purview_reqwest::RequestBuilderExt;
    ///
    /// # async fn example(ctx: &Context) -> Result<(), Box<dyn std::error::Error>> {
    /// let ours = ContextLayer::new().deadlines(DeadlineHeaders::new([DeadlineHeader::relative()]));
    /// let client = reqwest::Client::new();
    /// let response = client.get("http://localhost/").send_through(&ours, ctx).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As `send_with`; and when less than the layer's reserve is left.
    ///
    /// # Cancel safety
    /// Dropping the future drops the request.
    fn send_through(self, layer: &ContextLayer, ctx: &Context) -> ResponseFuture;
}

impl RequestBuilderExt for RequestBuilder {
    fn send_through(self, layer: &ContextLayer, ctx: &Context) -> ResponseFuture {
        let (client, request) = self.build_split();
        let mut service = layer.layer(ClientService::new(client));
        let ctx = ctx.clone();
        let sent = Box::pin(async move {
            let request = request.and_then(http::Request::<Body>::try_from);
            let request = request.map_err(Error::service)?.with_context(&ctx);
            Ok(service.call(request).await?.map(Body::wrap).into())
        });
        ResponseFuture { sent }
    }
}

/// The future of a response, made by [`RequestBuilderExt`].
///
/// # Cancel safety
/// Dropping it drops the request.
#[must_use = "nothing is sent before it is polled"]
pub struct ResponseFuture {
    sent: Pin<Box<dyn Future<Output = Result<Response, Error>> + Send>>,
}

impl Future for ResponseFuture {
    type Output = Result<Response, Error>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        self.sent.as_mut().poll(task)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
