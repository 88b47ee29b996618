//! Atomic operations: compilers for BPF and for the host have different ones.

#[cfg(any(test, feature = "user"))]
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Atomic operations on memory that others write to.
pub trait Atomic {
    /// Puts `new` in place of `current`; what was there before. A full barrier.
    ///
    /// # Safety
    ///
    /// `word` is aligned memory that is only written by atomic or volatile operations.
    unsafe fn compare_exchange(word: *mut u64, current: u64, new: u64) -> u64;

    /// Puts `new` there. A full barrier.
    ///
    /// # Safety
    ///
    /// As above.
    unsafe fn exchange(word: *mut u64, new: u64);

    /// Adds bits.
    ///
    /// # Safety
    ///
    /// As above.
    unsafe fn or(word: *mut u64, bits: u64);
}

/// Atomic operations of the host.
#[cfg(any(test, feature = "user"))]
#[derive(Clone, Copy, Debug)]
pub struct HostAtomic;

#[cfg(any(test, feature = "user"))]
impl Atomic for HostAtomic {
    unsafe fn compare_exchange(word: *mut u64, current: u64, new: u64) -> u64 {
        // SAFETY: the caller's.
        let word = unsafe { AtomicU64::from_ptr(word) };
        match word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(before) | Err(before) => before,
        }
    }

    unsafe fn exchange(word: *mut u64, new: u64) {
        // SAFETY: the caller's.
        unsafe { AtomicU64::from_ptr(word) }.swap(new, Ordering::SeqCst);
    }

    unsafe fn or(word: *mut u64, bits: u64) {
        // SAFETY: the caller's.
        unsafe { AtomicU64::from_ptr(word) }.fetch_or(bits, Ordering::SeqCst);
    }
}

#[cfg(any(test, feature = "user"))]
impl HostAtomic {
    /// Puts `new` in the place of `current`; whether that was there.
    ///
    /// # Safety
    ///
    /// `word` is valid, and written by atomic operations or by programs alone.
    pub(super) unsafe fn replace(word: *mut u32, current: u32, new: u32) -> bool {
        // SAFETY: the caller's.
        let word = unsafe { AtomicU32::from_ptr(word) };
        word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}
