//! One agent for each pin directory, and the CNI plugin while there is none.
//!
//! The plugin holds the agent's lock for a moment. So that an agent that starts in that moment does not take
//! it for another agent, both first go through a gate, a lock on the directory of maps, at which they wait.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

/// Held while the agent lives; the kernel lets go of it however the agent ends.
#[derive(Debug)]
pub struct AgentLock {
    _directory: File,
}

impl AgentLock {
    /// Locks a directory of pins.
    ///
    /// # Errors
    ///
    /// When another process has it: the error names its id.
    pub fn take(path: &Path) -> Result<Self> {
        let _gate = pass_gate(path, Instant::now() + PATIENCE)?;
        let directory = open(path)?;
        match try_lock(&directory, path)? {
            true => Ok(Self { _directory: directory }),
            false => Err(held(&directory, path)),
        }
    }
}

/// The lock of an agent that is not there.
#[derive(Debug)]
pub(super) struct Visit {
    // In this order: whoever waits at the gate finds the lock free.
    _lock: File,
    _gate: Option<File>,
}

impl Visit {
    /// `None`: an agent has the lock.
    pub(super) fn enter(path: &Path, deadline: Instant) -> Result<Option<Self>> {
        let gate = pass_gate(path, deadline)?;
        let directory = open(path)?;
        Ok(try_lock(&directory, path)?.then_some(Self { _lock: directory, _gate: gate }))
    }
}

/// How long an agent waits for CNI plugins; each takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until no one else is between the gate and the lock. A layout without maps has no gate.
fn pass_gate(path: &Path, deadline: Instant) -> Result<Option<File>> {
    let path = path.join("maps");
    let gate = match File::open(&path) {
        Ok(gate) => gate,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    while !try_lock(&gate, &path)? {
        if Instant::now() >= deadline {
            return Err(held(&gate, &path));
        }
        thread::sleep(PAUSE);
    }
    Ok(Some(gate))
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

fn try_lock(directory: &File, path: &Path) -> Result<bool> {
    // SAFETY: a valid descriptor.
    if unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(false),
        _ => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

fn held(directory: &File, path: &Path) -> anyhow::Error {
    match holder(directory) {
        Some(pid) => anyhow!("{} is held by process {pid}", path.display()),
        None => anyhow!("{} is held by a process of another pid namespace", path.display()),
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
