//! What is left, as a tree.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::panic::Location;
use std::time::Duration;

use crate::{Context, ContextId, Error, TaskInfo};

/// Lines of a report; the rest is counted.
const LINES: usize = 64;

/// What a context is called and where it comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    name: Option<&'static str>,
    location: &'static Location<'static>,
}

impl Origin {
    pub(super) fn of(ctx: &Context) -> Origin {
        Origin { name: ctx.name(), location: ctx.location() }
    }

    /// Of the context above, unless that is a root.
    pub(super) fn above(ctx: &Context) -> Option<Origin> {
        let above = ctx.as_ref().head().parent()?;
        above.parent()?;
        Some(Origin { name: above.scope().name(), location: above.place })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name.unwrap_or("context"), self.location)
    }
}

/// A context that is still there. Told by [`Leaks::contexts`].
#[derive(Clone)]
pub struct LeakedContext {
    pub(super) id: ContextId,
    pub(super) parent: ContextId,
    pub(super) outside: Option<Origin>,
    pub(super) what: Origin,
    pub(super) age: Duration,
    pub(super) ended: Option<Error>,
}

impl LeakedContext {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> ContextId {
        self.id
    }

    /// That of the context it was derived from.
    #[must_use]
    pub fn parent(&self) -> ContextId {
        self.parent
    }

    /// Its name, if it was given one.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        self.what.name
    }

    /// Where it was derived.
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        self.what.location
    }

    /// The time since it was derived, by the system's clock.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.age
    }

    /// Its end, if it has come: then it is somebody who holds it that does not.
    #[must_use]
    pub fn err(&self) -> Option<&Error> {
        self.ended.as_ref()
    }

    /// Whether the two would be told alike.
    fn is_like(&self, other: &LeakedContext) -> bool {
        self.what == other.what && self.ended.is_some() == other.ended.is_some()
    }
}

impl fmt::Display for LeakedContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:.3?} old, ", self.what, self.age)?;
        match &self.ended {
            None => f.write_str("live"),
            Some(error) => write!(f, "{error}, but held"),
        }
    }
}

impl fmt::Debug for LeakedContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is left of what was born after a [`Check`](super::Check), by where it was born. It is displayed as a tree.
///
/// ```
/// use purview::{Context, leak};
/// let check = leak::Check::new();
/// let (ctx, guard) = Context::background().derive().name("job").build();
/// guard.cancel_with("enough");
/// let leaks = check.leaks();
/// println!("{leaks}"); // 1 context is left: job (src/main.rs:3:46), 1.000ms old, context canceled: enough, but held
/// assert!(leaks.contexts()[0].err().is_some());
/// ```
#[derive(Clone)]
pub struct Leaks {
    /// In the order of derivation.
    contexts: Vec<LeakedContext>,
    /// With the contexts of their groups.
    tasks: Vec<(ContextId, TaskInfo)>,
}

impl Leaks {
    pub(super) fn new(contexts: Vec<LeakedContext>, tasks: Vec<(ContextId, TaskInfo)>) -> Leaks {
        Leaks { contexts, tasks }
    }

    /// The contexts of which there are handles, in the order in which they were derived.
    #[must_use]
    pub fn contexts(&self) -> &[LeakedContext] {
        &self.contexts
    }

    /// The tasks that have not ended, of groups that were made after the check.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskInfo> {
        self.tasks.iter().map(|(_, task)| task)
    }

    /// Whether nothing is left. Where there is a task, there is its group's context.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.contexts.is_empty()
    }

    pub(super) fn into_result(self) -> Result<(), Leaks> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }

    /// What hangs on which context; those that hang on none that is left itself, on none, and there together with what is
    /// below the same.
    fn tree(&self) -> BTreeMap<Option<ContextId>, Vec<Item<'_>>> {
        let mut tree: BTreeMap<_, Vec<Item<'_>>> = BTreeMap::new();
        for context in &self.contexts {
            let listed = self.contexts.binary_search_by_key(&context.parent, |it| it.id).is_ok();
            let parent = listed.then_some(context.parent);
            tree.entry(parent).or_default().push(Item::Context(context));
        }
        for (ctx, task) in &self.tasks {
            tree.entry(Some(*ctx)).or_default().push(Item::Task(task));
        }
        if let Some(roots) = tree.get_mut(&None) {
            let mut order = HashMap::new();
            for root in roots.iter() {
                let next = order.len();
                order.entry(root.outside()).or_insert(next);
            }
            roots.sort_by_key(|root| order.get(&root.outside()).copied());
        }
        tree
    }
}

/// A line of the tree.
#[derive(Clone, Copy)]
enum Item<'a> {
    Context(&'a LeakedContext),
    Task(&'a TaskInfo),
}

impl Item<'_> {
    /// What it is below, of those that are not listed.
    fn outside(self) -> Option<ContextId> {
        match self {
            Item::Context(context) => context.outside.as_ref().map(|_| context.parent),
            Item::Task(_) => None,
        }
    }

    fn id(self) -> Option<ContextId> {
        match self {
            Item::Context(context) => Some(context.id),
            Item::Task(_) => None,
        }
    }

    fn is_like(self, other: Item<'_>) -> bool {
        match (self, other) {
            (Item::Context(one), Item::Context(other)) => one.is_like(other),
            (Item::Task(one), Item::Task(other)) => {
                (one.name(), one.location(), one.state())
                    == (other.name(), other.location(), other.state())
            }
            _ => false,
        }
    }
}

impl fmt::Display for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Context(context) => fmt::Display::fmt(context, f),
            Item::Task(task) => fmt::Display::fmt(task, f),
        }
    }
}

impl fmt::Display for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (contexts, tasks) = (self.contexts.len(), self.tasks.len());
        if contexts == 0 {
            return f.write_str("nothing is left");
        }
        let is_one = contexts + tasks == 1;
        write!(f, "{contexts} context{}", if contexts == 1 { "" } else { "s" })?;
        if tasks > 0 {
            write!(f, " and {tasks} task{}", if tasks == 1 { "" } else { "s" })?;
        }
        f.write_str(if is_one { " is left:" } else { " are left:" })?;

        let tree = self.tree();
        let mut told = 0;
        let mut lines = 0;
        let mut above = None;
        // What is yet to be told, the next one last: with what is before its branch, and whether it is the last of its parent's.
        let mut stack = Vec::new();
        push_alike(&tree, None, "", &mut stack);
        while let Some(Line { item, more, prefix, is_last, is_root }) = stack.pop() {
            if lines == LINES {
                write!(f, "\n… and {} more", contexts + tasks - told)?;
                break;
            }
            if let (true, Item::Context(context)) = (is_root, item) {
                if item.outside() != above {
                    above = item.outside();
                    match context.outside {
                        Some(outside) => write!(f, "\nbelow {outside}, which is not listed:")?,
                        None => f.write_str("\nbelow nothing else:")?,
                    }
                }
            }
            let branch = match (is_root, is_last) {
                (true, _) => "",
                (false, true) => "└─ ",
                (false, false) => "├─ ",
            };
            write!(f, "\n{prefix}{branch}{item}")?;
            if more > 0 {
                write!(f, "; and {more} more like it")?;
            }
            lines += 1;
            told += 1 + more;
            if let Some(id) = item.id() {
                let indent = match (is_root, is_last) {
                    (true, _) => "",
                    (false, true) => "   ",
                    (false, false) => "│  ",
                };
                push_alike(&tree, Some(id), &format!("{prefix}{indent}"), &mut stack);
            }
        }
        Ok(())
    }
}

struct Line<'a> {
    item: Item<'a>,
    /// As many that hang on the same, and are like it.
    more: usize,
    prefix: String,
    is_last: bool,
    is_root: bool,
}

/// Puts what hangs on `parent` on the stack, the first on top; those on which nothing hangs and that are alike, as one.
fn push_alike<'a>(
    tree: &BTreeMap<Option<ContextId>, Vec<Item<'a>>>,
    parent: Option<ContextId>,
    prefix: &str,
    stack: &mut Vec<Line<'a>>,
) {
    let Some(items) = tree.get(&parent) else { return };
    let mut lines: Vec<(Item<'a>, usize)> = Vec::new();
    for &item in items {
        let is_leaf = item.id().is_none_or(|id| !tree.contains_key(&Some(id)));
        let alike = lines.iter_mut().filter(|_| is_leaf).find(|(other, _)| {
            let other_is_leaf = other.id().is_none_or(|id| !tree.contains_key(&Some(id)));
            other_is_leaf && other.is_like(item) && is_below_same(*other, item)
        });
        match alike {
            Some((_, more)) => *more += 1,
            None => lines.push((item, 0)),
        }
    }
    let last = lines.len().saturating_sub(1);
    for (i, (item, more)) in lines.into_iter().enumerate().rev() {
        let prefix = prefix.to_string();
        stack.push(Line { item, more, prefix, is_last: i == last, is_root: parent.is_none() });
    }
}

fn is_below_same(one: Item<'_>, other: Item<'_>) -> bool {
    match (one, other) {
        (Item::Context(one), Item::Context(other)) => one.parent == other.parent,
        _ => true,
    }
}

/// As it is displayed, for `unwrap`.
impl fmt::Debug for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Leaks {}
