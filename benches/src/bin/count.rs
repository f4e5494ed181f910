//! Counts the allocations of the workloads of the rows that are its arguments. A program of its own: counting would slow what is timed.
#![expect(unsafe_code, reason = "an allocator is unsafe to be")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::env;
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's allocator, and how much was asked of it.
struct Counting {
    allocations: AtomicU64,
    bytes: AtomicU64,
}

#[global_allocator]
static HEAP: Counting = Counting { allocations: AtomicU64::new(0), bytes: AtomicU64::new(0) };

impl Counting {
    fn note(&self, bytes: usize) {
        self.allocations.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

// SAFETY: all of it is the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.note(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.note(size);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

fn main() {
    for row in env::args().skip(1) {
        purview_benches::count(&row, || {
            (HEAP.allocations.load(Ordering::Relaxed), HEAP.bytes.load(Ordering::Relaxed))
        });
    }
}
