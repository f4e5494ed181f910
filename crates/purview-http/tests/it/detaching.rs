//! Handlers that are tasks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use purview::time::ManualClock;
use purview::{CancelGuard, Context, Error};
use purview_http::{BoxError, ContextLayer, DetachLayer, RequestEnded, RequestExt, ResponseBody};
use tokio::sync::mpsc;
use tower::{Layer, Service, service_fn};

use crate::support::text;

const SECOND: Duration = Duration::from_secs(1);

type Answer = Response<ResponseBody<ResponseBody<Full<Bytes>>>>;

type Said = mpsc::UnboundedReceiver<String>;

struct Detached {
    clock: ManualClock,
    stop: CancelGuard,
    layers: (ContextLayer, DetachLayer),
}

fn detached() -> Detached {
    let clock = ManualClock::new();
    let (server, stop) = clock.root().with_cancel();
    let request = ContextLayer::new(&server).limit(SECOND * 10);
    Detached { clock, stop, layers: (request, DetachLayer::new(&server, SECOND)) }
}

/// A handler that says when it begins, when its context ends and when it comes to its end; or is dropped.
fn call(
    (request, detach): (ContextLayer, DetachLayer),
    deaf: bool,
) -> (impl Future<Output = Result<Answer, BoxError>>, Said) {
    struct Dropped(mpsc::UnboundedSender<String>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.send("dropped".to_string());
        }
    }
    let (say, said) = mpsc::unbounded_channel();
    let handler = service_fn(move |request: Request<()>| {
        let (ctx, say) = (request.context().expect("the layer is there").clone(), say.clone());
        async move {
            let _dropped = Dropped(say.clone());
            let _ = say.send("begun".to_string());
            let err = ctx.done().await;
            let _ = say.send(format!("{:?}", RequestEnded::of(&err)));
            if deaf {
                std::future::pending::<()>().await;
            }
            let _ = say.send("came to its end".to_string());
            Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("too late")))
        }
    });
    let mut service = request.layer(detach.layer(handler));
    (service.call(Request::new(())), said)
}

async fn next(said: &mut Said) -> String {
    said.recv().await.unwrap_or_default()
}

#[tokio::test]
async fn a_handler_whose_client_goes_away_comes_to_its_own_end() {
    let Detached { layers, clock: _clock, stop: _stop } = detached();
    let (answer, mut said) = call(layers.clone(), false);
    let mut answer = Box::pin(answer);
    assert!(crate::support::poll_once(answer.as_mut()).is_pending());
    assert_eq!(next(&mut said).await, "begun");
    drop(answer);
    assert_eq!(next(&mut said).await, "Some(ClientGone)");
    assert_eq!(next(&mut said).await, "came to its end");
    assert_eq!(next(&mut said).await, "dropped");
}

#[tokio::test]
async fn a_client_whose_time_is_up_does_not_wait_for_the_grace_and_who_uses_it_up_is_dropped() {
    let Detached { layers, clock, stop: _stop } = detached();
    let (answer, mut said) = call(layers.clone(), true);
    let answer = tokio::spawn(answer);
    assert_eq!(next(&mut said).await, "begun");
    clock.advance(SECOND * 10);
    let response = answer.await.expect("no panic").expect("an answer");
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(next(&mut said).await, "Some(TimedOut)");
    assert_eq!(layers.1.tasks().len(), 1, "it goes on");
    clock.advance(SECOND);
    assert_eq!(next(&mut said).await, "dropped");
    while !layers.1.tasks().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_handler_that_panics_is_a_500() {
    let Detached { layers, clock: _clock, stop: _stop } = detached();
    let handler =
        service_fn(async |_request: Request<()>| -> Result<Response<Full<Bytes>>, BoxError> {
            panic!("by accident")
        });
    let mut service = layers.0.layer(layers.1.layer(handler));
    let response = service.call(Request::new(())).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(text(response.into_body()), "the handler did not come to its end\n");
}

#[tokio::test]
async fn an_answer_is_the_handlers_and_an_error_too() {
    let Detached { layers, clock: _clock, stop: _stop } = detached();
    let results = Arc::new(Mutex::new(vec![Err("broken"), Ok("fine")]));
    let handler = service_fn(move |_request: Request<()>| {
        let result = results.lock().expect("no panic").pop().expect("two calls");
        std::future::ready(result.map(|text| Response::new(Full::<Bytes>::from(text))))
    });
    let mut service = layers.0.layer(layers.1.layer(handler));
    let response = service.call(Request::new(())).await.expect("an answer");
    assert_eq!(
        (response.status(), text(response.into_body())),
        (StatusCode::OK, "fine".to_string())
    );
    assert_eq!(service.call(Request::new(())).await.err(), Some("broken"));
}

#[tokio::test]
async fn without_a_context_it_says_what_is_missing() {
    let (server, _stop) = Context::background().with_cancel();
    let handler = service_fn(async |_request: Request<()>| {
        Ok::<_, Error>(Response::new(Full::<Bytes>::from("not reached")))
    });
    let mut service = DetachLayer::new(&server, SECOND).layer(handler);
    let response = service.call(Request::new(())).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(text(response.into_body()), "a DetachLayer is for inside a ContextLayer\n");
}
