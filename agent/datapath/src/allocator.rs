//! Memory that was freed and that the allocator keeps.

/// Gives it back to the kernel. To load the programs takes tens of megabytes for a moment, a large change
/// too; glibc keeps what lies below anything that is still in use.
///
/// Other allocators, musl's for one, give large blocks back by themselves.
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
