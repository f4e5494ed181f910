//! What runs a program, and what is seen of it.

use std::fmt;

use crate::KEYS;
use crate::program::{Op, Program};

/// How a context ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum End {
    /// By a call, with a cause, if not 0.
    Canceled(u32),
    /// By a deadline, with a cause, if not 0.
    DeadlineExceeded(u32),
}

/// What can be asked of a context.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Seen {
    /// None while it lives.
    pub end: Option<End>,
    /// In microseconds since the beginning.
    pub deadline: Option<i64>,
    /// By key.
    pub values: [Option<u32>; KEYS],
}

impl Seen {
    /// Of what was seen.
    #[must_use]
    pub const fn new(end: Option<End>, deadline: Option<i64>, values: [Option<u32>; KEYS]) -> Seen {
        Seen { end, deadline, values }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            None => f.write_str("live")?,
            Some(End::Canceled(cause)) => write!(f, "canceled {cause}")?,
            Some(End::DeadlineExceeded(cause)) => write!(f, "exceeded {cause}")?,
        }
        match self.deadline {
            None => f.write_str(" -")?,
            Some(at) => write!(f, " {at}")?,
        }
        self.values.iter().try_for_each(|value| match value {
            None => f.write_str(" -"),
            Some(value) => write!(f, " {value}"),
        })
    }
}

/// What a program runs in. The numbers that it is given are those of contexts and registrations that there are.
pub trait World {
    /// Makes a context: one of the operations that do.
    fn derive(&mut self, op: Op);
    /// Cancels; nothing, where the context cannot be canceled.
    fn end(&mut self, context: usize, cause: u32);
    /// Drops the guard, if it is still there.
    fn drop_guard(&mut self, context: usize);
    /// Lets microseconds pass.
    fn advance(&mut self, by: i64);
    /// Registers a callback.
    fn watch(&mut self, context: usize);
    /// Whether this kept it from running.
    fn stop(&mut self, registration: usize) -> bool;
    /// Gives up a context, which is not the root; no number that is given afterwards is its.
    fn release(&mut self, context: usize);
    /// What is to be seen.
    fn look(&self, context: usize) -> Seen;
    /// Which callbacks have run since this was asked last.
    fn take_ran(&mut self) -> Vec<usize>;
}

/// Runs a program: a line for each operation, and one for each context at the end.
pub fn run(program: &Program, world: &mut impl World) -> Vec<String> {
    let (mut contexts, mut registrations) = (1, 0);
    let mut live = vec![true];
    let mut released = vec![false];
    let mut graced = vec![false];
    let mut lines = Vec::with_capacity(program.ops.len() * 2);
    for op in &program.ops {
        let mut line = String::new();
        let op = op.among(contexts, registrations).filter(|op| !op.needs(|it| released[it]));
        match op {
            None | Some(Op::Release(0)) => {}
            Some(Op::End(context, cause)) => world.end(context, cause),
            Some(Op::Drop(context)) => world.drop_guard(context),
            Some(Op::Release(context)) => {
                world.release(context);
                released[context] = true;
                live[context] = false;
            }
            Some(Op::Look) => {
                for (context, live) in live.iter_mut().enumerate() {
                    if *live && world.look(context).end.is_some() {
                        *live = false;
                        line.push_str(&format!(" !{context}"));
                    }
                }
            }
            Some(Op::Advance(by)) => world.advance(by),
            Some(Op::Stop(registration)) => line = world.stop(registration).to_string(),
            Some(Op::Watch(context)) => {
                world.watch(context);
                registrations += 1;
            }
            Some(derives) => {
                world.derive(derives);
                graced.push(match derives {
                    Op::Detach(_) => false,
                    Op::Grace(..) => true,
                    Op::Merge(one, other) => graced[one] || graced[other],
                    _ => derives.parent().is_some_and(|parent| graced[parent]),
                });
                let seen = look(world, contexts, graced[contexts]);
                line = seen.to_string();
                live.push(seen.end.is_none());
                released.push(false);
                contexts += 1;
            }
        }
        let mut ran = world.take_ran();
        ran.sort_unstable(); // Go's come in any order (D3)
        ran.iter().for_each(|registration| line.push_str(&format!(" *{registration}")));
        lines.push(line);
    }
    let left = (0..contexts).filter(|it| !released[*it]);
    lines.extend(left.map(|it| look(world, it, graced[it]).to_string()));
    lines
}

/// What is promised of it: below a grace, a deadline is told while the context lives, and comes nearer when the grace begins. What it is
/// of one that has ended before, nobody says.
fn look(world: &impl World, context: usize, is_graced: bool) -> Seen {
    let seen = world.look(context);
    Seen { deadline: seen.deadline.filter(|_| !is_graced || seen.end.is_none()), ..seen }
}
