//! The facts of an end by a call: when, where and why. They lie where the node's link to its parent was.
#![expect(unsafe_code, reason = "two words that are a link or facts, as the state says")]

use std::panic::Location;

use crate::clock::Tick;
use crate::error::Cause;

use super::Node;

/// The facts of an end by a call.
pub(crate) struct Ended<'a> {
    pub(crate) at: Tick,
    pub(crate) place: &'static Location<'static>,
    pub(crate) cause: Option<&'a Cause>,
}

/// Where a call with a cause was, and the cause. In a box of its own, behind a tagged pointer.
struct Reason {
    place: &'static Location<'static>,
    cause: Cause,
}

const WITH_REASON: usize = 1;

impl Node {
    /// Writes down the facts of an end by a call.
    ///
    /// # Safety
    /// The node is in no list, is not done yet, and the lock that guards its end is held.
    pub(super) unsafe fn note_facts(
        &self,
        at: Tick,
        place: &'static Location<'static>,
        cause: Option<Cause>,
    ) {
        let place: *const () = match cause {
            None => std::ptr::from_ref(place).cast(),
            Some(cause) => {
                let reason: *const Reason = Box::into_raw(Box::new(Reason { place, cause }));
                reason.cast::<()>().map_addr(|address| address | WITH_REASON)
            }
        };
        // SAFETY: by the contract.
        unsafe { self.link.keep(at.nanos(), place) };
    }

    /// Takes the cause back out of what was noted.
    ///
    /// # Safety
    /// Facts were noted, and nobody else reads them.
    pub(super) unsafe fn take_cause(&self) -> Option<Cause> {
        // SAFETY: by the contract.
        let (_, place) = unsafe { self.link.kept() };
        if place.addr() & WITH_REASON == 0 {
            return None;
        }
        let reason = place.map_addr(|address| address & !WITH_REASON).cast::<Reason>();
        // SAFETY: put there by `note_facts`.
        Some(unsafe { Box::from_raw(reason.cast_mut()) }.cause)
    }

    /// The facts of the call that ended it. Asked of the origin of an end by a call only.
    pub(crate) fn ended(&self) -> Ended<'_> {
        // SAFETY: written before the state that says so was published; the caller has seen that.
        let (at, place) = unsafe { self.link.kept() };
        let at = Tick::from_nanos(at);
        if place.addr() & WITH_REASON == 0 {
            // SAFETY: put there by `note_facts`.
            return Ended { at, place: unsafe { &*place.cast() }, cause: None };
        }
        // SAFETY: as above; it lives as long as the node's memory.
        let reason = unsafe { &*place.map_addr(|it| it & !WITH_REASON).cast::<Reason>() };
        Ended { at, place: reason.place, cause: Some(&reason.cause) }
    }
}
