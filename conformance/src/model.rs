//! The promises, as plainly as they can be said: a vector of contexts, and loops over it. PROMISES.md has their numbers.

use crate::KEYS;
use crate::program::Op;
use crate::world::{End, Seen, World};

/// What a context is, besides a child.
#[derive(Clone, Debug)]
enum Kind {
    Root,
    Cancel,
    /// At, and with which cause.
    Deadline(i64, u32),
    Value(usize, u32),
    Detached,
    /// How long, and when it runs out, once the parent has ended.
    Grace(i64, Option<i64>),
    Merged,
}

#[derive(Clone, Debug)]
struct Node {
    parents: Vec<usize>,
    kind: Kind,
    end: Option<End>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Registration {
    Waits(usize),
    Over,
}

/// A tree of contexts, without any cleverness.
#[derive(Clone, Debug)]
pub struct Model {
    now: i64,
    nodes: Vec<Node>,
    registrations: Vec<Registration>,
    ran: Vec<usize>,
}

impl Default for Model {
    fn default() -> Self {
        let root = Node { parents: Vec::new(), kind: Kind::Root, end: None };
        Model { now: 0, nodes: vec![root], registrations: Vec::new(), ran: Vec::new() }
    }
}

impl Model {
    fn is_live(&self, context: usize) -> bool {
        self.nodes[context].end.is_none()
    }

    /// C2, C3: the first end counts, and is that of all below.
    fn finish(&mut self, context: usize, end: End) {
        if !self.is_live(context) {
            return;
        }
        self.nodes[context].end = Some(end);
        for (number, registration) in self.registrations.iter_mut().enumerate() {
            if *registration == Registration::Waits(context) {
                *registration = Registration::Over;
                self.ran.push(number);
            }
        }
        for child in 0..self.nodes.len() {
            if self.nodes[child].parents.contains(&context) {
                self.follow(child, end);
            }
        }
    }

    /// A parent has ended.
    fn follow(&mut self, child: usize, end: End) {
        if !self.is_live(child) {
            return;
        }
        let now = self.now;
        match &mut self.nodes[child].kind {
            Kind::Detached => {}                                         // C26
            Kind::Grace(time, over @ None) => *over = Some(now + *time), // C27
            Kind::Grace(..) => {}
            _ => self.finish(child, end),
        }
    }

    /// When a context ends by itself, and how.
    fn due(&self, context: usize) -> Option<(i64, End)> {
        let node = &self.nodes[context];
        match node.kind {
            Kind::Deadline(at, cause) => Some((at, End::DeadlineExceeded(cause))),
            Kind::Grace(_, Some(at)) => Some((at, self.nodes[node.parents[0]].end?)), // C27
            _ => None,
        }
    }

    /// Ends all that is due by `until`, in the order of time; of what is due at once, the elder first (C19).
    fn finish_what_is_due(&mut self, until: i64) {
        loop {
            let live = (0..self.nodes.len()).filter(|&context| self.is_live(context));
            let due = live.filter_map(|context| {
                let (at, end) = self.due(context)?;
                (at <= until).then_some((at, context, end))
            });
            let Some((at, context, end)) = due.min_by_key(|&(at, context, _)| (at, context)) else {
                return;
            };
            self.now = self.now.max(at);
            self.finish(context, end);
        }
    }

    /// C15: the earliest of a context's own and its ancestors'.
    fn deadline(&self, context: usize) -> Option<i64> {
        let node = &self.nodes[context];
        let above = node.parents.iter().filter_map(|&parent| self.deadline(parent)).min();
        match node.kind {
            Kind::Detached => None,
            Kind::Deadline(at, _) => above.into_iter().chain([at]).min(),
            Kind::Grace(time, over) => over.or(above.map(|at| at + time)),
            _ => above,
        }
    }

    /// C23: the nearest, of the first parent that has one.
    fn value(&self, context: usize, key: usize) -> Option<u32> {
        let node = &self.nodes[context];
        match node.kind {
            Kind::Value(own, value) if own == key => Some(value),
            _ => node.parents.iter().find_map(|&parent| self.value(parent, key)),
        }
    }
}

impl World for Model {
    fn derive(&mut self, op: Op) {
        let (parents, kind) = match op {
            Op::Cancel(parent) => (vec![parent], Kind::Cancel),
            Op::Deadline(parent, after, cause) => {
                (vec![parent], Kind::Deadline(self.now + after, cause))
            }
            Op::Value(parent, key, value) => (vec![parent], Kind::Value(key % KEYS, value)),
            Op::Detach(parent) => (vec![parent], Kind::Detached),
            Op::Grace(parent, time) => (vec![parent], Kind::Grace(time, None)),
            Op::Merge(one, other) => (vec![one, other], Kind::Merged),
            _ => return,
        };
        let child = self.nodes.len();
        let ended = parents.iter().find_map(|&parent| self.nodes[parent].end); // C28: the first in the list
        self.nodes.push(Node { parents, kind, end: None });
        if let Some(end) = ended {
            self.follow(child, end); // C4
        }
        self.finish_what_is_due(self.now); // C16
    }

    fn end(&mut self, context: usize, cause: u32) {
        if !matches!(self.nodes[context].kind, Kind::Root | Kind::Value(..) | Kind::Detached) {
            self.finish(context, End::Canceled(cause));
            self.finish_what_is_due(self.now);
        }
    }

    fn drop_guard(&mut self, context: usize) {
        self.end(context, 0); // C11
    }

    fn advance(&mut self, by: i64) {
        let now = self.now + by;
        self.finish_what_is_due(now);
        self.now = now;
    }

    fn watch(&mut self, context: usize) {
        if self.is_live(context) {
            self.registrations.push(Registration::Waits(context));
        } else {
            self.ran.push(self.registrations.len());
            self.registrations.push(Registration::Over);
        }
    }

    fn stop(&mut self, registration: usize) -> bool {
        let before = std::mem::replace(&mut self.registrations[registration], Registration::Over);
        before != Registration::Over
    }

    fn look(&self, context: usize) -> Seen {
        Seen {
            end: self.nodes[context].end,
            deadline: self.deadline(context),
            values: std::array::from_fn::<_, KEYS, _>(|key| self.value(context, key)),
        }
    }

    fn take_ran(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.ran)
    }
}
