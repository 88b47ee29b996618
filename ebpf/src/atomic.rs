//! Atomic operations in BPF. `core::sync::atomic` has none for this target; compare-and-exchange and what
//! fetches are full barriers in every kernel's BPF (Linux 5.12; of arm64 5.18, as `casal` and `ldsetal`, or a
//! loop with `dmb ish` behind it).

use core::{
    arch::asm,
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_or, atomic_xadd},
    mem::offset_of,
};

use podgate_common::{Atomic, Config, FlowShare};

pub(crate) struct Bpf;

impl Bpf {
    /// Adds one.
    ///
    /// # Safety
    ///
    /// `word` is aligned memory of a map.
    #[inline(always)]
    pub(crate) unsafe fn add_one(word: *mut u32) {
        // SAFETY: the caller's.
        unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(word, 1) };
    }

    /// Adds to a share.
    ///
    /// # Safety
    ///
    /// `share` is memory of a map.
    #[inline(always)]
    pub(crate) unsafe fn add(share: *mut FlowShare, change: i64) {
        // SAFETY: the caller's; it is one word.
        unsafe { atomic_xadd::<i64, i64, { AtomicOrdering::Relaxed }>(share.cast(), change) };
    }
}

impl Bpf {
    /// Orders a read of one map before later reads of another. The barrier is the operation, whatever word it
    /// changes: where maps have no word in common, one on the stack serves as well.
    #[inline(always)]
    pub(crate) fn order_reads_of_maps() {
        let mut own = 0_u64;
        // SAFETY: this program's own word.
        unsafe { barrier(&raw mut own) };
    }
}

impl Atomic for Bpf {
    #[inline(always)]
    unsafe fn compare_exchange(word: *mut u64, current: u64, new: u64) -> u64 {
        // SAFETY: the caller's.
        unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, current, new).0
        }
    }

    #[inline(always)]
    unsafe fn or(word: *mut u64, bits: u64) {
        // SAFETY: the caller's.
        unsafe { atomic_or::<u64, u64, { AtomicOrdering::Relaxed }>(word, bits) };
    }

    #[inline(always)]
    unsafe fn order_reads(word: *mut u64) {
        // SAFETY: the caller's.
        unsafe { barrier(word) };
    }

    #[inline(always)]
    unsafe fn order_writes(word: *mut u64) {
        // SAFETY: the caller's.
        unsafe { barrier(word) };
    }
}

/// A full barrier where the processor needs one; else it is for the compiler alone.
///
/// By instructions of its own, so that elsewhere it takes none of the registers of the fast path: the
/// verifier takes the operation out where the first word is 0.
///
/// # Safety
///
/// As for [`Atomic::order_reads`].
#[inline(always)]
unsafe fn barrier(word: *mut u64) {
    // SAFETY: the caller's. An operation that fetches is a full barrier; no bits are added.
    unsafe {
        asm!(
            "{scratch} = {reorders}",
            "if {scratch} == 0 goto +2",
            "{scratch} = 0",
            "{scratch} = atomic_fetch_or((u64 *)({word} + 0), {scratch})",
            scratch = out(reg) _,
            word = in(reg) word,
            reorders = const Config::PLACEHOLDER as usize + offset_of!(Config, reorders),
            options(nostack),
        );
    }
}
