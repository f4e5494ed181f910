//! The background refresher: an overview of all shards, made anew every few seconds for as long as
//! the server's context lives. Told to stop, it stops in the middle of a query like any request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use purview::Context;
use rusqlite::Connection;
use serde::Serialize;

use crate::failure::{Failure, millis};
use crate::seed::SHARDS;
use crate::stats::Stats;
use crate::store::Store;

const EVERY: Duration = Duration::from_secs(5);
/// One refresh may take this long; then it waits for its next turn.
const BUDGET: Duration = Duration::from_secs(3);

/// What it finds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Overview {
    notes: u64,
    places: BTreeMap<String, u64>,
    took_ms: f64,
}

/// Refreshes until `ctx` ends, and returns why it did.
pub(crate) async fn run(ctx: Context, store: Store, stats: Arc<Stats>) -> purview::Error {
    loop {
        match refresh(&ctx, &store).await {
            Ok(overview) => stats.refreshed(overview),
            // Too late this time, or shutting down: the sleep below knows which.
            Err(Failure::Ended(_)) => {}
            Err(failure) => crate::complain(&format!("the refresher: {failure:?}")),
        }
        if let Err(stopped) = ctx.sleep(EVERY).await {
            return stopped;
        }
    }
}

async fn refresh(ctx: &Context, store: &Store) -> Result<Overview, Failure> {
    let (ctx, _guard) = ctx.derive().name("refresh").timeout(BUDGET).build();
    let started = Instant::now();
    let places = store.query(&ctx, "the refresher", count).await?;
    let notes = places.values().sum();
    Ok(Overview { notes, places, took_ms: millis(started.elapsed()) })
}

fn count(conn: &Connection) -> rusqlite::Result<BTreeMap<String, u64>> {
    let mut places = BTreeMap::new();
    for shard in SHARDS {
        let mut count =
            conn.prepare(&format!("SELECT place, count(*) FROM {shard} GROUP BY place"))?;
        let mut rows = count.query([])?;
        while let Some(row) = rows.next()? {
            *places.entry(row.get(0)?).or_default() += row.get::<_, i64>(1)? as u64;
        }
    }
    Ok(places)
}
