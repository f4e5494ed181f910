//! A context that nobody ends.
//!
//! Go's profile sees such a goroutine if its context hangs on `Background()`. Below a context that is still in use, as here below a
//! server's, it does not: the parent's list of children keeps the child reachable, and so its goroutine.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use purview::leak::Check;
use purview::{CancelGuard, CancelHandle, Context, Error, OnDone, TaskGroup};

use super::{assert_held, left};
use crate::support::{LONG, until};

/// cockroach13755, of cockroachdb/cockroach#13755: a goroutine waits for the end of a query's context, to close its rows. The rows
/// are dropped without a `Close`, which alone would have ended it. The goroutine leaked.
mod cockroach13755 {
    use super::*;

    fn await_done(rows: Context) {
        thread::spawn(move || rows.done().wait());
    }

    /// A handle is as little a duty as Go's `CancelFunc`: nothing happens when it is dropped.
    fn query(ctx: &Context) -> CancelHandle {
        let (rows, guard) = ctx.derive().name("rows").build();
        await_done(rows);
        guard.disarm()
    }

    #[test]
    fn rows_that_nobody_closes_are_reported() {
        let (server, stop) = Context::background().derive().name("server").build();
        let check = Check::new();
        let _ = query(&server);
        assert_held(&check, file!(), &["rows"], false);
        let leaks = left(&check);
        assert_eq!(leaks.contexts()[0].parent(), server.id());
        assert!(leaks.to_string().contains("below server ("), "{leaks}");

        stop.cancel();
        check.assert_none(LONG);
    }

    struct Rows(#[expect(dead_code, reason = "its drop is the close")] CancelGuard);

    #[test]
    fn rows_with_a_guard_are_closed_when_they_are_dropped() {
        let (server, _stop) = Context::background().derive().name("server").build();
        let check = Check::new();
        let (rows, guard) = server.derive().name("rows").build();
        await_done(rows);
        drop(Rows(guard));
        check.assert_none(LONG);
        assert!(!server.is_done());
    }
}

/// cockroach13197, of cockroachdb/cockroach#13197: the same with a transaction, which is rolled back at its context's end. One that
/// is neither committed nor rolled back has no end. The goroutine that waits for it leaked.
mod cockroach13197 {
    use super::*;

    struct Transaction {
        _end: CancelGuard,
        /// What Go has a goroutine for.
        _at_end: Option<OnDone>,
    }

    /// Here it takes somebody to keep it.
    #[test]
    fn a_transaction_that_is_kept_is_reported() {
        let (server, _stop) = Context::background().derive().name("server").build();
        let check = Check::new();
        let mut open = Vec::new();
        let (tx, end) = server.derive().name("tx").build();
        thread::spawn(move || tx.done().wait());
        open.push(Transaction { _end: end, _at_end: None });
        assert_held(&check, file!(), &["tx"], false);

        open.clear();
        check.assert_none(LONG);
        assert!(!server.is_done());
    }

    /// A callback needs no thread that waits, and what is dropped has an end.
    #[test]
    fn a_transaction_that_is_dropped_is_rolled_back_and_no_thread_has_waited() {
        let (server, _stop) = Context::background().derive().name("server").build();
        let check = Check::new();
        let rollbacks = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&rollbacks);
        let (tx, end) = server.derive().name("tx").build();
        let at_end = tx.on_done(move |_why| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        drop((tx, Transaction { _end: end, _at_end: Some(at_end) }));
        assert_eq!(rollbacks.load(Ordering::SeqCst), 1);
        check.assert_none(LONG);
    }
}

/// grpc862, of grpc/grpc-go#862: a dial gives up when its context ends, and returns no connection, so there is none to close. But
/// there was one, with a goroutine that sees to its address. That leaked.
mod grpc862 {
    use super::*;

    fn dial(ctx: &Context, process: &Context) -> Result<CancelHandle, Error> {
        let (connection, close) = process.derive().name("connection").build();
        let close = close.disarm();
        thread::spawn(move || {
            let (address, _tear_down) = connection.derive().name("address").build();
            address.done().wait()
        });
        ctx.check()?;
        Ok(close)
    }

    #[test]
    fn a_connection_that_was_not_returned_is_reported() {
        let (process, end) = Context::background().with_cancel(); // Go's background, but that the test can end it
        let (ctx, give_up) = Context::background().with_cancel();
        give_up.cancel();
        let check = Check::new();
        assert!(dial(&ctx, &process).is_err());
        until(|| left(&check).contexts().len() == 2);
        assert_held(&check, file!(), &["connection", "address"], false);

        end.cancel();
        check.assert_none(LONG);
    }

    fn dial_with_a_group(ctx: &Context) -> Result<TaskGroup<Error>, Error> {
        let connection = TaskGroup::builder(&Context::background()).name("connection").build();
        connection.spawn_thread_named("reset", |ctx| {
            let (address, _tear_down) = ctx.derive().name("address").build();
            Err(address.done().wait())
        });
        ctx.check()?;
        Ok(connection)
    }

    /// Whoever leaves early drops what it has made.
    #[test]
    fn a_connection_that_was_not_returned_is_closed() {
        let (ctx, give_up) = Context::background().with_cancel();
        give_up.cancel();
        let check = Check::new();
        assert!(dial_with_a_group(&ctx).is_err());
        check.assert_none(LONG);
    }
}
