//! Numbers that no one can guess.

use std::io;

/// Random bytes of the kernel.
///
/// # Errors
///
/// When it has none yet.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    // So many come whole or not at all (getrandom(2)).
    const { assert!(N <= 256) };
    let mut bytes = [0; N];
    // SAFETY: room for as many bytes.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes) }
}
