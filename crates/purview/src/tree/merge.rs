//! Contexts of several parents, and a node's links to those above it, be it one or many.
#![expect(unsafe_code, reason = "a merged node is listed by pointer at each of its parents")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::Location;

use crate::clock::Tick;
use crate::list::{Item, Link, Tag};
use crate::observe::ContextId;
use crate::sync::{AtomicU8, Ordering};
use crate::value::{Boxed, Own, ValueRef};

use super::deadline::Binding;
use super::node::UNLISTED;
use super::parts::{Bound, Extra, Merged, Parts};
use super::{Kind, Node, Plan, Ref};

/// A child of several parents (C28). It waits for them: their deadlines are armed from here on.
pub(crate) fn any_of(parents: Vec<Ref>, place: &'static Location<'static>) -> Ref {
    let Some(first) = parents.first() else {
        let [child, _] = Ref::background().derive(Plan::new(Kind::Cancel, place));
        return child;
    };
    let clocked = parents.iter().find(|parent| parent.scope().can_be_done()).unwrap_or(first);
    let chains: Vec<Option<ValueRef>> = parents.iter().map(|parent| parent.head().values).collect();
    let mut values = chains[0];
    let mut own_values = 0;
    if chains.iter().any(|chain| *chain != chains[0]) {
        own_values = 1;
        let mut own = Own::none();
        own.push(Boxed::fork(&chains));
        values = own.link(None);
    }
    // Before they are watched: who looks finds a deadline passed that nobody has noticed, and is told at once.
    let ended = parents.iter().find_map(|parent| parent.scope().ending());
    if ended.is_none() {
        parents.iter().for_each(|parent| parent.scope().watch());
    }
    let latest = parents.iter().map(|parent| parent.head().id).max().unwrap_or(ContextId::TODO);
    let (clock, first) = (clocked.scope().clock(), first.0);
    let mut node = Node::new(Kind::AnyOf, Parts::Full, ContextId::next(latest), place, 1);
    node.head.parent = Some(first);
    node.head.values = values;
    let node = Node::place(node, Tick::NEVER, || Extra { own_values, ..Extra::new(clock) });
    let links = parents.into_iter().map(|parent| Merged {
        link: Link::new(),
        listed: AtomicU8::new(UNLISTED),
        node,
        parent: Some(parent),
    });
    // SAFETY: nobody else's yet.
    unsafe { Node::set_merged(node, links.collect()) };
    let child = Ref(node.cast());
    let node = child.scope();
    node.choose_owners();
    let born_done = match ended {
        Some(ending) => node.be_born_done(ending),
        None => node.link_under_all(),
    };
    if let Some(first) = node.merged().and_then(|links| links.first()?.parent.as_ref()) {
        child.announce(first, born_done);
    }
    child
}

impl Merged {
    /// The link of an item that is one's.
    ///
    /// # Safety
    /// The item is listed, and its list's lock is held.
    pub(super) unsafe fn of<'a>(item: Item) -> &'a Merged {
        // SAFETY: by the contract; its link is what it begins with.
        unsafe { &*item.link().cast() }
    }

    fn item(&self) -> Item {
        Item::new(std::ptr::from_ref(self).cast(), Tag::Merged)
    }
}

impl Node {
    /// Those above a merged node, with its places there.
    fn links_up(&self) -> impl Iterator<Item = (&Node, &Merged)> {
        let merged = self.merged().unwrap_or_default().iter();
        merged.filter_map(|link| Some((link.parent.as_ref()?.scope(), link)))
    }

    /// Of a merged node: the parent by which its deadline is `owner`'s.
    pub(super) fn above_by(&self, owner: &Node) -> Option<&Node> {
        let is_by =
            |above: &&Node| above.binding().is_some_and(|its| std::ptr::eq(its.owner, owner));
        self.links_up().map(|(above, _)| above).find(is_by)
    }

    /// Takes itself out of the lists of those above.
    #[inline]
    pub(super) fn unlink(&self) {
        if self.listed.load(Ordering::Acquire) != UNLISTED || self.parts == Parts::Full {
            self.unlink_from_all();
        }
    }

    fn unlink_from_all(&self) {
        unlink(self.above(), &self.listed, Node::item(self.this()));
        if self.parts == Parts::Full {
            for (above, link) in self.links_up() {
                unlink(Some(above), &link.listed, link.item());
            }
        }
    }

    /// The nearest owners of the parents, on this node's clock: ticks of another one say nothing here.
    fn owners_above(&self) -> impl Iterator<Item = &Node> {
        let nearest = self.links_up().filter_map(|(above, _)| above.nearest());
        nearest.filter(|owner| owner.clock() == self.clock())
    }

    /// Of a new merge: its owner is that of its parents, or, if they have several, itself. It is live: its parents' deadlines are armed.
    fn choose_owners(&self) {
        let mut owners = self.owners_above();
        let Some(first) = owners.next() else { return };
        let is_one = owners.all(|owner| std::ptr::eq(owner, first));
        self.set_bound(if is_one { Bound::Above(first.this()) } else { Bound::Own });
        self.note_moves(first);
    }

    /// Of a merge that is an owner: the earliest of its parents' deadlines.
    ///
    /// What is above may come together many times, in merges of merges and graces below them, so each owner is computed once, and
    /// those with lower numbers first: an ancestor's is always lower.
    pub(super) fn merge_binding(&self) -> Binding<'_> {
        let mut found: BTreeMap<u64, &Node> = BTreeMap::new();
        let mut todo = vec![self];
        while let Some(owner) = todo.pop() {
            if found.insert(owner.head.id.number(), owner).is_none() {
                todo.extend(owner.owners_next());
            }
        }
        let mut known: HashMap<*const Node, Binding<'_>> = HashMap::new();
        for owner in found.into_values() {
            let above = owner.owners_next().filter_map(|next| known.get(&std::ptr::from_ref(next)));
            let above = above.copied().reduce(|a, b| if b.at < a.at { b } else { a });
            let own = Binding::own(owner.own_deadline(), owner);
            let binding = match (owner.grace(), above) {
                (None, None) => own,
                (None, Some(above)) => own.or_upper(above),
                (Some(_), None) => {
                    Binding::own(own.at.min(owner.grace_over().unwrap_or(Tick::NEVER)), owner)
                }
                (Some(time), Some(above)) => {
                    own.or_upper(Binding { at: above.at.after(time), owner, ..above })
                }
            };
            known.insert(std::ptr::from_ref(owner), binding);
        }
        let this: *const Node = self;
        known.remove(&this).unwrap_or(Binding::own(Tick::NEVER, self))
    }

    /// Of an owner: the owners on which its own binding depends.
    fn owners_next(&self) -> impl Iterator<Item = &Node> {
        let is_merge = self.merged().is_some();
        let next = match self.grace() {
            _ if is_merge => None,
            None => self.next_owner(),
            Some(_) if self.grace_over().is_some() => None,
            Some(_) => self.above().and_then(Node::nearest),
        };
        next.into_iter().chain(self.owners_above().filter(move |_| is_merge))
    }

    /// True if one of them had ended meanwhile, and no sweep had come here.
    fn link_under_all(&self) -> bool {
        let mut born_done = false;
        const FEW: usize = 16; // are faster looked through than hashed
        let mut seen: Vec<*const Node> = Vec::new();
        let mut more = HashSet::new();
        for (above, link) in self.links_up() {
            let parent = std::ptr::from_ref(above);
            if !above.can_be_done() || seen.contains(&parent) || more.contains(&parent) {
                continue;
            }
            if seen.len() < FEW {
                seen.push(parent);
            } else {
                more.insert(parent);
            }
            let mut held = above.hold();
            if let Some(done) = above.state().done() {
                drop(held);
                let _guard = self.lock.lock(); // other parents have it already
                born_done = self.be_born_done(done.ending());
                break;
            }
            // SAFETY: in no list yet, and taken out before the node goes (L2).
            unsafe { held.list.push_front(link.item()) };
            link.listed.store(held.shard, Ordering::Relaxed);
        }
        // Its end is noted under this lock: either who does that sees the last of the links, or the end is seen here.
        drop(self.lock.lock());
        if self.state().done().is_some() {
            // Ended by one of them while it was linked to the others. A sweep that is under way may do the same.
            self.unlink();
        }
        born_done
    }
}

#[inline]
fn unlink(above: Option<&Node>, listed: &AtomicU8, item: Item) {
    let shard = listed.load(Ordering::Acquire);
    let Some(above) = above.filter(|_| shard != UNLISTED) else { return };
    let mut held = above.hold_shard(usize::from(shard));
    if listed.load(Ordering::Relaxed) != UNLISTED {
        // SAFETY: in this list, whose lock is held.
        unsafe { held.list.remove(item) };
        listed.store(UNLISTED, Ordering::Release);
    }
}
