//! Contexts of several parents, and a node's links to those above it, be it one or many.
#![expect(unsafe_code, reason = "a merged node is listed by pointer at each of its parents")]

use std::collections::HashSet;
use std::panic::Location;

use crate::clock::Tick;
use crate::list::{Item, Link, Tag};
use crate::observe::ContextId;
use crate::sync::{AtomicU8, Ordering};
use crate::value::{Boxed, Own, ValueRef};

use super::node::UNLISTED;
use super::parts::{Extra, Merged, Parts};
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
    let born_done = match ended {
        Some(ending) => {
            node.adopt_owners();
            node.be_born_done(ending)
        }
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
        let is_by = |above: &&Node| above.owner().is_some_and(|its| std::ptr::eq(its, owner));
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

    /// Has the earliest of all parents' deadlines bind here.
    fn adopt_owners(&self) {
        for (above, _) in self.links_up() {
            above.owner().map(|owner| self.adopt_owner(owner));
        }
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
                self.adopt_owners(); // it is linked to no more of them, and shows the deadlines of all
                let _guard = self.lock.lock(); // other parents have it already
                born_done = self.be_born_done(done.ending());
                break;
            }
            // SAFETY: in no list yet, and taken out before the node goes (L2).
            unsafe { held.list.push_front(link.item()) };
            link.listed.store(held.shard, Ordering::Relaxed);
            let owner = above.owner();
            drop(held);
            owner.map(|owner| self.adopt_owner(owner));
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
