//! What an instance holds, second by second: from outside, in `/proc`, and from its own books, at `/stats`.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::http::{Connection, get};
use super::instance::Door;
use super::load::{Load, OUTCOMES};

const EVERY: Duration = Duration::from_secs(1);

/// What is looked at, in the order of a sample.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantity {
    Memory,
    Descriptors,
    Threads,
    Contexts,
    Tasks,
    Timers,
}

/// With their units.
pub(crate) const QUANTITIES: [(Quantity, &str); 6] = [
    (Quantity::Memory, "memory (RSS), MiB"),
    (Quantity::Descriptors, "file descriptors"),
    (Quantity::Threads, "threads"),
    (Quantity::Contexts, "contexts"),
    (Quantity::Tasks, "tasks"),
    (Quantity::Timers, "timers"),
];

#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// Seconds from the begin.
    pub(crate) at: f64,
    /// Which rest it was taken in, counted from one; zero under load.
    pub(crate) rest: usize,
    pub(crate) values: [f64; QUANTITIES.len()],
}

/// What is written down.
pub(crate) struct Records {
    pub(crate) begin: Instant,
    /// The rest that samples are taken in now.
    pub(crate) rest: AtomicUsize,
    pub(crate) is_over: AtomicBool,
    /// For each instance.
    samples: [Mutex<Vec<Sample>>; 2],
    /// When, and how many requests had ended how by then.
    requests: Mutex<Vec<(f64, [u64; OUTCOMES.len()])>>,
}

impl Records {
    pub(crate) fn new() -> Records {
        Records {
            begin: Instant::now(),
            rest: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            samples: Default::default(),
            requests: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    pub(crate) fn samples(&self, instance: usize) -> Vec<Sample> {
        self.samples[instance].lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn requests(&self) -> Vec<(f64, [u64; OUTCOMES.len()])> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks every second, until it is over.
    pub(crate) fn keep(&self, doors: &[Arc<Door>; 2], load: &Load) {
        for look in 1.. {
            let requests = (self.now(), load.counts());
            self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(requests);
            for (door, samples) in doors.iter().zip(&self.samples) {
                let (turn, rest) = (door.turn(), self.rest.load(Ordering::SeqCst));
                let at = self.now();
                let values = look_at(door);
                if !door.has_served_since(turn) {
                    continue; // on its way down or up
                }
                match values {
                    // A rest that ended meanwhile was none.
                    Ok(values) if rest == self.rest.load(Ordering::SeqCst) => {
                        let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
                        samples.push(Sample { at, rest, values });
                    }
                    Ok(_) => {}
                    Err(err) => {
                        load.complain(format!("the {} serves, and not /stats: {err}", door.name))
                    }
                }
            }
            while self.begin.elapsed() < EVERY * look {
                if self.is_over.load(Ordering::SeqCst) {
                    return;
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn look_at(door: &Door) -> io::Result<[f64; QUANTITIES.len()]> {
    let process = format!("/proc/{}", door.id.load(Ordering::SeqCst));
    let status = fs::read_to_string(format!("{process}/status"))?;
    let of_status = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).ok_or_else(odd)
    };
    let descriptors = fs::read_dir(format!("{process}/fd"))?.count();
    // A connection of its own, which says that it is the last: nothing of it is there at the next look.
    let mut connection = Connection::open(door.address)?;
    connection.write(&get("/stats", "Connection: close\r\n"))?;
    let stats = connection.answer()?.body;
    let of_stats = |part: &str, name: &str| number(&stats, part, name).ok_or_else(odd);
    Ok([
        of_status("VmRSS:")? / 1024.0,
        descriptors as f64,
        of_status("Threads:")?,
        of_stats("alive", "contexts")?,
        of_stats("tasks", "running")? + of_stats("tasks", "canceled")?,
        of_stats("alive", "timers")?,
    ])
}

/// From JSON that is laid out for people: the first of that name behind the part's.
fn number(stats: &str, part: &str, name: &str) -> Option<f64> {
    let (_, rest) = stats.split_once(&format!("\"{part}\": {{"))?;
    let (_, rest) = rest.split_once(&format!("\"{name}\": "))?;
    rest.split([',', '\n', '}']).next()?.trim().parse().ok()
}

fn odd() -> io::Error {
    io::Error::other("a number is missing")
}
