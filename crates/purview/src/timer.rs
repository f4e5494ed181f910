//! Deadlines in order: entries that lie in what waits for them, a [wheel](wheel) and a [heap](heap) that order them, and the
//! thread that serves the system clock's. A manual clock has a heap of its own and is its own driver.
//!
//! # Invariants
//! - **T1** An entry's fields, and an alarm's waker, are touched only under the lock around its clock's [`Timers`].
//! - **T2** An entry that is in stays where it is in memory, and is taken out before it goes: a context's when it ends or
//!   is reclaimed, an alarm's when its future is dropped. So a pointer to an entry that is in is valid under the lock.
//! - **T3** Nothing of the user's runs under the lock: what is due is taken out, and served after unlocking.
//!
//! # Why a wheel and a heap
//! Most deadlines never come: what is to be done finishes earlier. So setting one and taking it back must be cheap however
//! many there are, and a wheel does both in O(1). But a wheel is as late as its slots are wide (tokio's: 1 ms). So what is
//! due within the next slot or two is moved to a binary heap, which is small, and exact to the nanosecond.
#![expect(
    unsafe_code,
    reason = "an entry's fields are guarded by the lock of the timers that it is in"
)]

pub(crate) mod bell;
pub(crate) mod driver;
pub(crate) mod heap;
pub(crate) mod runner;
mod signals;
pub(crate) mod wheel;

use std::marker::PhantomPinned;
use std::ptr::{self, NonNull};
use std::task::Waker;

use crate::clock::Tick;
use crate::order::thread_number;
use crate::sync::UnsafeCell;
use crate::tree::{Node, Ref};

/// A place in a clock's timers: two words, in a node or an alarm.
pub(crate) struct Entry {
    fields: UnsafeCell<Fields>,
    /// Timers write to it by pointer while its owner has it by `&mut`: that must not claim to be alone with it.
    _pinned: PhantomPinned,
}

#[derive(Clone, Copy)]
struct Fields {
    /// In a slot of the wheel: the next one.
    next: Option<Target>,
    place: Place,
}

/// Where an entry is: the entry before it in its slot, or a tagged number.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place(*const Entry);

enum At {
    Out,
    /// First in a slot of the wheel.
    Slot(usize),
    /// In a slot, behind another.
    Behind(Target),
    /// In the heap.
    Heap(usize),
}

const TAGS: usize = 0b11;
const SLOT: usize = 0b10;
const HEAP: usize = 0b11;

impl Place {
    const OUT: Place = Place(ptr::null());

    fn slot(slot: usize) -> Place {
        Place(ptr::without_provenance(slot << 2 | SLOT))
    }

    fn heap(place: usize) -> Place {
        Place(ptr::without_provenance(place << 2 | HEAP))
    }

    fn at(self) -> At {
        let address = self.0.addr();
        match address & TAGS {
            _ if address == 0 => At::Out,
            SLOT => At::Slot(address >> 2),
            HEAP => At::Heap(address >> 2),
            _ => NonNull::new(self.0.cast_mut()).map_or(At::Out, |entry| At::Behind(Target(entry))),
        }
    }
}

impl Entry {
    #[cfg(not(all(test, purview_loom)))]
    pub(crate) const fn new() -> Self {
        let fields = Fields { next: None, place: Place::OUT };
        Entry { fields: UnsafeCell::new(fields), _pinned: PhantomPinned }
    }

    #[cfg(all(test, purview_loom))]
    pub(crate) fn new() -> Self {
        let fields = Fields { next: None, place: Place::OUT };
        Entry { fields: UnsafeCell::new(fields), _pinned: PhantomPinned }
    }
}

/// An entry, and whose it is: a node's (end it) or an alarm's (wake who sleeps). One word, tagged below.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target(NonNull<Entry>);

const ALARM: usize = 0b01;

impl Target {
    /// A node's. Its address was exposed when it was made.
    pub(crate) fn node(entry: &Entry) -> Target {
        Target(NonNull::from(entry))
    }

    pub(crate) fn alarm(alarm: &AlarmEntry) -> Target {
        Target(NonNull::from(alarm).cast::<Entry>().map_addr(|address| address | ALARM))
    }

    fn is_alarm(self) -> bool {
        self.0.addr().get() & ALARM != 0
    }

    fn entry(self) -> *const Entry {
        self.0.as_ptr().map_addr(|address| address & !ALARM)
    }

    /// # Safety
    /// It is an alarm's, and valid.
    unsafe fn as_alarm<'a>(self) -> &'a AlarmEntry {
        // SAFETY: by the contract; its entry is what it begins with.
        unsafe { &*self.entry().cast() }
    }

    /// When it is due, and its place among those of the same time.
    ///
    /// # Safety
    /// It is valid (T2).
    unsafe fn key(self) -> (Tick, u64) {
        if self.is_alarm() {
            // SAFETY: by the contract.
            let alarm = unsafe { self.as_alarm() };
            return (alarm.at, alarm.sequence);
        }
        // SAFETY: a node's entry.
        let node = unsafe { Node::of_entry(self.entry()) };
        // SAFETY: by the contract.
        unsafe { node.as_ref() }.timer_key()
    }

    /// # Safety
    /// It is valid, and the timers' lock is held (T1, T2).
    unsafe fn fields<R>(self, access: impl FnOnce(&mut Fields) -> R) -> R {
        // SAFETY: by the contract.
        let entry = unsafe { &*self.entry() };
        // SAFETY: as above.
        entry.fields.with_mut(|fields| access(unsafe { &mut *fields }))
    }

    /// What there is to do for it. None, where it is a context that is being reclaimed.
    ///
    /// # Safety
    /// As for [`fields`](Self::fields); it is out.
    unsafe fn due(self) -> Option<Due> {
        if self.is_alarm() {
            // SAFETY: by the contract.
            let alarm = unsafe { self.as_alarm() };
            // SAFETY: the lock is held (T1).
            return alarm.waker.with_mut(|waker| unsafe { (*waker).take() }).map(Due::Alarm);
        }
        // A node whose last handle is gone waits for this lock to take its entry out; it is not to be revived.
        // SAFETY: a node's entry.
        Ref::upgrade(unsafe { Node::of_entry(self.entry()) }).map(Due::Deadline)
    }
}

/// The entry of a sleep.
#[repr(C)]
pub(crate) struct AlarmEntry {
    entry: Entry,
    at: Tick,
    sequence: u64,
    /// Which of its clock's wheels it goes into.
    wheel: usize,
    waker: UnsafeCell<Option<Waker>>,
}

impl AlarmEntry {
    pub(crate) fn new(at: Tick, sequence: u64) -> Self {
        let waker = UnsafeCell::new(None);
        AlarmEntry { entry: Entry::new(), at, sequence, wheel: this_threads_wheel(), waker }
    }

    pub(crate) fn wheel(&self) -> usize {
        self.wheel
    }

    #[cfg(any(all(test, not(purview_loom)), purview_check))]
    fn at(&self) -> Tick {
        self.at
    }

    /// Says whom to wake; gives back who it was: dropped by the caller after unlocking (T3).
    ///
    /// # Safety
    /// The timers' lock is held (T1).
    pub(crate) unsafe fn set_waker(&self, waker: Option<Waker>) -> Option<Waker> {
        // SAFETY: by the contract.
        self.waker.with_mut(|place| unsafe { std::mem::replace(&mut *place, waker) })
    }
}

/// The wheel for what this thread makes.
#[inline]
pub(crate) fn this_threads_wheel() -> usize {
    thread_number() % driver::WHEELS
}

/// What was due, taken out.
pub(crate) enum Due {
    Deadline(Ref),
    Alarm(Waker),
}

/// The entries of a clock, under its lock.
pub(crate) enum Timers<'a> {
    /// The system's.
    Wheel(&'a mut wheel::Wheel),
    /// A manual clock's, which may be set to any time at once, and where order is exact.
    Heap(&'a mut heap::Heap),
}

impl Timers<'_> {
    /// Puts an entry in, or moves it if it is in.
    ///
    /// # Safety
    /// The entry stays where it is until it is out (T2).
    pub(crate) unsafe fn insert(&mut self, target: Target) {
        self.remove(target);
        match self {
            // SAFETY: by the contract.
            Timers::Wheel(wheel) => unsafe { wheel.insert(target) },
            // SAFETY: as above.
            Timers::Heap(heap) => unsafe { heap.insert(target) },
        }
    }

    /// Takes an entry out, if it is in.
    pub(crate) fn remove(&mut self, target: Target) {
        match self {
            Timers::Wheel(wheel) => wheel.remove(target),
            Timers::Heap(heap) => heap.remove(target),
        }
    }
}
