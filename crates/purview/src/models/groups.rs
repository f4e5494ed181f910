//! Groups and permits: spawn, finish, join.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Task, Poll, Waker};

use loom::thread;

use super::{Wakes, poll, root};
use crate::{Context, Semaphore, Spawn, TaskGroup};

/// Runs each task on a thread. What is in the models is ready when it is polled, or never.
#[derive(Clone, Default)]
struct Threads(Arc<std::sync::Mutex<Vec<thread::JoinHandle<()>>>>);

impl Threads {
    /// Waits for all, and for those that they have begun.
    fn join(&self) {
        loop {
            let one = self.0.lock().unwrap().pop();
            let Some(one) = one else { break };
            one.join().unwrap();
        }
    }
}

impl Spawn for Threads {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        let one = thread::spawn(move || {
            let _ = poll(pin!(task), &Arc::default());
        });
        self.0.lock().unwrap().push(one);
    }
}

type Group = TaskGroup<Box<dyn std::error::Error + Send + Sync>, Threads>;

/// A join that was begun, to the end: who waits is woken.
fn finish<F: Future>(mut join: Pin<&mut F>, threads: &Threads) -> F::Output {
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut poll = || join.as_mut().poll(&mut Task::from_waker(&waker));
    if let Poll::Ready(result) = poll() {
        threads.join();
        return result;
    }
    threads.join();
    assert!(wakes.count() > 0, "the last task wakes who waits for it");
    match poll() {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("all have ended"),
    }
}

#[test]
fn a_join_returns_when_its_tasks_have_ended_and_not_before() {
    loom::model(|| {
        let threads = Threads::default();
        let group = Group::builder(&Context::background()).build_on(threads.clone());
        let ran = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&ran);
        group.spawn(move |_| async move {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        let mut join = pin!(async {
            group.join().await.unwrap();
            assert_eq!(ran.load(Ordering::SeqCst), 1);
        });
        finish(join.as_mut(), &threads);
    });
}

#[test]
fn a_task_that_is_spawned_while_the_group_is_canceled_has_run_or_is_told_of() {
    loom::model(|| {
        let (ctx, guard) = root();
        let threads = Threads::default();
        let group = Group::builder(&ctx).build_on(threads.clone());
        let canceler = thread::spawn(move || guard.cancel());
        let ran = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&ran);
        group.spawn(move |_| async move {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        let mut join = pin!(group.join());
        let result = finish(join.as_mut(), &threads);
        canceler.join().unwrap();
        assert!(result.is_err() || ran.load(Ordering::SeqCst) == 1);
        assert!(ctx.is_done());
    });
}

#[test]
fn of_two_tasks_that_fail_at_once_the_first_is_the_cause() {
    loom::model(|| {
        let threads = Threads::default();
        let group = Group::builder(&Context::background()).build_on(threads.clone());
        let ctx = group.context().clone();
        for name in ["one", "other"] {
            group.spawn(move |_| async move { Err(name.into()) });
        }
        let mut join = pin!(group.join());
        let failed = finish(join.as_mut(), &threads).unwrap_err();
        let cause = ctx.err().and_then(|err| err.cause().cloned());
        assert_eq!(
            cause.map(|it| it.to_string()),
            failed.failures().first().map(|it| it.cause().to_string())
        );
    });
}

#[test]
fn who_waits_for_room_begins_when_the_task_before_it_ends() {
    loom::model(|| {
        let threads = Threads::default();
        let group = Group::builder(&Context::background()).limit(1).build_on(threads.clone());
        let ran = Arc::new(AtomicUsize::new(0));
        for _ in 0..2 {
            let counted = Arc::clone(&ran);
            group.spawn(move |_| async move {
                counted.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
        }
        let mut join = pin!(group.join());
        finish(join.as_mut(), &threads).unwrap();
        assert_eq!(ran.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn a_permit_that_is_given_back_while_somebody_asks_for_it_is_not_lost() {
    loom::model(|| {
        let semaphore = Arc::new(Semaphore::new(1));
        let one = Arc::clone(&semaphore);
        let holder = thread::spawn(move || drop(one.try_acquire(1)));
        let ctx = Context::background();
        let wakes = Arc::new(Wakes::default());
        let mut asked = pin!(semaphore.acquire(&ctx, 1));
        let has_it = poll(asked.as_mut(), &wakes);
        holder.join().unwrap();
        assert!(has_it || wakes.count() == 1 && poll(asked.as_mut(), &wakes));
    });
}
