//! reqwest's client, for the layers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll};

use reqwest::{Body, Client, Error, Request, Response, ResponseBuilderExt};
use tower_service::Service;

/// A [`reqwest::Client`] as a tower service of `http::Request`, so that layers fit around it.
///
/// The body is whatever reqwest makes one of. To be sent again, it has to be cloned: `Bytes`, `String`, `Vec<u8>`, not a stream. What
/// the client is set to, its own timeout among that, still counts.
///
/// ```
/// use purview_http::client::{ContextLayer, HedgeLayer, RetryLayer, WithContext};
/// use purview_reqwest::ClientService;
/// use std::time::Duration;
/// use tower::{ServiceBuilder, ServiceExt};
///
/// # async fn example(ctx: purview::Context) -> Result<(), Box<dyn std::error::Error>> {
/// let client = ServiceBuilder::new()
///     .layer(RetryLayer::new())
///     .layer(HedgeLayer::new(Duration::from_millis(80)))
///     .layer(ContextLayer::new())
///     .service(ClientService::new(reqwest::Client::new()));
/// let request = http::Request::get("http://localhost/").with_context(&ctx).body("")?;
/// let response: reqwest::Response = client.clone().oneshot(request).await?.map(reqwest::Body::wrap).into();
/// println!("{}", response.text().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ClientService {
    client: Client,
}

impl ClientService {
    /// That client's service.
    #[must_use]
    pub fn new(client: Client) -> ClientService {
        ClientService { client }
    }
}

impl<B: Into<Body>> Service<http::Request<B>> for ClientService {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = SendFuture;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> SendFuture {
        let client = self.client.clone();
        let request = Request::try_from(request);
        SendFuture { sent: Box::pin(async move { client.execute(request?).await.map(into_http) }) }
    }
}

/// With its URL, which is made into an extension, as [`Response`]'s own `From` reads it.
fn into_http(response: Response) -> http::Response<Body> {
    let mut url = http::Response::builder().url(response.url().clone());
    let mut response = http::Response::from(response);
    if let Some(extensions) = url.extensions_mut() {
        response.extensions_mut().extend(std::mem::take(extensions));
    }
    response
}

type Sent = dyn Future<Output = Result<http::Response<Body>, Error>> + Send;

/// The future of a [`ClientService`]'s response.
///
/// # Cancel safety
/// Dropping it drops the request.
pub struct SendFuture {
    sent: Pin<Box<Sent>>,
}

impl Future for SendFuture {
    type Output = Result<http::Response<Body>, Error>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        self.sent.as_mut().poll(task)
    }
}

impl fmt::Debug for SendFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendFuture").finish_non_exhaustive()
    }
}
