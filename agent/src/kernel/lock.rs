//! One agent for each pin directory.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};

/// Held while the agent lives; the kernel lets go of it however the agent ends.
#[derive(Debug)]
pub struct Lock {
    _directory: File,
}

impl Lock {
    /// Locks a directory.
    ///
    /// # Errors
    ///
    /// When another process has it: the error names its id.
    pub fn take(path: &Path) -> Result<Self> {
        let directory = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        // SAFETY: a valid descriptor.
        if unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(Self { _directory: directory });
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
        match holder(&directory) {
            Some(pid) => bail!("{} is held by process {pid}", path.display()),
            None => bail!("{} is held by a process of another pid namespace", path.display()),
        }
    }
}

/// Looks the lock up in `/proc/locks`: `1: FLOCK  ADVISORY  WRITE 4711 00:2a:7 0 EOF` (man 5 proc).
fn holder(directory: &File) -> Option<u32> {
    let inode = directory.metadata().ok()?.ino().to_string();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (kind, _, _) = (fields.next()?, fields.next()?, fields.next()?);
        let (pid, place) = (fields.next()?, fields.next()?);
        let same = kind == "FLOCK" && place.rsplit(':').next() == Some(&inode);
        same.then(|| pid.parse().ok()).flatten().filter(|&pid| pid != 0)
    })
}
