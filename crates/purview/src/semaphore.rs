//! A semaphore whose waits end with a context.
//!
//! Permits are given in order of arrival, so a large request is not starved by small ones; and a request for more than there
//! ever are stands in nobody's way. Each waiter has a context of its own for its turn: to cancel that is to call it.

use std::collections::VecDeque;
use std::fmt;

use crate::park::block_on;
use crate::sync::{Mutex, MutexGuard, lock};
use crate::tree::Panics;
use crate::{CancelGuard, Context, Error, leak};

/// Permits, of which each acquisition takes some and gives them back when its [`Permit`] is dropped.
///
/// First come, first served. A context that has ended beats permits that are free, as in Go's `semaphore.Weighted`.
///
/// ```
/// use purview::{Context, Semaphore};
/// use std::time::Duration;
///
/// let two = Semaphore::new(2);
/// let ctx = Context::background();
/// let both = two.acquire_blocking(&ctx, 2).unwrap();
/// assert!(two.try_acquire(1).is_none());
/// let (hasty, _guard) = ctx.with_timeout(Duration::from_millis(1));
/// assert!(two.acquire_blocking(&hasty, 1).unwrap_err().is_deadline_exceeded());
/// drop(both);
/// assert!(two.try_acquire(1).is_some());
/// ```
pub struct Semaphore {
    size: usize,
    state: Mutex<State>,
}

struct State {
    free: usize,
    /// In order of arrival, which is that of their numbers.
    queue: VecDeque<Turn>,
    next: u64,
    /// Of those that were taken: permits for who is not called, but comes for them.
    kept: usize,
}

/// Somebody who waits.
struct Turn {
    number: u64,
    permits: usize,
    /// To cancel it is to say that the permits have been taken for him. None, if they are kept for him.
    call: Option<CancelGuard>,
}

impl Semaphore {
    /// Makes one with so many permits, all free.
    ///
    /// ```
    /// let semaphore = purview::Semaphore::new(8);
    /// assert_eq!((semaphore.size(), semaphore.free()), (8, 8));
    /// ```
    #[must_use]
    pub fn new(permits: usize) -> Semaphore {
        let state = State { free: permits, queue: VecDeque::new(), next: 0, kept: 0 };
        Semaphore { size: permits, state: Mutex::new(state) }
    }

    /// Takes so many permits, when it is their turn and they are free. A request for more than there are waits for `ctx` to end.
    ///
    /// ```
    /// use purview::{Context, Error, Semaphore};
    /// async fn query(ctx: &Context, connections: &Semaphore) -> Result<(), Error> {
    ///     let _permit = connections.acquire(ctx, 1).await?;
    ///     Ok(()) // one of so many at a time
    /// }
    /// purview::thread::block_on(query(&Context::background(), &Semaphore::new(4))).unwrap();
    /// ```
    ///
    /// # Errors
    /// The error of `ctx`, if that has ended, also where there are permits.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the queue, or gives back what it was given.
    pub async fn acquire(&self, ctx: &Context, permits: usize) -> Result<Permit<'_>, Error> {
        ctx.check()?;
        let waiting = match self.enter(permits) {
            Entered::Served(permit) => return Ok(permit),
            Entered::Waiting(waiting) => waiting,
        };
        ctx.run(waiting.turn.done()).await?;
        ctx.check()?;
        Ok(waiting.into_permit())
    }

    /// The same, blocking the thread.
    ///
    /// ```
    /// use purview::{Context, Semaphore};
    /// let semaphore = Semaphore::new(1);
    /// let permit = semaphore.acquire_blocking(&Context::background(), 1).unwrap();
    /// assert_eq!(permit.permits(), 1);
    /// ```
    ///
    /// # Errors
    /// The error of `ctx`, if that has ended, also where there are permits.
    ///
    /// # Blocking
    /// Until there are permits or `ctx` ends. Not for use inside async code.
    pub fn acquire_blocking(&self, ctx: &Context, permits: usize) -> Result<Permit<'_>, Error> {
        block_on(std::pin::pin!(self.acquire(ctx, permits)))
    }

    /// Takes so many permits, if they are free and nobody waits.
    ///
    /// ```
    /// let semaphore = purview::Semaphore::new(1);
    /// let permit = semaphore.try_acquire(1);
    /// assert!(permit.is_some() && semaphore.try_acquire(1).is_none());
    /// ```
    #[must_use]
    pub fn try_acquire(&self, permits: usize) -> Option<Permit<'_>> {
        let mut state = self.lock();
        (state.queue.is_empty() && state.take(permits)).then(|| Permit { semaphore: self, permits })
    }

    /// How many there are, free or not.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many are free, at this moment.
    #[must_use]
    pub fn free(&self) -> usize {
        self.lock().free
    }

    fn enter(&self, permits: usize) -> Entered<'_> {
        let (turn, call) = leak::unseen(|| Context::background().with_cancel());
        let mut state = self.lock();
        if state.queue.is_empty() && state.take(permits) {
            return Entered::Served(Permit { semaphore: self, permits });
        }
        if permits > self.size {
            drop(state);
            let never = Some(call);
            return Entered::Waiting(Waiting {
                semaphore: self,
                number: None,
                permits,
                turn,
                never,
            });
        }
        let number = Some(state.push(permits, Some(call)));
        Entered::Waiting(Waiting { semaphore: self, number, permits, turn, never: None })
    }

    /// Has one permit kept when it is its turn, for whoever comes for it.
    pub(crate) fn keep_one(&self) {
        let mut state = self.lock();
        if state.queue.is_empty() && state.take(1) {
            state.kept += 1;
        } else {
            state.push(1, None);
        }
    }

    /// How many are kept, at this moment.
    pub(crate) fn kept(&self) -> usize {
        self.lock().kept
    }

    /// Takes one that was kept.
    pub(crate) fn take_kept(&self) -> bool {
        let mut state = self.lock();
        let left = state.kept.checked_sub(1);
        state.kept = left.unwrap_or(0);
        left.is_some()
    }

    /// Gives permits back, and calls whose turn it is. No lock is held while somebody is called.
    pub(crate) fn release(&self, permits: usize) {
        let mut state = self.lock();
        state.free += permits;
        self.serve(state);
    }

    fn serve<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        let mut panics = Panics::new(); // of wakers: they don't keep those behind from being called
        while let Some(call) = state.next_call() {
            drop(state);
            panics.catch(move || call.cancel()); // and its context may go with it
            state = self.lock();
        }
        drop(state);
        panics.resume();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn take(&mut self, permits: usize) -> bool {
        let enough = permits <= self.free;
        if enough {
            self.free -= permits;
        }
        enough
    }

    /// Puts somebody at the end of the queue, under this number.
    fn push(&mut self, permits: usize, call: Option<CancelGuard>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.queue.push_back(Turn { number, permits, call });
        number
    }

    /// Takes those out of the queue for whom there is enough, up to one who is to be called.
    fn next_call(&mut self) -> Option<CancelGuard> {
        loop {
            let permits = self.queue.front()?.permits;
            if !self.take(permits) {
                return None;
            }
            match self.queue.pop_front()?.call {
                Some(call) => return Some(call),
                None => self.kept += permits,
            }
        }
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("size", &self.size).finish_non_exhaustive()
    }
}

enum Entered<'a> {
    Served(Permit<'a>),
    Waiting(Waiting<'a>),
}

/// A place in the queue, or, for who asks for too much, beside it.
struct Waiting<'a> {
    semaphore: &'a Semaphore,
    /// None of who is not in the queue, nor has been called.
    number: Option<u64>,
    permits: usize,
    turn: Context,
    /// The call of who is never called.
    #[expect(dead_code, reason = "its drop would be the call")]
    never: Option<CancelGuard>,
}

impl<'a> Waiting<'a> {
    fn into_permit(mut self) -> Permit<'a> {
        self.number = None;
        Permit { semaphore: self.semaphore, permits: self.permits }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut state = self.semaphore.lock();
        let left = match state.queue.binary_search_by_key(&number, |turn| turn.number) {
            Ok(place) => state.queue.remove(place), // he may have stood in the way of others
            Err(_) => {
                state.free += self.permits; // he has been called, and does not come
                None
            }
        };
        self.semaphore.serve(state);
        drop(left);
    }
}

/// Permits that were acquired. Dropping it gives them back.
///
/// ```
/// let semaphore = purview::Semaphore::new(3);
/// let permit = semaphore.try_acquire(2).unwrap();
/// assert_eq!((permit.permits(), semaphore.free()), (2, 1));
/// drop(permit);
/// assert_eq!(semaphore.free(), 3);
/// ```
#[must_use = "dropping a permit gives it back"]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
    permits: usize,
}

impl Permit<'_> {
    /// How many.
    #[must_use]
    pub fn permits(&self) -> usize {
        self.permits
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.semaphore.release(self.permits);
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("permits", &self.permits).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(purview_loom)))]
mod tests {
    use super::Semaphore;

    #[test]
    fn permits_that_are_kept_are_those_that_came_to_their_turn_and_were_not_fetched() {
        let semaphore = Semaphore::new(2);
        semaphore.keep_one();
        let last = semaphore.try_acquire(1).expect("one is left");
        assert_eq!((semaphore.kept(), semaphore.free()), (1, 0));
        semaphore.keep_one();
        assert_eq!(semaphore.kept(), 1, "it is not its turn yet");
        drop(last);
        assert_eq!((semaphore.kept(), semaphore.free()), (2, 0));
        assert!(semaphore.take_kept() && semaphore.take_kept() && !semaphore.take_kept());
        assert_eq!(semaphore.kept(), 0);
        semaphore.release(2);
        assert_eq!(semaphore.free(), 2);
    }
}
