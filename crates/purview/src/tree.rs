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
//! - **I1** A node that is listed in another one's children takes itself out, under that one's lock, before its memory
//!   goes. So a pointer in a list is valid under the lock, though its node may be dying (strong count zero).
//! - **I2** A node is listed only while it and its parent are live, or while the sweep that ended the parent is on its
//!   way. Who links looks at the parent's state under the parent's lock; who ends a node sets the state first and
//!   takes the lock afterwards: the child is seen by the sweep, or sees the end (C8).
//! - **I3** The same for waiters: linked under the node's lock while it is live, taken out under it after it is done.
//!   That makes lost wake-ups impossible without a fence: lock, look, link against set, lock, look.
//! - **I4** The origin of an end is the node itself or an ancestor, so a done word needs no count on it: the strong
//!   pointers up keep it. Errors outlive trees, and have a count of their own: of the node's memory, not of the node.
//! - **I5** Facts of an end (`Ended`) are written once, under the node's lock, before the state says so.
//! - **I6** Who sets `claimed` in a done word sweeps that node's subtree, and alone uses its `work` pointer.
//! - **I7** A node whose deadline is armed has all deadlines above it armed. So "asks the clock" is handed down: of two
//!   nodes on one path the lower one never waits for a timer while the upper one is told by the clock.
//!
//! # Locks
//! Each node has one small lock, around its two lists. No thread holds two locks of ours at once (the driver's thread and
//! fork handlers take the timer's, then the runner's), no lock is held across a subtree (C14: long lists are walked in
//! batches, a cursor keeps the place), and nothing of the user's runs under one (C31): no waker's clone, wake or drop, no
//! callback, no drop of a value or a cause.
//!
//! # An end, step by step
//! 1. *Note it*: facts, then the state word. From here on every observer of the node says done.
//! 2. *Mark* the subtree, parent before child. Nodes are chained through `work`, so a leaf's cancel allocates nothing and
//!    a million levels take no stack. Nobody waits for anybody: a node that somebody else is sweeping is not waited for but
//!    [helped](sweep), so that whoever returns from `cancel` leaves nothing live behind (C7).
//! 3. *Wake*: in derivation order, all locks released, each panic caught (C9, C32).
//!
//! It is tempting to take nodes out of their parents' lists while marking. But then a second caller of `cancel` cannot find
//! what is still to be marked, and would have to wait for the first one, who may be in the middle of user code.
//!
//! # Deadlines
//! A node whose own deadline binds is its own `owner`; others point at the nearest ancestor's that does. Until somebody
//! waits, no timer is set, and polls ask the clock. See [`deadline`].
//!
//! # What it is not
//! It knows no executor, no thread but as a waker, and no errors but the two kinds.

mod chain;
mod deadline;
mod dependents;
mod derive;
mod handle;
mod merge;
mod node;
mod panics;
mod reclaim;
mod sweep;
mod wait;

pub(crate) use derive::{Plan, manual_root};
pub(crate) use handle::Ref;
pub(crate) use merge::any_of;
pub(crate) use node::{Head, Kind, Node};
pub(crate) use panics::Panics;
pub(crate) use reclaim::Dead;
pub(crate) use sweep::{Wake, cancel, expire};

use handle::count_up;

/// How many links are walked before the lock is let go for others. Long enough that locking is a small part of the walk,
/// short enough that nobody waits for longer than about a microsecond.
const BATCH: usize = if cfg!(all(test, purview_loom)) { 1 } else { 32 };
