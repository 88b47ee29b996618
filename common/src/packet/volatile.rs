//! Reads and writes that neither compiler nor verifier sees through.

/// Reads a value that was just written, such that neither compiler nor verifier knows what it is.
///
/// Without it the verifier follows every combination of header lengths through the whole program.
#[inline(always)]
pub(crate) fn forget<T: Copy>(value: &T) -> T {
    // SAFETY: a reference is valid to be read from.
    unsafe { core::ptr::read_volatile(value) }
}

/// Writes a value by an instruction of its own.
///
/// What is written of several fields at once, compilers hand to `memset`, which in a BPF program is a loop
/// over bytes.
#[inline(always)]
pub(crate) fn overwrite<T: Copy>(place: &mut T, value: T) {
    // SAFETY: a reference is valid to be written to.
    unsafe { core::ptr::write_volatile(place, value) }
}
