//! Results on their way from tasks to who takes them.
//!
//! In the order of the items, each item has a place from when it is begun, and what is taken is what lies in the first place.
//! In the order in which they come, they have no places. Nothing else differs.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    OfItems,
    OfResults,
}

pub(super) struct Results<T> {
    order: Order,
    queue: Mutex<Queue<T>>,
}

struct Queue<T> {
    /// What was not taken; None in a place whose result has not come.
    waiting: VecDeque<Option<T>>,
    /// How many were taken: the number of the item whose place is the first.
    taken: usize,
    /// Who is to be woken when there is something to take.
    taker: Option<Waker>,
}

/// Where a result belongs: its item's number, if that matters.
#[derive(Clone, Copy)]
pub(super) struct Place(Option<usize>);

impl<T> Results<T> {
    pub(super) fn new(order: Order) -> Arc<Results<T>> {
        let queue = Queue { waiting: VecDeque::new(), taken: 0, taker: None };
        Arc::new(Results { order, queue: Mutex::new(queue) })
    }

    /// The next item's place.
    pub(super) fn begin(&self) -> Place {
        if self.order == Order::OfResults {
            return Place(None);
        }
        let mut queue = self.queue();
        let item = queue.taken + queue.waiting.len();
        queue.waiting.push_back(None);
        Place(Some(item))
    }

    /// Waits for an item's result, and puts it into its place.
    pub(super) async fn put<E>(
        self: Arc<Self>,
        place: Place,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<(), E> {
        let result = Some(work.await?);
        let mut queue = self.queue();
        match place {
            Place(None) => queue.waiting.push_back(result),
            Place(Some(item)) => {
                let at = item - queue.taken; // it is there: nobody could take it
                queue.waiting[at] = result;
            }
        }
        // Who waits for the first place is not woken for another one.
        let taker = if queue.is_ready() { queue.taker.take() } else { None };
        drop(queue);
        if let Some(taker) = taker {
            taker.wake(); // the user's, nothing being locked
        }
        Ok(())
    }

    /// Takes the next one.
    pub(super) fn take(&self) -> Option<T> {
        let mut queue = self.queue();
        if !queue.is_ready() {
            return None;
        }
        queue.taken += 1;
        queue.waiting.pop_front().flatten()
    }

    /// Takes the next one, or has `waker` woken when there is one.
    pub(super) fn take_or_wait(&self, waker: &Waker) -> Option<T> {
        self.take().or_else(|| {
            let waker = waker.clone();
            let former = self.queue().taker.replace(waker);
            drop(former); // the user's, as is the clone: nothing is locked
            self.take() // it may have come before the waker had
        })
    }

    /// Takes all that have come, over the places of those that have not. For when no task is left.
    pub(super) fn take_all(&self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.queue().waiting).into_iter().flatten()
    }

    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Queue<T> {
    fn is_ready(&self) -> bool {
        matches!(self.waiting.front(), Some(Some(_)))
    }
}
