//! The elements of an array map in the agent's memory, shared with the programs.

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, AsRawFd as _},
    ptr::NonNull,
};

use anyhow::{Context as _, Result};

/// Elements of a map while the agent reads or writes them. Their pages count as its memory.
#[derive(Debug)]
pub(super) struct Mapping<T> {
    /// Aligned to pages.
    first: NonNull<T>,
    count: usize,
}

// SAFETY: shared memory, which does not belong to a thread; what is read and written through the pointers
// is up to who dereferences them.
unsafe impl<T> Send for Mapping<T> {}

impl<T> Mapping<T> {
    /// The kernel aligns elements so.
    const ALIGNED: () = assert!(size_of::<T>().is_multiple_of(8));

    /// Maps the first elements of a map, so many; for reading alone without `writes`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses: the map has fewer elements, or is not made for it.
    pub(super) fn new(map: impl AsFd, count: usize, writes: bool) -> Result<Self> {
        Self::of_part(map, 0..count, writes)
    }

    /// Maps some elements of a map. The first one begins a page.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub(super) fn of_part(map: impl AsFd, elements: Range<usize>, writes: bool) -> Result<Self> {
        const { Self::ALIGNED };
        let protection = if writes { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let (map, count) = (map.as_fd().as_raw_fd(), elements.len());
        let offset = (elements.start * size_of::<T>()).try_into().context("an offset in a map")?;
        let bytes = count * size_of::<T>();
        // SAFETY: a new mapping; the kernel chooses the address.
        let address =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, map, offset) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("cannot map its elements into memory");
        }
        let first = NonNull::new(address.cast()).context("the kernel has mapped its elements at 0")?;
        Ok(Self { first, count })
    }

    /// An element, which is there as long as the mapping.
    ///
    /// # Panics
    ///
    /// When there is none of this number.
    pub(super) fn element(&self, number: usize) -> NonNull<T> {
        assert!(number < self.count, "an element of the map");
        // SAFETY: inside the mapping.
        unsafe { self.first.add(number) }
    }

    pub(super) fn elements(&self) -> impl Iterator<Item = NonNull<T>> {
        (0..self.count).map(|number| self.element(number))
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this size, and nothing refers to it any more.
        unsafe { libc::munmap(self.first.as_ptr().cast(), self.count * size_of::<T>()) };
    }
}
