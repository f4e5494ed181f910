//! Contexts of several parents, and a node's links to those above it, be it one or many.
#![expect(unsafe_code, reason = "a merged node is listed by pointer at each of its parents")]

use std::collections::HashSet;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::ptr::NonNull;

use crate::list::Link;
use crate::observe::ContextId;
use crate::sync::Ordering;
use crate::value::{Boxed, Own, ValueRef};

use super::node::Merged;
use super::{Kind, Node, Plan, Ref};

/// A child of several parents (C28). It waits for them: their deadlines are armed from here on.
pub(crate) fn any_of(parents: Vec<Ref>, place: &'static Location<'static>) -> Ref {
    let Some(first) = parents.first() else {
        return Ref::background().derive(Plan::new(Kind::Cancel, place));
    };
    let clocked = parents.iter().find(|parent| parent.scope().can_be_done()).unwrap_or(first);
    let mut node = Node::new(Kind::AnyOf, NonNull::dangling(), ContextId::next(), place);
    node.clock = clocked.scope().clock;
    node.head.parent = Some(first.0);
    let chains: Vec<Option<ValueRef>> = parents.iter().map(|parent| parent.head().values).collect();
    node.head.values = chains[0];
    if chains.iter().any(|chain| *chain != chains[0]) {
        node.own_values = 1;
        let mut own = Own::none();
        own.push(Boxed::fork(&chains));
        node.head.values = own.link(None);
    }
    for parent in &parents {
        parent.scope().watch();
    }
    let ended = parents.iter().find_map(|parent| parent.scope().ending());
    let parents =
        parents.into_iter().map(|parent| Merged { parent: Some(parent), place: Link::new() });
    node.merged = ManuallyDrop::new(Some(parents.collect()));
    let child = Ref::new(node);
    let node = child.scope();
    let born_done = match ended {
        Some(ending) => {
            for (above, _) in node.links_up() {
                above.owner().map(|owner| node.adopt_owner(owner));
            }
            node.be_born_done(ending)
        }
        None => node.link_under_all(),
    };
    if let Some(parent) = node.links_up().next().and(node.head.parent()) {
        if let Some(observer) = crate::observe::observer() {
            observer.derived(&crate::Context::from_ref(child.clone()), parent.id);
        }
    }
    if born_done {
        child.announce_done();
    }
    child
}

impl Node {
    /// The links of a node to those above it, with them.
    pub(super) fn links_up(&self) -> impl Iterator<Item = (&Node, &Link<Node>)> {
        let merged = self.merged.iter().flatten();
        let merged = merged.filter_map(|link| Some((link.parent.as_ref()?.scope(), &link.place)));
        let single = self.above().filter(|_| self.merged.is_none());
        single.map(|above| (above, &self.place_in_parent)).into_iter().chain(merged)
    }

    /// Takes itself out of the lists of those above.
    pub(super) fn unlink(&self) {
        for (above, place) in self.links_up().filter(|(_, place)| place.is_linked()) {
            let mut lists = above.lists();
            // SAFETY: in this list, or in none by now.
            if unsafe { lists.children.remove(place) } {
                above.counts.children.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// True if one of them had ended meanwhile, and no sweep had come here.
    fn link_under_all(&self) -> bool {
        let mut born_done = false;
        const FEW: usize = 16; // are faster looked through than hashed
        let mut seen: Vec<*const Node> = Vec::new();
        let mut more = HashSet::new();
        for (above, place) in self.links_up() {
            let parent = std::ptr::from_ref(above);
            if !above.can_be_done() || seen.contains(&parent) || more.contains(&parent) {
                continue;
            }
            if seen.len() < FEW {
                seen.push(parent);
            } else {
                more.insert(parent);
            }
            let mut lists = above.lists();
            if let Some(done) = above.state.done() {
                drop(lists);
                born_done = self.be_born_done(done.ending());
                break;
            }
            // SAFETY: in no list yet, and taken out before the node goes (I1).
            unsafe { lists.children.push_back(place, self.head.scope.as_ptr()) };
            above.counts.children.fetch_add(1, Ordering::Relaxed);
            let owner = above.owner();
            drop(lists);
            owner.map(|owner| self.adopt_owner(owner));
        }
        // A sweep takes this lock before it looks where this node is listed: either it sees the last of the links, or the end
        // is seen here.
        drop(self.lists());
        if self.state.done().is_some() {
            // Ended by one of them while it was linked to the others. A sweep that is under way may do the same.
            self.unlink();
        }
        born_done
    }
}
