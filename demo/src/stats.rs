//! The service's books: what `/stats` shows, and what the last lines at shutdown are made of.
//!
//! One mutex over plain numbers, so that a reader gets one consistent picture: a request is either
//! in flight or counted under exactly one ending, a query either running or counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use purview::{Context, GroupWatch, TaskState};
use serde::Serialize;

use crate::census::{self, Census};
use crate::failure::millis;
use crate::refresher::Overview;
use crate::scope::REQUEST_ID;

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// With a full answer.
    Completed,
    /// With the part that was there in time.
    Partial,
    /// With 504: nothing was there in time.
    TimedOut,
    /// With 400.
    Refused,
    /// With 500.
    Failed,
    /// Without an answer: the client went away.
    HungUp,
    /// With 503: the grace after a signal was over.
    ShutDown,
}

/// How a query ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum QueryEnding {
    /// With rows, or none.
    Finished,
    /// With an error of SQLite's.
    Failed,
    /// Stopped because its context ended, this long after it had.
    Interrupted(Duration),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Stats(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    last_request: u64,
    last_query: u64,
    in_flight: BTreeMap<u64, Work>,
    running: BTreeMap<u64, Work>,
    requests: Requests,
    sqlite: Queries,
    overview: Option<Overview>,
    refreshes: u64,
    groups: Vec<GroupWatch>,
}

/// Something that has begun and not ended.
#[derive(Debug)]
struct Work {
    what: String,
    since: Instant,
}

/// Requests by how they ended.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Requests {
    /// Begun and not ended.
    pub(crate) in_flight: usize,
    /// With a full answer.
    completed: u64,
    partial: u64,
    timed_out: u64,
    refused: u64,
    failed: u64,
    /// Whose client went away.
    canceled_by_client: u64,
    canceled_by_shutdown: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Queries {
    running: usize,
    finished: u64,
    failed: u64,
    interrupted: u64,
    /// From the instant a context ended to the instant its query had stopped.
    last_stop_ms: Option<f64>,
    slowest_stop_ms: Option<f64>,
}

/// The body of `/stats`.
#[derive(Debug, Serialize)]
pub(crate) struct Picture {
    requests: Requests,
    sqlite: Queries,
    /// What is under way, by name and age.
    now: Vec<String>,
    tasks: Tasks,
    refresher: Refresher,
    /// In the whole process.
    alive: Census,
    /// What hangs on some of them.
    contexts: BTreeMap<&'static str, Node>,
}

/// The tasks of all groups, by state.
#[derive(Debug, Default, Serialize)]
struct Tasks {
    running: usize,
    /// Told to stop, and not stopped yet.
    canceled: usize,
    /// By their group's name.
    groups: BTreeMap<&'static str, Vec<String>>,
}

impl Tasks {
    fn of(groups: &[GroupWatch]) -> Self {
        let mut all = Self::default();
        for group in groups {
            for task in group.tasks() {
                match task.state() {
                    TaskState::Running => all.running += 1,
                    _ => all.canceled += 1,
                }
                let name = group.name().unwrap_or("unnamed");
                all.groups.entry(name).or_default().push(task.to_string());
            }
        }
        all
    }
}

#[derive(Debug, Serialize)]
struct Refresher {
    runs: u64,
    overview: Option<Overview>,
}

#[derive(Debug, Serialize)]
struct Node {
    children: usize,
    waiters: usize,
    callbacks: usize,
}

impl Stats {
    /// Enters a request and gives it its number.
    pub(crate) fn request_began(&self, path: &str) -> u64 {
        let mut books = self.books();
        books.last_request += 1;
        let id = books.last_request;
        let work = Work { what: format!("request {id} /{path}"), since: Instant::now() };
        books.in_flight.insert(id, work);
        id
    }

    /// Moves a request from those in flight to those that ended.
    pub(crate) fn request_ended(&self, id: u64, ending: Ending) {
        let mut books = self.books();
        books.in_flight.remove(&id);
        let requests = &mut books.requests;
        *match ending {
            Ending::Completed => &mut requests.completed,
            Ending::Partial => &mut requests.partial,
            Ending::TimedOut => &mut requests.timed_out,
            Ending::Refused => &mut requests.refused,
            Ending::Failed => &mut requests.failed,
            Ending::HungUp => &mut requests.canceled_by_client,
            Ending::ShutDown => &mut requests.canceled_by_shutdown,
        } += 1;
    }

    /// Counts a request that was refused before it began.
    pub(crate) fn request_refused(&self) {
        self.books().requests.refused += 1;
    }

    /// Enters a query, under the number of the request that its context belongs to.
    pub(crate) fn query_began(self: &Arc<Self>, ctx: &Context, what: &str) -> Query {
        let mut books = self.books();
        books.last_query += 1;
        let id = books.last_query;
        let what = match ctx.value(&REQUEST_ID) {
            Some(request) => format!("{what} for request {request}"),
            None => what.to_owned(),
        };
        books.running.insert(id, Work { what, since: Instant::now() });
        Query { id, ending: QueryEnding::Failed, stats: Arc::clone(self) }
    }

    /// Stores what the refresher found.
    pub(crate) fn refreshed(&self, overview: Overview) {
        let mut books = self.books();
        books.refreshes += 1;
        books.overview = Some(overview);
    }

    /// How many requests ended how, so far.
    pub(crate) fn requests(&self) -> Requests {
        self.books().requests()
    }

    /// Requests and queries under way, by name and age.
    pub(crate) fn under_way(&self) -> Vec<String> {
        self.books().under_way()
    }

    /// Shows the tasks of a group, for as long as it has some.
    pub(crate) fn watch(&self, group: GroupWatch) {
        let mut books = self.books();
        books.groups.retain(|group| !group.is_over());
        books.groups.push(group);
    }

    /// Everything, for `/stats`; `contexts` are shown with what hangs on them.
    pub(crate) fn picture(&self, contexts: [&Context; 2]) -> Picture {
        let groups = self.books().groups.clone();
        let tasks = Tasks::of(&groups);
        let books = self.books();
        Picture {
            tasks,
            requests: books.requests(),
            sqlite: Queries { running: books.running.len(), ..books.sqlite },
            now: books.under_way(),
            refresher: Refresher { runs: books.refreshes, overview: books.overview.clone() },
            alive: census::now(),
            contexts: contexts
                .into_iter()
                .map(|ctx| {
                    let counts = ctx.statistics();
                    let node = Node {
                        children: counts.children(),
                        waiters: counts.waiters(),
                        callbacks: counts.callbacks(),
                    };
                    (ctx.name().unwrap_or("unnamed"), node)
                })
                .collect(),
        }
    }

    /// The books are numbers that are right after every statement: a panic spoils nothing.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn requests(&self) -> Requests {
        Requests { in_flight: self.in_flight.len(), ..self.requests }
    }

    fn under_way(&self) -> Vec<String> {
        self.in_flight.values().chain(self.running.values()).map(Work::describe).collect()
    }
}

impl Work {
    fn describe(&self) -> String {
        format!("{}, {:.1} s", self.what, self.since.elapsed().as_secs_f64())
    }
}

/// A running query's entry. Dropped without an ending, by a panic, it counts as failed.
#[derive(Debug)]
pub(crate) struct Query {
    id: u64,
    ending: QueryEnding,
    stats: Arc<Stats>,
}

impl Query {
    /// Moves the query from those running to those that ended.
    pub(crate) fn ended(mut self, ending: QueryEnding) {
        self.ending = ending;
    }
}

impl Drop for Query {
    fn drop(&mut self) {
        let mut books = self.stats.books();
        books.running.remove(&self.id);
        let sqlite = &mut books.sqlite;
        match self.ending {
            QueryEnding::Finished => sqlite.finished += 1,
            QueryEnding::Failed => sqlite.failed += 1,
            QueryEnding::Interrupted(late) => {
                let late = millis(late);
                sqlite.interrupted += 1;
                sqlite.last_stop_ms = Some(late);
                sqlite.slowest_stop_ms = Some(sqlite.slowest_stop_ms.unwrap_or(0.0).max(late));
            }
        }
    }
}
