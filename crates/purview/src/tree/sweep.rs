//! Ending a node and everything below it: note, mark, wake. The steps are told in tree.rs.
#![expect(
    unsafe_code,
    reason = "a sweep follows pointers down, which the lists' locks and the chain's counts keep"
)]

use std::collections::HashSet;
use std::panic::Location;
use std::ptr::NonNull;

use crate::clock::{Clock, Tick};
use crate::error::{By, Cause, Error};
use crate::list::Tag;
use crate::observe::observer;
use crate::on_done::Callback;
use crate::state::{Done, Ended as Outcome, Ending, View};
use crate::sync::{Backoff, Locked, Ordering};
use crate::timer::runner;
use crate::waiter::{Waiter, Who};

use super::chain::{self, Chain};
use super::dependents::Held;
use super::node::{Merged, Parts, Role, Stand, UNLISTED};
use super::{BATCH, Node, Panics, Ref};

/// Who runs the callbacks of what ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The thread that ends it.
    Here,
    /// The thread that is kept for callbacks: this one is the timer's.
    FromTimer,
}

/// Ends a node by a call, unless it has ended. Returns when the subtree is marked, and, to who won, when all in it who
/// waited have been woken (C7). The first panic among those is resumed here (C32).
#[inline]
pub(crate) fn cancel(
    context: &Ref,
    by: By,
    cause: Option<Cause>,
    place: &'static Location<'static>,
) {
    // SAFETY: guards and handles are of nodes.
    let node = unsafe { context.node().as_ref() };
    if cause.is_none() {
        if node.is_complete() || (node.parts != Parts::Full && node.cancel_leaf(by, place)) {
            return;
        }
    }
    cancel_any(context, by, cause, place);
}

/// Any node, at any time.
fn cancel_any(context: &Ref, by: By, cause: Option<Cause>, place: &'static Location<'static>) {
    let node = context.scope();
    let mut cause = cause;
    let mut panics = Panics::new();
    let proxy = Stand::new(Role::Proxy);
    if node.state().done().is_none() {
        let now = node.clock().now();
        expire_first(node, now, &mut panics);
        match node.note_call(by, now, &mut cause, place, &proxy) {
            Noted::Leaf => node.disarm(),
            Noted::Sweep => sweep(context, Some(&proxy), Wake::Here, &mut panics),
            Noted::Lost => {}
        }
    }
    finish(context, &mut panics);
    node.remove_proxy(&proxy); // if it still stands: for a node that a poll ended and another canceler swept
    if let Some(cause) = cause {
        panics.catch(|| drop(cause));
    }
    panics.resume();
}

/// Ends an owner whose limit has passed, unless it has ended.
pub(crate) fn expire(context: &Ref, wake: Wake, panics: &mut Panics) {
    let node = context.scope();
    let ending = node.note_expiry();
    if ending.origin() == context.node() && node.state().claim() {
        sweep(context, None, wake, panics);
    }
}

/// A deadline that had passed before a cancel came wins, if anybody could have seen it pass (C18).
#[inline]
fn expire_first(node: &Node, now: Tick, panics: &mut Panics) {
    if !node.clock().is_manual() {
        let _ = node.ask_clock_at(|| now);
        return;
    }
    let Some(owner) = node.owner().filter(|owner| owner.limit() <= now) else { return };
    if let Some(owner) = Ref::upgrade(owner.this()) {
        expire(&owner, Wake::Here, panics);
        panics.release(owner);
    }
}

/// For who came too late to end it: returns when nothing below is live, and leaves nothing behind in the parent.
fn finish(context: &Ref, panics: &mut Panics) {
    let node = context.scope();
    if node.is_complete() {
        return;
    }
    if node.state().claim() {
        // It was noted by somebody who only looked at the clock, or at the parent: nobody comes to sweep it, or not yet.
        sweep(context, None, Wake::Here, panics);
    } else {
        node.wait_until_complete();
    }
}

/// The lock that guards a node's end.
enum Guard<'a> {
    /// Of its parent's list that it is in.
    Above(Held<'a>),
    /// Its own, where it is in none.
    Own(#[expect(dead_code, reason = "held")] Locked<'a>),
}

/// What came of noting an end.
enum Noted {
    Lost,
    /// Nobody is to hear of it.
    Leaf,
    Sweep,
}

impl Node {
    /// Where a node is in its parent's list, its end is noted under the lock of that list: so a sweep, which holds it
    /// anyway, notes the ends of many children for one lock. A node that is not listed, or not any more, has its own.
    #[inline]
    fn guard(&self) -> Guard<'_> {
        let listed = self.listed.load(Ordering::Acquire);
        if listed != UNLISTED {
            if let Some(above) = self.above() {
                let held = above.hold_shard(usize::from(listed));
                if self.listed.load(Ordering::Relaxed) != UNLISTED {
                    return Guard::Above(held);
                }
            }
        }
        Guard::Own(self.lock.lock())
    }

    /// The most frequent end, as [`note_call`](Self::note_call) has it, without what it need not look at: a child on
    /// the system's clock that lives and has nobody to tell. False, with nothing done, where it is another case.
    fn cancel_leaf(&self, by: By, place: &'static Location<'static>) -> bool {
        let listed = self.listed.load(Ordering::Acquire);
        if listed == UNLISTED || observer().is_some() {
            return false;
        }
        let Some(above) = self.above() else { return false };
        let at = Clock::SYSTEM.now();
        match self.state().load() {
            View::Live => {}
            View::AskClock if at < self.deadline() => {}
            View::AskClock | View::Done(_) => return false,
        }
        let mut held = above.hold_shard(usize::from(listed));
        if self.listed.load(Ordering::Relaxed) == UNLISTED || above.state().done().is_some() {
            return false;
        }
        let own = self.lock.lock(); // D3: who adds dependents sees the end, or is seen
        if !self.is_leaf() || self.state().done().is_some() {
            return false;
        }
        // SAFETY: listed here, and the lock is held.
        unsafe { held.list.remove(Node::item(self.this())) };
        self.listed.store(UNLISTED, Ordering::Relaxed); // published by the state
        // If a poll was faster, which found the deadline passed, then that is its end; there is nobody to be told of it.
        let _ = self.note_ending(by, at, &mut None, place, true);
        drop(own);
        drop(held);
        self.disarm();
        true
    }

    /// Notes an end that somebody else will see to.
    pub(super) fn note(&self, ending: Ending) {
        let _guard = self.guard();
        let (Outcome::Won | Outcome::Lost) = self.state().end(ending, false);
    }

    /// Notes the end by a call, with its facts; they lie where the link to the parent was. A node with dependents has
    /// `proxy` stand in its place until they are marked, so that the parent's sweep does not pass them by (C7).
    #[inline]
    fn note_call(
        &self,
        by: By,
        at: Tick,
        cause: &mut Option<Cause>,
        place: &'static Location<'static>,
        proxy: &Stand,
    ) -> Noted {
        let mut guard = self.guard();
        if self.state().done().is_some() || self.follow_parents() {
            return Noted::Lost;
        }
        let leaf;
        let won;
        match &mut guard {
            Guard::Above(held) => {
                let own = self.lock.lock(); // D3: who adds dependents sees the end, or is seen
                leaf = self.is_leaf() && observer().is_none();
                let item = Node::item(self.this());
                if leaf {
                    // SAFETY: listed here, and the lock is held.
                    unsafe { held.list.remove(item) };
                } else {
                    // SAFETY: as above; the proxy is taken out by the sweep that follows.
                    unsafe { held.list.replace(item, proxy.item()) };
                    proxy.set_linked(Some(held.shard));
                }
                won = self.note_ending(by, at, cause, place, leaf);
                drop(own);
                self.listed.store(UNLISTED, Ordering::Release);
            }
            Guard::Own(_) => {
                leaf = self.is_leaf() && self.merged().is_none() && observer().is_none();
                won = self.note_ending(by, at, cause, place, leaf);
            }
        }
        match (won || self.state().claim(), leaf) {
            (_, true) => Noted::Leaf,
            (true, false) => Noted::Sweep,
            (false, false) => Noted::Lost,
        }
    }

    /// False, where a poll that looked at the clock was faster: it alone needs no lock.
    #[inline]
    fn note_ending(
        &self,
        by: By,
        at: Tick,
        cause: &mut Option<Cause>,
        place: &'static Location<'static>,
        leaf: bool,
    ) -> bool {
        // SAFETY: out of its list, and its end is guarded by the caller; no end by a call is noted yet.
        unsafe { self.note_facts(at, place, cause.take()) };
        if leaf {
            self.set_complete();
        }
        match self.state().end(Ending::new(self.this(), by), true) {
            Outcome::Won => true,
            Outcome::Lost => {
                // SAFETY: noted above, and nobody reads them, for it has not ended by a call.
                *cause = unsafe { self.take_cause() };
                false
            }
        }
    }

    /// If a parent has ended, and its sweep has not come here yet: the parent's end was first (C2). The guard is held.
    fn follow_parents(&self) -> bool {
        if self.grace().is_some() {
            return false;
        }
        let ended = match self.merged() {
            None => self.above().and_then(|above| above.state().done()),
            Some(links) => {
                links.iter().find_map(|link| link.parent.as_ref()?.scope().state().done())
            }
        };
        let Some(done) = ended else { return false };
        let ending = self.own_end_before(self.ended_at(done.ending())).unwrap_or(done.ending());
        let (Outcome::Won | Outcome::Lost) = self.state().end(ending, false);
        true
    }

    /// Notes the end of an owner whose limit has passed, and claims it.
    fn claim_expired(&self) -> bool {
        self.note_expiry().origin() == self.this() && self.state().claim()
    }

    /// Another thread is marking what is below; it runs no user code meanwhile.
    fn wait_until_complete(&self) {
        let mut backoff = Backoff::new();
        while !self.is_complete() {
            backoff.snooze();
        }
    }
}

/// Marks what is below `first`, which the caller has claimed, and wakes who waits in it.
fn sweep(first: &Ref, proxy: Option<&Stand>, wake: Wake, panics: &mut Panics) {
    let mut next = Some(first.clone());
    let mut firsts = Vec::new();
    let mut proxy = proxy;
    while let Some(first) = next.take().or_else(|| firsts.pop()) {
        let mut aside = Aside::new();
        let (mut unit, others) = mark(&first, &mut aside);
        for (grace, ended_at) in &aside.graces {
            let node = grace.scope();
            let until = node.grace().map_or(Tick::NEVER, |time| ended_at.after(time));
            node.lower(until, &mut aside.kept);
        }
        for other in others {
            other.complete();
            unit.chain.append(other.chain);
            aside.kept.extend(other.others);
        }
        unit.complete();
        if let Some(proxy) = proxy.take() {
            first.scope().remove_proxy(proxy);
        }
        first.scope().set_complete();

        // From here on user code runs.
        first.scope().unlink();
        first.scope().tell(wake, panics);
        let_go(first, wake, panics);
        let mut chain = unit.chain;
        chain.sort();
        while let Some(context) = chain.pop() {
            context.scope().unlink(); // a merged one's other parents
            context.scope().tell(wake, panics);
            let_go(context, wake, panics);
        }
        unit.others.into_iter().chain(aside.kept).for_each(|context| let_go(context, wake, panics));
        for (grace, _) in aside.graces {
            // Graces of no length end with their parent; on a manual clock nobody else comes to see to it.
            let node = grace.scope();
            let over = node.clock().is_manual() && node.limit() <= node.clock().now();
            if over && node.claim_expired() {
                firsts.push(grace);
            } else {
                let_go(grace, wake, panics);
            }
        }
    }
}

/// Marks everything below `first`: a unit for the tree there, and one for each merged node that this sweep came by first,
/// those derived last in front.
fn mark(first: &Ref, aside: &mut Aside) -> (Unit, Vec<Unit>) {
    let mut unit = Unit::new(first.scope());
    unit.mark_children(first.scope(), aside);
    unit.mark_below(aside);
    let mut others: Vec<Unit> = Vec::new();
    while let Some((merged, ending, from)) = aside.merged.pop() {
        let node = merged.scope();
        if node.end_merged(ending) {
            aside.mine.insert(merged.node());
            let mut unit = Unit::new(node);
            unit.chain.prepend(merged);
            unit.mark_below(aside);
            others.push(unit);
        } else if aside.mine.contains(&merged.node()) {
            aside.kept.push(merged); // come to by another parent
        } else {
            let from = others.iter_mut().find(|unit| unit.id == from).unwrap_or(&mut unit);
            from.others.push(merged);
        }
    }
    others.sort_by_key(|unit| std::cmp::Reverse(unit.id));
    (unit, others)
}

/// Drops a handle where that may run the user's code: not on the timer's thread.
pub(super) fn let_go(context: Ref, wake: Wake, panics: &mut Panics) {
    match wake {
        Wake::Here => panics.release(context),
        Wake::FromTimer => runner::release(context),
    }
}

/// What a sweep comes by and does not mark on the spot.
struct Aside {
    /// Children with a grace, and when their parent ended.
    graces: Vec<(Ref, Tick)>,
    /// Merged children, to be ended, with the end, and the unit that came to them.
    merged: Vec<(Ref, Ending, u64)>,
    /// Merged children that this sweep has ended.
    mine: HashSet<NonNull<Node>>,
    /// Handles to be let go where user code may run.
    kept: Vec<Ref>,
    /// Whether every end has to be told of.
    observed: bool,
}

impl Aside {
    fn new() -> Aside {
        Aside {
            graces: Vec::new(),
            merged: Vec::new(),
            mine: HashSet::new(),
            kept: Vec::new(),
            observed: observer().is_some(),
        }
    }
}

/// A tree that is marked as one: below the node that was ended, or a merged one.
///
/// Parts of it may be swept by others, who are waited for. That no two wait for each other: marking waits for nobody; then
/// each completes its units in the order of their numbers, the highest first, and each unit waits only for nodes below it,
/// which have higher numbers. So whoever is waited for never waits for a lower number.
struct Unit {
    /// The number of its uppermost node.
    id: u64,
    /// Nodes that somebody may wait for, parents before children.
    chain: Chain,
    /// Nodes that somebody else has ended and is sweeping.
    others: Vec<Ref>,
    /// Nodes among whose children there are such that are being swept by a call of their own. Kept by the chain, or first.
    proxied: Vec<NonNull<Node>>,
}

impl Unit {
    fn new(first: &Node) -> Unit {
        let id = first.head.id.number();
        Unit { id, chain: Chain::new(), others: Vec::new(), proxied: Vec::new() }
    }

    /// Ends everything below what is in the chain, parents before children.
    fn mark_below(&mut self, aside: &mut Aside) {
        let mut at = self.chain.first();
        while !at.is_none() {
            // SAFETY: in the chain, which keeps it.
            self.mark_children(unsafe { chain::node(at).as_ref() }, aside);
            at = chain::next(at);
        }
    }

    /// Waits for the parts that others sweep, and says that all of it is marked.
    fn complete(&self) {
        for other in &self.others {
            other.scope().wait_until_complete();
        }
        for parent in &self.proxied {
            // SAFETY: kept by the chain, or the first.
            let parent = unsafe { parent.as_ref() };
            let mut backoff = Backoff::new();
            while parent.has_proxies() {
                backoff.snooze();
            }
        }
        let mut at = self.chain.first();
        while !at.is_none() {
            // SAFETY: in the chain, which keeps it.
            unsafe { chain::node(at).as_ref() }.set_complete();
            at = chain::next(at);
        }
    }

    /// Takes the children of an ended node out of its lists, and ends them.
    fn mark_children(&mut self, parent: &Node, aside: &mut Aside) {
        let Some(ending) = parent.state().done().map(Done::ending) else { return };
        let at = parent.ended_at(ending);
        let mut proxied = false;
        for shard in 0..parent.lists() {
            let mut run = Chain::new(); // the newest come first, so each goes in front
            let mut more = true;
            while more {
                let mut held = parent.hold_shard(shard);
                for _ in 0..BATCH {
                    let item = held.list.0;
                    if item.is_none() || item.tag() == Tag::Waiter {
                        more = false;
                        break;
                    }
                    // SAFETY: in this list, whose lock is held; so are the others below.
                    unsafe { held.list.remove(item) };
                    match item.tag() {
                        Tag::Child => {
                            // SAFETY: as above.
                            let child = unsafe { Node::of_item(item) };
                            self.mark(child, ending, at, &mut run, aside);
                        }
                        Tag::Merged => {
                            // SAFETY: as above.
                            let merged = unsafe { Merged::of(item) };
                            let context = Ref::upgrade(merged.node);
                            merged.listed.store(UNLISTED, Ordering::Release); // the last touch
                            let id = self.id;
                            aside.merged.extend(context.map(|context| (context, ending, id)));
                        }
                        Tag::Stand => {
                            // SAFETY: as above.
                            let stand = unsafe { Stand::of(item) };
                            match stand.role {
                                Role::Cursor => stand.set_linked(None),
                                Role::Proxy => {
                                    proxied = true;
                                    more = !stand.was_passed();
                                    // SAFETY: out of the list since a moment ago.
                                    unsafe { held.list.push_back(item) };
                                }
                            }
                            if !more {
                                break;
                            }
                        }
                        Tag::Waiter => {}
                    }
                }
            }
            self.chain.append(run);
        }
        if proxied {
            self.proxied.push(parent.this());
        }
    }

    /// Ends one child, which is out of its parent's list; that one's lock is held, and keeps the child in memory.
    #[inline]
    fn mark(
        &mut self,
        child: NonNull<Node>,
        ending: Ending,
        at: Tick,
        run: &mut Chain,
        aside: &mut Aside,
    ) {
        // SAFETY: it was listed; it does not go before it is seen to be unlisted, which is the last touch.
        let node = unsafe { child.as_ref() };
        if node.seems_leaf() && node.parts == Parts::Plain && !aside.observed {
            let own = node.lock.lock(); // D3: who adds dependents sees the end, or is seen
            if node.is_leaf() {
                node.set_complete();
                let (Outcome::Won | Outcome::Lost) = node.state().end(ending, true);
                drop(own);
                node.listed.store(UNLISTED, Ordering::Release);
                return;
            }
        }
        let context = Ref::upgrade(child);
        if node.grace().is_some() {
            node.listed.store(UNLISTED, Ordering::Release);
            aside.graces.extend(context.map(|context| (context, at)));
            return;
        }
        let ending = node.own_end_before(at).unwrap_or(ending);
        let mine = match node.state().end(ending, true) {
            Outcome::Won => true,
            // Noted by somebody who only looked at the clock, or at the parent: nobody has taken on its subtree.
            Outcome::Lost => node.state().claim(),
        };
        node.listed.store(UNLISTED, Ordering::Release);
        match context {
            None => {} // it is going, and has nobody below
            Some(context) if mine => run.prepend(context),
            Some(context) => self.others.push(context),
        }
    }
}

impl Node {
    /// Ends a merged node, which another parent's sweep may be ending. True if its subtree is the caller's to sweep.
    fn end_merged(&self, ending: Ending) -> bool {
        let at = self.ended_at(ending);
        let outcome = {
            let _guard = self.guard();
            self.state().end(self.own_end_before(at).unwrap_or(ending), true)
        };
        match outcome {
            Outcome::Won => true,
            Outcome::Lost => self.state().claim(),
        }
    }

    fn has_proxies(&self) -> bool {
        let mut found = false;
        for shard in 0..self.lists() {
            let held = self.hold_shard(shard);
            // Passed ones are behind the waiters: the last, or before others of their kind.
            let first = held.list.0;
            if !first.is_none() {
                // SAFETY: in this list, whose lock is held.
                let last = unsafe { first.prev() };
                found |= last.tag() == Tag::Stand;
            }
        }
        found
    }

    fn remove_proxy(&self, proxy: &Stand) {
        let Some(above) = self.above() else { return };
        if let Some(shard) = proxy.listed() {
            let mut held = above.hold_shard(shard);
            // SAFETY: proxies are only taken out here.
            unsafe { held.list.remove(proxy.item()) };
            proxy.set_linked(None);
        }
    }

    /// Tells the observer and whoever waits here; and the timer, that it need not.
    fn tell(&self, wake: Wake, panics: &mut Panics) {
        let Some(ending) = self.state().done().map(Done::ending) else { return };
        if let Some(observer) = observer() {
            panics.catch(|| observer.done(self.head.id, &Error::new(ending)));
        }
        self.disarm();
        self.wake_waiters(ending, wake, panics);
    }

    /// Takes what waits here out, one by one, and wakes it with no lock held.
    fn wake_waiters(&self, ending: Ending, wake: Wake, panics: &mut Panics) {
        let mut fronts = Fronts::new(self);
        while let Some(who) = fronts.pop(self) {
            match who {
                Who::Nobody => {}
                Who::Task(waker) => panics.catch(|| waker.wake()),
                Who::Callback(callback) => {
                    // SAFETY: the list's count, taken out with the waiter.
                    let callback = unsafe { Callback::from_list(callback) };
                    let error = Error::new(ending);
                    match wake {
                        Wake::Here => panics.catch(|| callback.call(&error)),
                        Wake::FromTimer => runner::call(callback, error),
                    }
                }
            }
        }
    }
}

/// The order of arrival over several lists: the earliest that each list may have at its front. Nobody arrives any more, so
/// a front only ever gets later, and what was seen of it is a lower bound.
struct Fronts {
    earliest: [u64; super::dependents::SHARDS],
    lists: usize,
}

impl Fronts {
    const EMPTY: u64 = u64::MAX;

    fn new(node: &Node) -> Fronts {
        Fronts { earliest: [0; super::dependents::SHARDS], lists: node.lists() }
    }

    fn pop(&mut self, node: &Node) -> Option<Who> {
        loop {
            let mut first = 0;
            let mut second = Self::EMPTY;
            for list in 1..self.lists {
                if self.earliest[list] < self.earliest[first] {
                    second = self.earliest[first];
                    first = list;
                } else {
                    second = second.min(self.earliest[list]);
                }
            }
            if self.earliest[first] == Self::EMPTY {
                return None;
            }
            let mut held = node.hold_shard(first);
            let item = held.list.0;
            if item.is_none() {
                self.earliest[first] = Self::EMPTY;
                continue;
            }
            if item.tag() == Tag::Stand {
                // SAFETY: in this list, whose lock is held; so below.
                let stand = unsafe { Stand::of(item) };
                stand.set_linked(None); // a walk's: there is nothing left to walk
                // SAFETY: as above.
                unsafe { held.list.remove(item) };
                continue;
            }
            // SAFETY: as above. Children are out, so it is a waiter's; once the lock is let go, its owner may free it (W2).
            let waiter = unsafe { Waiter::of(item) };
            let stamp = waiter.stamp();
            self.earliest[first] = stamp;
            if stamp > second {
                continue;
            }
            // SAFETY: as above.
            unsafe { held.list.remove(item) };
            // SAFETY: the lock is held (W1).
            let who = unsafe { waiter.who(|who| std::mem::replace(who, Who::Nobody)) };
            waiter.set_unlisted();
            return Some(who);
        }
    }
}
