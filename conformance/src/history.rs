//! Histories: what several threads do with one small tree at the same time.

use std::fmt;

use crate::generate::Numbers;
use crate::program::Op;
use crate::world::Seen;

/// How many threads a history has.
pub const THREADS: usize = 3;
/// How much each of them does.
pub const STEPS: usize = 3;

/// What a thread does next. Contexts and registrations have names, which are numbers: those that are there before, as they are made, and
/// then, thread by thread, one for each step, whether it makes something or not. A deadline is an instant here: it does not matter
/// how late it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Action {
    /// An operation.
    Do(Op),
    /// Asks a context all there is to ask.
    Look(usize),
}

/// What a thread is told of its action.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Answer {
    /// That it is done.
    Done,
    /// Whether the callback was kept from running.
    Stopped(bool),
    /// What there is to be seen.
    Seen(Seen),
}

/// What happened next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A thread began with its next action.
    Begins(usize),
    /// And is told.
    Returns(usize, Answer),
    /// A callback was called.
    Ran(usize),
}

/// What each of the threads does, and with what they begin.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct History {
    /// Whether there are deadlines, and a clock that is moved on by hand.
    pub is_timed: bool,
    /// What has been done before. Context 0 is the root.
    pub before: Vec<Op>,
    /// What the threads do.
    pub threads: [Vec<Action>; THREADS],
}

impl History {
    /// How many contexts there are in the beginning.
    #[must_use]
    pub fn contexts(&self) -> usize {
        1 + self.before.iter().filter(|op| op.parent().is_some()).count()
    }

    /// How many registrations there are in the beginning.
    #[must_use]
    pub fn registrations(&self) -> usize {
        self.before.iter().filter(|op| matches!(op, Op::Watch(_))).count()
    }

    /// The name of what a thread makes in a step, where there were so many `before`.
    #[must_use]
    pub fn name(before: usize, thread: usize, step: usize) -> usize {
        before + thread * STEPS + step
    }

    /// One at random. Every registration is taken back once at the most. The clock is moved by the first thread alone: of two that move it at
    /// the same time, one may return while the other is still at a deadline. No two deadlines are at the same instant, and none
    /// at one to which the clock is set.
    #[must_use]
    pub fn generate(numbers: &mut Numbers<'_>) -> History {
        let mut history = History { is_timed: numbers.below(2) == 0, ..History::default() };
        let mut instants = 0;
        for _ in 0..2 + numbers.below(3) {
            let contexts = history.contexts();
            let op = history.derive(numbers, &|numbers| numbers.index(contexts), &mut instants);
            history.before.push(op);
        }
        for _ in 0..numbers.below(3) {
            history.before.push(Op::Watch(numbers.index(history.contexts())));
        }
        let (contexts, registrations) = (history.contexts(), history.registrations());
        let mut to_stop: Vec<usize> = (0..registrations).collect();
        // One in four begins with two cancels of one context, mostly a leaf: what is rare by chance.
        let contested = (numbers.below(4) == 0).then_some(contexts - 1);
        for thread in 0..THREADS {
            let mut known: Vec<usize> = (0..contexts).collect();
            let mut own = Vec::new();
            for step in 0..STEPS {
                let among = known.clone();
                let context = move |numbers: &mut Numbers<'_>| among[numbers.index(among.len())];
                let stop = |numbers: &mut Numbers<'_>, from: &mut Vec<usize>| {
                    (!from.is_empty()).then(|| from.swap_remove(numbers.index(from.len())))
                };
                // Without a cause as often as with one: that takes a quicker path.
                let cause =
                    |numbers: &mut Numbers<'_>| (numbers.below(18) as u32).saturating_sub(8);
                let action = match numbers.below(20) {
                    _ if step == 0 && thread > 0 && contested.is_some() => {
                        Action::Do(Op::End(contested.unwrap_or(0), cause(numbers)))
                    }
                    0..=4 => Action::Do(Op::End(context(numbers), cause(numbers))),
                    5..=8 => Action::Look(context(numbers)),
                    9..=11 => Action::Do(Op::Watch(context(numbers))),
                    12 | 13 if history.is_timed && thread == 0 => {
                        Action::Do(Op::Advance((1 + numbers.below(10) as i64) * MILLISECOND))
                    }
                    14 => stop(numbers, &mut to_stop)
                        .map_or(Action::Look(context(numbers)), |it| Action::Do(Op::Stop(it))),
                    15 => stop(numbers, &mut own)
                        .map_or(Action::Look(context(numbers)), |it| Action::Do(Op::Stop(it))),
                    _ => Action::Do(history.derive(numbers, &context, &mut instants)),
                };
                match action {
                    Action::Do(Op::Watch(_)) => {
                        own.push(History::name(registrations, thread, step))
                    }
                    Action::Do(op) if op.parent().is_some() => {
                        known.push(History::name(contexts, thread, step));
                    }
                    _ => {}
                }
                history.threads[thread].push(action);
            }
        }
        history
    }

    /// The events, a line each.
    #[must_use]
    pub fn tell(&self, events: &[Event]) -> String {
        let mut steps = [0; THREADS];
        let mut text = String::new();
        for event in events {
            text += &match *event {
                Event::Begins(thread) => {
                    format!("{thread}: {} ...\n", self.threads[thread][steps[thread]])
                }
                Event::Returns(thread, answer) => {
                    steps[thread] += 1;
                    format!(
                        "{thread}: ... {}\n",
                        match answer {
                            Answer::Done => "done".to_string(),
                            Answer::Stopped(prevented) => prevented.to_string(),
                            Answer::Seen(seen) => seen.to_string(),
                        }
                    )
                }
                Event::Ran(registration) => format!("callback {registration}\n"),
            };
        }
        text
    }

    /// An operation that makes a context.
    fn derive(
        &self,
        numbers: &mut Numbers<'_>,
        context: &dyn Fn(&mut Numbers<'_>) -> usize,
        instants: &mut i64,
    ) -> Op {
        *instants += 1;
        let parent = context(numbers);
        match numbers.below(12) {
            0 => Op::Value(parent, numbers.index(crate::KEYS), numbers.below(100) as u32),
            1 => Op::Detach(parent),
            2..=5 if self.is_timed => {
                let at = (numbers.below(24) as i64 - 2) * MILLISECOND + *instants;
                Op::Deadline(parent, at, numbers.below(9) as u32)
            }
            _ => Op::Cancel(parent),
        }
    }
}

const MILLISECOND: i64 = 1_000;

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Do(op) => op.fmt(f),
            Action::Look(context) => write!(f, "look {context}"),
        }
    }
}

/// A line of what was before, and one for each thread; with the names of what it makes.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = if self.is_timed { "on a manual clock" } else { "without a clock" };
        write!(f, "{clock}, before:")?;
        self.before.iter().try_for_each(|op| write!(f, " {op};"))?;
        for (thread, actions) in self.threads.iter().enumerate() {
            write!(f, "\nthread {thread}:")?;
            for (step, action) in actions.iter().enumerate() {
                write!(f, " {action}")?;
                match action {
                    Action::Do(Op::Watch(_)) => {
                        write!(f, " = *{}", History::name(self.registrations(), thread, step))?;
                    }
                    Action::Do(op) if op.parent().is_some() => {
                        write!(f, " = {}", History::name(self.contexts(), thread, step))?;
                    }
                    _ => {}
                }
                write!(f, ";")?;
            }
        }
        writeln!(f)
    }
}
