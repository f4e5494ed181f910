//! `cargo xtask soak`: the demo under load, for minutes or hours, and what it holds meanwhile.
//!
//! Two instances run: clients ask both, and the front one asks the other in its turn. Load and rest alternate; in the middle
//! of each load the upstream is told to stop, every other time once and every other time twice, and is started again. The
//! front one lives throughout, so that what it forgets adds up; at the end it is told to stop under load.
//!
//! It fails where there is an answer that must not be, none where there must be one, where an instance dies or does not go
//! in its time, and where what it holds is not flat (judge.rs). It is run on Linux: that is where `/proc` is.

mod http;
mod instance;
mod judge;
mod load;
mod plot;
mod report;
mod sample;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::{built, found};
use crate::{Outcome, number};
use instance::{DRAIN, Door, Instance, Place};
use load::{CLIENTS, Load};
use plot::Mark;
use report::{Report, Stop};
use sample::Records;

/// Before a rest is looked at: for the last queries to stop, and whoever is gone to be noticed.
const SETTLE: Duration = Duration::from_secs(1);
/// For as long it is looked at: three samples.
const REST: Duration = Duration::from_millis(3_200);
/// From a first signal to the second.
const AGAIN: Duration = Duration::from_millis(150);
/// When clients told to rest have a request under way for as long, it will have no answer.
const LAST: Duration = Duration::from_secs(30);
/// With what an instance leaves that was told twice: what a shell expects of SIGTERM.
const TERMINATED: i32 = 128 + 15;

pub(crate) fn run(root: &Path, args: &[&str]) -> Outcome {
    if !cfg!(target_os = "linux") {
        println!("skipped: what a process holds is looked up in /proc, which is Linux's");
        return Ok(());
    }
    let seconds = match args {
        [] => 300,
        ["--minutes", n] => number(n)? * 60,
        ["--seconds", n] => number(n)?,
        _ => return Err("cargo xtask soak [--minutes N | --seconds N]".into()),
    };
    let program = found(&built("purview-demo")?, "purview-demo")?;
    let folder = root.join("target/soak");
    fs::create_dir_all(&folder).map_err(|err| format!("{}: {err}", folder.display()))?;

    let doors = [Door::new("front", 0)?, Door::new("upstream", 1)?].map(Arc::new);
    let place = |door: &Arc<Door>, upstream: Option<SocketAddr>| Place {
        program: program.clone(),
        data: folder.join("notes.db"),
        upstream,
        door: Arc::clone(door),
    };
    let [front, behind] = [place(&doors[0], Some(doors[1].address)), place(&doors[1], None)];
    // One after the other: the first one may have to make the data. On this thread: it is the one that they die with.
    let upstream = Instance::start(&behind)?;
    let front = Instance::start(&front)?;
    println!("front: {}, upstream: {}", doors[0].address, doors[1].address);

    let (load, records) = (Load::at_rest(), Records::new());
    let mut story = Story { load: &load, records: &records, marks: Vec::new(), stops: Vec::new() };
    let told = thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (load, doors) = (&load, &doors);
            scope.spawn(move || load::client(number, load, doors));
        }
        scope.spawn(|| records.keep(&doors, &load));
        let told = story.tell(front, upstream, &behind, Duration::from_secs(seconds.into()));
        load.is_over.store(true, Ordering::SeqCst);
        records.is_over.store(true, Ordering::SeqCst);
        told
    });
    let mut complaints: Vec<String> = told.err().into_iter().collect();
    complaints.append(&mut load.complaints.lock().unwrap_or_else(PoisonError::into_inner));
    let Story { marks, stops, .. } = story;
    let report = Report::new(&records, &load, marks, stops, complaints);
    let file = folder.join("report.html");
    fs::write(&file, report.html()).map_err(|err| format!("{}: {err}", file.display()))?;
    print!("{}", report.text());
    println!("{}", file.display());
    report.verdict()
}

/// What happens, in its order, and what came of it.
struct Story<'a> {
    load: &'a Load,
    records: &'a Records,
    marks: Vec<Mark>,
    stops: Vec<Stop>,
}

impl Story<'_> {
    /// What breaks it off is a sentence.
    fn tell(
        &mut self,
        mut front: Instance,
        mut upstream: Instance,
        behind: &Place,
        time: Duration,
    ) -> Outcome {
        let end = Instant::now() + time;
        let working = (time / 16).clamp(Duration::from_secs(4), Duration::from_secs(20));
        self.rest(1, &mut [&mut front, &mut upstream])?;
        for round in 1.. {
            self.work(working / 2, &mut [&mut front, &mut upstream])?;
            let again = (round % 2 == 0).then_some(AGAIN);
            self.stop(upstream, again)?;
            upstream = Instance::start(behind)?;
            self.work(working / 2, &mut [&mut front, &mut upstream])?;
            self.rest(round + 1, &mut [&mut front, &mut upstream])?;
            if Instant::now() + working + SETTLE + REST > end {
                break;
            }
        }
        self.work(working / 4, &mut [&mut front, &mut upstream])?;
        self.stop(front, None)?;
        self.load.rests.store(true, Ordering::SeqCst);
        self.stop(upstream, None)
    }

    fn work(&mut self, time: Duration, instances: &mut [&mut Instance]) -> Outcome {
        self.load.rests.store(false, Ordering::SeqCst);
        watch_for(time, instances)
    }

    fn rest(&mut self, number: usize, instances: &mut [&mut Instance]) -> Outcome {
        let from = self.records.now();
        self.load.rests.store(true, Ordering::SeqCst);
        let begin = Instant::now();
        while self.load.busy.load(Ordering::SeqCst) > 0 {
            watch_for(Duration::from_millis(20), instances)?;
            if begin.elapsed() > LAST {
                return Err("a request has neither an answer nor an end".into());
            }
        }
        watch_for(SETTLE, instances)?;
        self.records.rest.store(number, Ordering::SeqCst);
        watch_for(REST, instances)?;
        self.records.rest.store(0, Ordering::SeqCst);
        self.marks.push(Mark::Span(from, self.records.now()));
        Ok(())
    }

    /// Told once, it drains and leaves with 0; told twice, it leaves at once and says so, unless it was done before.
    fn stop(&mut self, instance: Instance, again: Option<Duration>) -> Outcome {
        let (at, name) = (self.records.now(), instance.name());
        let (took, code) = instance.stop(again)?;
        self.marks.push(Mark::At(at));
        let forced = code == TERMINATED && again.is_some();
        if code != 0 && !forced {
            return Err(format!("the {name} was told to stop, and left with {code}"));
        }
        if took > DRAIN {
            return Err(format!("the {name} took {took:?} to stop, of {DRAIN:?}"));
        }
        self.stops.push(Stop { forced, took });
        Ok(())
    }
}

/// Waits, and sees that all are alive.
fn watch_for(time: Duration, instances: &mut [&mut Instance]) -> Outcome {
    let begin = Instant::now();
    loop {
        for instance in &mut *instances {
            instance.is_alive()?;
        }
        let left = time.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(50)));
    }
}
