//! Arming: putting a deadline into the timer when there is a waiter below it, and taking it out.

#![expect(
    unsafe_code,
    reason = "an entry in the timer is a pointer to a node that takes it out before it goes"
)]

use crate::clock::Tick;
use crate::state::View;
use crate::sync::{Ordering, fence};
use crate::timer::{Timers, this_threads_wheel};

use super::Node;
use super::deadline::Way;
use super::parts::Parts;

/// In a node's `wheel`: its entry may be in there.
const ARMED: u8 = 1;
/// The number of the wheel is above, behind [`MOVES`](super::deadline::MOVES).
const WHEEL: u8 = 2;

impl Node {
    /// Arms the deadline that binds here and those above it, the uppermost first (I7). Called with no lock held, after
    /// something was registered that has to hear of the end; the caller then checks once more whether it has come.
    #[inline]
    pub(crate) fn watch(&self) {
        if self.state().load() == View::AskClock {
            self.watch_all();
        }
    }

    /// From the top down. Below an owner that is done nothing is armed, up to the next grace, whose time goes on: a node that is armed
    /// is not polled any more, and would never notice an end that a poll has recorded above and that no sweep follows. Such an end
    /// is followed down to this node instead, where the caller finds it.
    fn watch_all(&self) {
        let mut owners = Way::new();
        let mut owner = self.nearest();
        while let Some(node) = owner {
            owners.push(node);
            if node.state().load() != View::AskClock {
                break; // armed, and so are those above; or done
            }
            owner = node.above().and_then(Node::nearest);
        }
        let mut ended: Option<&Node> = None;
        for node in owners.down() {
            // A grace runs from the end of its parent, which may not have heard of it: no sweep follows an end that a poll has recorded.
            if let (Some(above), Some(_), Some(parent)) = (ended, node.grace(), node.above()) {
                parent.follow_unswept(above);
            }
            // Polled before it is armed: one whose deadline has passed ends now, and not when the timer comes.
            if node.done().is_none() {
                match ended.filter(|_| node.grace().is_none()) {
                    Some(above) => node.follow_unswept(above),
                    None if node.state().load() == View::AskClock => node.arm(),
                    None => {}
                }
            }
            // Read after that: another thread's poll may have been faster than `arm`.
            ended = node.state().done().map(|_| node).or(ended.filter(|_| node.grace().is_none()));
        }
        if let Some(above) = ended {
            self.follow_unswept(above);
        }
    }

    /// When the timer is to end it, and its place among others of that time. A grace is over only after its parent is done, and is
    /// [entered](Self::enter_again) once more then; until that, its own deadline is all that it waits for.
    pub(crate) fn timer_key(&self) -> (Tick, u64) {
        (self.own_deadline().min(self.alarm()), self.head.id.number())
    }

    /// Before it is shared: its entry goes into this thread's wheel.
    #[inline]
    pub(super) fn choose_wheel(&self) {
        self.wheel.store((this_threads_wheel() as u8) << WHEEL, Ordering::Relaxed);
    }

    /// Whether its entry may be in there: written under that one's lock.
    #[inline]
    pub(super) fn is_armed(&self) -> bool {
        self.wheel.load(Ordering::Relaxed) & ARMED != 0
    }

    #[inline]
    pub(super) fn with_timers<R>(&self, change: impl FnOnce(Timers<'_>) -> R) -> R {
        let wheel = self.wheel.load(Ordering::Relaxed) >> WHEEL;
        self.clock().with_timers(usize::from(wheel), change)
    }

    /// Puts it into the timer, then says so in the state.
    pub(super) fn arm(&self) {
        self.with_timers(|timers| {
            self.wheel.store(self.wheel.load(Ordering::Relaxed) | ARMED, Ordering::Relaxed);
            // Pairs with the fence in `disarm`: either that one sees `armed`, or this one sees the end.
            fence(Ordering::SeqCst);
            self.enter(timers);
        });
        self.state().arm();
    }

    /// Of a live grace whose parent is done: the timer is to come when it is over. That is computed here in any case: parents first, so
    /// nested graces are no recursion.
    pub(super) fn enter_again(&self) {
        let _ = self.grace_over();
        self.with_timers(|timers| {
            if self.is_armed() {
                self.enter(timers);
            }
        });
    }

    /// Enters it under the limit that it has now. The lock of the timers is held, under which alone that changes.
    fn enter(&self, mut timers: Timers<'_>) {
        if let (Some(extra), Some(over)) = (self.extra(), self.grace_over()) {
            extra.alarm.store(over.nanos(), Ordering::Release);
        }
        if self.state().done().is_some() || self.timer_key().0 == Tick::NEVER {
            return;
        }
        let Some(entry) = self.timer() else { return }; // an owner has one
        // SAFETY: a node that is armed takes its entry out before it goes (T2).
        unsafe { timers.insert(entry) };
    }

    /// After its end is recorded, or its last handle is gone: takes it out of the timer (C21).
    #[inline]
    pub(super) fn disarm(&self) {
        if self.parts == Parts::Plain {
            return;
        }
        fence(Ordering::SeqCst);
        if self.is_armed() {
            let entry = self.timer();
            self.with_timers(|mut timers| entry.map(|entry| timers.remove(entry)));
        }
    }
}
