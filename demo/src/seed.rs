//! The data: notes from a year of weather, machines and gardens, made here and the same everywhere.
//!
//! A file is either empty or complete. Everything is written in one transaction that ends by
//! setting `user_version`; a Ctrl-C, a crash or a full disk half-way leaves what was there before,
//! and the next start begins again. `application_id` marks the file as ours: another program's
//! database, given by mistake with `--data`, is refused and not touched.
//!
//! The shards are of very uneven size, as real ones are. The slow ranking compares matches with
//! each other, so its time grows with the square of a shard's size: under one deadline the
//! smallest answers within milliseconds while the largest works on for seconds.

use std::path::Path;
use std::time::{Duration, Instant};

use purview::Context;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use crate::words::Writer;

/// The tables, smallest first: each is an FTS5 table of its own.
pub(crate) const SHARDS: [&str; 4] = ["notes_0", "notes_1", "notes_2", "notes_3"];

/// How many of a hundred notes each shard holds.
const SHARE: [u32; 4] = [4, 10, 26, 60];

/// "purv", in the file's header.
const APPLICATION_ID: i32 = 0x7075_7276;

/// Counts up when the tables or the sentences change, so that an older file is refused.
const VERSION: i32 = 1;

/// How long to wait before looking again at a file that another process is seeding.
const BUSY: Duration = Duration::from_millis(50);

/// Notes between two looks at the context: well under a millisecond of work.
const BETWEEN_CHECKS: u32 = 64;

/// A file that is ready to be searched.
#[derive(Debug)]
pub(crate) struct Data {
    /// The notes in all shards together.
    pub(crate) rows: u32,
    /// How long it took to make them, if this start did.
    pub(crate) seeded_in: Option<Duration>,
}

/// Why there is no file to search.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// The context ended first: somebody pressed Ctrl-C.
    Ended(purview::Error),
    /// A sentence for the person who started the service.
    Because(String),
}

impl From<purview::Error> for Unusable {
    fn from(ended: purview::Error) -> Self {
        Self::Ended(ended)
    }
}

/// Makes the file at `path` ready, and fills it with `rows` notes if it is new; calls `announce`
/// before it starts to. Blocks.
pub(crate) fn prepare(
    ctx: &Context,
    path: &Path,
    rows: u32,
    announce: impl Fn(),
) -> Result<Data, Unusable> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|err| {
            Unusable::Because(format!("cannot make the folder {}: {err}", folder.display()))
        })?;
    }
    loop {
        ctx.check()?;
        match attempt(ctx, path, rows, &announce) {
            Err(Trouble::Sqlite(err)) if is_busy(&err) => ctx.sleep_blocking(BUSY)?,
            Err(Trouble::Sqlite(err)) => return Err(Unusable::Because(sentence(path, &err))),
            Err(Trouble::Unusable(why)) => return Err(why),
            Ok(data) => return Ok(data),
        }
    }
}

/// What can go wrong in one attempt: busy is worth another, nothing else is.
enum Trouble {
    Sqlite(rusqlite::Error),
    Unusable(Unusable),
}

impl From<rusqlite::Error> for Trouble {
    fn from(err: rusqlite::Error) -> Self {
        Self::Sqlite(err)
    }
}

impl From<purview::Error> for Trouble {
    fn from(ended: purview::Error) -> Self {
        Self::Unusable(Unusable::Ended(ended))
    }
}

fn attempt(ctx: &Context, path: &Path, rows: u32, announce: &impl Fn()) -> Result<Data, Trouble> {
    let mut conn = Connection::open(path)?;
    conn.busy_timeout(Duration::ZERO)?;
    if let Some(rows) = ready(&conn, path)? {
        return Ok(Data { rows, seeded_in: None });
    }
    // Room for the whole data set: nothing reaches the file, and nobody waits, before the commit.
    conn.pragma_update(None, "cache_size", -128 * 1024)?;
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster, between the look above and the lock just taken.
    if let Some(rows) = ready(&transaction, path)? {
        return Ok(Data { rows, seeded_in: None });
    }
    announce();
    let started = Instant::now();
    fill(ctx, &transaction, rows)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(Data { rows, seeded_in: Some(started.elapsed()) })
}

/// The number of notes in a complete file; `None` for an empty one.
fn ready(conn: &Connection, path: &Path) -> Result<Option<u32>, Trouble> {
    let application: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: u32 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, version) {
        (APPLICATION_ID, VERSION) => {
            // Reads every note's page once, which finds a file that was cut short.
            let mut rows = 0;
            for shard in SHARDS {
                let count = format!("SELECT count(*) FROM {shard}");
                rows += conn.query_row(&count, [], |row| row.get::<_, u32>(0))?;
            }
            Ok(Some(rows))
        }
        (0, 0) if tables == 0 => Ok(None),
        (APPLICATION_ID, _) => Err(Trouble::Unusable(Unusable::Because(format!(
            "{} was made by another version of this demo: delete it, and the next start makes it anew",
            path.display()
        )))),
        _ => Err(Trouble::Unusable(Unusable::Because(format!(
            "{} is another program's SQLite database and was not touched: name another file with --data",
            path.display()
        )))),
    }
}

/// Writes all shards. Ends early, with everything rolled back, when the context does.
fn fill(ctx: &Context, transaction: &Transaction<'_>, rows: u32) -> Result<(), Trouble> {
    let mut writer = Writer::new();
    for (shard, share) in SHARDS.into_iter().zip(SHARE) {
        transaction.execute_batch(&format!(
            "CREATE VIRTUAL TABLE {shard}
             USING fts5(text, place UNINDEXED, day UNINDEXED, tokenize = 'porter')"
        ))?;
        let insert = format!("INSERT INTO {shard} (text, place, day) VALUES (?1, ?2, ?3)");
        let mut insert = transaction.prepare(&insert)?;
        let notes = u64::from(rows) * u64::from(share) / 100;
        for written in 0..notes as u32 {
            if written % BETWEEN_CHECKS == 0 {
                ctx.check()?;
            }
            let note = writer.note();
            insert.execute((note.text, note.place, note.day))?;
        }
    }
    Ok(())
}

fn is_busy(err: &rusqlite::Error) -> bool {
    matches!(err.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn sentence(path: &Path, err: &rusqlite::Error) -> String {
    let path = path.display();
    match err.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            format!("{path} is not an SQLite database: name another file with --data")
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            format!("{path} is damaged: delete it, and the next start makes it anew ({err})")
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            format!("cannot open {path}: is it a file that can be written to? ({err})")
        }
        Some(ErrorCode::ReadOnly) => format!("cannot write to {path}: {err}"),
        Some(ErrorCode::DiskFull) => format!("no room for {path}: {err}"),
        _ => format!("cannot use {path}: {err}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own for each test, gone when the test is.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("purview-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_second_start_finds_what_the_first_one_made() {
        let folder = Folder::new("twice");
        let path = folder.0.join("deep/er/notes.db");
        let ctx = Context::background();
        let first = prepare(&ctx, &path, 1_000, || ()).unwrap();
        assert_eq!((first.rows, first.seeded_in.is_some()), (1_000, true));
        let second = prepare(&ctx, &path, 5_000, || panic!("seeded twice")).unwrap();
        assert_eq!((second.rows, second.seeded_in.is_some()), (1_000, false));
    }

    #[test]
    fn seeding_that_is_stopped_half_way_leaves_nothing_behind() {
        let folder = Folder::new("stopped");
        let path = folder.0.join("notes.db");
        let (ctx, stop) = Context::background().with_cancel();
        let stopped = prepare(&ctx, &path, 100_000, || stop.cancel()).unwrap_err();
        assert!(matches!(stopped, Unusable::Ended(_)), "{stopped:?}");
        let again = prepare(&Context::background(), &path, 1_000, || ()).unwrap();
        assert_eq!((again.rows, again.seeded_in.is_some()), (1_000, true));
    }

    #[test]
    fn another_programs_database_is_refused_and_not_touched() {
        let folder = Folder::new("foreign");
        let path = folder.0.join("theirs.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE precious (x)").unwrap();
        let before = std::fs::read(&path).unwrap();
        let refused = prepare(&Context::background(), &path, 1_000, || ()).unwrap_err();
        assert!(matches!(&refused, Unusable::Because(why) if why.contains("another program")));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn what_is_no_database_or_was_cut_short_gets_a_sentence() {
        let folder = Folder::new("broken");
        let path = folder.0.join("notes.db");
        std::fs::write(&path, "not a database, and longer than a header would be. ".repeat(40))
            .unwrap();
        let ctx = Context::background();
        let refused = prepare(&ctx, &path, 1_000, || ()).unwrap_err();
        assert!(matches!(&refused, Unusable::Because(why) if why.contains("not an SQLite")));

        std::fs::remove_file(&path).unwrap();
        prepare(&ctx, &path, 5_000, || ()).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        let refused = prepare(&ctx, &path, 5_000, || ()).unwrap_err();
        assert!(matches!(&refused, Unusable::Because(why) if why.contains("damaged")));
    }
}
