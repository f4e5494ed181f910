//! A hierarchical timing wheel (Varghese and Lauck, 1987), before a heap that makes its near end exact.
//!
//! Time is cut into slots of 2^17 ns, an eighth of a millisecond. What is due in slot `s` lies, as seen from the `cursor`, at the
//! level of the highest of the 6-bit digits in which `s` and the cursor differ, in the slot that this digit of `s` names.
//! Eight levels hold all there is. Linking and unlinking is O(1); an entry is moved at most once a level on its way down,
//! as the cursor comes to the beginning of the slot it lies in. Behind the cursor there is the heap: it has all that is due in
//! the slots up to the cursor, which [`advance`](Wheel::advance) keeps at least a slot ahead of the time.
//!
//! A slot of a higher level may hold a million entries. It is moved [a part](PART) at a time, so that the lock around the wheel is
//! not held for all of them: what is left of it lies in a place of its own, [`MOVING`], and the next call goes on with it.
//!
//! # Invariants
//! - **H1** An entry is in the heap if it is due in the cursor's slot or before; else in the wheel, at the place that its slot
//!   and the cursor determine; unless it is in the slot that is being moved. No cursor ever passes an occupied slot.
//! - **H2** A level's bit is set where its slot is occupied.
//! - **H3** What is in the slot that is being moved is due in the cursor's slot or later: the cursor came to where that slot begins, and
//!   stays there until it is empty. So what is due before the cursor's slot may be popped meanwhile, and nothing else.
#![expect(unsafe_code, reason = "slots point at entries that lie in contexts and futures")]

#[cfg(any(all(test, not(purview_loom)), purview_check))]
pub(crate) mod trial;

use super::heap::Heap;
use super::{At, Due, Place, Target};
use crate::clock::Tick;

/// A slot's width, as a power of two of nanoseconds.
const WIDTH: u32 = 17;
/// Bits of a level's digit.
const DIGIT: u32 = 6;
const SLOTS: usize = 1 << DIGIT;
/// 46 bits of slots are what 63 bits of nanoseconds leave; eight levels hold 48.
const LEVELS: usize = 8;

/// The place of what is left of the slot that is being moved.
const MOVING: usize = SLOTS * LEVELS;

/// How many entries are moved at a time: some 50 µs. In tests few, so that there are many parts.
const PART: usize = if cfg!(any(test, purview_check)) { 4 } else { 1_024 };

pub(crate) struct Wheel {
    near: Heap,
    /// The slot up to which everything is in the heap.
    cursor: u64,
    slots: [Option<Target>; SLOTS * LEVELS + 1],
    occupied: [u64; LEVELS],
    len: usize,
    /// The earliest that was put in since this was last taken.
    sooner: Tick,
}

// SAFETY: the entries it points at are touched only under the lock around the wheel (T1).
unsafe impl Send for Wheel {}

impl Wheel {
    pub(crate) const fn new() -> Self {
        Wheel {
            near: Heap::new(),
            cursor: 0,
            slots: [None; SLOTS * LEVELS + 1],
            occupied: [0; LEVELS],
            len: 0,
            sooner: Tick::NEVER,
        }
    }

    /// How many are in.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many are found by walking along all of them.
    #[cfg(any(all(test, not(purview_loom)), purview_check))]
    fn found(&self) -> usize {
        let mut found = self.near.len();
        for first in self.slots {
            let mut next = first;
            while let Some(target) = next {
                found += 1;
                // SAFETY: in the wheel, so valid under its lock, which `&self` was got by (T1, T2).
                next = unsafe { target.fields(|fields| fields.next) };
            }
        }
        found
    }

    /// The earliest that was put in since the last such question.
    pub(crate) fn take_sooner(&mut self) -> Tick {
        std::mem::replace(&mut self.sooner, Tick::NEVER)
    }

    /// Puts an entry in that is out.
    ///
    /// # Safety
    /// The entry stays where it is until it is [removed](Self::remove) or [popped](Self::pop) (T2).
    pub(crate) unsafe fn insert(&mut self, target: Target) {
        // SAFETY: by the contract.
        let (at, _) = unsafe { target.key() };
        self.sooner = self.sooner.min(at);
        self.len += 1;
        // SAFETY: as above.
        unsafe { self.put(target, at) };
    }

    unsafe fn put(&mut self, target: Target, at: Tick) {
        let slot = slot_of(at);
        if slot <= self.cursor {
            // SAFETY: the caller's promise.
            unsafe { self.near.insert(target) };
            return;
        }
        let level = (63 - (slot ^ self.cursor).leading_zeros()) / DIGIT;
        let digit = (slot >> (level * DIGIT)) as usize % SLOTS;
        let index = level as usize * SLOTS + digit;
        let next = self.slots[index].replace(target);
        if let Some(next) = next {
            // SAFETY: in the wheel, so valid under its lock, which `&mut self` is (T1, T2).
            unsafe { next.fields(|fields| fields.place = Place(target.0.as_ptr())) };
        }
        // SAFETY: as above.
        unsafe {
            target.fields(|fields| {
                fields.next = next;
                fields.place = Place::slot(index);
            });
        }
        self.occupied[level as usize] |= 1 << digit;
    }

    /// Takes an entry out, if it is in.
    pub(crate) fn remove(&mut self, target: Target) {
        if self.take_out(target) {
            self.len -= 1;
        }
    }

    /// True if it was in.
    fn take_out(&mut self, target: Target) -> bool {
        // SAFETY: `&mut self` is the lock (T1); so are the others below.
        let (next, place) = unsafe { target.fields(|fields| (fields.next, fields.place)) };
        match place.at() {
            At::Out => return false,
            At::Heap(_) => {
                self.near.remove(target);
                return true;
            }
            At::Slot(index) => {
                self.slots[index] = next;
                if next.is_none() && index != MOVING {
                    self.occupied[index / SLOTS] &= !(1 << (index % SLOTS));
                }
            }
            At::Behind(before) => {
                // SAFETY: in the same slot, so valid (T2).
                unsafe { before.fields(|fields| fields.next = next) };
            }
        }
        if let Some(next) = next {
            // SAFETY: as above.
            unsafe { next.fields(|fields| fields.place = place) };
        }
        // SAFETY: as above.
        unsafe { target.fields(|fields| fields.place = Place::OUT) };
        true
    }

    /// Moves to the heap what is due in `now`'s slot and the next; a part of it, if it is much. True if that was all.
    pub(crate) fn advance(&mut self, now: Tick) -> bool {
        let goal = slot_of(now).saturating_add(1);
        let mut left = PART;
        loop {
            while let Some(target) = self.slots[MOVING] {
                if left == 0 {
                    return false;
                }
                left -= 1;
                self.take_out(target);
                // SAFETY: it was in the wheel, whose lock is held (T1, T2).
                let (at, _) = unsafe { target.key() };
                // SAFETY: as above; it was put in with the promise to stay.
                unsafe { self.put(target, at) };
            }
            let Some((slot, index)) = self.next_occupied().filter(|(slot, _)| *slot <= goal) else {
                break;
            };
            self.cursor = slot;
            self.slots[MOVING] = self.slots[index].take();
            self.occupied[index / SLOTS] &= !(1 << (index % SLOTS));
            if let Some(first) = self.slots[MOVING] {
                // SAFETY: as above.
                unsafe { first.fields(|fields| fields.place = Place::slot(MOVING)) };
            }
        }
        // Nothing lies between, so every entry's place is the same as seen from here.
        self.cursor = self.cursor.max(goal);
        true
    }

    /// The first occupied slot in time, where it begins, and its place. Of a level's slots all lie before those of a higher
    /// one, and none lies behind the cursor (H1).
    fn next_occupied(&self) -> Option<(u64, usize)> {
        let level = self.occupied.iter().position(|bits| *bits != 0)?;
        let digit = self.occupied[level].trailing_zeros();
        let shift = level as u32 * DIGIT;
        let above = self.cursor.checked_shr(shift + DIGIT).unwrap_or(0);
        let slot = ((above << DIGIT) | u64::from(digit)) << shift;
        Some((slot, level * SLOTS + digit as usize))
    }

    /// Whether a slot is being moved.
    fn is_moving(&self) -> bool {
        self.slots[MOVING].is_some()
    }

    /// When there is something to do: what is due first in the heap, or the time to move a slot there; which has come, if one
    /// is being moved.
    pub(crate) fn next(&self) -> Option<Tick> {
        let moving = self.is_moving().then_some(self.cursor);
        let moving = moving.or_else(|| self.next_occupied().map(|(slot, _)| slot));
        let moving = moving.map(|slot| start_of(slot.saturating_sub(1)));
        self.near.earliest().into_iter().chain(moving).min()
    }

    /// Takes out what is due first, if it is due at `now` and nothing that may be due before it is still to be moved; None inside,
    /// where there is nothing to be done for it.
    pub(crate) fn pop(&mut self, now: Tick) -> Option<Option<Due>> {
        let at = self.near.earliest().filter(|at| *at <= now)?;
        if self.is_moving() && slot_of(at) >= self.cursor {
            return None;
        }
        self.len -= 1;
        Some(self.near.pop())
    }
}

/// What lies before the epoch is due at once.
fn slot_of(at: Tick) -> u64 {
    u64::try_from(at.nanos()).unwrap_or(0) >> WIDTH
}

fn start_of(slot: u64) -> Tick {
    Tick::from_nanos(i64::try_from(slot << WIDTH).unwrap_or(i64::MAX))
}

#[cfg(all(test, not(purview_loom)))]
pub(crate) mod tests {
    use super::{PART, Wheel, trial};
    use crate::clock::Tick;
    use crate::timer::{AlarmEntry, Target};

    /// A small xorshift: the same sequence in every run.
    pub(crate) fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn a_full_slot_is_moved_a_part_at_a_time() {
        const ENTRIES: u64 = 5_000;
        for distance in [1 << 20, 1 << 34] {
            let mut wheel = Wheel::new();
            let at = Tick::from_nanos(distance);
            let entries: Vec<_> =
                (0..ENTRIES).map(|number| Box::new(AlarmEntry::new(at, number))).collect();
            // SAFETY: boxed, and taken out below.
            entries.iter().for_each(|entry| unsafe { wheel.insert(Target::alarm(entry)) });
            let mut parts = 0;
            let mut is_all = false;
            while !is_all {
                let before = wheel.near.len();
                is_all = wheel.advance(at);
                assert!(wheel.near.len() - before <= PART, "in one hold of the lock");
                assert_eq!((wheel.len(), wheel.found()), (entries.len(), entries.len()));
                assert!(
                    is_all || wheel.next().is_some_and(|next| next < at),
                    "there is more to do"
                );
                assert!(is_all || wheel.pop(at).is_none(), "what is left may be due before it");
                parts += 1;
            }
            assert_eq!(wheel.near.len(), entries.len());
            assert!(parts >= entries.len() / PART, "{parts}");
            entries.iter().for_each(|entry| wheel.remove(Target::alarm(entry)));
            assert_eq!((wheel.len(), wheel.next()), (0, None));
        }
    }

    #[test]
    fn the_wheel_agrees_with_an_ordered_set_at_every_level_and_fires_in_order_and_never_early() {
        for uptime in [0, 1 << 40, (1 << 50) - 12_345, (1 << 62) - (1 << 33)] {
            let mut seed = 0x9e37_79b9_7f4a_7c15;
            let came = trial::play(uptime, 30_000, &mut |limit| random(&mut seed) % limit);
            assert!(came > 20, "{came}");
        }
    }
}
