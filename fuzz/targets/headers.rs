//! Headers that anybody can write anything into: deadlines, baggage, traces, ids.
#![no_main]

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use purview::{Context, Key};
use purview_fuzz::count;
use purview_http::deadline::{DeadlineHeader, DeadlineHeaders, OnInvalid};
use purview_http::propagation::{BAGGAGE, Baggage, Propagation, REQUEST_ID, TraceContext};

static TENANT: Key<u64> = Key::new("tenant");

const NAMES: [&str; 9] = [
    "grpc-timeout",
    "x-envoy-expected-rq-timeout-ms",
    "connect-timeout-ms",
    "x-request-timeout",
    "x-request-deadline",
    "baggage",
    "traceparent",
    "tracestate",
    "x-request-id",
];

fuzz_target!(|data: &[u8]| {
    // Values are lines, each after a letter that says whose it is.
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(100) {
        let Some((first, value)) = line.split_first() else { continue };
        let Ok(value) = HeaderValue::from_bytes(value) else { continue };
        let name = NAMES[usize::from(*first) % NAMES.len()];
        headers.append(HeaderName::from_static(name), value);
    }
    count(headers.len());
    let known = [
        DeadlineHeader::Grpc,
        DeadlineHeader::Envoy,
        DeadlineHeader::Connect,
        DeadlineHeader::relative(),
    ];
    for header in &known {
        for value in NAMES.iter().flat_map(|name| headers.get_all(*name)) {
            if let Ok(left) = header.parse(value, SystemTime::UNIX_EPOCH) {
                // What is written for it is read again, and never more; but for less than a millisecond where that is the unit,
                // since Envoy takes zero for no limit.
                let mut written = HeaderMap::new();
                DeadlineHeaders::new([header.clone()]).write(left, &mut written);
                let again = DeadlineHeaders::new([header.clone()]).read(&written);
                let in_milliseconds =
                    matches!(header, DeadlineHeader::Envoy | DeadlineHeader::Connect);
                let least = if in_milliseconds { Duration::from_millis(1) } else { Duration::ZERO };
                assert!(
                    again.is_ok_and(|again| again.is_none_or(|again| again <= left.max(least)))
                );
            }
        }
    }
    let ignoring = DeadlineHeaders::new(known.clone());
    assert!(ignoring.read(&headers).is_ok());
    let _ = ignoring.on_invalid(OnInvalid::Refuse).read(&headers);

    let baggage = Baggage::read(&headers);
    let text = baggage.to_string();
    assert!(text.len() <= 8_192 && text.split(',').count() <= 64);
    let mut written = HeaderMap::new();
    baggage.write(&mut written);
    assert_eq!(Baggage::read(&written), baggage, "it comes back as it went");
    if let Some(trace) = TraceContext::read(&headers) {
        assert_eq!(trace.trace_id().len(), 32);
    }

    let all = Propagation::new().trace().request_id().baggage().carry("tenant", &TENANT);
    let (ctx, _guard) = all.extract(&headers, Context::background().derive()).build();
    assert!(ctx.value(&REQUEST_ID).is_some_and(|id| (1..=128).contains(&id.as_str().len())));
    let mut sent = HeaderMap::new();
    all.inject(&ctx, &mut sent);
    let (next, _guard) = all.extract(&sent, Context::background().derive()).build();
    assert_eq!(next.value(&TENANT), ctx.value(&TENANT));
    assert_eq!(next.value(&REQUEST_ID), ctx.value(&REQUEST_ID));
    assert_eq!(next.value(&BAGGAGE).is_some(), ctx.value(&BAGGAGE).is_some());
});
