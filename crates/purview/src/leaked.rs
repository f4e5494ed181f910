//! A static that is made when it is first needed, and for which no thread waits.
//!
//! The thread that makes it may be in the process that this one was forked from, in the middle of it: the child has no such thread,
//! and would wait for it forever. So each thread that finds none makes one. The first that is put in place is everybody's, and the
//! others are dropped. It is never freed.
#![expect(unsafe_code, reason = "a pointer that is null, or to a box that is leaked")]

use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

pub(crate) struct Leaked<T> {
    place: AtomicPtr<T>,
    /// It hands out what several threads share, and takes it from any.
    _value: PhantomData<T>,
}

impl<T: Send + Sync> Leaked<T> {
    pub(crate) const fn new() -> Leaked<T> {
        Leaked { place: AtomicPtr::new(ptr::null_mut()), _value: PhantomData }
    }

    #[inline]
    pub(crate) fn get(&'static self) -> Option<&'static T> {
        // Acquire: pairs with the Release in `set`.
        // SAFETY: null, or leaked by `set`.
        unsafe { self.place.load(Ordering::Acquire).as_ref() }
    }

    /// What there is, or else what `make` gives; if another thread was faster, that one's.
    #[inline]
    pub(crate) fn get_or_make(&'static self, make: impl FnOnce() -> T) -> &'static T {
        match self.get() {
            Some(value) => value,
            None => self.set(make()).unwrap_or_else(|(theirs, _mine)| theirs),
        }
    }

    /// Puts `value` in place; where there is one already, that, and `value` back.
    #[cold]
    pub(crate) fn set(&'static self, value: T) -> Result<&'static T, (&'static T, T)> {
        let mine = Box::into_raw(Box::new(value));
        let none = ptr::null_mut();
        match self.place.compare_exchange(none, mine, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: made above, and never freed from here on.
            Ok(_) => Ok(unsafe { &*mine }),
            Err(theirs) => {
                // SAFETY: made above, and no other thread has seen it.
                let mine = *unsafe { Box::from_raw(mine) };
                // SAFETY: leaked by the thread that was faster.
                Err((unsafe { &*theirs }, mine))
            }
        }
    }
}

#[cfg(all(test, not(purview_loom)))]
mod tests {
    use super::Leaked;
    use std::sync::mpsc;
    use std::thread;

    #[test]
    fn no_thread_waits_for_one_that_never_gets_done_making_it() {
        static PLACE: Leaked<u32> = Leaked::new();
        let (begun, has_begun) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        // As a thread that a fork has left behind in the parent.
        let slow = thread::spawn(move || {
            let make = || {
                begun.send(()).expect("it is waited for");
                may_go_on.recv().expect("at the end of the test");
                1
            };
            *PLACE.get_or_make(make)
        });
        has_begun.recv().expect("it begins");
        let (say, hear) = mpsc::channel();
        thread::spawn(move || say.send((PLACE.get().copied(), *PLACE.get_or_make(|| 2))));
        let long = std::time::Duration::from_secs(60);
        assert_eq!(hear.recv_timeout(long).expect("it does not wait"), (None, 2));
        go_on.send(()).expect("it waits");
        assert_eq!(
            slow.join().expect("no panic"),
            2,
            "the first that was put there is everybody's"
        );
        assert_eq!((PLACE.get(), PLACE.set(3)), (Some(&2), Err((&2, 3))));
    }
}
