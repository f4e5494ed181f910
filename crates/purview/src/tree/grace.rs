//! When a grace is over, and the end that it has then.
//!
//! A grace runs from the end of its parent: when it is over is a function of that end, and computed once, by whichever thread needs it
//! first. Until then its limit is an estimate, the deadline of the parent plus the grace (C15), and later than the truth if the parent
//! is canceled. A poll that finds the grace over by the estimate has the parent's end recorded first, and so records the exact instant.
#![expect(unsafe_code, reason = "roots are ancestors, which the strong pointers up keep")]

use crate::clock::Tick;
use crate::error::By;
use crate::state::Ending;
use crate::sync::Ordering;

use super::Node;
use super::deadline::Way;

impl Node {
    /// Of a grace whose parent is done: when it is over. All threads that come here write the same instant, except below a parent that
    /// was ended on another clock, whose time says nothing here; then the first one's counts.
    pub(super) fn grace_over(&self) -> Option<Tick> {
        let extra = self.extra()?;
        let grace = extra.grace?;
        let known = self.over_at();
        if known != Tick::NEVER {
            return Some(known);
        }
        let parent = self.above()?;
        let ended = parent.ended_at(parent.state().done()?.ending());
        // A cancel may come between the parent's deadline and a timer that is late: what was said of the grace before stays.
        let over = ended.min(parent.deadline()).after(grace);
        let never = Tick::NEVER.nanos();
        let set = extra.over_at.compare_exchange(
            never,
            over.nanos(),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        Some(set.err().map_or(over, Tick::from_nanos))
    }

    /// Of an owner whose limit has passed: whether it is a grace, and that is what ends it, and not its own deadline.
    pub(super) fn is_grace_over(&self) -> bool {
        let Some(grace) = self.grace() else { return false };
        let estimate = || self.above().map_or(Tick::NEVER, Node::deadline).after(grace);
        self.grace_over().unwrap_or_else(estimate) <= self.own_deadline()
    }

    /// Of a grace that is over: the end that it followed. The parent's time was up before this grace's, even if no thread has recorded it
    /// yet; then that is done here, at the parent itself and not only at its owner: a cancel between the two would otherwise give the
    /// parent another end. Graces may be nested, and none of them armed: the uppermost first.
    pub(super) fn find_root(&self) -> Ending {
        let source = self.above().and_then(Node::binding).map_or(self, |binding| binding.source);
        let mut graces = Way::new();
        let mut next = Some(self);
        while let Some(owner) = next {
            if owner.merged().is_some() {
                next = Some(owner.merge_binding().owner).filter(|its| !std::ptr::eq(*its, owner));
                continue;
            }
            if owner.grace_over().is_some()
                || !std::ptr::eq(owner, self) && std::ptr::eq(owner, source)
            {
                break;
            }
            next = match owner.grace() {
                None => owner.next_owner(),
                Some(_) => {
                    graces.push(owner);
                    owner.above().and_then(Node::nearest)
                }
            };
        }
        for grace in graces.down() {
            grace.above().map(Node::note_deadline); // what is above is done, so this does not come back here
        }
        let _ = self.grace_over(); // before the state that says that it is
        let parents = self.above().and_then(|parent| Some(parent.state().done()?.ending()));
        let ending = parents.unwrap_or(Ending::new(self.this(), By::Deadline)); // a parent is done now
        // SAFETY: an ancestor.
        let root = unsafe { ending.origin().as_ref() }.grace_root();
        root.filter(|_| ending.by() == By::GraceOver).unwrap_or(ending)
    }
}
