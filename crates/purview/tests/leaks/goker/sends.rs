//! What is sent, and nobody takes.

use std::time::Duration;

use purview::leak::Check;
use purview::thread::block_on;
use purview::{Context, Error, TaskGroup};

use super::channel::Channel;
use super::{assert_held, assert_stuck};
use crate::support::{LONG, Threads, until};

/// istio17860, of istio/istio#17860: an agent whose last proxy has exited goes, and the exit of one that is started after that is
/// sent to nobody. Whoever waited for that proxy leaked.
mod istio17860 {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn an_exit_that_nobody_takes_is_reported() {
        let check = Check::new();
        let agent: TaskGroup<Error> = TaskGroup::new(&Context::background());
        let exits = Channel::new(0);
        let restart = |epoch: u32| {
            let exits = exits.clone();
            agent.spawn_thread_named(format!("wait for {epoch}"), move |_ctx| {
                exits.send_blocking(epoch);
                Ok(())
            });
        };
        restart(1);
        let taken = exits.clone();
        agent.spawn_thread_named("run", move |ctx| {
            assert_eq!(block_on(ctx.run(taken.recv()))?, 1);
            Ok(()) // none is active
        });
        until(|| agent.is_empty());
        restart(2);
        until(|| exits.waiting() == (1, 0));
        agent.cancel_with("shutdown");
        assert_stuck(&check, file!(), &["wait for 2"]);

        assert_eq!(exits.recv_blocking(), 2);
        drop(agent);
        check.assert_none(LONG);
    }

    /// The receiver goes with who receives, and the send hears of it.
    #[test]
    fn an_exit_is_handed_back_when_its_receiver_has_gone() {
        let check = Check::new();
        let agent: TaskGroup<mpsc::SendError<u32>> = TaskGroup::new(&Context::background());
        let (exit, exits) = mpsc::sync_channel(0);
        let restart = |epoch: u32| {
            let exit = exit.clone();
            agent.spawn_thread_named(format!("wait for {epoch}"), move |_ctx| exit.send(epoch));
        };
        restart(1);
        agent.spawn_thread_named("run", move |_ctx| {
            assert_eq!(exits.recv(), Ok(1));
            Ok(())
        });
        until(|| agent.is_empty());
        restart(2);
        let err = agent.join_blocking().expect_err("nobody took it");
        assert_eq!(err.failures()[0].name(), Some("wait for 2"));
        assert_eq!(err.error(), Some(&mpsc::SendError(2)));
        check.assert_none(LONG);
    }
}

/// cockroach18101, of cockroachdb/cockroach#18101: who restores a backup stops reading at the end of its context, and who splits it
/// goes on writing to a channel that is full. The writer leaked.
mod cockroach18101 {
    use super::*;

    /// Eight spans for a channel of six, of which one is read before the end comes.
    fn restore(send: fn(&Context, &Channel<u32>, u32) -> Result<(), Error>) -> Restore {
        let (ctx, guard) = Context::background().derive().name("restore").build();
        let group = TaskGroup::new(&ctx);
        let spans = Channel::new(6);
        let full = spans.clone();
        group.spawn_thread_named("split and scatter", move |ctx| {
            (0..8).try_for_each(|span| send(&ctx, &full, span))
        });
        assert_eq!(spans.recv_blocking(), 0);
        until(|| spans.waiting() == (1, 0));
        guard.cancel_with("the client went away");
        Restore { group, spans }
    }

    struct Restore {
        group: TaskGroup<Error>,
        spans: Channel<u32>,
    }

    #[test]
    fn a_writer_whose_reader_has_left_is_reported() {
        let check = Check::new();
        let Restore { group, spans } = restore(|_ctx, spans, span| {
            spans.send_blocking(span);
            Ok(())
        });
        assert_stuck(&check, file!(), &["split and scatter"]);
        assert_eq!(group.overdue(Duration::ZERO)[0].name(), Some("split and scatter"));

        assert_eq!(spans.recv_blocking(), 1);
        drop(group);
        check.assert_none(LONG);
    }

    #[test]
    fn a_send_under_the_context_ends_with_it() {
        let check = Check::new();
        let Restore { group, .. } = restore(|ctx, spans, span| block_on(ctx.run(spans.send(span))));
        let err = group.join_blocking().expect_err("it was told to stop");
        assert_eq!(err.to_string(), "context canceled: the client went away");
        check.assert_none(LONG);
    }
}

/// cockroach24808, of cockroachdb/cockroach#24808: a compactor wakes itself before it has started its worker, and a suggestion that
/// came earlier fills the channel. Its start leaked, and with it the stop that was deferred until it returned.
mod cockroach24808 {
    use super::*;

    /// A channel in which there is something already.
    fn suggested() -> Channel<()> {
        let suggestions = Channel::new(1);
        suggestions.send_blocking(());
        suggestions
    }

    #[test]
    fn a_start_that_does_not_come_to_its_worker_is_reported() {
        let check = Check::new();
        let stopper: TaskGroup<Error> = TaskGroup::new(&Context::background());
        let suggestions = suggested();
        let full = suggestions.clone();
        stopper.spawn_thread_named("start", move |ctx| {
            full.send_blocking(());
            loop {
                block_on(ctx.run(full.recv()))?;
            }
        });
        until(|| suggestions.waiting() == (1, 0));
        let report = block_on(stopper.shutdown("the node stops", Duration::ZERO));
        let abandoned = report.abandoned();
        assert_eq!((abandoned.len(), abandoned[0].name()), (1, Some("start")), "{report}");
        assert_stuck(&check, file!(), &["start"]);

        suggestions.recv_blocking();
        check.assert_none(LONG);
    }

    /// A future need not even ask: its group drops it where it waits.
    #[test]
    fn a_future_goes_with_its_group_wherever_it_waits() {
        let check = Check::new();
        let stopper: TaskGroup<Error, Threads> = TaskGroup::new(&Context::background());
        let suggestions = suggested();
        let full = suggestions.clone();
        stopper.spawn_named("start", async move |ctx: Context| {
            full.send(()).await;
            loop {
                ctx.run(full.recv()).await?;
            }
        });
        until(|| suggestions.waiting() == (1, 0));
        drop(stopper);
        check.assert_none(LONG);
        assert_eq!(suggestions.waiting(), (0, 0));
    }
}

/// moby33781, of moby/moby#33781: a monitor that is stopped returns without taking the result of the probe that is under way. It
/// cancels the probe, which does not listen while it sends. The probe leaked.
mod moby33781 {
    use super::*;

    struct Monitor {
        stop: Channel<()>,
        /// The probed command comes to its end.
        finished: Channel<()>,
        results: Channel<bool>,
    }

    /// Stops the monitor during a probe, lets the probed command finish then, and gives the results that nobody waits for.
    fn stopped(send: fn(&Context, &Channel<bool>)) -> Channel<bool> {
        let (stop, finished, results) = (Channel::new(0), Channel::new(0), Channel::new(0));
        let shared = Monitor { stop, finished, results };
        std::thread::scope(|s| {
            s.spawn(|| shared.stop.send_blocking(()));
            monitor(&shared, send);
        });
        shared.finished.send_blocking(());
        shared.results
    }

    fn monitor(shared: &Monitor, send: fn(&Context, &Channel<bool>)) {
        let (probe, _cancel) = Context::background().derive().name("probe").timeout(LONG).build();
        let (its, finished, results) =
            (probe.clone(), shared.finished.clone(), shared.results.clone());
        std::thread::spawn(move || {
            finished.recv_blocking();
            send(&its, &results);
        });
        let stopped = async {
            shared.stop.recv().await;
            true
        };
        let probed = async {
            shared.results.recv().await;
            false
        };
        let first = probe.run(smol::future::or(stopped, probed));
        assert!(block_on(first).expect("it has time"));
    }

    #[test]
    fn a_result_that_nobody_takes_is_reported() {
        let check = Check::new();
        let results = stopped(|_probe, results| results.send_blocking(true));
        until(|| results.waiting() == (1, 0));
        assert_held(&check, file!(), &["probe"], true);

        assert!(results.recv_blocking());
        check.assert_none(LONG);
    }

    /// The guard goes when the monitor returns, whichever way that is.
    #[test]
    fn a_probe_that_sends_under_its_context_ends_with_the_monitor() {
        let check = Check::new();
        let results = stopped(|probe, results| {
            let _told = block_on(probe.run(results.send(true)));
        });
        check.assert_none(LONG);
        assert_eq!(results.waiting(), (0, 0));
    }
}

/// kubernetes25331, of kubernetes/kubernetes#25331: a watch that fails cancels itself and then sends its error to who watches, who
/// has left at the cancel. The watch leaked.
mod kubernetes25331 {
    use std::io;

    use super::*;

    #[test]
    fn an_error_that_nobody_takes_is_reported() {
        let check = Check::new();
        let (ctx, cancel) = Context::background().derive().name("watch").build();
        let group: TaskGroup<Error> = TaskGroup::new(&ctx);
        let (errors, results) = (Channel::new(0), Channel::new(0));
        let (its_errors, its_results) = (errors.clone(), results.clone());
        group.spawn_thread_named("run", move |ctx| {
            let error = block_on(ctx.run(its_errors.recv()))?;
            cancel.cancel_with("the watch failed");
            its_results.send_blocking(error);
            Ok(())
        });
        errors.send_blocking("too old a version");
        until(|| results.waiting() == (1, 0));
        assert_stuck(&check, file!(), &["run"]);

        assert_eq!(results.recv_blocking(), "too old a version");
        drop((group, ctx));
        check.assert_none(LONG);
    }

    /// A task's error is what it returns: it cancels the group, and is told by the join. There is nothing to send.
    #[test]
    fn an_error_that_is_returned_needs_nobody_to_take_it() {
        let check = Check::new();
        let group: TaskGroup<io::Error> = TaskGroup::new(&Context::background());
        let errors = Channel::new(0);
        let its = errors.clone();
        group.spawn_thread_named("run", move |ctx| {
            Err(io::Error::other(block_on(ctx.run(its.recv()))?))
        });
        errors.send_blocking("too old a version");
        let err = group.join_blocking().expect_err("the watch failed");
        assert_eq!(err.error().map(ToString::to_string).as_deref(), Some("too old a version"));
        check.assert_none(LONG);
    }
}
