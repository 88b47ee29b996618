//! Atomic operations: compilers for BPF and for the host have different ones.

#[cfg(any(test, feature = "user"))]
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Atomic operations on memory that others write to, and the order of what is not atomic.
pub trait Atomic {
    /// Puts `new` in place of `current`; what was there before. A full barrier.
    ///
    /// # Safety
    ///
    /// `word` is aligned memory that is only written by atomic or volatile operations.
    unsafe fn compare_exchange(word: *mut u64, current: u64, new: u64) -> u64;

    /// Adds bits.
    ///
    /// # Safety
    ///
    /// As above.
    unsafe fn or(word: *mut u64, bits: u64);

    /// Another one must go on before this one can.
    #[inline(always)]
    fn pause() {}

    /// What was read before is not read after what follows. `word` is any, for those that have no such
    /// operation without one; it stays as it is.
    ///
    /// # Safety
    ///
    /// As above.
    #[cfg_attr(test, track_caller)]
    unsafe fn order_reads(word: *mut u64);

    /// Others do not see what is written after this before what was written before it. `word` as above.
    ///
    /// # Safety
    ///
    /// As above.
    #[cfg_attr(test, track_caller)]
    unsafe fn order_writes(word: *mut u64);
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
        let exchanged = word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst);
        // The exchange alone lets other threads see later writes before its own.
        fence(Ordering::SeqCst);
        match exchanged {
            Ok(before) | Err(before) => before,
        }
    }

    unsafe fn or(word: *mut u64, bits: u64) {
        // SAFETY: the caller's.
        unsafe { AtomicU64::from_ptr(word) }.fetch_or(bits, Ordering::SeqCst);
    }

    unsafe fn order_reads(_: *mut u64) {
        fence(Ordering::Acquire);
    }

    unsafe fn order_writes(_: *mut u64) {
        fence(Ordering::Release);
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
