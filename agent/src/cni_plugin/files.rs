//! Files of a container runtime that change in one step, while others write them, too.
//!
//! In: a path, what was read there, and what shall be there. Out: the whole new file or the whole old one,
//! also when the node loses power, and never an old one over what its owner has written meanwhile.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    mem,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use podgate_datapath::exchange_files;

/// How often a file is put back that somebody else writes at the same time.
const ATTEMPTS: usize = 8;

/// The whole new file, or the old one: also when the node loses power.
pub(super) fn replace(path: &Path, contents: &[u8], permissions: Permissions) -> Result<()> {
    let replace = || -> io::Result<()> {
        let unfinished = Unfinished::write(path, contents, permissions)?;
        fs::rename(&unfinished.0, path)?;
        sync_directory(path)
    };
    replace().with_context(|| format!("cannot write {}", path.display()))
}

/// Puts a new text in the place of the one that was read; false: somebody has written in between, and what
/// they wrote is there still.
pub(super) fn exchange(path: &Path, before: &str, after: &str) -> Result<bool> {
    let exchange = || -> io::Result<bool> {
        let unfinished = Unfinished::write(path, after.as_bytes(), fs::metadata(path)?.permissions())?;
        let (mut expected, mut placed) = (before.as_bytes().to_owned(), after.as_bytes().to_owned());
        for attempt in 0..ATTEMPTS {
            swap(&unfinished.0, path)?;
            let displaced = fs::read(&unfinished.0)?;
            if displaced == expected {
                sync_directory(path)?;
                return Ok(attempt == 0);
            }
            // It goes back, and what was put in its place comes out again.
            expected = mem::replace(&mut placed, displaced);
        }
        Err(io::Error::other("somebody else writes it all the time"))
    };
    exchange().with_context(|| format!("cannot write {}", path.display()))
}

/// Exchanges two files in one step; where the file system cannot, the first takes the place of the second if
/// that is unchanged, as near as can be.
fn swap(first: &Path, second: &Path) -> io::Result<()> {
    match exchange_files(first, second) {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {}
        exchanged => return exchanged,
    }
    let third = first.with_extension("old");
    fs::copy(second, &third)?;
    fs::rename(first, second)?;
    fs::rename(&third, first)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// A file that is not where it belongs yet; gone in the end. No two installers have the same one, in whatever
/// containers.
struct Unfinished(PathBuf);

impl Unfinished {
    fn write(path: &Path, contents: &[u8], permissions: Permissions) -> io::Result<Self> {
        let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let unfinished = Self(directory.join(format!(".podgate-cni.{now:x}.new")));
        let mut file = File::create_new(&unfinished.0)?;
        file.set_permissions(permissions)?;
        file.write_all(contents)?;
        file.sync_all()?;
        Ok(unfinished)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It has become the file that it was to be.
        let _ = fs::remove_file(&self.0);
    }
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {}", from.display()))?;
    sync_directory(to).with_context(|| format!("cannot sync the directory of {}", to.display()))
}
