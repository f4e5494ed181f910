//! Values that travel: from a request's headers into its context, and from a context into the headers of the requests that are made
//! for it.
//!
//! Two headers of the W3C do. `baggage` carries values by name: those whose keys were [named](Propagation::carry) become values of the
//! context, with their types; all others are passed on as they came. `traceparent`, with `tracestate`, is passed on, so that traces of
//! services before and behind this one hang together. And `x-request-id`, the name that a request has in logs.
//!
//! Nothing travels that was not asked for. At the edge, anybody can write anything into a header; and what is sent to others, others
//! can read.
//!
//! Sources: W3C Baggage (a list of at most 64 members and 8,192 bytes), W3C Trace Context.

mod baggage;
mod request_id;
mod trace;

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use purview::{Context, Derive, Key};

pub use baggage::Baggage;
pub use request_id::RequestId;
pub use trace::TraceContext;

/// The members of a request's baggage that nobody asked for, to be passed on.
pub static BAGGAGE: Key<Baggage> = Key::new("baggage");

/// The trace that a request belongs to, to be passed on.
pub static TRACE_CONTEXT: Key<TraceContext> = Key::new("trace_context");

/// The request's id.
pub static REQUEST_ID: Key<RequestId> = Key::new("request_id");

/// Which values travel. One for both directions: what a service reads, it sends on.
///
/// ```
/// use http::HeaderMap;
/// use purview::{Context, Key};
/// use purview_http::propagation::Propagation;
///
/// static TENANT: Key<u64> = Key::new("tenant");
///
/// let propagation = Propagation::new().trace().baggage().carry("tenant", &TENANT);
/// let mut headers = HeaderMap::new();
/// headers.insert("baggage", "tenant=7,color=green".parse().unwrap());
/// let (ctx, _guard) = propagation.extract(&headers, Context::background().derive()).build();
/// assert_eq!(ctx.value(&TENANT), Some(&7));
///
/// let mut sent = HeaderMap::new();
/// propagation.inject(&ctx, &mut sent);
/// assert_eq!(sent["baggage"], "color=green,tenant=7"); // what others carry is passed on
/// ```
#[derive(Clone, Default)]
#[must_use = "it says what travels, and carries nothing itself"]
pub struct Propagation {
    trace: bool,
    request_id: bool,
    baggage: bool,
    carried: Vec<Arc<dyn Carried>>,
}

/// A key whose values are members of the baggage.
trait Carried: Send + Sync {
    fn name(&self) -> &'static str;
    /// Adds the value that `text` is, and whether it is one.
    fn read<'a>(&self, text: &str, derive: Derive<'a>) -> (Derive<'a>, bool);
    fn write(&self, ctx: &Context) -> Option<String>;
}

struct Member<T: Send + Sync + 'static> {
    name: &'static str,
    key: &'static Key<T>,
}

impl<T: fmt::Display + std::str::FromStr + Send + Sync> Carried for Member<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn read<'a>(&self, text: &str, derive: Derive<'a>) -> (Derive<'a>, bool) {
        match text.parse() {
            Ok(value) => (derive.value(self.key, value), true),
            Err(_other) => (derive, false),
        }
    }

    fn write(&self, ctx: &Context) -> Option<String> {
        ctx.value(self.key).map(ToString::to_string)
    }
}

impl Propagation {
    /// Of nothing.
    pub fn new() -> Propagation {
        Propagation::default()
    }

    /// Passes on `traceparent` and `tracestate`.
    pub fn trace(mut self) -> Propagation {
        self.trace = true;
        self
    }

    /// Has each request have an id, as the value of [`REQUEST_ID`]: that of its `x-request-id`, or a [new one](RequestId::random). It
    /// is passed on, and the answer says it, too.
    ///
    /// ```
    /// use purview::Context;
    /// use purview_http::propagation::{Propagation, REQUEST_ID};
    /// let (request, _guard) = Propagation::new()
    ///     .request_id()
    ///     .extract(&http::HeaderMap::new(), Context::background().derive())
    ///     .build();
    /// println!("request {}: begun", request.value(&REQUEST_ID).unwrap());
    /// ```
    pub fn request_id(mut self) -> Propagation {
        self.request_id = true;
        self
    }

    /// Passes on the baggage.
    pub fn baggage(mut self) -> Propagation {
        self.baggage = true;
        self
    }

    /// Has the member `name` of the baggage be the value of `key`, by its `Display` and `FromStr`. A member that is not one of its
    /// values is passed on like others.
    pub fn carry<T>(mut self, name: &'static str, key: &'static Key<T>) -> Propagation
    where
        T: fmt::Display + std::str::FromStr + Send + Sync + 'static,
    {
        self.carried.push(Arc::new(Member { name, key }));
        self
    }

    /// Whether nothing travels.
    pub(crate) fn is_none(&self) -> bool {
        !self.trace && !self.request_id && !self.baggage && self.carried.is_empty()
    }

    /// Adds to a context what the headers of a request bring.
    #[must_use = "what it gives is the context to be"]
    pub fn extract<'a>(&self, headers: &HeaderMap, mut derive: Derive<'a>) -> Derive<'a> {
        if self.trace {
            if let Some(trace) = TraceContext::read(headers) {
                derive = derive.value(&TRACE_CONTEXT, trace);
            }
        }
        if self.request_id {
            derive = derive.value(&REQUEST_ID, RequestId::of(headers));
        }
        if !self.baggage && self.carried.is_empty() {
            return derive;
        }
        let mut baggage = Baggage::read(headers);
        for carried in &self.carried {
            let Some(text) = baggage.get(carried.name()) else { continue };
            let is_value;
            (derive, is_value) = carried.read(&text, derive);
            if is_value {
                baggage.remove(carried.name());
            }
        }
        if self.baggage && !baggage.is_empty() {
            derive = derive.value(&BAGGAGE, baggage);
        }
        derive
    }

    /// The id that a response says of a request with these headers, which has no context.
    pub(crate) fn request_id_without_context(&self, headers: &HeaderMap) -> Option<RequestId> {
        self.request_id.then(|| RequestId::of(headers))
    }

    /// The id that is to be said of a request.
    pub(crate) fn request_id_of<'a>(&self, ctx: &'a Context) -> Option<&'a RequestId> {
        ctx.value(&REQUEST_ID).filter(|_| self.request_id)
    }

    /// Writes into a request's headers what its context carries, and removes what was there before under these names: it may be
    /// another request's. Whatever adds a header of these itself, such as a tracer, does so behind this.
    pub fn inject(&self, ctx: &Context, headers: &mut HeaderMap) {
        if self.trace {
            headers.remove(trace::TRACEPARENT);
            headers.remove(trace::TRACESTATE);
            ctx.value(&TRACE_CONTEXT).into_iter().for_each(|trace| trace.write(headers));
        }
        if self.request_id {
            headers.remove(request_id::X_REQUEST_ID);
            self.request_id_of(ctx).into_iter().for_each(|id| id.write(headers));
        }
        if !self.baggage && self.carried.is_empty() {
            return;
        }
        let mut baggage = Baggage::default();
        if let Some(passed_on) = ctx.value(&BAGGAGE).filter(|_| self.baggage) {
            baggage = passed_on.clone();
        }
        for carried in &self.carried {
            if let Some(text) = carried.write(ctx) {
                baggage.set(carried.name(), &text);
            }
        }
        headers.remove(baggage::HEADER);
        if !baggage.is_empty() {
            baggage.write(headers);
        }
    }
}

impl fmt::Debug for Propagation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let carried: Vec<_> = self.carried.iter().map(|carried| carried.name()).collect();
        f.debug_struct("Propagation")
            .field("trace", &self.trace)
            .field("request_id", &self.request_id)
            .field("baggage", &self.baggage)
            .field("carried", &carried)
            .finish()
    }
}
