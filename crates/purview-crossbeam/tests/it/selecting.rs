//! Real selects, on many threads.

use std::sync::Barrier;
use std::thread;

use crossbeam_channel::{Select, bounded, select, unbounded};
use purview::{Context, TaskGroup, thread as purview_thread};
use purview_crossbeam::DoneChannel;

#[test]
fn each_job_is_done_once_and_the_end_stops_all_who_select() {
    const WORKERS: usize = 8;
    const JOBS: usize = 2_000;
    for shared in [true, false] {
        let (ctx, guard) = Context::background().with_cancel();
        let (give, jobs) = unbounded();
        let (finish, finished) = unbounded();
        let one = DoneChannel::new(&ctx);
        thread::scope(|s| {
            for _ in 0..WORKERS {
                let (ctx, one, jobs, finish) = (&ctx, &one, jobs.clone(), finish.clone());
                s.spawn(move || {
                    let own = DoneChannel::new(ctx);
                    let done = if shared { one } else { &own };
                    loop {
                        select! {
                            recv(done.receiver()) -> nothing => {
                                assert!(nothing.is_err() && ctx.is_done());
                                return;
                            }
                            recv(jobs) -> job => finish.send(job.expect("not closed")).expect("heard"),
                        }
                    }
                });
            }
            for job in 0..JOBS {
                give.send(job).expect("heard");
            }
            let mut all: Vec<usize> = finished.iter().take(JOBS).collect();
            all.sort_unstable();
            assert_eq!(all, (0..JOBS).collect::<Vec<_>>());
            let callbacks = if shared { 1 } else { WORKERS };
            while ctx.statistics().callbacks() < callbacks {
                thread::yield_now(); // not all have begun
            }
            assert_eq!(ctx.statistics().callbacks(), callbacks);
            guard.cancel(); // all of them wait in their selects, or will
        });
        drop(one);
        assert_eq!(ctx.statistics().callbacks(), 0);
    }
}

#[test]
fn a_send_that_nobody_receives_is_given_up() {
    let (ctx, guard) = Context::background().with_cancel();
    let (sender, _receiver) = bounded(0);
    let ready = Barrier::new(2);
    thread::scope(|s| {
        let sending = s.spawn(|| {
            let done = DoneChannel::new(&ctx);
            ready.wait();
            select! {
                send(sender, 1) -> _ => unreachable!(),
                recv(done.receiver()) -> _ => done.context().err(),
            }
        });
        ready.wait();
        guard.cancel_with("nobody listens");
        let end = sending.join().expect("no panic").expect("it has ended");
        assert_eq!(end.to_string(), "context canceled: nobody listens");
    });
}

#[test]
fn of_several_contexts_the_one_that_ended_is_chosen() {
    let contexts: Vec<_> = (0..10).map(|_| Context::background().with_cancel()).collect();
    let channels: Vec<_> = contexts.iter().map(|(ctx, _)| DoneChannel::new(ctx)).collect();
    for (at, (_, guard)) in contexts.iter().enumerate() {
        let mut ends = Select::new();
        channels[at..].iter().for_each(|done| _ = ends.recv(done.receiver()));
        assert!(ends.try_ready().is_err());
        thread::scope(|s| {
            s.spawn(|| guard.cancel());
            assert_eq!(ends.ready(), 0);
        });
    }
}

#[test]
fn threads_of_a_group_select_between_their_work_and_the_first_failure() {
    let (_give, jobs) = bounded::<u32>(0);
    let result = purview_thread::scope(&Context::background(), |s| {
        for _ in 0..4 {
            s.spawn(|ctx| {
                let done = DoneChannel::new(ctx);
                select! {
                    recv(jobs) -> _ => unreachable!(),
                    recv(done.receiver()) -> _ => Ok(ctx.check()?),
                }
            });
        }
        s.spawn(|_ctx| Err(std::io::Error::other("disk full")));
    });
    let err = result.expect_err("one failed");
    assert_eq!((err.failed(), err.error().expect("its own").to_string()), (1, "disk full".into()));

    let group: TaskGroup<purview::Error> = TaskGroup::new(&Context::background());
    for _ in 0..4 {
        let jobs = jobs.clone();
        group.spawn_thread(move |ctx| {
            let done = DoneChannel::new(&ctx);
            select! {
                recv(jobs) -> _ => unreachable!(),
                recv(done.receiver()) -> _ => ctx.check(),
            }
        });
    }
    group.cancel_with("enough");
    let err = group.join_blocking().expect_err("none did its work");
    assert_eq!(err.to_string(), "context canceled: enough");
}
