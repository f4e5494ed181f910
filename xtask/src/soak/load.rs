//! The clients: a few threads, each of which asks, waits, gives up or vanishes as its dice say, until it is told to rest.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::http::{Answer, Connection, get};
use super::instance::Door;

pub(crate) const CLIENTS: u32 = 6;

/// What became of a request, and how it is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    /// A search that some shards were too late for.
    Partial,
    Late,
    /// By us: the question was none.
    Refused,
    Stopping,
    /// The client did not wait for an answer.
    Vanished,
    /// Nobody listened, or the connection was cut: only where an instance was on its way down or up.
    Nobody,
}

pub(crate) const OUTCOMES: [(Outcome, &str); 7] = [
    (Outcome::Answered, "200"),
    (Outcome::Partial, "200, partial"),
    (Outcome::Late, "504, its time was up"),
    (Outcome::Refused, "400, a bad question"),
    (Outcome::Stopping, "503, shutting down"),
    (Outcome::Vanished, "the client vanished"),
    (Outcome::Nobody, "nobody there, in a restart"),
];

/// What the clients share with those who watch them.
#[derive(Default)]
pub(crate) struct Load {
    pub(crate) counts: [AtomicU64; OUTCOMES.len()],
    /// How long after its deadline a 504 came, in milliseconds.
    pub(crate) late: Mutex<Vec<f64>>,
    /// What must not be.
    pub(crate) complaints: Mutex<Vec<String>>,
    pub(crate) rests: AtomicBool,
    pub(crate) is_over: AtomicBool,
    /// Clients that have a request under way, or a connection.
    pub(crate) busy: AtomicU32,
}

impl Load {
    pub(crate) fn at_rest() -> Load {
        Load { rests: AtomicBool::new(true), ..Load::default() }
    }

    pub(crate) fn counts(&self) -> [u64; OUTCOMES.len()] {
        self.counts.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    pub(crate) fn complain(&self, complaint: String) {
        let mut all = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < 20 {
            all.push(complaint);
        }
    }

    fn count(&self, outcome: Outcome) {
        self.counts[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// A client's life. Its dice fall the same in every run.
pub(crate) fn client(number: u32, load: &Load, doors: &[Arc<Door>; 2]) {
    let mut client =
        Client { dice: Dice(0x9e37_79b9_7f4a_7c15 + u64::from(number)), kept: None, load };
    while !load.is_over.load(Ordering::SeqCst) {
        if load.rests.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(20));
            continue;
        }
        load.busy.fetch_add(1, Ordering::SeqCst);
        while !load.rests.load(Ordering::SeqCst) && !load.is_over.load(Ordering::SeqCst) {
            let door = &doors[usize::from(client.dice.chance(35))];
            client.visit(door);
            thread::sleep(Duration::from_millis(client.dice.below(25)));
        }
        client.kept = None;
        load.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Client<'a> {
    dice: Dice,
    /// A connection that may be asked again: to whom, and since which turn.
    kept: Option<(Connection, Arc<Door>, u32)>,
    load: &'a Load,
}

impl Client<'_> {
    fn visit(&mut self, door: &Arc<Door>) {
        let turn = door.turn();
        let outcome = if self.dice.chance(30) { self.vanish(door) } else { self.ask(door, turn) };
        match outcome {
            Ok(Outcome::Stopping) if door.has_served_since(turn) => {
                self.load.complain(format!("the {} serves, and answers 503", door.name));
            }
            Ok(outcome) => self.load.count(outcome),
            Err(_) if !door.has_served_since(turn) => {
                self.load.count(Outcome::Nobody);
                thread::sleep(Duration::from_millis(20));
            }
            Err(err) => {
                let what = match err.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => "does not answer".into(),
                    _ => format!("serves, and a request got no answer: {err}"),
                };
                self.load.complain(format!("the {} {what}", door.name));
            }
        }
    }

    /// Waits for an answer, and looks whether it is one that there may be.
    fn ask(&mut self, door: &Arc<Door>, turn: u32) -> io::Result<Outcome> {
        let (path, deadline) = self.question();
        let mut header = String::new();
        if let Some(deadline) = deadline.filter(|_| self.dice.chance(40)) {
            header = format!("x-request-timeout: {:.3}\r\n", deadline.as_secs_f64());
        }
        let half_closes = self.dice.chance(5);
        let mut connection = match self.kept.take() {
            Some((connection, whose, since)) if Arc::ptr_eq(&whose, door) && since == turn => {
                connection
            }
            _ => Connection::open(door.address)?,
        };
        let begin = Instant::now();
        connection.write(&get(&path, &header))?;
        if half_closes {
            connection.half_close()?;
        }
        let answer = connection.answer()?;
        let outcome = self.judge(door, &path, &answer);
        if let (Outcome::Late, Some(deadline)) = (outcome, deadline) {
            let late = begin.elapsed().as_secs_f64() - deadline.as_secs_f64();
            self.load.late.lock().unwrap_or_else(PoisonError::into_inner).push(late * 1_000.0);
        }
        if !half_closes && !connection.is_closing() && self.dice.chance(80) {
            self.kept = Some((connection, Arc::clone(door), turn));
        }
        Ok(outcome)
    }

    fn judge(&self, door: &Door, path: &str, Answer { status, body }: &Answer) -> Outcome {
        match status {
            200 if body.contains("\"partial\": true") => Outcome::Partial,
            200 => Outcome::Answered,
            400 => Outcome::Refused,
            503 => Outcome::Stopping,
            504 => Outcome::Late,
            _ => {
                self.load
                    .complain(format!("the {} answers {path} with {status}: {body}", door.name));
                Outcome::Answered
            }
        }
    }

    /// Leaves at some point. That a connection is dropped on bytes that nobody has read resets it.
    fn vanish(&mut self, door: &Door) -> io::Result<Outcome> {
        let mut connection = Connection::open(door.address)?;
        // Whatever time they have: it is that they are gone which is to end them.
        let long = *self.dice.one_of(&[
            "/report?timeout_ms=60000",
            "/search?q=storm&slow=1&timeout_ms=60000",
            "/search?q=pump&slow=1&timeout_ms=60000",
        ]);
        match self.dice.below(10) {
            0 => {}
            1 | 2 => {
                let request = get(long, "");
                let part = self.dice.below(request.len() as u64 - 1) as usize;
                connection.write(&request[..part])?;
            }
            3..=5 => {
                connection.write(&get(long, ""))?;
                thread::sleep(Duration::from_millis(self.dice.below(60)));
            }
            6 => {
                // What is not read yet lies before the end that says that it is gone.
                connection.write(&(get(long, "") + &get("/trace", "")))?;
                thread::sleep(Duration::from_millis(self.dice.below(60)));
            }
            7 => {
                connection.write(&get(long, ""))?;
                connection.half_close()?;
                thread::sleep(Duration::from_millis(self.dice.below(60)));
            }
            _ => {
                let path = self.dice.one_of(&["/", "/search?q=rain", "/trace", "/stats"]);
                connection.write(&get(path, ""))?;
                connection.taste(1 + self.dice.below(40) as usize)?;
            }
        }
        Ok(Outcome::Vanished)
    }

    /// Something to ask, and how much time it says that there is.
    fn question(&mut self) -> (String, Option<Duration>) {
        let word = *self.dice.one_of(&["storm", "pump", "rain", "garden", "valve AND pressure"]);
        let word = word.replace(' ', "%20");
        let (path, most) = match self.dice.below(100) {
            0..45 => (format!("/search?q={word}&"), 1_000),
            45..57 => (format!("/search?q={word}&slow=1&"), 400),
            57..65 => ("/report?".into(), 600),
            // Longer than a shutdown waits for.
            65..67 => return ("/report?timeout_ms=4000".into(), Some(Duration::from_secs(4))),
            67..90 => ("/trace?".into(), 1_000),
            90..95 => return ("/".into(), None),
            _ => return ("/search?q=%22unclosed".into(), None),
        };
        // Of every size: as many below 30 ms as above.
        let millis = (most as f64).powf(self.dice.below(1_000) as f64 / 1_000.0).max(1.0) as u64;
        (format!("{path}timeout_ms={millis}"), Some(Duration::from_millis(millis)))
    }
}

/// A small xorshift.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // Its low bits of a first few throws are alike for seeds that are.
        (self.0 >> 20) % end
    }

    fn chance(&mut self, of_a_hundred: u64) -> bool {
        self.below(100) < of_a_hundred
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }
}
