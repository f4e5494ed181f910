//! Deadlines in headers: what is read, what is written, and what is none.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use purview_http::deadline::{DeadlineHeader, DeadlineHeaders, OnInvalid};

const NS: Duration = Duration::from_nanos(1);
const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn now() -> SystemTime {
    UNIX_EPOCH + S * 1_800_000_000
}

fn absolute() -> DeadlineHeader {
    DeadlineHeader::Absolute { name: HeaderName::from_static("x-request-deadline"), skew: S * 2 }
}

fn all() -> [DeadlineHeader; 5] {
    [
        DeadlineHeader::Grpc,
        DeadlineHeader::Envoy,
        DeadlineHeader::Connect,
        DeadlineHeader::relative(),
        absolute(),
    ]
}

fn read(header: &DeadlineHeader, value: &[u8]) -> Option<Duration> {
    header.parse(&HeaderValue::from_bytes(value).ok()?, now()).ok()
}

/// A value, and what it says.
type Case = (&'static str, Option<Duration>);

#[test]
fn each_header_is_read_as_its_specification_says() {
    let cases: [(DeadlineHeader, &[Case]); 5] = [
        (
            DeadlineHeader::Grpc,
            &[
                ("1H", Some(S * 3600)),
                ("2M", Some(S * 120)),
                ("3S", Some(S * 3)),
                ("250m", Some(MS * 250)),
                ("1500u", Some(MS * 3 / 2)),
                ("7n", Some(NS * 7)),
                ("0S", Some(Duration::ZERO)),
                ("00000001S", Some(S)),
                ("99999999H", Some(S * 3600 * 99_999_999)),
                ("100000000S", None), // nine digits
                ("S", None),
                ("1", None),
                ("1s", None),
                ("1 S", None),
                ("-1S", None),
                ("+1S", None),
                ("1.5S", None),
                ("1SS", None),
                ("", None),
            ],
        ),
        (
            DeadlineHeader::Envoy,
            &[
                ("0", Some(Duration::ZERO)),
                ("3000", Some(S * 3)),
                ("3000ms", None),
                ("-1", None),
                ("1e3", None),
                ("0x10", None),
                ("", None),
                (" 1", None),
            ],
        ),
        (
            DeadlineHeader::Connect,
            &[
                ("1", Some(MS)),
                ("9999999999", Some(MS * 1_000_000_000 * 10 - MS)),
                ("10000000000", None), // eleven digits
                ("1.0", None),
            ],
        ),
        (
            DeadlineHeader::relative(),
            &[
                ("2", Some(S * 2)),
                ("1.5", Some(MS * 1500)),
                ("1.5s", Some(MS * 1500)),
                ("250ms", Some(MS * 250)),
                ("0.25ms", Some(NS * 250_000)),
                ("10us", Some(NS * 10_000)),
                ("10ns", Some(NS * 10)),
                ("1.9ns", Some(NS)),
                ("2m", Some(S * 120)),
                ("1.5h", Some(S * 5400)),
                ("0", Some(Duration::ZERO)),
                ("0.000000001", Some(NS)),
                ("0.0000000001", Some(Duration::ZERO)),
                ("18446744073709551615", Some(Duration::MAX)),
                ("1000000000000000000000000000000", Some(Duration::MAX)),
                (".5", None),
                ("5.", None),
                (".", None),
                ("1.5.5", None),
                ("1,5", None),
                ("NaN", None),
                ("inf", None),
                ("infinity", None),
                ("1e9", None),
                ("-1", None),
                ("+1", None),
                ("1 s", None),
                ("1S", None),
                ("1d", None),
                ("s", None),
                ("", None),
            ],
        ),
        (
            absolute(),
            &[
                ("1800000001500", Some(MS * 1500)),
                ("1800000000000", Some(Duration::ZERO)),
                ("1799999998000", Some(Duration::ZERO)), // two seconds ago: a clock that is a little off
                ("1799999997999", None),                 // longer ago than that
                ("1800086400000", Some(S * 86400)),
                ("1800086400001", None), // more than a day ahead
                ("0", None),
                ("18446744073709551615", None),
                ("soon", None),
            ],
        ),
    ];
    for (header, values) in cases {
        for (value, expected) in values {
            assert_eq!(read(&header, value.as_bytes()), *expected, "{header:?} {value:?}");
        }
    }
}

#[test]
fn what_is_written_is_read_as_no_more_than_was_left_and_hardly_less() {
    // Not even one: below that, these have no value but 0, which is none.
    let least = |header| match header {
        DeadlineHeader::Envoy | DeadlineHeader::Connect => MS,
        _ => Duration::ZERO,
    };
    let times = [
        Duration::ZERO,
        NS,
        NS * 999_999,
        MS,
        MS * 1500,
        S * 99,
        S * 100 - NS,
        S * 86_400,
        S * 3600 * 24 * 365,
        Duration::MAX,
    ];
    for header in all() {
        for left in times {
            let value = header.format(left, now());
            let Ok(read) = header.parse(&value, now()) else {
                assert!(header == absolute() && left > S * 86_400, "{header:?} {left:?} {value:?}");
                continue;
            };
            assert!(read <= left.max(least(header.clone())), "{header:?} {left:?} {value:?}");
            // Nothing is lost but what is below the header's unit, or above what it can say.
            let unit = if header == DeadlineHeader::Grpc { left / 10_000_000 } else { MS };
            let most = if header == DeadlineHeader::Connect {
                MS * 10_000 * 1_000_000
            } else {
                S * 3600 * 99_999_999
            };
            assert!(
                read.saturating_add(unit + NS) >= left.min(most),
                "{header:?} {left:?} {value:?}"
            );
        }
    }
}

/// Whatever the bytes are. The generator is Marsaglia's xorshift64; what a header's value may hold is any byte but controls.
#[test]
fn reading_is_total() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let alphabet = b"0123456789HMSmunshd.,-+eE xNaIf\t\xff\xd9\xa3";
    let mut valid = 0;
    for _ in 0..200_000 {
        let length = (random() % 40) as usize;
        let value: Vec<u8> = (0..length)
            .map(|_| match random() % 3 {
                0 => b'0' + (random() % 10) as u8,
                1 => alphabet[(random() as usize) % alphabet.len()],
                _ => random() as u8,
            })
            .collect();
        for header in all() {
            valid += usize::from(read(&header, &value).is_some());
        }
    }
    assert!(valid > 1000, "some of it makes sense: {valid}");
    for header in all() {
        for long in [33, 1000, 1_000_000] {
            assert_eq!(read(&header, &vec![b'1'; long]), None);
        }
        // Digits of other scripts are none.
        assert_eq!(read(&header, "٣٠٠٠".as_bytes()), None);
        assert_eq!(read(&header, "1２S".as_bytes()), None);
    }
}

#[test]
fn of_several_the_shortest_counts_and_what_is_not_asked_for_is_not_read() {
    let mut map = HeaderMap::new();
    map.append("x-request-timeout", HeaderValue::from_static("3"));
    map.append("x-request-timeout", HeaderValue::from_static("2"));
    map.append("x-request-timeout", HeaderValue::from_static("never"));
    map.append("grpc-timeout", HeaderValue::from_static("1S"));
    let read = |headers: &DeadlineHeaders| headers.read(&map).map_err(|err| err.to_string());
    assert_eq!(read(&DeadlineHeaders::default()), Ok(None));
    let relative = DeadlineHeaders::new([DeadlineHeader::relative()]);
    assert_eq!(read(&relative), Ok(Some(S * 2)));
    let both = DeadlineHeaders::new([DeadlineHeader::relative(), DeadlineHeader::Grpc]);
    assert_eq!(read(&both), Ok(Some(S)));
    let refusing = relative.on_invalid(OnInvalid::Refuse);
    assert_eq!(read(&refusing), Err("x-request-timeout: not a time".to_string()));
}

#[test]
fn what_was_said_before_is_replaced() {
    let headers = DeadlineHeaders::new([DeadlineHeader::relative(), DeadlineHeader::Envoy]);
    let mut map = HeaderMap::new();
    map.append("x-request-timeout", HeaderValue::from_static("3600"));
    map.append("x-request-timeout", HeaderValue::from_static("3601"));
    headers.write(MS * 1500, &mut map);
    assert_eq!(map.get_all("x-request-timeout").iter().count(), 1);
    assert_eq!(map["x-request-timeout"], "1.500");
    assert_eq!(map["x-envoy-expected-rq-timeout-ms"], "1500");
}

/// To Envoy, 0 is a time without an end; to Connect, it is none.
#[test]
fn time_that_is_left_is_never_written_as_zero() {
    for left in [NS, NS * 499_760, MS - NS, MS, MS + NS] {
        for header in &all()[..4] {
            let value = header.format(left, now());
            let read = header.parse(&value, now()).expect("a time");
            assert!(!read.is_zero(), "{header:?} {left:?} {value:?}");
        }
    }
    let written = |header: DeadlineHeader, left| header.format(left, now());
    assert_eq!(written(DeadlineHeader::Envoy, NS * 499_760), "1");
    assert_eq!(written(DeadlineHeader::Connect, NS * 499_760), "1");
    assert_eq!(written(DeadlineHeader::Grpc, NS * 499_760), "499760n");
    assert_eq!(written(DeadlineHeader::relative(), NS * 499_760), "0.000499760");
    assert_eq!(written(DeadlineHeader::relative(), Duration::ZERO), "0");
    // Nor is no time at all.
    assert_eq!(written(DeadlineHeader::Envoy, Duration::ZERO), "1");
    assert_eq!(written(DeadlineHeader::Connect, Duration::ZERO), "1");
    let mut map = HeaderMap::new();
    DeadlineHeaders::new(all()).write(NS, &mut map);
    for name in ["x-envoy-expected-rq-timeout-ms", "connect-timeout-ms"] {
        assert_eq!(map[name], "1");
    }
}
