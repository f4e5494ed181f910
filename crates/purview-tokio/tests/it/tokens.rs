//! CancellationToken, to a context and back.

use std::sync::{Arc, Barrier};

use purview::{Context, Key};
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

static USER: Key<Arc<()>> = Key::new("user");

#[test]
fn a_context_has_one_registration_for_all_its_tokens() {
    let (server, guard) = Context::background().with_cancel();
    for _ in 0..10_000 {
        drop(to_token(&server));
    }
    assert_eq!(server.statistics().callbacks(), 1);
    let tokens = [to_token(&server), to_token(&server)];
    tokens[0].cancel();
    assert!(!tokens[1].is_cancelled() && !server.is_done(), "one of them is no other's");
    guard.cancel();
    assert!(tokens[1].is_cancelled() && to_token(&server).is_cancelled());
    assert_eq!(server.statistics().callbacks(), 0);
}

#[test]
fn a_contexts_value_layers_share_its_registration_and_go_when_they_are_dropped() {
    let (server, guard) = Context::background().with_cancel();
    let user = Arc::new(());
    let tokens: Vec<_> = (0..100)
        .map(|_| {
            let request =
                server.with_value(&USER, Arc::clone(&user)).with_value(&USER, Arc::default());
            to_token(&request)
        })
        .collect();
    assert_eq!((server.statistics().callbacks(), Arc::strong_count(&user)), (1, 1));
    assert!(!tokens.iter().any(CancellationToken::is_cancelled));
    guard.cancel();
    assert!(tokens.iter().all(CancellationToken::is_cancelled));
}

#[test]
fn threads_that_make_the_first_tokens_at_once_all_get_ones_that_are_canceled() {
    for _ in 0..500 {
        let (ctx, guard) = Context::background().with_cancel();
        let barrier = Barrier::new(3);
        let make = || {
            barrier.wait();
            to_token(&ctx)
        };
        let tokens = std::thread::scope(|s| {
            let makers = [s.spawn(make), s.spawn(make)];
            barrier.wait();
            guard.cancel();
            makers.map(|maker| maker.join().expect("no panic"))
        });
        assert!(tokens.iter().all(CancellationToken::is_cancelled));
    }
    for _ in 0..500 {
        let (ctx, _guard) = Context::background().with_cancel();
        let barrier = Barrier::new(2);
        let make = || {
            barrier.wait();
            to_token(&ctx)
        };
        let tokens = std::thread::scope(|s| {
            [s.spawn(make), s.spawn(make)].map(|maker| maker.join().expect("no panic"))
        });
        assert_eq!(ctx.statistics().callbacks(), 1);
        assert!(!tokens.iter().any(CancellationToken::is_cancelled));
    }
}

#[test]
fn a_token_lives_on_when_its_context_is_dropped_and_ends_with_it_all_the_same() {
    let (server, guard) = Context::background().with_cancel();
    let token = {
        let (request, guard) = server.with_cancel();
        let _ = guard.disarm();
        to_token(&request)
    };
    assert!(!token.is_cancelled());
    guard.cancel();
    assert!(token.is_cancelled());
    assert_eq!(server.statistics().children(), 0);
}

#[test]
fn a_token_that_is_made_of_a_done_context_is_canceled_at_once() {
    let (ctx, guard) = Context::background().with_cancel();
    let (child, _guard) = ctx.with_cancel();
    let (said, heard) = std::sync::mpsc::channel();
    // Called before the callbacks that cancel the tokens, when both contexts are done.
    let made = [ctx.clone(), child.clone()];
    let make = move |_: &purview::Error| {
        for ctx in &made {
            let is_canceled = to_token(ctx).is_cancelled();
            said.send((ctx.is_done(), is_canceled)).expect("the test waits");
        }
    };
    ctx.on_done(make).detach();
    let tokens = [to_token(&ctx), to_token(&child)];
    guard.cancel();
    assert_eq!(heard.iter().collect::<Vec<_>>(), [(true, true); 2]);
    assert!(tokens.iter().all(CancellationToken::is_cancelled));
}
