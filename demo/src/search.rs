//! `/search`: the same question to every shard at once, under one deadline.
//!
//! What the shards found in time is the answer. If some are missing, it says which and why, and
//! calls itself partial; if all are, the request has timed out.
//!
//! `slow=1` asks for an order that is honest work: matches from busy weeks first. Each match is
//! compared with every other in its shard, so a common word takes the largest shard many seconds.

use std::time::{Duration, Instant};

use purview::Context;
use purview_tokio::TaskGroup;
use rusqlite::{Connection, Row};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::failure::{Explanation, Failure, millis};
use crate::params::Params;
use crate::scope::{Completeness, REQUEST_ID};
use crate::seed::SHARDS;
use crate::stats::Stats;
use crate::store::Store;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest query text, in characters.
const LONGEST: usize = 200;
/// Notes in an answer.
const MOST: usize = 10;

/// A search that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    q: String,
    slow: bool,
    /// What it may take.
    pub(crate) timeout: Duration,
}

/// The body of an answer.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    request: Option<u64>,
    q: String,
    took_ms: f64,
    partial: bool,
    /// Matches in the shards that answered.
    matches: u32,
    answered: Vec<usize>,
    missing: Vec<Missing>,
    /// The best of them.
    notes: Vec<Note>,
}

/// A shard that had no answer when the answer was due.
#[derive(Debug, Serialize)]
struct Missing {
    shard: usize,
    #[serde(flatten)]
    why: Explanation,
}

/// What one shard found.
#[derive(Debug)]
struct Found {
    matches: u32,
    notes: Vec<Note>,
}

#[derive(Debug, Serialize)]
struct Note {
    shard: usize,
    id: i64,
    written: String,
    place: String,
    text: String,
    /// FTS5's bm25: the lower, the better.
    score: f64,
    /// With `slow=1`: matches of the same shard from the weeks around it.
    alike: u32,
}

impl Search {
    /// Reads the query string. The error is a sentence.
    pub(crate) fn read(pairs: Vec<(String, String)>) -> Result<Self, String> {
        let params = Params::new(pairs, &["q", "timeout_ms", "slow"])?;
        let q = params.get("q").ok_or("q is missing: say what to search for, as in ?q=storm")?;
        if q.trim().is_empty() {
            return Err("q is empty: say what to search for, as in ?q=storm".to_owned());
        }
        if q.chars().count() > LONGEST {
            return Err(format!("q is too long: at most {LONGEST} characters"));
        }
        let slow = match params.get("slow") {
            None | Some("0") => false,
            Some("1") => true,
            Some(other) => return Err(format!("slow={other}: 0 or 1, please")),
        };
        Ok(Self { q: q.to_owned(), slow, timeout: params.timeout(DEFAULT_TIMEOUT)? })
    }

    /// Asks every shard, and answers when all are done or the context is. The first that says that the question is none
    /// stops the others.
    pub(crate) async fn run(
        self,
        ctx: &Context,
        store: &Store,
        stats: &Stats,
    ) -> Result<(Answer, Completeness), Failure> {
        let started = Instant::now();
        let shards: TaskGroup<Failure> = TaskGroup::builder(ctx).name("shards").build();
        stats.watch(shards.watch());
        let (send, mut results) = mpsc::channel(SHARDS.len());
        for (shard, table) in SHARDS.into_iter().enumerate() {
            let (store, search, send) = (store.clone(), self.clone(), send.clone());
            shards.spawn_named(table, async move |ctx: Context| {
                let look = move |conn: &Connection| search.in_shard(conn, shard);
                let found = match store.query(&ctx, table, look).await {
                    Err(Failure::Sqlite(err)) if is_syntax(&err) => return Err(not_a_query(&err)),
                    found => found,
                };
                let _ = send.send((shard, found)).await; // whoever asked may be gone
                Ok(())
            });
        }
        drop(send);

        let mut answered = Vec::new();
        let mut missing = Vec::new();
        let mut matches = 0;
        let mut notes = Vec::new();
        while let Some((shard, found)) = results.recv().await {
            match found {
                Ok(found) => {
                    answered.push(shard);
                    matches += found.matches;
                    notes.extend(found.notes);
                }
                Err(failure) => missing.push((shard, failure)),
            }
        }
        if let Err(err) = shards.join().await {
            // A shard that was not even begun is missing because the request has ended.
            let ended = err.ended().cloned().map(Failure::Ended);
            let failed = err.failures().first().map(Failure::of_task);
            if let Some(failure) = failed.or(ended.filter(|_| answered.is_empty())) {
                return Err(failure);
            }
        }
        if answered.is_empty() {
            if let Some((_, failure)) = missing.into_iter().next() {
                return Err(failure);
            }
            return Err(Failure::Broken("there are no shards".to_owned()));
        }

        answered.sort_unstable();
        missing.sort_unstable_by_key(|(shard, _)| *shard);
        notes.sort_by(|a: &Note, b: &Note| b.alike.cmp(&a.alike).then(a.score.total_cmp(&b.score)));
        notes.truncate(MOST);
        let partial = !missing.is_empty();
        let missing = missing.into_iter();
        let answer = Answer {
            request: ctx.value(&REQUEST_ID).copied(),
            q: self.q,
            took_ms: millis(started.elapsed()),
            partial,
            matches,
            answered,
            missing: missing.map(|(shard, why)| Missing { shard, why: why.explain(ctx) }).collect(),
            notes,
        };
        Ok((answer, if partial { Completeness::Partial } else { Completeness::Full }))
    }

    fn in_shard(&self, conn: &Connection, shard: usize) -> rusqlite::Result<Found> {
        let table = SHARDS[shard];
        let count = format!("SELECT count(*) FROM {table} WHERE {table} MATCH ?1");
        let matches = conn.query_row(&count, [&self.q], |row| row.get(0))?;

        // MATERIALIZED: without it, SQLite would search again for every comparison.
        let (alike, order) = if self.slow {
            let others = "(SELECT count(*) FROM hit AS other WHERE abs(other.day - hit.day) <= 7)";
            (others, "alike DESC, score")
        } else {
            ("0", "score")
        };
        let best = format!(
            "WITH hit AS MATERIALIZED (
                 SELECT rowid AS id, day, place, text, rank AS score
                 FROM {table} WHERE {table} MATCH ?1)
             SELECT id, date('2015-01-01', day || ' days'), place, text, score, {alike} AS alike
             FROM hit ORDER BY {order} LIMIT {MOST}"
        );
        let note = |row: &Row<'_>| {
            Ok(Note {
                shard,
                id: row.get(0)?,
                written: row.get(1)?,
                place: row.get(2)?,
                text: row.get(3)?,
                score: row.get(4)?,
                alike: row.get(5)?,
            })
        };
        let mut best = conn.prepare(&best)?;
        let notes = best.query_map([&self.q], note)?.collect::<Result<_, _>>()?;
        Ok(Found { matches, notes })
    }
}

/// `MATCH` complains about its right side with SQLite's plainest error. The statements around it
/// are ours and the tables were looked at when the service started, so nothing else here can.
fn is_syntax(err: &rusqlite::Error) -> bool {
    err.sqlite_error().is_some_and(|err| err.extended_code == rusqlite::ffi::SQLITE_ERROR)
}

fn not_a_query(err: &rusqlite::Error) -> Failure {
    Failure::Refused(format!(
        "q is not a full-text query ({err}): try a word, \"words in quotes\", or storm AND pump"
    ))
}
