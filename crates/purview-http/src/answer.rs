//! What is answered where the handler has no answer.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body;

use crate::body::ResponseBody;
use crate::deadline::InvalidDeadline;
use crate::ended::RequestEnded;

/// How the layer's own answers look: 504 when the time was up, 503 when the server goes down, 400 for a deadline that is refused.
///
/// ```
/// use purview_http::{ContextLayer, Style};
/// # let (server, _stop) = purview::Context::background().with_cancel();
/// let layer = ContextLayer::new(&server).style(Style::Json);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Style {
    /// JSON for who accepts JSON by name, plain text for all others.
    #[default]
    ByAccept,
    /// `{"error":"…"}`
    Json,
    /// A line of text.
    Plain,
    /// No body.
    Empty,
}

impl Style {
    pub(crate) fn form(self, headers: &HeaderMap) -> Form {
        match self {
            Style::Json => Form::Json,
            Style::Plain => Form::Plain,
            Style::Empty => Form::Empty,
            Style::ByAccept if accepts_json(headers) => Form::Json,
            Style::ByAccept => Form::Plain,
        }
    }
}

/// A style, for one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    Json,
    Plain,
    Empty,
}

/// `application/json`, or what is made of JSON (RFC 6839), unless it is refused with `q=0` (RFC 9110, 12.4.2).
fn accepts_json(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let is_json = kind == "application/json" || kind.ends_with("+json");
        let is_refused = |part: &str| {
            let weight = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
            weight.and_then(|weight| weight.trim().parse().ok()).is_some_and(|q: f32| q <= 0.0)
        };
        is_json && !parts.any(is_refused)
    })
}

/// A status, and a sentence.
pub(crate) struct Answer {
    status: StatusCode,
    sentence: String,
    form: Form,
}

impl Answer {
    /// Of a request whose context has ended.
    pub(crate) fn of_end(ended: &purview::Error, form: Form) -> Answer {
        if !ended.is_deadline_exceeded() {
            return Answer::shutdown(form);
        }
        // Not the cause's words: they may be for those inside alone.
        let (status, sentence) = (StatusCode::GATEWAY_TIMEOUT, RequestEnded::TimedOut.to_string());
        Answer { status, sentence, form }
    }

    /// Of a server that shuts down.
    pub(crate) fn shutdown(form: Form) -> Answer {
        let sentence = RequestEnded::ServerShutdown.to_string();
        Answer { status: StatusCode::SERVICE_UNAVAILABLE, sentence, form }
    }

    pub(crate) fn refusal(invalid: &InvalidDeadline, form: Form) -> Answer {
        Answer { status: StatusCode::BAD_REQUEST, sentence: invalid.to_string(), form }
    }

    pub(crate) fn broken(sentence: &str, form: Form) -> Answer {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Answer { status, sentence: sentence.to_string(), form }
    }

    pub(crate) fn into_response<B: Body<Data = Bytes>>(self) -> Response<ResponseBody<B>> {
        let Answer { status, sentence, form } = self;
        let (kind, text) = match form {
            Form::Json => (Some("application/json"), format!("{{\"error\":\"{sentence}\"}}\n")),
            Form::Plain => (Some("text/plain; charset=utf-8"), format!("{sentence}\n")),
            Form::Empty => (None, String::new()),
        };
        let mut response = Response::new(ResponseBody::text(Bytes::from(text)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if let Some(kind) = kind {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
