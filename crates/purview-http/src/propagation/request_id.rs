//! A request's id, by which its lines are found in several services' logs.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is longer is no id: it would be in every line of a log.
const MOST_BYTES: usize = 128;

/// A request's id, as `x-request-id` has it.
///
/// ```
/// use http::HeaderMap;
/// use purview_http::propagation::RequestId;
///
/// let mut headers = HeaderMap::new();
/// assert!(RequestId::read(&headers).is_none());
/// headers.insert("x-request-id", "7f3a-12".parse().unwrap());
/// assert_eq!(RequestId::read(&headers).unwrap().as_str(), "7f3a-12");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// A new one, in the form of a random UUID (RFC 9562, version 4). It is unlikely to be ever made again, and no secret: the
    /// randomness is that of the standard library's hash maps.
    ///
    /// ```
    /// use purview_http::propagation::RequestId;
    /// assert_ne!(RequestId::random(), RequestId::random());
    /// ```
    #[must_use]
    pub fn random() -> RequestId {
        static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let half = |half: u8| u128::from(KEYS.hash_one((count, half)));
        RequestId::of_bits(half(0) << 64 | half(1))
    }

    fn of_bits(bits: u128) -> RequestId {
        const VERSION: u128 = 0xf << 76;
        const VARIANT: u128 = 0b11 << 62;
        let bits = bits & !VERSION & !VARIANT | 0x4 << 76 | 0b10 << 62;
        let bytes = bits.to_be_bytes();
        let mut text = [b'-'; 36];
        let digits = (0..36).filter(|at| !matches!(at, 8 | 13 | 18 | 23));
        for (n, at) in digits.enumerate() {
            let shift = if n % 2 == 0 { 4 } else { 0 };
            text[at] = b"0123456789abcdef"[usize::from(bytes[n / 2] >> shift & 0xf)];
        }
        // Digits and dashes are a header's value.
        RequestId(HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("0")))
    }

    /// What `headers` say, if there is one and it can be shown: 1 to 128 visible characters of ASCII.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Option<RequestId> {
        let mut values = headers.get_all(X_REQUEST_ID).iter();
        let (value, None) = (values.next()?, values.next()) else { return None };
        let is_id = (1..=MOST_BYTES).contains(&value.len())
            && value.as_bytes().iter().all(u8::is_ascii_graphic);
        is_id.then(|| RequestId(value.clone()))
    }

    /// That of a request with these headers, or a new one.
    pub(super) fn of(headers: &HeaderMap) -> RequestId {
        RequestId::read(headers).unwrap_or_else(RequestId::random)
    }

    /// Says it in headers.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(X_REQUEST_ID, self.0.clone());
    }

    /// Says it where nobody has said another.
    pub(crate) fn write_if_none(&self, headers: &mut HeaderMap) {
        headers.entry(X_REQUEST_ID).or_insert_with(|| self.0.clone());
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RequestId").field(&self.as_str()).finish()
    }
}
