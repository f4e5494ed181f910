//! Deadlines in headers: how much time is left, as the client says it.
//!
//! On the wire a deadline is relative, since clocks differ; inside it is an instant of the monotonic clock. There is no
//! standard header, so each of those in use has its own [`DeadlineHeader`].
//!
//! | header | form | who |
//! |---|---|---|
//! | `grpc-timeout` | 1 to 8 digits and one of `H M S m u n` | gRPC |
//! | `x-envoy-expected-rq-timeout-ms` | milliseconds | Envoy, to what is behind it |
//! | `connect-timeout-ms` | 1 to 10 digits, milliseconds | Connect |
//! | any, by default `x-request-timeout` | seconds, with a fraction or a unit: `2`, `1.5`, `250ms` | services of one house |
//! | any, opt-in | milliseconds of Unix time, with a bound for how far the clocks differ | the same, with clocks in step |
//!
//! Reading is total: whatever the bytes, the result is a time or an [`InvalidDeadline`], after a look at no more than 32 of them.
//! Nothing is believed that was not asked for: a [`DeadlineHeaders`] reads the headers it is given, and no others.
//!
//! Sources: gRPC over HTTP/2 (`PROTOCOL-HTTP2.md`, "Timeout"), the Connect protocol ("Unary-Request"), Envoy's router filter
//! ("HTTP request headers set on upstream calls").

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The longest value that is looked at.
const LONGEST: usize = 32;

/// The relative header of services that know no other.
pub const X_REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");

/// A header that says how much time is left.
///
/// ```
/// use http::HeaderValue;
/// use purview_http::deadline::DeadlineHeader;
/// use std::time::{Duration, SystemTime};
///
/// let now = SystemTime::now();
/// let parse = |header: DeadlineHeader, value| header.parse(&HeaderValue::from_static(value), now);
/// assert_eq!(parse(DeadlineHeader::Grpc, "250m").unwrap(), Duration::from_millis(250));
/// assert_eq!(parse(DeadlineHeader::relative(), "1.5").unwrap(), Duration::from_millis(1500));
/// assert!(parse(DeadlineHeader::Connect, "-1").is_err());
/// assert_eq!(DeadlineHeader::Grpc.format(Duration::from_secs(2), now), "2000000u");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DeadlineHeader {
    /// `grpc-timeout`.
    Grpc,
    /// `x-envoy-expected-rq-timeout-ms`.
    Envoy,
    /// `connect-timeout-ms`.
    Connect,
    /// Seconds, with a fraction or a unit (`ns`, `us`, `ms`, `s`, `m`, `h`). Written in seconds, to the
    /// millisecond; below one, to the nanosecond.
    Relative(HeaderName),
    /// The instant, in milliseconds of Unix time.
    ///
    /// It is right only as far as the two clocks agree. A deadline in the past by no more than `skew` leaves no time; one that is
    /// further back than that is not believed, and neither is one that is further ahead than a day.
    Absolute {
        /// The header.
        name: HeaderName,
        /// How far the two clocks may differ.
        skew: Duration,
    },
}

/// A deadline further ahead than that is a clock that is wrong.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl DeadlineHeader {
    /// [`X_REQUEST_TIMEOUT`].
    #[must_use]
    pub fn relative() -> DeadlineHeader {
        DeadlineHeader::Relative(X_REQUEST_TIMEOUT)
    }

    /// The header's name.
    #[must_use]
    pub fn name(&self) -> HeaderName {
        match self {
            DeadlineHeader::Grpc => HeaderName::from_static("grpc-timeout"),
            DeadlineHeader::Envoy => HeaderName::from_static("x-envoy-expected-rq-timeout-ms"),
            DeadlineHeader::Connect => HeaderName::from_static("connect-timeout-ms"),
            DeadlineHeader::Relative(name) | DeadlineHeader::Absolute { name, .. } => name.clone(),
        }
    }

    /// The time that `value` leaves, at `now`. A time too long to be told is [`Duration::MAX`]: no limit.
    ///
    /// # Errors
    /// For whatever the header's form does not allow.
    pub fn parse(&self, value: &HeaderValue, now: SystemTime) -> Result<Duration, InvalidDeadline> {
        let text = value.as_bytes();
        let read = if text.len() > LONGEST {
            None
        } else {
            match self {
                DeadlineHeader::Grpc => grpc(text),
                DeadlineHeader::Envoy => digits(text).map(Duration::from_millis),
                DeadlineHeader::Connect if text.len() > 10 => None,
                DeadlineHeader::Connect => digits(text).map(Duration::from_millis),
                DeadlineHeader::Relative(_) => relative(text),
                DeadlineHeader::Absolute { skew, .. } => absolute(text, *skew, now),
            }
        };
        read.ok_or_else(|| InvalidDeadline { header: self.name() })
    }

    /// Returns the value that says that `remaining` is left, at `now`, rounded down.
    ///
    /// Envoy takes 0 for a time without an end, and Connect has no 0. For these, anything below a millisecond is one.
    #[must_use]
    pub fn format(&self, remaining: Duration, now: SystemTime) -> HeaderValue {
        let millis = || u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
        match self {
            DeadlineHeader::Grpc => {
                let (number, unit) = in_grpc_units(remaining);
                text(format!("{number}{unit}"))
            }
            DeadlineHeader::Envoy => HeaderValue::from(millis().max(1)),
            DeadlineHeader::Connect => HeaderValue::from(millis().clamp(1, 9_999_999_999)),
            DeadlineHeader::Relative(_) if !remaining.is_zero() && millis() == 0 => {
                text(format!("0.{:09}", remaining.subsec_nanos()))
            }
            DeadlineHeader::Relative(_) => match (millis() / 1000, millis() % 1000) {
                (seconds, 0) => HeaderValue::from(seconds),
                (seconds, millis) => text(format!("{seconds}.{millis:03}")),
            },
            DeadlineHeader::Absolute { .. } => {
                let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
                let at = since.saturating_add(remaining).as_millis();
                HeaderValue::from(u64::try_from(at).unwrap_or(u64::MAX))
            }
        }
    }
}

impl DeadlineHeader {
    /// The least time that is worth sending in this header.
    fn least(&self) -> Duration {
        match self {
            DeadlineHeader::Grpc => Duration::from_nanos(1),
            _ => Duration::from_millis(1),
        }
    }
}

/// Of digits, letters and a point.
fn text(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0"))
}

/// Nothing but ASCII digits, at least one. A number too large for 64 bits is the largest there is.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(text.iter().fold(0, add))
}

fn grpc(text: &[u8]) -> Option<Duration> {
    let (unit, number) = text.split_last()?;
    if number.len() > 8 {
        return None;
    }
    let number = digits(number)?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// In the finest unit in which it has no more than eight digits.
fn in_grpc_units(time: Duration) -> (u128, char) {
    let nanos = time.as_nanos();
    let units = [
        (1, 'n'),
        (1_000, 'u'),
        (1_000_000, 'm'),
        (1_000_000_000, 'S'),
        (60_000_000_000, 'M'),
        (3_600_000_000_000, 'H'),
    ];
    let fits = |&(unit, _): &(u128, char)| nanos / unit < 100_000_000;
    match units.into_iter().find(fits) {
        Some((unit, letter)) => (nanos / unit, letter),
        None => (99_999_999, 'H'),
    }
}

/// A number with a fraction, or without, and a unit, or none: seconds.
fn relative(text: &[u8]) -> Option<Duration> {
    let is_unit = |byte: &u8| byte.is_ascii_alphabetic();
    let (number, unit) = text.split_at(text.iter().position(is_unit).unwrap_or(text.len()));
    let nanos_a_unit: u128 = match unit {
        b"" | b"s" => 1_000_000_000,
        b"ns" => 1,
        b"us" => 1_000,
        b"ms" => 1_000_000,
        b"m" => 60_000_000_000,
        b"h" => 3_600_000_000_000,
        _ => return None,
    };
    let point = number.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        Some(at) => (&number[..at], Some(&number[at + 1..])),
        None => (number, None),
    };
    let mut nanos = u128::from(digits(whole)?).saturating_mul(nanos_a_unit);
    if let Some(fraction) = fraction {
        digits(fraction)?;
        // What is below a nanosecond of an hour is in no use.
        let mut worth = nanos_a_unit;
        for digit in fraction {
            worth /= 10;
            nanos = nanos.saturating_add(worth * u128::from(digit - b'0'));
        }
    }
    Some(u64::try_from(nanos).map_or(Duration::MAX, Duration::from_nanos))
}

fn absolute(text: &[u8], skew: Duration, now: SystemTime) -> Option<Duration> {
    let at = Duration::from_millis(digits(text)?);
    let now = now.duration_since(UNIX_EPOCH).ok()?;
    match at.checked_sub(now) {
        Some(ahead) => (ahead <= A_DAY).then_some(ahead),
        None => (now - at <= skew).then_some(Duration::ZERO),
    }
}

/// A deadline that was not understood.
///
/// ```
/// use http::HeaderValue;
/// use purview_http::deadline::DeadlineHeader;
/// let soon = HeaderValue::from_static("soon");
/// let err = DeadlineHeader::Grpc.parse(&soon, std::time::SystemTime::now()).unwrap_err();
/// assert_eq!(err.to_string(), "grpc-timeout: not a time");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidDeadline {
    header: HeaderName,
}

impl InvalidDeadline {
    /// Where it was.
    #[must_use]
    pub fn header(&self) -> &HeaderName {
        &self.header
    }
}

impl fmt::Display for InvalidDeadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: not a time", self.header)
    }
}

impl std::error::Error for InvalidDeadline {}

/// What is done about a deadline that is not understood. The default is to ignore it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum OnInvalid {
    /// As if it were not there.
    #[default]
    Ignore,
    /// The request is refused.
    Refuse,
}

/// The headers that are believed, and those that are sent.
///
/// ```
/// use http::HeaderMap;
/// use purview_http::deadline::{DeadlineHeader, DeadlineHeaders};
/// use std::time::Duration;
///
/// let headers = DeadlineHeaders::new([DeadlineHeader::Grpc, DeadlineHeader::relative()]);
/// let mut map = HeaderMap::new();
/// map.insert("x-request-timeout", "2".parse().unwrap());
/// map.insert("grpc-timeout", "1S".parse().unwrap());
/// assert_eq!(headers.read(&map).unwrap(), Some(Duration::from_secs(1))); // the earlier of the two
/// ```
#[derive(Clone, Debug, Default)]
pub struct DeadlineHeaders {
    headers: Vec<(HeaderName, DeadlineHeader)>,
    on_invalid: OnInvalid,
}

impl DeadlineHeaders {
    /// Of these, and no others.
    #[must_use]
    pub fn new(headers: impl IntoIterator<Item = DeadlineHeader>) -> DeadlineHeaders {
        let headers = headers.into_iter().map(|header| (header.name(), header)).collect();
        DeadlineHeaders { headers, on_invalid: OnInvalid::default() }
    }

    /// What is done about one that is not understood.
    #[must_use]
    pub fn on_invalid(mut self, on_invalid: OnInvalid) -> DeadlineHeaders {
        self.on_invalid = on_invalid;
        self
    }

    /// The time that is left by what `headers` say. Of several, also of the same name, the shortest.
    ///
    /// # Errors
    /// For one that is not understood, where that is to be [refused](OnInvalid::Refuse).
    pub fn read(&self, headers: &HeaderMap) -> Result<Option<Duration>, InvalidDeadline> {
        let mut shortest: Option<Duration> = None;
        for (name, header) in &self.headers {
            for value in headers.get_all(name) {
                match header.parse(value, SystemTime::now()) {
                    Ok(left) => shortest = Some(shortest.map_or(left, |other| other.min(left))),
                    Err(invalid) if self.on_invalid == OnInvalid::Refuse => return Err(invalid),
                    Err(_ignored) => {}
                }
            }
        }
        Ok(shortest)
    }

    /// Writes into each of the headers how much time is left, in place of what was there before.
    pub fn write(&self, remaining: Duration, headers: &mut HeaderMap) {
        for (name, header) in &self.headers {
            headers.insert(name, header.format(remaining, SystemTime::now()));
        }
    }

    /// Writes the time that is left where it is shorter than what the headers say already. Without one, none of them stays: their
    /// deadline is another request's. False where there is no time to send a request.
    #[must_use]
    pub(crate) fn write_shorter(&self, remaining: Option<Duration>, map: &mut HeaderMap) -> bool {
        let Some(remaining) = remaining else {
            self.headers.iter().for_each(|(name, _)| _ = map.remove(name));
            return true;
        };
        let now = SystemTime::now();
        let said = |(name, header): &(HeaderName, DeadlineHeader)| {
            let times = map.get_all(name).iter().filter_map(|value| header.parse(value, now).ok());
            times.min()
        };
        let remaining = self.headers.iter().filter_map(said).fold(remaining, Duration::min);
        let least = self.headers.iter().map(|(_, header)| header.least()).max();
        if remaining < least.unwrap_or(Duration::from_nanos(1)) {
            return false;
        }
        for (name, header) in &self.headers {
            let mut values = map.get_all(name).iter();
            let says_it = |value| header.parse(value, now).is_ok_and(|left| left == remaining);
            if !(values.next().is_some_and(says_it) && values.next().is_none()) {
                map.insert(name, header.format(remaining, now));
            }
        }
        true
    }
}
