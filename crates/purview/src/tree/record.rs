//! The record of an end by a call: when, where and why. Each node has room for one.
#![expect(
    unsafe_code,
    reason = "two words that are written once, before the state says that they are there"
)]

use std::panic::Location;

use crate::clock::Tick;
use crate::error::Cause;
use crate::sync::UnsafeCell;

use super::Node;

/// What an end by a call leaves behind, as it is read.
pub(crate) struct Ended<'a> {
    pub(crate) at: Tick,
    pub(crate) place: &'static Location<'static>,
    pub(crate) cause: Option<&'a Cause>,
}

/// The same, as it is kept. Written under the lock that guards the node's end, before the state says that the node ended by a call;
/// after that it does not change.
pub(super) struct Record(UnsafeCell<Words>);

#[derive(Clone, Copy)]
struct Words {
    at: Tick,
    /// The place of the call; or, where there is a cause, a [`Reason`], and then the lowest bit is set. Null before there is a record.
    call: *const (),
}

/// Where a call with a cause was, and the cause: in an allocation of its own.
struct Reason {
    place: &'static Location<'static>,
    cause: Cause,
}

const WITH_REASON: usize = 1;

impl Record {
    const EMPTY: Words = Words { at: Tick::NEVER, call: std::ptr::null() };

    #[cfg(not(all(test, purview_loom)))]
    pub(super) const fn new() -> Record {
        Record(UnsafeCell::new(Record::EMPTY))
    }

    #[cfg(all(test, purview_loom))]
    pub(super) fn new() -> Record {
        Record(UnsafeCell::new(Record::EMPTY))
    }
}

impl Words {
    fn reason(self) -> Option<*const Reason> {
        let is_reason = self.call.addr() & WITH_REASON != 0;
        is_reason.then(|| self.call.map_addr(|address| address & !WITH_REASON).cast())
    }
}

impl Node {
    /// Writes the record.
    ///
    /// # Safety
    /// The node is not done, and the caller holds the lock that guards its end.
    pub(super) unsafe fn write_record(
        &self,
        at: Tick,
        place: &'static Location<'static>,
        cause: Option<Cause>,
    ) {
        let call: *const () = match cause {
            None => std::ptr::from_ref(place).cast(),
            Some(cause) => {
                let reason: *const Reason = Box::into_raw(Box::new(Reason { place, cause }));
                reason.cast::<()>().map_addr(|address| address | WITH_REASON)
            }
        };
        // SAFETY: by the contract, nobody else writes, and nobody reads before the state says so.
        self.record.0.with_mut(|words| unsafe { words.write(Words { at, call }) });
    }

    fn words(&self) -> Words {
        // SAFETY: nobody writes meanwhile: the caller has seen the state that says that it is written, or has the node for itself.
        self.record.0.with(|words| unsafe { *words })
    }

    /// Takes the cause out of a record that is not to be read any more.
    ///
    /// # Safety
    /// Nobody else reads or writes it.
    pub(super) unsafe fn take_cause(&self) -> Option<Cause> {
        let reason = self.words().reason()?;
        // SAFETY: by the contract.
        self.record.0.with_mut(|words| unsafe { words.write(Record::EMPTY) });
        // SAFETY: made by `write_record`, and its place is empty now.
        Some(unsafe { Box::from_raw(reason.cast_mut()) }.cause)
    }

    /// Of a node whose handles are gone: whether a cause lies in its record.
    #[inline]
    pub(super) fn has_cause(&self) -> bool {
        self.words().reason().is_some()
    }

    /// The record of the call that ended it. Asked only of the origin of an end by a call.
    pub(crate) fn ended(&self) -> Ended<'_> {
        let words = self.words();
        match words.reason() {
            Some(reason) => {
                // SAFETY: made by `write_record`; it lives as long as the node's memory.
                let reason = unsafe { &*reason };
                Ended { at: words.at, place: reason.place, cause: Some(&reason.cause) }
            }
            // SAFETY: put there by `write_record`.
            None => Ended { at: words.at, place: unsafe { &*words.call.cast() }, cause: None },
        }
    }
}
