//! The promises, as plainly as they can be said: a vector of contexts, and loops over it. PROMISES.md has their numbers.

use crate::KEYS;
use crate::program::Op;
use crate::world::{End, Seen, World};

/// What a context is, besides a child.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
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

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Node {
    parents: Vec<usize>,
    kind: Kind,
    end: Option<End>,
}

impl Node {
    fn is_detached(&self) -> bool {
        matches!(self.kind, Kind::Detached)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Registration {
    Waits(usize),
    Over,
}

/// Who has to hear of an end.
#[derive(Default)]
pub(crate) struct Marked {
    pub(crate) children: Vec<usize>,
    /// Their callbacks are to be called.
    pub(crate) registrations: Vec<usize>,
}

/// A tree of contexts, without any cleverness.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Model {
    pub(crate) now: i64,
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
    pub(crate) fn is_live(&self, context: usize) -> bool {
        self.nodes[context].end.is_none()
    }

    /// C2, C3: the first end counts, and is that of all below.
    fn finish(&mut self, context: usize, end: End) {
        let Marked { children, registrations } = self.mark(context, end);
        self.ran.extend(registrations);
        children.into_iter().for_each(|child| self.follow(child, end));
    }

    /// The same of one context, and whom that concerns; nobody, if it has ended.
    pub(crate) fn mark(&mut self, context: usize, end: End) -> Marked {
        let mut marked = Marked::default();
        if !self.is_live(context) {
            return marked;
        }
        self.nodes[context].end = Some(end);
        for (number, registration) in self.registrations.iter_mut().enumerate() {
            if *registration == Registration::Waits(context) {
                *registration = Registration::Over;
                marked.registrations.push(number);
            }
        }
        let hears = |node: &Node| node.parents.contains(&context) && !node.is_detached();
        marked.children.extend((0..self.nodes.len()).filter(|&it| hears(&self.nodes[it])));
        marked
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

    /// Whether somebody has a way to cancel it.
    pub(crate) fn can_be_canceled(&self, context: usize) -> bool {
        !matches!(self.nodes[context].kind, Kind::Root | Kind::Value(..) | Kind::Detached)
    }

    /// What ends with it.
    pub(crate) fn is_at_or_below(&self, context: usize, top: usize) -> bool {
        let node = &self.nodes[context];
        let above = || node.parents.iter().any(|&parent| self.is_at_or_below(parent, top));
        context == top || (!node.is_detached() && above())
    }

    /// How a parent has ended, with which it has to end.
    pub(crate) fn end_above(&self, context: usize) -> Option<End> {
        let node = &self.nodes[context];
        let parents = node.parents.iter().filter(|_| !node.is_detached());
        parents.into_iter().find_map(|&parent| self.nodes[parent].end)
    }

    /// Of what lives, what is due first: at which time, which context, and with which end; of what is due at once, the elder (C19).
    pub(crate) fn first_due(&self) -> Option<(i64, usize, End)> {
        let live = (0..self.nodes.len()).filter(|&context| self.is_live(context));
        let due = live.filter_map(|context| {
            let (at, end) = self.due(context)?;
            Some((at, context, end))
        });
        due.min_by_key(|&(at, context, _)| (at, context))
    }

    /// When a context ends by itself, and how.
    pub(crate) fn due(&self, context: usize) -> Option<(i64, End)> {
        let node = &self.nodes[context];
        match node.kind {
            Kind::Deadline(at, cause) => Some((at, End::DeadlineExceeded(cause))),
            Kind::Grace(_, Some(at)) => Some((at, self.nodes[node.parents[0]].end?)), // C27
            _ => None,
        }
    }

    /// Ends all that is due by `until`, in the order of time.
    fn finish_what_is_due(&mut self, until: i64) {
        while let Some((at, context, end)) = self.first_due().filter(|&(at, ..)| at <= until) {
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

impl Model {
    /// Makes a context, which is done if its parent is: one of the operations that do. None, of another.
    pub(crate) fn add(&mut self, op: Op) -> Option<usize> {
        let (parents, kind) = match op {
            Op::Cancel(parent) => (vec![parent], Kind::Cancel),
            Op::Deadline(parent, after, cause) => {
                (vec![parent], Kind::Deadline(self.now + after, cause))
            }
            Op::Value(parent, key, value) => (vec![parent], Kind::Value(key % KEYS, value)),
            Op::Detach(parent) => (vec![parent], Kind::Detached),
            Op::Grace(parent, time) => (vec![parent], Kind::Grace(time, None)),
            Op::Merge(one, other) => (vec![one, other], Kind::Merged),
            _ => return None,
        };
        let child = self.nodes.len();
        let ended = parents.iter().find_map(|&parent| self.nodes[parent].end); // C28: the first in the list
        self.nodes.push(Node { parents, kind, end: None });
        if let Some(end) = ended {
            self.follow(child, end); // C4
        }
        Some(child)
    }
}

impl World for Model {
    fn derive(&mut self, op: Op) {
        self.add(op);
        self.finish_what_is_due(self.now); // C16
    }

    fn end(&mut self, context: usize, cause: u32) {
        if self.can_be_canceled(context) {
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

    fn release(&mut self, _: usize) {} // C13: who registered something has it still, and so has what is below

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
