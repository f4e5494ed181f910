//! The state of a context: one word, so that there is one answer to "is it done".
//!
//! # The word
//! | value | name | meaning |
//! |---|---|---|
//! | 0 | live | not done; nobody need look at a clock (no deadline, or the deadline is armed) |
//! | 1 | look further | of a node, ask the clock: not done as far as anybody noted, but the deadline that binds here is not armed. Of a value layer, for good: its scope's state tells |
//! | a node's address and tags | done | that node is the origin of the end, the tags say how it came |
//!
//! # Transitions
//! | from | to | by | when |
//! |---|---|---|---|
//! | ask the clock | live | [`arm`](State::arm) | the deadline is in the timer, or a descendant saw that it is |
//! | live, ask | done | [`end`](State::end) | a cancel, a timer, a parent's sweep: under the lock that guards the node's end |
//! | ask the clock | done, unclaimed | [`expire`](State::expire) | a poll found the deadline passed; fails once armed |
//! | done, unclaimed | done, claimed | [`claim`](State::claim) | somebody takes on the duty to sweep the subtree |
//!
//! Nothing leads back. Out of *live* there is only `end`, whose caller holds a lock, so it is a plain store. That a poll's
//! `expire` and a waiter's `arm` compete for one word is what makes an unwatched deadline exact and a watched one a single load,
//! without an observer ever seeing done turn into live.
//!
//! The order of the values is the answer: below 1 no, above it yes, and 1 itself is for somebody else to say. So a poll is a
//! load, one comparison and a jump that is not taken.
//!
//! A word, not a flag beside an error: two words for one fact is the bug that Go's `Err` had (golang/go#75533).

use std::ptr::{self, NonNull};

use crate::error::By;
use crate::sync::{AtomicPtr, Ordering};
use crate::tree::Node;

/// How it ended: a [`By`] as a number.
const BY: usize = 0b0011;
/// Somebody sweeps, or has swept, the subtree and wakes who waits in it.
const CLAIMED: usize = 0b0100;
/// It was live, not asking the clock, when it ended: the sweep comes, nobody has to find out for himself.
const WAS_LIVE: usize = 0b1000;
const TAGS: usize = BY | CLAIMED | WAS_LIVE;

const _: () = assert!(Node::ALIGN > TAGS, "the tags must fit below a node's alignment");

const LIVE: *mut Node = ptr::null_mut();
const ASK: *mut Node = ptr::without_provenance_mut(1);

/// Where an end began and how: a node's address and its tags.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending(NonNull<Node>);

impl Ending {
    pub(crate) fn new(origin: NonNull<Node>, by: By) -> Self {
        Ending(origin.map_addr(|address| address | by as usize))
    }

    /// As a word, to lie in an atomic; and back.
    pub(crate) fn word(self) -> *mut Node {
        self.0.as_ptr()
    }

    pub(crate) fn from_word(word: NonNull<Node>) -> Self {
        Ending(word).plain()
    }

    /// The node at which it began.
    pub(crate) fn origin(self) -> NonNull<Node> {
        let address = self.0.as_ptr().map_addr(|address| address & !TAGS);
        NonNull::new(address).unwrap_or(self.0) // an origin is never null
    }

    pub(crate) fn by(self) -> By {
        By::from_bits(self.tags() & BY)
    }

    /// Without the bits that are about one node's state and not about the end.
    fn plain(self) -> Self {
        Ending::new(self.origin(), self.by())
    }

    fn tags(self) -> usize {
        self.0.as_ptr().addr() & TAGS
    }

    fn tagged(self, tags: usize) -> *mut Node {
        self.plain().0.as_ptr().map_addr(|address| address | tags)
    }
}

/// What a look at the word says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    Live,
    AskClock,
    Done(Done),
}

/// A done word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    word: Ending,
}

impl Done {
    pub(crate) fn ending(self) -> Ending {
        self.word.plain()
    }

    pub(crate) fn is_claimed(self) -> bool {
        self.word.tags() & CLAIMED != 0
    }

    pub(crate) fn was_live(self) -> bool {
        self.word.tags() & WAS_LIVE != 0
    }
}

/// Whether a transition to done was this call's.
#[must_use]
pub(crate) enum Ended {
    /// This call ended it.
    Won,
    /// It had ended before.
    Lost,
}

/// The word.
pub(crate) struct State(AtomicPtr<Node>);

impl State {
    #[cfg(not(all(test, purview_loom)))]
    pub(crate) const fn live() -> Self {
        State(AtomicPtr::new(LIVE))
    }

    #[cfg(all(test, purview_loom))]
    pub(crate) fn live() -> Self {
        State(AtomicPtr::new(LIVE))
    }

    /// A value layer's.
    pub(crate) fn elsewhere() -> Self {
        State(AtomicPtr::new(ASK))
    }

    /// The answer to "is it done", where the word alone tells. One Acquire load; pairs with the Release in every transition
    /// to done.
    #[inline(always)]
    pub(crate) fn known(&self) -> Option<bool> {
        let word = self.0.load(Ordering::Acquire);
        (word != ASK).then_some(word > ASK)
    }

    /// Before the node is shared: its deadline is not armed.
    pub(crate) fn start_asking(&self) {
        self.0.store(ASK, Ordering::Relaxed);
    }

    /// One Acquire load; pairs with the Release in every transition to done.
    #[inline]
    pub(crate) fn load(&self) -> View {
        view(self.0.load(Ordering::Acquire))
    }

    /// The end, if it is noted.
    #[inline]
    pub(crate) fn done(&self) -> Option<Done> {
        match self.load() {
            View::Done(done) => Some(done),
            View::Live | View::AskClock => None,
        }
    }

    /// live, ask → done. `claim`: the caller sweeps. The caller holds the lock that guards this node's end, or has the node
    /// for itself.
    pub(crate) fn end(&self, ending: Ending, claim: bool) -> Ended {
        let claimed = if claim { CLAIMED } else { 0 };
        match view(self.0.load(Ordering::Acquire)) {
            View::Live => {}
            View::AskClock => {
                let done = ending.tagged(claimed);
                match self.0.compare_exchange(ASK, done, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return Ended::Won,
                    Err(now) if now == LIVE => {} // it was armed meanwhile; nothing else comes of live without the lock
                    Err(_) => return Ended::Lost,
                }
            }
            View::Done(_) => return Ended::Lost,
        }
        self.0.store(ending.tagged(claimed | WAS_LIVE), Ordering::Release);
        Ended::Won
    }

    /// ask → done, unclaimed. True if it is done now, by this call or before; false if a timer watches: then that decides.
    #[must_use]
    pub(crate) fn expire(&self, ending: Ending) -> bool {
        let done = ending.tagged(0);
        match self.0.compare_exchange(ASK, done, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(now) => matches!(view(now), View::Done(_)),
        }
    }

    /// ask → live. Losing to an end is fine: the caller looks again.
    pub(crate) fn arm(&self) {
        let _ = self.0.compare_exchange(ASK, LIVE, Ordering::AcqRel, Ordering::Acquire);
    }

    /// done, unclaimed → done, claimed; true if it was this call.
    #[must_use]
    pub(crate) fn claim(&self) -> bool {
        let current = self.0.load(Ordering::Acquire);
        let View::Done(done) = view(current) else { return false };
        if done.is_claimed() {
            return false;
        }
        // Nothing but a claim changes a done word, so one attempt decides.
        let claimed = current.map_addr(|address| address | CLAIMED);
        self.0.compare_exchange(current, claimed, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[inline]
fn view(word: *mut Node) -> View {
    match NonNull::new(word) {
        None => View::Live,
        Some(_) if word == ASK => View::AskClock,
        Some(word) => View::Done(Done { word: Ending(word) }),
    }
}
