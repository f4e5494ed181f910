//! CancellationToken, to a context and back.

use purview::Context;
use purview_tokio::{from_token, to_token};
use tokio_util::sync::CancellationToken;

#[test]
fn a_tokens_end_is_the_contexts_at_once_and_without_a_runtime() {
    let token = CancellationToken::new();
    let (parent, guard) = Context::background().with_cancel();
    let (ctx, _bridge) = from_token(&parent, &token);
    let (below, _guard) = ctx.with_cancel();
    token.cancel();
    assert!(below.is_done() && !parent.is_done());
    assert_eq!(
        ctx.err().expect("done").to_string(),
        "context canceled: cancellation token canceled"
    );

    let (late, _bridge) = from_token(&parent, &token);
    assert!(late.is_done(), "it was canceled before");

    let token = CancellationToken::new();
    let (ctx, _bridge) = from_token(&parent, &token);
    guard.cancel_with("parent");
    assert_eq!(ctx.err().expect("done").to_string(), "context canceled: parent");
    assert!(!token.is_cancelled(), "it goes one way");
}

#[test]
fn a_bridge_that_is_taken_down_carries_nothing_and_leaves_nothing() {
    let token = CancellationToken::new();
    let (ctx, bridge) = from_token(&Context::background(), &token);
    drop(bridge);
    token.cancel();
    assert!(!ctx.is_done());
}

#[test]
fn a_contexts_end_is_the_tokens() {
    let (ctx, guard) = Context::background().with_cancel();
    let token = to_token(&ctx);
    let child = token.child_token();
    assert!(!child.is_cancelled());
    guard.cancel();
    assert!(child.is_cancelled());
    assert!(to_token(&ctx).is_cancelled(), "it had ended before");
    assert!(!to_token(&Context::background()).is_cancelled());
}

#[test]
fn both_ways_at_once_go_round_in_no_circle() {
    for first in [true, false] {
        let token = CancellationToken::new();
        let (ctx, _bridge) = from_token(&Context::background(), &token);
        let (below, guard) = ctx.with_cancel();
        let back = to_token(&below);
        if first {
            token.cancel()
        } else {
            guard.cancel()
        }
        assert!(back.is_cancelled());
        assert_eq!(ctx.is_done(), first);
    }
}

#[test]
fn a_cancel_while_the_bridge_is_built_is_not_lost() {
    for _ in 0..2_000 {
        let token = CancellationToken::new();
        let other = token.clone();
        let canceler = std::thread::spawn(move || other.cancel());
        let (ctx, _bridge) = from_token(&Context::background(), &token);
        canceler.join().expect("no panic");
        assert!(ctx.is_done());
    }
}
