//! `/report`: a slow question. Which places have notes close to each other in time?
//!
//! It compares every note of one shard, from 2019 on, with every other, which takes SQLite seconds. Nothing in it
//! waits or pretends: the time is spent in SQLite's virtual machine, and that is where it is stopped.

use std::time::{Duration, Instant};

use purview::Context;
use rusqlite::Connection;
use serde::Serialize;

use crate::failure::{Failure, millis};
use crate::params::Params;
use crate::scope::{Completeness, REQUEST_ID};
use crate::store::Store;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// MATERIALIZED, so that the comparison runs over a plain table in memory; `+` keeps SQLite from
/// building an index that would make it fast.
const PAIRS: &str = "
    WITH note AS MATERIALIZED (
        SELECT rowid AS id, place, day FROM notes_1 WHERE day >= 1461)
    SELECT early.place, count(*)
    FROM note AS early JOIN note AS late
    WHERE +early.place = +late.place AND late.day - early.day BETWEEN 0 AND 1 AND early.id <> late.id
    GROUP BY early.place ORDER BY count(*) DESC";

/// A report that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    /// What it may take.
    pub(crate) timeout: Duration,
}

/// The body of an answer.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    request: Option<u64>,
    took_ms: f64,
    places: Vec<Place>,
}

#[derive(Debug, Serialize)]
struct Place {
    place: String,
    /// Pairs of notes from the same day or the next.
    pairs: u64,
}

impl Report {
    /// Reads the query string. The error is a sentence.
    pub(crate) fn read(pairs: Vec<(String, String)>) -> Result<Self, String> {
        let params = Params::new(pairs, &["timeout_ms"])?;
        Ok(Self { timeout: params.timeout(DEFAULT_TIMEOUT)? })
    }

    /// Computes it, all or nothing.
    pub(crate) async fn run(
        self,
        ctx: &Context,
        store: &Store,
    ) -> Result<(Answer, Completeness), Failure> {
        let started = Instant::now();
        let places = store.query(ctx, "the report", pairs).await?;
        let request = ctx.value(&REQUEST_ID).copied();
        Ok((Answer { request, took_ms: millis(started.elapsed()), places }, Completeness::Full))
    }
}

fn pairs(conn: &Connection) -> rusqlite::Result<Vec<Place>> {
    let mut pairs = conn.prepare(PAIRS)?;
    let place = |row: &rusqlite::Row<'_>| {
        Ok(Place { place: row.get(0)?, pairs: row.get::<_, i64>(1)? as u64 })
    };
    pairs.query_map([], place)?.collect()
}
