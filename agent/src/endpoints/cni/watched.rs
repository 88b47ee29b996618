//! The inotify watch on a directory that need not exist yet.
//!
//! In: a path. Out: the names in it that changed, or that everything must be looked at again. While the
//! directory is absent, the nearest one above it is watched for the next step of the way to appear.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::Path,
};

use inotify::{EventMask, Inotify, WatchMask};
use podgate_datapath::watch_inotify;
use tokio::io::unix::AsyncFd;

/// Bytes for events: at least one with the longest file name fits (inotify(7)).
const BUFFER: usize = 16 << 10;

/// Reads in one go, so that a flood of events cannot keep it for ever.
const READS_AT_ONCE: usize = 64;

/// Tries to find the nearest directory while directories are being made and removed.
const ATTEMPTS: usize = 16;

/// Complete files only: libcni writes in place, so a file that was merely created or changed may be half
/// written.
const IN_DIRECTORY: WatchMask = WatchMask::CLOSE_WRITE
    .union(WatchMask::MOVED_TO)
    .union(WatchMask::MOVED_FROM)
    .union(WatchMask::DELETE)
    .union(WatchMask::DELETE_SELF)
    .union(WatchMask::MOVE_SELF)
    .union(WatchMask::ONLYDIR);

const ABOVE_DIRECTORY: WatchMask = WatchMask::CREATE
    .union(WatchMask::MOVED_TO)
    .union(WatchMask::DELETE_SELF)
    .union(WatchMask::MOVE_SELF)
    .union(WatchMask::ONLYDIR);

/// The watched directory itself is no longer what its path names, or events were lost.
const LOST: EventMask = EventMask::DELETE_SELF
    .union(EventMask::MOVE_SELF)
    .union(EventMask::IGNORED)
    .union(EventMask::UNMOUNT)
    .union(EventMask::Q_OVERFLOW);

/// One inotify instance with one watch, so every event is about that.
#[derive(Debug)]
pub(crate) struct Watched {
    inotify: AsyncFd<Inotify>,
    /// What to wait for in a directory above; `None` when the directory itself is watched.
    awaited: Option<OsString>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileChange<'name> {
    Written(&'name OsStr),
    Removed(&'name OsStr),
}

/// Whether the watch still serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchState {
    Watching,
    /// Make another one and look at everything.
    Over,
}

impl Watched {
    /// `directory` must be absolute. Must be called within a tokio runtime.
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let (inotify, above) = watch_nearest(directory)?;
            // It may have come after it was found absent and before the directory above was watched.
            if above.is_some_and(|above| above.exists()) {
                continue;
            }
            let awaited = above.and_then(Path::file_name).map(OsStr::to_owned);
            let inotify = watch_inotify(inotify)?;
            return Ok(Self { inotify, awaited });
        }
        Err(io::Error::other(format!("the directories above came and went during {ATTEMPTS} attempts")))
    }

    /// Waits until there may be something to take; `take` must follow. Safe to cancel.
    pub(crate) async fn ready(&self) -> io::Result<()> {
        self.inotify.readable().await?.clear_ready();
        Ok(())
    }

    /// Hands what has happened to `change`. Does not wait.
    pub(crate) fn take(&mut self, mut change: impl FnMut(FileChange<'_>)) -> io::Result<WatchState> {
        let mut buffer = [0; BUFFER];
        for _ in 0..READS_AT_ONCE {
            let events = match self.inotify.get_mut().read_events(&mut buffer) {
                Ok(events) => events,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(WatchState::Watching),
                Err(error) => return Err(error),
            };
            for event in events {
                if event.mask.intersects(LOST)
                    || (self.awaited.is_some() && event.name == self.awaited.as_deref())
                {
                    return Ok(WatchState::Over);
                }
                match event.name {
                    Some(name) if self.awaited.is_none() => change(match event.mask {
                        mask if mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM) => {
                            FileChange::Removed(name)
                        }
                        _ => FileChange::Written(name),
                    }),
                    _ => {}
                }
            }
        }
        Ok(WatchState::Over)
    }
}

/// Watches the directory, or else the nearest one above it, and tells the absent path that it would lead to.
fn watch_nearest(directory: &Path) -> io::Result<(Inotify, Option<&Path>)> {
    let inotify = Inotify::init()?;
    let mut absent = None;
    for path in directory.ancestors() {
        let mask = if absent.is_none() { IN_DIRECTORY } else { ABOVE_DIRECTORY };
        match inotify.watches().add(path, mask) {
            Ok(_) => return Ok((inotify, absent)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => absent = Some(path),
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}
