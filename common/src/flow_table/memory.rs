//! Access to memory that others read and write: whole words, in the order of the code, none left out by the
//! compiler. In tests it may be the memory of a model.

#[cfg(not(test))]
pub(super) use core::ptr::{read_volatile as read, write_volatile as write};

#[cfg(test)]
pub(super) use super::tests::modelled::{read, replace, write};

/// As of [`super::HostAtomic`].
#[cfg(all(feature = "user", not(test)))]
pub(super) unsafe fn replace(word: *mut u32, current: u32, new: u32) -> bool {
    // SAFETY: the caller's.
    unsafe { super::HostAtomic::replace(word, current, new) }
}
