//! A binary heap whose entries know their place, so that any of them can leave in O(log n).
#![expect(unsafe_code, reason = "the heap points at entries that lie in contexts and futures")]

use super::{At, Due, Place, Target};
use crate::clock::Tick;

/// Room that is kept however few entries there are, so that a quiet heap never allocates.
const KEPT: usize = 1024;

/// Entries by deadline, then by sequence (derivation).
pub(crate) struct Heap {
    slots: Vec<Slot>,
}

#[derive(Clone, Copy)]
struct Slot {
    key: (Tick, u64),
    target: Target,
}

// SAFETY: the entries it points at are touched only under the lock around the heap (T1).
unsafe impl Send for Heap {}

impl Heap {
    pub(crate) const fn new() -> Self {
        Heap { slots: Vec::new() }
    }

    #[cfg(any(test, purview_check))]
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn earliest(&self) -> Option<Tick> {
        self.slots.first().map(|slot| slot.key.0)
    }

    /// Puts an entry in that is out.
    ///
    /// # Safety
    /// The entry stays where it is until it is [removed](Self::remove) or [popped](Self::pop) (T2).
    pub(crate) unsafe fn insert(&mut self, target: Target) {
        // SAFETY: by the contract.
        let key = unsafe { target.key() };
        self.slots.push(Slot { key, target });
        self.settle(self.slots.len() - 1);
    }

    /// Takes an entry out, if it is in.
    pub(crate) fn remove(&mut self, target: Target) {
        // SAFETY: `&mut self` is the lock (T1); so are the others below.
        let place = unsafe { target.fields(|fields| fields.place) };
        let At::Heap(place) = place.at() else { return };
        // SAFETY: as above.
        unsafe { target.fields(|fields| fields.place = Place::OUT) };
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
        let target = self.slots.first()?.target;
        self.remove(target);
        // SAFETY: what is in the heap is valid under its lock, which `&mut self` is (T1, T2).
        unsafe { target.due() }
    }

    /// Moves the slot at `place` to where it belongs.
    fn settle(&mut self, mut place: usize) {
        while place > 0 && self.slots[place].key < self.slots[(place - 1) / 2].key {
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
            let child = if right < self.slots.len() && self.slots[right].key < self.slots[left].key
            {
                right
            } else {
                left
            };
            if self.slots[place].key <= self.slots[child].key {
                break;
            }
            self.slots.swap(place, child);
            self.note(place);
            place = child;
        }
        self.note(place);
    }

    fn note(&mut self, place: usize) {
        let target = self.slots[place].target;
        // SAFETY: what is in the heap is valid under its lock, which `&mut self` is (T1, T2).
        unsafe { target.fields(|fields| fields.place = Place::heap(place)) };
    }
}

#[cfg(all(test, not(purview_loom)))]
mod tests {
    use super::*;
    use crate::timer::AlarmEntry;
    use crate::timer::wheel::tests::random;
    use std::collections::BTreeMap;

    #[test]
    fn the_heap_agrees_with_an_ordered_map_under_random_inserts_moves_and_removals() {
        let mut entries: Vec<Option<Box<AlarmEntry>>> = (0..200).map(|_| None).collect();
        let mut heap = Heap::new();
        let mut model = BTreeMap::new();
        let mut seed = 0x9e37_79b9_7f4a_7c15;
        for _ in 0..20_000 {
            let i = usize::try_from(random(&mut seed) % 200).expect("small");
            let deadline = i64::try_from(random(&mut seed) % 50).expect("small");
            if let Some(old) = entries[i].take() {
                heap.remove(Target::alarm(&old));
                assert!(model.remove(&(old.at().nanos(), i)).is_some());
            }
            if random(&mut seed) % 3 != 0 {
                let entry = entries[i]
                    .insert(Box::new(AlarmEntry::new(Tick::from_nanos(deadline), i as u64)));
                // SAFETY: boxed, and taken out before it goes.
                unsafe { heap.insert(Target::alarm(entry)) };
                model.insert((deadline, i), ());
            }
            let first =
                model.first_key_value().map(|((deadline, _), ())| Tick::from_nanos(*deadline));
            assert_eq!(heap.earliest(), first);
        }
        let mut order = Vec::new();
        while let Some(slot) = heap.slots.first().copied() {
            order.push((slot.key.0.nanos(), usize::try_from(slot.key.1).expect("small")));
            assert!(heap.pop().is_none(), "an entry without a waker has nothing to be done");
        }
        assert_eq!(order, model.into_keys().collect::<Vec<_>>());
    }

    #[test]
    fn the_heap_gives_back_its_room_by_halves_and_keeps_some() {
        let entries: Vec<_> = (0..16 * KEPT as u64)
            .map(|i| Box::new(AlarmEntry::new(Tick::from_nanos(1), i)))
            .collect();
        let mut heap = Heap::new();
        // SAFETY: boxed, and taken out before it goes.
        entries.iter().for_each(|entry| unsafe { heap.insert(Target::alarm(entry)) });
        let mut rooms = vec![heap.slots.capacity()];
        for entry in &entries {
            heap.remove(Target::alarm(entry));
            rooms.push(heap.slots.capacity());
            assert!(heap.slots.capacity() <= KEPT.max(4 * heap.len() + 4));
        }
        rooms.dedup();
        assert_eq!(rooms, [16, 8, 4, 2, 1].map(|times| times * KEPT));
    }
}
