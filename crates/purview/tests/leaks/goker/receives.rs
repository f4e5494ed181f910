//! What is waited for, and nobody sends.

use purview::leak::Check;
use purview::thread::block_on;
use purview::{Context, Error, TaskGroup};
use smol::future::or;

use super::assert_stuck;
use super::channel::Channel;
use crate::support::{LONG, until};

/// cockroach10790, of cockroachdb/cockroach#10790: who waits for a batch of commands starts a goroutine, when its context ends, to
/// take what their senders may still send. But these have left at the same end, so it waits for ever. It leaked.
mod cockroach10790 {
    use super::*;

    /// The first of two commands is done when the request is canceled; the other's sender gives up.
    fn canceled(store: &TaskGroup<Error>) -> (Context, [Channel<bool>; 2]) {
        let (request, guard) = store.context().derive().name("request").build();
        let commands = [Channel::new(0), Channel::new(0)];
        let (its, theirs) = (request.clone(), commands.clone());
        store.spawn_thread_named("send", move |_ctx| {
            let sent = theirs.iter().try_for_each(|it| block_on(its.run(it.send(true))));
            assert!(sent.is_err());
            Ok(())
        });
        assert!(commands[0].recv_blocking());
        guard.cancel_with("the client went away");
        (request, commands)
    }

    fn drain(commands: &[Channel<bool>]) {
        for command in commands {
            command.recv_blocking();
        }
    }

    #[test]
    fn a_drain_to_which_nothing_flows_is_reported() {
        let check = Check::new();
        let store = TaskGroup::new(&Context::background());
        let (request, commands) = canceled(&store);
        drop(request);
        let theirs = commands.clone();
        store.spawn_thread_named("drain", move |_ctx| {
            drain(&theirs);
            Ok(())
        });
        until(|| commands[0].waiting() == (0, 1) && store.len() == 1);
        store.cancel_with("the store stops");
        assert_stuck(&check, file!(), &["drain"]);

        commands.iter().for_each(|command| command.send_blocking(true));
        drop(store);
        check.assert_none(LONG);
    }

    /// A group whose context has ended takes no task, so none is begun that would be too late.
    #[test]
    fn a_group_that_has_ended_begins_no_drain() {
        let check = Check::new();
        let store = TaskGroup::new(&Context::background());
        let (request, commands) = canceled(&store);
        let group: TaskGroup<Error> = TaskGroup::new(&request);
        drop(request);
        group.spawn_thread_named("drain", move |_ctx| {
            drain(&commands);
            Ok(())
        });
        assert!(group.is_empty());
        assert!(group.join_blocking().expect_err("it was not begun").ended().is_some());
        store.join_blocking().expect("the sender gave up");
        check.assert_none(LONG);
    }
}

/// istio18454, of istio/istio#18454: a loop that resets a timer which has fired takes its tick first; but it had that already. The
/// loop leaked, deaf to its context, and who sends it resets as soon as the channel was full.
mod istio18454 {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use purview::time::ManualClock;

    use super::*;

    #[test]
    fn a_tick_that_was_taken_before_and_who_is_kept_waiting_by_that_are_reported() {
        let check = Check::new();
        let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
        let (ticks, resets) = (Channel::new(1), Channel::new(1));
        ticks.send_blocking(()); // the timer fires, and is not set again but by a reset
        let (its_ticks, its_resets) = (ticks.clone(), resets.clone());
        group.spawn_thread_named("event loop", move |ctx| {
            let (ticks, resets) = (its_ticks, its_resets);
            block_on(async {
                let mut is_set = true;
                loop {
                    let tick = async {
                        ticks.recv().await;
                        false
                    };
                    let reset = async {
                        resets.recv().await;
                        true
                    };
                    let is_reset = ctx.run(or(tick, reset)).await?;
                    if is_reset && !is_set {
                        ticks.recv().await;
                    }
                    is_set = is_reset;
                }
            })
        });
        let theirs = resets.clone();
        group.spawn_thread_named("processor", move |_ctx| {
            (0..3).for_each(|_| theirs.send_blocking(()));
            Ok(())
        });
        until(|| (resets.waiting(), ticks.waiting()) == ((1, 0), (0, 1)));
        group.cancel_with("the server stops");
        assert_stuck(&check, file!(), &["event loop", "processor"]);

        ticks.send_blocking(());
        resets.recv_blocking();
        drop(group);
        check.assert_none(LONG);
    }

    /// A timer is a context here: to set it again is to make another, and one that is dropped has no tick to be taken.
    #[test]
    fn a_timer_that_is_made_anew_has_no_tick_to_wait_for() {
        const QUIET: Duration = Duration::from_secs(1);
        let clock = ManualClock::new();
        let check = Check::new();
        let group: TaskGroup<Error> = TaskGroup::new(&clock.root());
        let resets = Channel::new(1);
        let pushed = Arc::new(AtomicUsize::new(0));
        let (its, count) = (resets.clone(), Arc::clone(&pushed));
        group.spawn_thread_named("event loop", move |ctx| {
            let is_reset = || {
                let (timer, _guard) = ctx.with_timeout(QUIET);
                block_on(timer.run(its.recv())).is_ok()
            };
            loop {
                block_on(ctx.run(its.recv()))?;
                while is_reset() {}
                ctx.check()?;
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        (0..3).for_each(|_| resets.send_blocking(()));
        until(|| {
            clock.advance(QUIET);
            pushed.load(Ordering::SeqCst) > 0
        });
        group.cancel_with("the server stops");
        assert!(group.join_blocking().expect_err("it was told to").ended().is_some());
        check.assert_none(LONG);
    }
}
