//! SQLite under a context: a bounded pool of connections, and queries that stop when told.
//!
//! A query runs on one of tokio's blocking threads, where no future can be dropped to stop it: it
//! has to look for itself. SQLite calls a progress handler every [`OPS`] instructions of its
//! virtual machine, and ours asks the context, which is one atomic load. An ended context thus
//! stops its query within microseconds, with the rows thrown away and the connection clean.
//!
//! It is tempting to register `ctx.on_done(move |_| handle.interrupt())` with SQLite's interrupt
//! handle instead. But an interrupt only reaches statements that are running at that instant: one
//! that comes after the last check and before the first step is lost, and the query runs to its
//! end. A handler that looks has no such window, and it cannot hit the connection's next user: it
//! is removed before the connection goes back.
//!
//! Waiting is bounded by the context too: for a free connection as for the query's end.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use purview::Context;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::failure::Failure;
use crate::stats::{QueryEnding, Stats};

/// Queries at a time: two full searches.
const CONNECTIONS: usize = 8;

/// Instructions between two looks at the context: some ten microseconds, of which the look is
/// a few nanoseconds.
const OPS: i32 = 1_000;

/// A cheap handle on the one pool.
#[derive(Clone, Debug)]
pub(crate) struct Store(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    path: PathBuf,
    /// A permit for each connection that may be open: whoever holds one finds an idle connection
    /// or opens one.
    room: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
    stats: Arc<Stats>,
}

impl Store {
    /// A pool over a file that has been seeded. Opens nothing yet.
    pub(crate) fn new(path: PathBuf, stats: Arc<Stats>) -> Self {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        Self(Arc::new(Pool { path, room, idle: Mutex::default(), stats }))
    }

    /// Runs `work` on a connection of its own, and interrupts it when `ctx` ends. Returns when the
    /// query has stopped, not before; `what` names it in `/stats`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future doesn't stop a query that has begun: end its context.
    pub(crate) async fn query<T: Send + 'static>(
        &self,
        ctx: &Context,
        what: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let room = ctx.run(Arc::clone(&self.0.room).acquire_owned()).await?;
        let room = room.map_err(|closed| Failure::Broken(closed.to_string()))?;
        let pool = Arc::clone(&self.0);
        let ctx = ctx.clone();
        let query = spawn_blocking(move || {
            let answer = pool.query(&ctx, what, work);
            drop(room); // only now: the connection is back
            answer
        });
        query.await.unwrap_or_else(|panic| Err(Failure::Broken(panic.to_string())))
    }
}

impl Pool {
    fn query<T>(
        &self,
        ctx: &Context,
        what: &str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Failure> {
        ctx.check()?; // ended while it waited for a thread: SQLite never starts
        let mut conn = self.take()?;
        let watched = ctx.clone();
        conn.progress_handler(OPS, Some(move || watched.is_done()))?;

        let entry = self.stats.query_began(ctx, what);
        let answer = work(&conn);
        let (answer, ending) = match (answer, ctx.err()) {
            // An answer that came in time is an answer, even if the end came right behind it.
            (Ok(rows), _) => (Ok(rows), QueryEnding::Finished),
            (Err(err), Some(ended)) if is_interrupt(&err) => {
                let late = ended.origin().at().elapsed();
                (Err(Failure::Ended(ended)), QueryEnding::Interrupted(late))
            }
            (Err(err), _) => (Err(err.into()), QueryEnding::Failed),
        };
        entry.ended(ending);

        conn.progress_handler(0, None::<fn() -> bool>)?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
        answer
    }

    fn take(&self) -> rusqlite::Result<Connection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        idle.map_or_else(|| Connection::open_with_flags(&self.path, flags), Ok)
    }
}

fn is_interrupt(err: &rusqlite::Error) -> bool {
    err.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
}
