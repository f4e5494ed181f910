//! A binary heap whose entries know their place, so that any of them can leave in O(log n).
#![expect(unsafe_code, reason = "the heap points at entries that lie in contexts and futures")]

use std::ptr::NonNull;

use super::{Due, Entry, OUT, Target};
use crate::clock::Tick;
use crate::tree::Ref;

/// Room that is kept however few entries there are, so that a quiet heap never allocates.
const KEPT: usize = 1024;

/// Entries by deadline, then by sequence (derivation).
pub(crate) struct Heap {
    slots: Vec<Slot>,
}

#[derive(Clone, Copy)]
struct Slot {
    at: Tick,
    sequence: u64,
    entry: NonNull<Entry>,
}

// SAFETY: the entries it points at are touched only under the lock around the heap (T1).
unsafe impl Send for Heap {}

impl Heap {
    pub(crate) const fn new() -> Self {
        Heap { slots: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(crate) fn earliest(&self) -> Option<Tick> {
        self.slots.first().map(|slot| slot.at)
    }

    /// Puts an entry in, or moves it if it is in. Gives back the target it had, which may hold a waker: the caller drops it
    /// after unlocking (T3).
    ///
    /// # Safety
    /// The entry stays where it is until it is [removed](Self::remove) or [popped](Self::pop) (T2).
    pub(crate) unsafe fn insert(
        &mut self,
        entry: &Entry,
        at: Tick,
        sequence: u64,
        target: Target,
    ) -> Target {
        // SAFETY: `&mut self` is the lock (T1); so are the others below.
        let place = unsafe { entry.fields(|fields| fields.place) };
        let slot = Slot { at, sequence, entry: NonNull::from(entry) };
        let place = if place == OUT {
            self.slots.push(slot);
            self.slots.len() - 1
        } else {
            self.slots[place] = slot;
            place
        };
        // SAFETY: as above.
        let old = unsafe { entry.fields(|fields| std::mem::replace(&mut fields.target, target)) };
        self.settle(place);
        old
    }

    /// Takes an entry out, if it is in.
    pub(crate) fn remove(&mut self, entry: &Entry) {
        // SAFETY: `&mut self` is the lock (T1).
        let place = unsafe { entry.fields(|fields| std::mem::replace(&mut fields.place, OUT)) };
        if place == OUT {
            return;
        }
        self.slots.swap_remove(place);
        if self.slots.capacity() > KEPT && self.slots.len() < self.slots.capacity() / 4 {
            self.slots.shrink_to(self.slots.capacity() / 2);
        }
        if place < self.slots.len() {
            self.settle(place);
        }
    }

    /// Takes the earliest entry out. None where there is nothing to be done for it: a context that is being reclaimed.
    pub(crate) fn pop(&mut self) -> Option<Due> {
        let entry = self.slots.first()?.entry;
        // SAFETY: what is in the heap is valid under its lock (T2).
        let entry = unsafe { entry.as_ref() };
        self.remove(entry);
        // SAFETY: `&mut self` is the lock (T1).
        unsafe {
            entry.fields(|fields| match &mut fields.target {
                // A node whose last handle is gone waits for this lock to take its entry out; it is not to be revived.
                Target::Deadline(node) => Ref::upgrade(*node).map(Due::Deadline),
                Target::Alarm(waker) => waker.take().map(Due::Alarm),
                Target::Nothing => None,
            })
        }
    }

    /// Moves the slot at `place` to where it belongs.
    fn settle(&mut self, mut place: usize) {
        while place > 0 && self.key(place) < self.key((place - 1) / 2) {
            self.slots.swap(place, (place - 1) / 2);
            self.note(place);
            place = (place - 1) / 2;
        }
        loop {
            let left = 2 * place + 1;
            if left >= self.slots.len() {
                break;
            }
            let right = left + 1;
            let child = if right < self.slots.len() && self.key(right) < self.key(left) {
                right
            } else {
                left
            };
            if self.key(place) <= self.key(child) {
                break;
            }
            self.slots.swap(place, child);
            self.note(place);
            place = child;
        }
        self.note(place);
    }

    fn key(&self, place: usize) -> (Tick, u64) {
        (self.slots[place].at, self.slots[place].sequence)
    }

    fn note(&mut self, place: usize) {
        // SAFETY: what is in the heap is valid under its lock (T2).
        let entry = unsafe { self.slots[place].entry.as_ref() };
        // SAFETY: `&mut self` is the lock (T1).
        unsafe { entry.fields(|fields| fields.place = place) };
    }
}

#[cfg(all(test, not(purview_loom)))]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A small xorshift: the same sequence in every run.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn the_heap_agrees_with_an_ordered_map_under_random_inserts_moves_and_removals() {
        let entries: Vec<Box<Entry>> = (0..200).map(|_| Box::new(Entry::new())).collect();
        let mut heap = Heap::new();
        let mut model = BTreeMap::new();
        let mut at = vec![None; entries.len()];
        let mut seed = 0x9e37_79b9_7f4a_7c15;
        for _ in 0..20_000 {
            let i = usize::try_from(random(&mut seed) % 200).expect("small");
            let deadline = i64::try_from(random(&mut seed) % 50).expect("small");
            if random(&mut seed) % 3 == 0 {
                heap.remove(&entries[i]);
                if let Some(old) = at[i].take() {
                    model.remove(&(old, i));
                }
            } else {
                // SAFETY: boxed, and alive until the heap is gone.
                let _ = unsafe {
                    heap.insert(&entries[i], Tick::from_nanos(deadline), i as u64, Target::Nothing)
                };
                if let Some(old) = at[i].replace(deadline) {
                    model.remove(&(old, i));
                }
                model.insert((deadline, i), ());
            }
            let first =
                model.first_key_value().map(|((deadline, _), ())| Tick::from_nanos(*deadline));
            assert_eq!(heap.earliest(), first);
        }
        let mut order = Vec::new();
        while let Some(slot) = heap.slots.first().copied() {
            order.push((slot.at.nanos(), usize::try_from(slot.sequence).expect("small")));
            assert!(heap.pop().is_none(), "an entry without a target has nothing to be done");
        }
        assert_eq!(order, model.into_keys().collect::<Vec<_>>());
    }
}
