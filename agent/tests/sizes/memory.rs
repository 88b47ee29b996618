//! What was allocated at most.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is left to the system's allocator; only sizes are counted beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = ALLOCATED.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(now, Relaxed);
        // SAFETY: the caller's promises are passed on as they are.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the pointer came from this allocator, which got it from the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// A stretch of which the most that was allocated is found.
pub(crate) struct Peak {
    before: usize,
}

impl Peak {
    pub(crate) fn begin() -> Self {
        let before = ALLOCATED.load(Relaxed);
        MOST.store(before, Relaxed);
        Self { before }
    }

    /// Bytes, beyond those of before.
    pub(crate) fn end(self) -> usize {
        MOST.load(Relaxed).saturating_sub(self.before)
    }
}
