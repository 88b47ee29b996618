//! The files of the cache as they were read last.
//!
//! In: the directory, names of files that changed. Out: the results. A file that is none is refused once for
//! each time that it is written, and is as good as absent.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{DirEntry, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{CniResults, result::CniResult};

/// Bytes of the largest file that is read. A result with a long plug-in configuration in it has 10 KiB.
const LARGEST: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    known: BTreeMap<OsString, CachedFile>,
}

/// What became of a file.
#[derive(Debug)]
struct CachedFile {
    version: FileVersion,
    /// `None`: nothing about a pod, or refused.
    result: Option<CniResult>,
}

/// Tells whether a file is still the one that was read: device, inode, length, time of change (s, ns).
type FileVersion = (u64, u64, u64, i64, i64);

/// A file that holds no result of a CNI plug-in.
#[derive(Debug)]
pub(super) struct RejectedFile {
    pub(super) file: PathBuf,
    pub(super) error: anyhow::Error,
}

impl Files {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), known: BTreeMap::new() }
    }

    pub(super) fn results(&self) -> CniResults {
        CniResults(self.known.values().filter_map(|known| known.result.clone()).collect())
    }

    /// Looks at every file, and reads those that changed since. An absent directory holds none.
    pub(super) fn scan(&mut self) -> io::Result<Vec<RejectedFile>> {
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries.collect::<io::Result<Vec<DirEntry>>>()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut before = std::mem::take(&mut self.known);
        let mut refused = Vec::new();
        for entry in entries {
            let name = entry.file_name();
            let same = |known: &CachedFile| entry.metadata().is_ok_and(|now| version(&now) == known.version);
            match before.remove(&name).filter(same) {
                Some(known) => {
                    self.known.insert(name, known);
                }
                None => refused.extend(self.read(&name)),
            }
        }
        Ok(refused)
    }

    /// Reads one file again.
    pub(super) fn read(&mut self, name: &OsStr) -> Option<RejectedFile> {
        self.forget(name);
        let file = self.directory.join(name);
        // Before the contents: if the file changes in between, the next scan sees that it has.
        let Ok(metadata) = std::fs::symlink_metadata(&file) else { return None };
        let (result, error) = match parse(&file) {
            Ok(result) => (result, None),
            Err(error) => (None, Some(error)),
        };
        self.known.insert(name.to_owned(), CachedFile { version: version(&metadata), result });
        error.map(|error| RejectedFile { file, error })
    }

    pub(super) fn forget(&mut self, name: &OsStr) {
        self.known.remove(name);
    }
}

fn version(metadata: &Metadata) -> FileVersion {
    (metadata.dev(), metadata.ino(), metadata.size(), metadata.ctime(), metadata.ctime_nsec())
}

fn parse(path: &Path) -> anyhow::Result<Option<CniResult>> {
    // No symbolic links, and no waiting for a writer, should it be a FIFO.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).context("cannot open")?;
    anyhow::ensure!(file.metadata().context("cannot stat")?.is_file(), "not a regular file");
    let mut contents = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut contents).context("cannot read")?;
    anyhow::ensure!(contents.len() as u64 <= LARGEST, "larger than {LARGEST} bytes");
    Ok(CniResult::parse(&contents)?)
}
