//! Whether a file has a writer at this moment.
//!
//! The kernel grants a read lease on a file only while no one has it open for writing (fcntl(2),
//! `F_SETLEASE`). Asking for one therefore answers the question without a race: inotify reports a truncation
//! only after it was done, and the file can be read, empty, in between.

use std::{fs::File, io, os::fd::AsRawFd as _, path::Path};

/// Which signal reports a lease that must end (include/uapi/asm-generic/fcntl.h); the libc crate lacks it.
const F_SETSIG: libc::c_int = 10;

/// `None`: this cannot be known. The file is another user's, or its file system has no leases.
pub fn has_writer(path: &Path) -> Option<bool> {
    let file = File::open(path).ok()?;
    let fd = file.as_raw_fd();
    // Whoever opens the file for writing during the lease waits for its end, and the holder gets a signal: by
    // default SIGIO, which would kill; SIGURG is ignored.
    // SAFETY: F_SETSIG takes a signal number and touches no memory; the descriptor is open as long as `file`.
    let prepared = unsafe { libc::fcntl(fd, F_SETSIG, libc::SIGURG) };
    if prepared != 0 {
        return None;
    }
    // SAFETY: F_SETLEASE takes a lock type and touches no memory; the descriptor is open as long as `file`.
    let leased = unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) };
    if leased == 0 {
        // The lease ends here: closing the only descriptor of an open file gives it back.
        return Some(false);
    }
    (io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)).then_some(true)
}

#[cfg(test)]
mod tests {
    use std::{fs, fs::OpenOptions};

    use super::*;

    #[test]
    fn a_file_has_a_writer_from_open_to_close() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "x").unwrap();
        let reader = File::open(&path).unwrap();
        assert_eq!(has_writer(&path), Some(false));
        let writer = OpenOptions::new().append(true).open(&path).unwrap();
        assert_eq!(has_writer(&path), Some(true));
        drop(writer);
        assert_eq!(has_writer(&path), Some(false));
        drop(reader);
        assert_eq!(has_writer(directory.path()), None);
        assert_eq!(has_writer(&directory.path().join("absent")), None);
    }
}
