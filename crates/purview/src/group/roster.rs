//! Who is in a group (or holds a phase of a shutdown): threads, and futures that have come to an await. In parts, each with a lock, so that the threads on which
//! tasks run seldom meet. A task that never waits is not even written down.

use std::borrow::Cow;
use std::panic::Location;
use std::time::Duration;

use super::info::{StopTimes, TaskInfo, TaskKind};
use crate::clock::Tick;
use crate::order::thread_number;
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, lock};

/// A power of two.
const PARTS: usize = 8;

pub(crate) struct Roster([Part; PARTS]);

/// In cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
struct Part {
    rows: Mutex<Rows>,
    /// Tasks that came to their end by themselves.
    finished: AtomicUsize,
    /// Tasks that were given a ticket.
    taken: AtomicUsize,
}

#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    /// The first of the free rows, which are chained.
    free: Option<u32>,
    stop_times: Option<Box<StopTimes>>,
}

enum Row {
    Free(Option<u32>),
    Taken(Record),
}

/// A task that is there.
pub(crate) struct Record {
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) kind: TaskKind,
    pub(crate) begun: Tick,
}

impl Record {
    pub(crate) fn info(&self, now: Tick, told: Option<Tick>) -> TaskInfo {
        let late = if self.begun == Tick::NEVER { None } else { Some(self.begun) }; // begun after it was told
        TaskInfo {
            name: self.name.clone(),
            location: self.location,
            kind: self.kind,
            age: now.since(self.begun),
            told: told.map(|told| now.since(late.map_or(told, |begun| told.max(begun)))),
        }
    }
}

/// Where a record is.
#[derive(Clone, Copy)]
pub(crate) struct Seat {
    part: u32,
    row: u32,
}

impl Roster {
    pub(crate) fn new() -> Roster {
        Roster(std::array::from_fn(|_| Part::default()))
    }

    fn part(&self, number: usize) -> MutexGuard<'_, Rows> {
        lock(&self.0[number % PARTS].rows)
    }

    pub(crate) fn enter(&self, record: Record) -> Seat {
        let part = thread_number() % PARTS;
        let mut rows = self.part(part);
        let row = match rows.free {
            Some(row) => {
                let place = &mut rows.rows[row as usize];
                if let Row::Free(next) = std::mem::replace(place, Row::Taken(record)) {
                    rows.free = next;
                }
                row
            }
            None => {
                rows.rows.push(Row::Taken(record));
                (rows.rows.len() - 1) as u32
            }
        };
        Seat { part: part as u32, row }
    }

    /// Gives the record back.
    pub(crate) fn leave(&self, seat: Seat) -> Option<Record> {
        let mut rows = self.part(seat.part as usize);
        let next = rows.free;
        let place = rows.rows.get_mut(seat.row as usize)?;
        let Row::Taken(record) = std::mem::replace(place, Row::Free(next)) else { return None };
        rows.free = Some(seat.row);
        Some(record)
    }

    pub(crate) fn note_stop(&self, after: Duration) {
        let mut rows = self.part(thread_number());
        rows.stop_times.get_or_insert_with(|| Box::new(StopTimes::NONE)).add(after);
    }

    pub(crate) fn count_finished(&self) {
        self.0[thread_number() % PARTS].finished.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_taken(&self) {
        self.0[thread_number() % PARTS].taken.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Record)) {
        for part in 0..PARTS {
            for row in &self.part(part).rows {
                if let Row::Taken(record) = row {
                    visit(record);
                }
            }
        }
    }

    pub(crate) fn finished(&self) -> usize {
        self.0.iter().map(|part| part.finished.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn taken(&self) -> usize {
        self.0.iter().map(|part| part.taken.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn stop_times(&self) -> StopTimes {
        let mut all = StopTimes::NONE;
        for part in 0..PARTS {
            if let Some(times) = &self.part(part).stop_times {
                for (sum, one) in all.buckets.iter_mut().zip(times.buckets) {
                    *sum += one;
                }
            }
        }
        all
    }
}
