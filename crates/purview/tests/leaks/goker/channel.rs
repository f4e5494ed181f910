//! Go's channel, as far as these programs need one.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};

use purview::thread::block_on;

/// Everybody has both ends. So it never hangs up: who waits at it does not learn that all others have gone. A channel of Rust's is
/// not like that, and several of these leaks end there.
pub(super) struct Channel<T>(Arc<Inner<T>>);

struct Inner<T> {
    capacity: usize,
    state: Mutex<State<T>>,
}

struct State<T> {
    values: VecDeque<T>,
    /// Who waits to send.
    senders: usize,
    /// Who waits to receive.
    receivers: usize,
    asleep: Vec<Waker>,
}

impl<T> Channel<T> {
    /// With a capacity of 0, each send waits for a receiver.
    pub(super) fn new(capacity: usize) -> Channel<T> {
        let (values, asleep) = (VecDeque::new(), Vec::new());
        let state = Mutex::new(State { values, senders: 0, receivers: 0, asleep });
        Channel(Arc::new(Inner { capacity, state }))
    }

    pub(super) async fn send(&self, value: T) {
        let mut value = Some(value);
        let mut waits = None;
        poll_fn(|task| {
            let mut state = self.lock();
            if state.values.len() < self.0.capacity + state.receivers {
                state.values.extend(value.take());
                state.wake();
                return Poll::Ready(());
            }
            state.asleep.push(task.waker().clone());
            drop(state);
            waits.get_or_insert_with(|| self.arrive(|state| &mut state.senders));
            Poll::Pending
        })
        .await;
    }

    /// A value that comes when its receiver has just left is the next one's.
    pub(super) async fn recv(&self) -> T {
        let waits = self.arrive(|state| &mut state.receivers);
        let value = poll_fn(|task| {
            let mut state = self.lock();
            let Some(value) = state.values.pop_front() else {
                state.asleep.push(task.waker().clone());
                return Poll::Pending;
            };
            state.receivers -= 1; // at once, or there would be room for one more
            state.wake();
            Poll::Ready(value)
        });
        let value = value.await;
        std::mem::forget(waits);
        value
    }

    pub(super) fn send_blocking(&self, value: T) {
        block_on(self.send(value));
    }

    pub(super) fn recv_blocking(&self) -> T {
        block_on(self.recv())
    }

    /// How many wait to send, and how many to receive.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let state = self.lock();
        (state.senders, state.receivers)
    }

    fn arrive(&self, side: Side<T>) -> Waits<'_, T> {
        let mut state = self.lock();
        *side(&mut state) += 1;
        state.wake();
        Waits { channel: self, side }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.state.lock().expect("no panic under the lock")
    }
}

impl<T> Clone for Channel<T> {
    fn clone(&self) -> Self {
        Channel(Arc::clone(&self.0))
    }
}

impl<T> State<T> {
    fn wake(&mut self) {
        self.asleep.drain(..).for_each(Waker::wake);
    }
}

type Side<T> = fn(&mut State<T>) -> &mut usize;

/// Somebody who waits, until it is dropped.
struct Waits<'a, T> {
    channel: &'a Channel<T>,
    side: Side<T>,
}

impl<T> Drop for Waits<'_, T> {
    fn drop(&mut self) {
        *(self.side)(&mut self.channel.lock()) -= 1;
    }
}
