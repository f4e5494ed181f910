//! A lock that is taken twice.
//!
//! Go's mutex is nobody's: who has it, or whether anybody will give it back, it does not know. A [`Semaphore`] is like that, and
//! stands for it here.

use std::sync::Arc;

use purview::leak::Check;
use purview::{CancelGuard, Context, Error, Permit, Semaphore, TaskGroup};

use super::assert_stuck;
use crate::support::{LONG, until};

/// So many may read at a time, or one write.
const READERS: usize = 8;

/// Go's `Lock()` waits under no context; this one's end is the test's way out.
struct Forever {
    ctx: Context,
    end: CancelGuard,
}

impl Forever {
    /// Before the check, which does not list it then.
    fn new() -> Forever {
        let (ctx, end) = Context::background().with_cancel();
        Forever { ctx, end }
    }
}

/// Told to stop, it waits for a lock that is not given back.
#[track_caller]
fn assert_waits_for(lock: &Semaphore, check: &Check, group: &TaskGroup<Error>, name: &str) {
    until(|| lock.free() < lock.size());
    group.cancel_with("shutdown");
    assert_stuck(check, file!(), &[name]);
}

/// etcd5509, of etcd-io/etcd#5509: where a client is closed, its `acquire` returns early, with the lock still taken for reading.
/// Whoever closes it takes the lock again after that, for writing. That one leaked.
mod etcd5509 {
    use std::sync::RwLock;

    use super::*;

    /// Gives no permit back when the client is closed: the `RUnlock` that was forgotten.
    fn acquire<'a>(lock: &'a Semaphore, is_closed: bool) -> Option<Permit<'a>> {
        let permit = lock.try_acquire(1).expect("nobody writes");
        if is_closed {
            std::mem::forget(permit);
            return None;
        }
        Some(permit)
    }

    #[test]
    fn a_close_that_waits_for_a_reader_who_has_left_is_reported() {
        let forever = Forever::new();
        let check = Check::new();
        let client: TaskGroup<Error> = TaskGroup::new(&Context::background());
        let lock = Arc::new(Semaphore::new(READERS));
        assert!(acquire(&lock, true).is_none());
        let (its, ctx) = (Arc::clone(&lock), forever.ctx.clone());
        client.spawn_thread_named("close", move |_ctx| {
            let _all = its.acquire_blocking(&ctx, READERS)?;
            Ok(())
        });
        assert_waits_for(&lock, &check, &client, "close");

        forever.end.cancel();
        drop(client);
        check.assert_none(LONG);
    }

    /// What was locked is unlocked on every way out.
    #[test]
    fn a_guard_is_given_back_on_every_way_out() {
        fn acquire(is_closed: &RwLock<bool>) -> Result<(), &'static str> {
            let is_closed = is_closed.read().expect("no panic under it");
            if *is_closed { Err("closed") } else { Ok(()) }
        }
        let check = Check::new();
        let client: TaskGroup<Error> = TaskGroup::new(&Context::background());
        let is_closed = Arc::new(RwLock::new(true));
        assert_eq!(acquire(&is_closed), Err("closed"));
        client.spawn_thread_named("close", move |_ctx| {
            *is_closed.write().expect("no panic under it") = true;
            Ok(())
        });
        client.join_blocking().expect("it has its lock");
        check.assert_none(LONG);
    }
}

/// etcd6708, of etcd-io/etcd#6708: a client that synchronizes holds its lock while it asks who leads, and the request that asks
/// takes the same lock for reading. It waited for itself, and leaked.
mod etcd6708 {
    use super::*;

    /// Holds the lock while it asks for it, under `ctx`.
    fn sync(lock: &Semaphore, ctx: &Context) -> Result<(), Error> {
        let _all = lock.try_acquire(READERS).expect("it is free");
        let _one = lock.acquire_blocking(ctx, 1)?;
        Ok(())
    }

    #[test]
    fn who_waits_for_itself_is_reported() {
        let forever = Forever::new();
        let check = Check::new();
        let client: TaskGroup<Error> = TaskGroup::new(&Context::background());
        let lock = Arc::new(Semaphore::new(READERS));
        let (its, ctx) = (Arc::clone(&lock), forever.ctx.clone());
        client.spawn_thread_named("sync", move |_ctx| sync(&its, &ctx));
        assert_waits_for(&lock, &check, &client, "sync");

        forever.end.cancel();
        drop(client);
        check.assert_none(LONG);
    }

    /// It is a mistake as before; but its error comes back, and the lock is free again.
    #[test]
    fn a_wait_for_a_lock_ends_with_its_context() {
        let check = Check::new();
        let client: TaskGroup<Error> = TaskGroup::new(&Context::background());
        let lock = Arc::new(Semaphore::new(READERS));
        let its = Arc::clone(&lock);
        client.spawn_thread_named("sync", move |ctx| sync(&its, &ctx));
        until(|| lock.free() == 0);
        client.cancel_with("the leader takes too long");
        let err = client.join_blocking().expect_err("it gave up");
        assert_eq!(err.to_string(), "context canceled: the leader takes too long");
        assert_eq!(lock.free(), READERS);
        check.assert_none(LONG);
    }
}

/// etcd10492, of etcd-io/etcd#10492: a lessor renews a lease under its lock and calls the checkpointer, which calls the lessor,
/// which takes the lock. It waited for itself, and leaked.
mod etcd10492 {
    use std::sync::Mutex;

    use super::*;

    struct Lessor {
        lock: Semaphore,
        checkpointer: fn(&Lessor, &Context) -> Result<(), Error>,
    }

    impl Lessor {
        fn checkpoint(&self, ctx: &Context) -> Result<(), Error> {
            self.lock.acquire_blocking(ctx, 1).map(drop)
        }

        fn renew(&self, ctx: &Context) -> Result<(), Error> {
            let _lock = self.lock.acquire_blocking(ctx, 1)?;
            (self.checkpointer)(self, ctx)
        }
    }

    #[test]
    fn a_callback_that_takes_its_callers_lock_is_reported() {
        let forever = Forever::new();
        let check = Check::new();
        let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
        let lessor = Arc::new(Lessor { lock: Semaphore::new(1), checkpointer: Lessor::checkpoint });
        let (its, ctx) = (Arc::clone(&lessor), forever.ctx.clone());
        group.spawn_thread_named("renew", move |_ctx| its.renew(&ctx));
        assert_waits_for(&lessor.lock, &check, &group, "renew");

        forever.end.cancel();
        drop(group);
        check.assert_none(LONG);
    }

    /// A lock of Rust's has in it what it guards, and who needs that is handed it: a callback that checkpoints is given the leases.
    #[test]
    fn a_callback_is_given_what_the_lock_guards() {
        #[derive(Default)]
        struct Leases {
            checkpoints: u32,
        }

        fn renew(leases: &Mutex<Leases>, checkpointer: impl FnOnce(&mut Leases)) {
            checkpointer(&mut leases.lock().expect("no panic under it"));
        }

        let check = Check::new();
        let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
        let leases = Arc::new(Mutex::new(Leases::default()));
        let its = Arc::clone(&leases);
        group.spawn_thread_named("renew", move |_ctx| {
            renew(&its, |leases| leases.checkpoints += 1);
            Ok(())
        });
        group.join_blocking().expect("it has its lock");
        assert_eq!(leases.lock().expect("no panic under it").checkpoints, 1);
        check.assert_none(LONG);
    }
}

/// hugo5379, of gohugoio/hugo#5379: a page's content is rendered by a goroutine, for which is waited with a timeout. It takes the
/// page's lock, and comes to a page that counts its words and takes it, too: the same page. It leaked, with the lock.
mod hugo5379 {
    use std::sync::Mutex;

    use purview::time::ManualClock;

    use super::*;

    const TIMEOUT: std::time::Duration = std::time::Duration::from_millis(1);

    #[test]
    fn a_page_whose_content_needs_itself_is_reported() {
        let forever = Forever::new();
        let clock = ManualClock::new();
        let check = Check::new();
        let (ctx, cancel) = clock.root().derive().name("content").timeout(TIMEOUT).build();
        let group: TaskGroup<Error> = TaskGroup::new(&ctx);
        let lock = Arc::new(Semaphore::new(1));
        let (its, forever_ctx) = (Arc::clone(&lock), forever.ctx.clone());
        group.spawn_thread_named("render", move |_ctx| {
            let _content = its.acquire_blocking(&forever_ctx, 1)?;
            let _plain = its.acquire_blocking(&forever_ctx, 1)?;
            Ok(())
        });
        until(|| lock.free() == 0);
        clock.advance(TIMEOUT); // the page goes out without it
        assert_stuck(&check, file!(), &["render"]);

        forever.end.cancel();
        drop((group, ctx, cancel));
        check.assert_none(LONG);
    }

    #[derive(Default)]
    struct Content {
        words: Option<usize>,
    }

    impl Content {
        /// In Go it is told by a flag whether it is to take the lock. Here who calls it has it.
        fn init_plain(&mut self, text: &str) -> usize {
            *self.words.get_or_insert_with(|| text.split(' ').count())
        }
    }

    /// That a lock is held is seen by the type of what is worked on; and who renders is waited for.
    #[test]
    fn what_is_locked_is_handed_on() {
        let check = Check::new();
        let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
        let content = Arc::new(Mutex::new(Content::default()));
        let its = Arc::clone(&content);
        group.spawn_thread_named("render", move |_ctx| {
            let mut content = its.lock().expect("no panic under it");
            assert_eq!(content.init_plain("two words"), 2);
            Ok(())
        });
        group.join_blocking().expect("it has its lock");
        assert_eq!(content.lock().expect("no panic under it").words, Some(2));
        check.assert_none(LONG);
    }
}
