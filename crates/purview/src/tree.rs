//! The tree: what a node is, what always holds, and why it is done this way.
//!
//! ```text
//!            background                 a Context points at a head ─► strong count, parent, values, scope
//!                │ (not listed)
//!     ┌──────── node A ────────┐        every context but a value layer has a node: state, lists, deadline
//!     │ children  │            │
//!   node B ◄──► node C    value layer   a value layer shares the node above it (its scope): is_done, deadline
//!     │                        │        and waiting cost nothing more, however many layers there are
//!   node D                   node E     E is in A's list of children: lists join nodes, not layers
//!
//!   strong pointers up (a child keeps its ancestors) · raw pointers down (nothing keeps a child but its handles)
//! ```
//!
//! # Invariants
//! - **I1** A node that is listed takes itself out, under the lock of that list, before its memory goes. So what is in a list is
//!   valid under its lock, though it may be dying. That it is out (`listed`) is the last thing that is written to it by
//!   somebody who has no count of it.
//! - **I2** A node is listed only while it and its parent are live, or until the sweep that ends it comes by. Who links looks at
//!   the parent's state under the lock of the list it links into; who ends a node sets the state first and takes the lock of
//!   each list afterwards: the child is seen by the sweep, or sees the end (C8).
//! - **I3** The same for waiters. That makes lost wake-ups impossible without a fence: lock, look, link against set, lock, look.
//! - **I4** The origin of an end is the node itself or an ancestor, so a done word needs no count on it: the strong
//!   pointers up keep it. Errors outlive trees, and have a count of their own: of the node's memory, not of the node.
//! - **I5** A live node ends under the lock that guards its end: that of the list it is in, or its own. Only a poll that finds a
//!   deadline passed needs none; it competes for the state word. Facts of an end are written before the state says so.
//! - **I6** The thread that sets `claimed` in a done word sweeps that node's subtree. The link of a node that a sweep has taken out of
//!   its parent's list is that sweep's.
//! - **I7** A node whose deadline is armed has all deadlines above it armed, up to the nearest grace whose parent is done: of two
//!   nodes on one path the lower one never waits for a timer while the upper one is polled. `watch` establishes it from the
//!   top down, and arms nothing below an owner that is done, since no sweep may follow an end that a poll has recorded.
//! - **I8** A node's own deadline and its nearest owner are written once, before the node is shared.
//! - **I9** A thread that claims a node runs no user code before that node is complete; other threads wait for it (C7).
//!
//! # Locks
//! Each node has one [small lock](crate::lock); where threads collide on it there are several, one a [shard](dependents). One may be
//! taken under another only downwards: a child's own under that of its parent's list. No lock is held across a subtree (C14:
//! long lists are walked in batches), and nothing of the user's runs under one (C31): no waker's clone, wake or drop, no
//! callback, no drop of a value or a cause. The timer's lock is taken with none of these held.
//!
//! # The stages of an end
//! | stage | in memory | which thread, and under which lock | then | user code |
//! |---|---|---|---|---|
//! | recorded | the [record](record) of a call is written, then the state becomes done (Release) | the canceler, the timer or a parent's sweep, under the lock that guards the end (I5); a poll, by a CAS from *ask*, with no record and unclaimed | every observer says done | none |
//! | claimed | `claimed` in the done word | one thread: as it records, or later by a CAS | it must reach *complete* before it runs user code or returns (I9) | none |
//! | marked | the children are out of the lists, and each is recorded | the claimer, a batch at a time under each list's lock | a child that another thread has claimed is put into `others` | none |
//! | joined | – | the claimer, with no lock held: it waits until each node in `others` is complete, in units, the highest number first | the whole subtree is done | none |
//! | unlinked | `listed` is unlisted (Release) | the claimer under the lock of the parent's list, after *joined*; or the parent's sweep under the same lock, at any time after *recorded* | the parent does not count it any more (C12) | none |
//! | complete | `complete` is set (Release) | the claimer, after *joined* and *unlinked* | threads that lost the cancel return (Acquire) | none |
//! | notified | the waiters are out of the lists | the claimer, with no lock held | wakers and callbacks in the order of derivation, each panic caught (C9, C32) | here, and only here |
//!
//! A leaf has nothing to mark or to notify: one hold of the locks takes it from *recorded* to *complete*. That is nearly every end
//! there is.
//!
//! A context that has dependents stays listed until they are marked. So the sweep of an ancestor either finds it in the list, sees
//! that another thread has claimed it, and waits until it is complete; or does not find it, and then its subtree is marked, because
//! it left the list after that and under the same lock. It is unlinked after *joined* for the same reason: what is below it may
//! be another thread's to mark, and the ancestor's sweep would not know of that thread.
//!
//! No two threads wait for each other. A thread waits in three ways: for a lock, which is held for a batch at most; in *joined*, for
//! nodes below its own, after it has marked all that is its to mark, and holding no lock; and, if it lost the cancel, for
//! `complete`, having claimed nothing. All of this rests on I9.
//!
//! The children that a sweep takes out are chained through their links, which are unused by then. So a sweep allocates nothing
//! for them, and a million levels take no stack.
//!
//! # How children are linked, and why so
//! Measured with the workloads P1 to P3 of BENCHMARKS.md on its machine, ns, medians of five rounds in turn:
//!
//! | children are linked | P1 | P2, two threads | P3 | P3, two threads |
//! |---|---:|---:|---:|---:|
//! | into one list, under the node's lock of a byte | 147 | 1163 | 251 | 1355 |
//! | into a shard a thread, which keeps the parent, once threads have collided | 123 | 210 | 244 | 193 |
//! | not at all: the least that linking late could cost | 129 | 341 | 188 | 465 |
//! | tokio-util, in the same runs | 244 | 1901 | 434 | 2011 |
//!
//! (On one thread the first two run the same code but for a test; the difference is the noise of that machine.)
//!
//! Linking late (a child that nobody waits for looks up at its parent when it is polled) spares the list's lock, but not the
//! count of the parent, which is what two threads meet at: a shard that keeps the parent for its children spares that, too, and
//! is the cheaper by a third or more. And a poll would be two loads, or as many as there are levels (a prototype took 91 ns a hundred
//! levels deep). A poll is what contexts do most, so it has to be one (P4).
//!
//! So: at once, into one list under a lock of one byte, as long as nobody meets there; from then on into shards.
//!
//! # Deadlines
//! Every node knows the nearest owner: itself or an ancestor that has a deadline, a grace or several parents. That is written once,
//! and `deadline()` is the minimum along the owners. See [`deadline`], which has the invariants.
//!
//! # What it is not
//! It knows no executor, no thread but as a waker, and no errors but the two kinds.

mod arm;
mod chain;
mod deadline;
mod dependents;
mod derive;
mod drops;
mod grace;
mod handle;
mod layer;
mod merge;
mod node;
mod note;
mod panics;
mod parts;
mod reclaim;
mod record;
mod sweep;
mod wait;
mod wake;

#[cfg(all(test, not(purview_loom)))]
mod tests;

pub(crate) use derive::{Plan, manual_root};
pub(crate) use drops::Job;
pub(crate) use handle::{Kept, Ref};
pub(crate) use merge::any_of;
pub(crate) use node::{Head, Kind, Node};
pub(crate) use note::{cancel, expire};
pub(crate) use panics::Panics;
pub(crate) use reclaim::Dead;
#[cfg(all(test, purview_loom))]
pub(crate) use sweep::sweep;
pub(crate) use wake::Wake;

use crate::sync::MODELED;
use handle::count_up;

/// How many links are walked before the lock is let go for others. Long enough that locking is a small part of the walk,
/// short enough that nobody waits for longer than about a microsecond.
const BATCH: usize = if MODELED { 1 } else { 32 };
