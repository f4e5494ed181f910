//! Races: what two or three threads do at the same time, over and over, with real threads; here, and in Go.
//!
//! Of each, what came of it is one line of text. Which lines there may be is written down, from what Go's documentation says.

use std::collections::BTreeMap;
use std::hint;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use purview::{CancelGuard, Context};

use crate::go::Go;
use crate::history::{Action, Answer, STEPS};
use crate::ours::{Ours, Registration};
use crate::program::Op;
use crate::world::{End, World};

/// What is raced. Names of contexts and registrations are those of a [`History`](crate::History).
#[derive(Debug)]
#[non_exhaustive]
pub struct Race {
    /// What it is called.
    pub name: &'static str,
    /// What has been done before.
    pub before: &'static [Op],
    /// What each thread does.
    pub threads: &'static [&'static [Action]],
    /// What may come of it.
    pub allowed: &'static [&'static str],
}

/// What came of it, and how often.
pub type Outcomes = BTreeMap<String, usize>;

type Made = (Context, Option<CancelGuard>);

impl Race {
    /// Outcomes that there may not be.
    pub fn forbidden<'a>(&self, outcomes: &'a Outcomes) -> impl Iterator<Item = &'a String> {
        outcomes.keys().filter(|outcome| !self.allowed.contains(&outcome.as_str()))
    }

    /// In purview, so many times.
    #[must_use]
    pub fn ours(&self, times: usize) -> Outcomes {
        let mut outcomes = Outcomes::new();
        for time in 0..times {
            *outcomes.entry(self.once(time)).or_default() += 1;
        }
        outcomes
    }

    /// In Go, so many times.
    ///
    /// # Errors
    /// When Go's process is gone.
    pub fn theirs(&self, go: &mut Go, times: usize) -> io::Result<Outcomes> {
        let text = |ops: &[String]| ops.join(";");
        let before: Vec<_> = self.before.iter().map(ToString::to_string).collect();
        let mut line = format!("{times}\t{}", text(&before));
        for actions in self.threads {
            let actions: Vec<_> = actions.iter().map(ToString::to_string).collect();
            line = format!("{line}\t{}", text(&actions));
        }
        let counted = |line: &String| {
            let (count, outcome) = line.split_once(' ')?;
            Some((outcome.to_string(), count.parse().ok()?))
        };
        Ok(go.ask(&line)?.iter().filter_map(counted).collect())
    }

    fn once(&self, time: usize) -> String {
        let mut ours = Ours::default();
        for op in self.before {
            match *op {
                Op::Watch(context) => ours.watch(context),
                op => ours.derive(op),
            }
        }
        let registrations = Mutex::new(std::mem::take(&mut ours.registrations));
        let (ours, there) = (&ours, AtomicUsize::new(0));
        let race = |me: usize, actions: &'static [Action]| {
            let mut mine = Thread {
                ours,
                registrations: &registrations,
                me,
                made: Vec::new(),
                watched: Vec::new(),
            };
            there.fetch_add(1, Ordering::AcqRel);
            let mut patience = 0..PATIENCE;
            while there.load(Ordering::Acquire) < self.threads.len() {
                patience.next().map_or_else(thread::yield_now, |_| hint::spin_loop());
            }
            (0..(time >> (2 * me)) % 4 * 64).for_each(|_| hint::spin_loop());
            let answers: Vec<_> =
                actions.iter().enumerate().map(|(step, action)| mine.act(step, *action)).collect();
            (mine, answers)
        };
        let race = &race;
        let threads: Vec<_> = thread::scope(|scope| {
            let all = self.threads.len();
            // Who comes first is another one each time.
            let order = (0..all).map(|it| (it + time) % all);
            let mut threads: Vec<_> =
                order.map(|me| (me, scope.spawn(move || race(me, self.threads[me])))).collect();
            threads.sort_by_key(|(me, _)| *me);
            threads.into_iter().map(|(_, thread)| thread.join().expect("no panic")).collect()
        });
        let answers = threads.iter().flat_map(|(_, answers)| answers).filter_map(told);
        let mut words: Vec<String> = answers.collect();
        let before = ours.contexts.iter().enumerate().skip(1);
        let made = threads.iter().flat_map(|(thread, _)| &thread.made);
        for (name, (context, _)) in before.chain(made.map(|(name, made)| (*name, made))) {
            words.push(format!("{name}={}", state(crate::ours::end(context))));
        }
        let mut ran = ours.ran.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ran.sort_unstable();
        words.extend(ran.iter().map(|registration| format!("ran={registration}")));
        words.join(" ")
    }
}

/// How long a thread that is there waits for the others without giving way to them.
const PATIENCE: u32 = 20_000;

/// One of a race's threads.
struct Thread<'a> {
    ours: &'a Ours,
    registrations: &'a Mutex<Vec<Option<Registration>>>,
    me: usize,
    /// With their names.
    made: Vec<(usize, Made)>,
    watched: Vec<Registration>,
}

impl Thread<'_> {
    fn made(&self, name: usize) -> &Made {
        let own =
            || &self.made.iter().find(|made| made.0 == name).expect("its own, or from before").1;
        self.ours.contexts.get(name).unwrap_or_else(own)
    }

    fn act(&mut self, step: usize, action: Action) -> Answer {
        let name = |before: usize| before + self.me * STEPS + step;
        match action {
            Action::Look(context) => return Answer::Seen(self.ours.seen(&self.made(context).0)),
            Action::Do(Op::End(context, cause)) => {
                self.made(context).1.iter().for_each(|guard| crate::ours::cancel(guard, cause));
            }
            Action::Do(Op::Advance(by)) => self.ours.pass(by),
            Action::Do(Op::Watch(context)) => {
                let before =
                    self.registrations.lock().unwrap_or_else(PoisonError::into_inner).len();
                self.watched.push(self.ours.register(&self.made(context).0, name(before)));
            }
            Action::Do(Op::Stop(registration)) => {
                let mut registrations =
                    self.registrations.lock().unwrap_or_else(PoisonError::into_inner);
                let registration = registrations[registration].take();
                drop(registrations);
                return Answer::Stopped(registration.is_some_and(Registration::stop));
            }
            Action::Do(op) => {
                let made = self.ours.make(op, |name| &self.made(name).0).expect("it derives");
                self.made.push((name(self.ours.contexts.len()), made));
            }
        }
        Answer::Done
    }
}

fn told(answer: &Answer) -> Option<String> {
    match answer {
        Answer::Done => None,
        Answer::Stopped(prevented) => Some(format!("stop={prevented}")),
        Answer::Seen(seen) => Some(format!("saw={}", state(seen.end))),
    }
}

fn state(end: Option<End>) -> String {
    match end {
        None => "live".into(),
        Some(End::Canceled(cause)) => format!("canceled:{cause}"),
        Some(End::DeadlineExceeded(cause)) => format!("exceeded:{cause}"),
    }
}
