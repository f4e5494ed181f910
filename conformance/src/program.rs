//! Operations, and their text.

use std::fmt;

/// What is done next. Contexts are numbered as they are made, from 0, the root; registrations likewise. A number of which there is
/// none yet counts from the beginning again, so that every list of operations is a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Op {
    /// A child that can be canceled.
    Cancel(usize),
    /// A child with a deadline, so many microseconds from now, which may be in the past; and its cause, if not 0.
    Deadline(usize, i64, u32),
    /// A child with a value: of a key, the value.
    Value(usize, usize, u32),
    /// A child that does not end with its parent.
    Detach(usize),
    /// A child that ends so many microseconds after its parent. Not in Go.
    Grace(usize, i64),
    /// A child of two. Not in Go.
    Merge(usize, usize),
    /// Cancels a context that can be canceled, with a cause, if not 0.
    End(usize, u32),
    /// The same, by dropping its guard.
    Drop(usize),
    /// Gives up all handles of a context but what was registered or derived from it; it is not canceled by that. Nothing can be done
    /// with it from then on. In Go the garbage collector may do so when it likes: there, nothing is seen of it.
    Release(usize),
    /// Asks all contexts whether they have ended. Without it nobody has asked, and who asks may be who finds out.
    Look,
    /// Lets so many microseconds pass.
    Advance(i64),
    /// Registers a callback.
    Watch(usize),
    /// Takes a callback back.
    Stop(usize),
}

impl Op {
    /// The same, of contexts and registrations that there are. None, where there are none.
    pub(crate) fn among(self, contexts: usize, registrations: usize) -> Option<Op> {
        if registrations == 0 && matches!(self, Op::Stop(_)) {
            return None;
        }
        Some(self.renumbered(|context| context % contexts, |it| it % registrations.max(1)))
    }

    fn renumbered(
        self,
        context: impl Fn(usize) -> usize,
        registration: impl Fn(usize) -> usize,
    ) -> Op {
        match self {
            Op::Cancel(parent) => Op::Cancel(context(parent)),
            Op::Deadline(parent, after, cause) => Op::Deadline(context(parent), after, cause),
            Op::Value(parent, key, value) => Op::Value(context(parent), key, value),
            Op::Detach(parent) => Op::Detach(context(parent)),
            Op::Grace(parent, time) => Op::Grace(context(parent), time),
            Op::Merge(one, other) => Op::Merge(context(one), context(other)),
            Op::End(it, cause) => Op::End(context(it), cause),
            Op::Drop(it) => Op::Drop(context(it)),
            Op::Watch(it) => Op::Watch(context(it)),
            Op::Release(it) => Op::Release(context(it)),
            Op::Look => Op::Look,
            Op::Advance(by) => Op::Advance(by),
            Op::Stop(it) => Op::Stop(registration(it)),
        }
    }

    /// Of an operation that makes a context.
    #[must_use]
    pub fn parent(self) -> Option<usize> {
        match self {
            Op::Cancel(parent)
            | Op::Deadline(parent, ..)
            | Op::Value(parent, ..)
            | Op::Detach(parent)
            | Op::Grace(parent, _)
            | Op::Merge(parent, _) => Some(parent),
            Op::End(..)
            | Op::Drop(_)
            | Op::Watch(_)
            | Op::Release(_)
            | Op::Look
            | Op::Advance(_)
            | Op::Stop(_) => None,
        }
    }

    /// Whether a context that it needs is one of those.
    pub fn needs(self, mut which: impl FnMut(usize) -> bool) -> bool {
        match self {
            Op::Merge(one, other) => which(one) || which(other),
            Op::End(it, _) | Op::Drop(it) | Op::Watch(it) | Op::Release(it) => which(it),
            Op::Look | Op::Advance(_) | Op::Stop(_) => false,
            derives => derives.parent().is_some_and(which),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Op::Cancel(parent) => write!(f, "cancel {parent}"),
            Op::Deadline(parent, after, cause) => write!(f, "deadline {parent} {after} {cause}"),
            Op::Value(parent, key, value) => write!(f, "value {parent} {key} {value}"),
            Op::Detach(parent) => write!(f, "detach {parent}"),
            Op::Grace(parent, time) => write!(f, "grace {parent} {time}"),
            Op::Merge(one, other) => write!(f, "merge {one} {other}"),
            Op::End(context, cause) => write!(f, "end {context} {cause}"),
            Op::Drop(context) => write!(f, "drop {context}"),
            Op::Look => f.write_str("look"),
            Op::Advance(by) => write!(f, "advance {by}"),
            Op::Watch(context) => write!(f, "watch {context}"),
            Op::Release(context) => write!(f, "release {context}"),
            Op::Stop(registration) => write!(f, "stop {registration}"),
        }
    }
}

/// A list of operations.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Program {
    /// In the order in which they are done.
    pub ops: Vec<Op>,
}

impl Program {
    /// Of these operations.
    #[must_use]
    pub fn new(ops: Vec<Op>) -> Program {
        Program { ops }
    }

    /// The same where no time passes, so that it can be told on a clock that nobody moves by hand: no deadline is nearer than hours, unless
    /// it has passed, and there is no grace, which may begin at any moment.
    #[must_use]
    pub fn still(&self) -> Program {
        const HOURS: i64 = 24 * 3_600 * 1_000_000;
        let still = |op: &Op| match *op {
            Op::Deadline(parent, after, cause) if after >= 0 => {
                Op::Deadline(parent, HOURS + after, cause)
            }
            Op::Grace(parent, _) => Op::Cancel(parent),
            Op::Advance(_) => Op::Look,
            op => op,
        };
        Program { ops: self.ops.iter().map(still).collect() }
    }

    /// A shorter program that still `fails`, of which nothing can be left out. That this one does is assumed.
    #[must_use]
    pub fn minimized(&self, mut fails: impl FnMut(&Program) -> bool) -> Program {
        let mut least = self.clone();
        let mut at = least.ops.len();
        while at > 0 {
            at -= 1;
            let fewer = least.without(at);
            if fails(&fewer) {
                least = fewer;
                at = least.ops.len();
            }
        }
        least
    }

    /// Without one operation. What was done to the context that it made is done to that one's parent.
    fn without(&self, at: usize) -> Program {
        let makes = |op: &Op| op.parent().is_some();
        let made = 1 + self.ops[..at].iter().filter(|op| makes(op)).count();
        let parent = self.ops[at].parent();
        let registered = self.ops[..at].iter().filter(|op| matches!(op, Op::Watch(_))).count();
        let is_watch = matches!(self.ops[at], Op::Watch(_));
        let mut ops = self.ops.clone();
        ops.remove(at);
        for op in &mut ops[at..] {
            let context = |it: usize| match parent {
                Some(parent) if it == made => parent,
                Some(_) if it > made => it - 1,
                _ => it,
            };
            let registration = |it: usize| if is_watch && it > registered { it - 1 } else { it };
            *op = op.renumbered(context, registration);
        }
        Program { ops }
    }
}

/// An operation a line.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ops.iter().try_for_each(|op| writeln!(f, "{op}"))
    }
}
