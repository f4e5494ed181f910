//! W3C Trace Context, passed on.

use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The trace that a request belongs to. It is passed on as it came: nobody here begins a span.
///
/// ```
/// use http::HeaderMap;
/// use purview_http::propagation::TraceContext;
///
/// let mut headers = HeaderMap::new();
/// let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// headers.insert("traceparent", parent.parse().unwrap());
/// let trace = TraceContext::read(&headers).unwrap();
/// assert_eq!(trace.trace_id(), "0af7651916cd43dd8448eb211c80319c");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceContext {
    parent: HeaderValue,
    state: Vec<HeaderValue>,
}

impl TraceContext {
    /// What `headers` bring, if there is one `traceparent` and it is well formed. Without it `tracestate` means nothing.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Option<TraceContext> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let (parent, None) = (parents.next()?, parents.next()) else { return None };
        is_parent(parent.as_bytes()).then(|| TraceContext {
            parent: parent.clone(),
            state: headers.get_all(TRACESTATE).iter().cloned().collect(),
        })
    }

    /// The trace's number, in 32 hexadecimal digits: to find a request's lines in several services' logs.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        self.parent.to_str().ok().and_then(|parent| parent.get(3..35)).unwrap_or_default()
    }

    /// Says the same in other headers.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.parent.clone());
        headers.remove(TRACESTATE);
        for state in &self.state {
            headers.append(TRACESTATE, state.clone());
        }
    }
}

/// `version-trace_id-parent_id-flags`, in lower case, the ids not all zeros. A later version may have more behind that.
fn is_parent(text: &[u8]) -> bool {
    let is_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |part: &[u8]| is_hex(part) && part.iter().any(|byte| *byte != b'0');
    let Some((first, rest)) = text.split_at_checked(55) else { return false };
    let dashes = [2, 35, 52].iter().all(|&i| first[i] == b'-');
    let version = &first[..2];
    let is_over =
        if version == b"00" { rest.is_empty() } else { rest.is_empty() || rest[0] == b'-' };
    dashes
        && is_hex(version)
        && version != b"ff"
        && is_id(&first[3..35])
        && is_id(&first[36..52])
        && is_hex(&first[53..])
        && is_over
}
