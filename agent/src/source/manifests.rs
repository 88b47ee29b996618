//! The manifests source: files of Kubernetes objects in place of an API server.
//!
//! In: paths of files and directories (the files directly in them), or `-` for standard input; YAML or JSON,
//! single objects, lists, several documents in a file. Out: a [`ClusterSnapshot`], once by [`read`] or after
//! each change by [`watch`]: the cluster, and every [`ValidationError`] that was found on the way. A problem
//! never stops the rest. Beside them a [`Change`] to a cluster. Left out: what an object means (`decode`).

mod change;
mod document;
mod input;
mod namespace;
mod route;
mod store;
mod watch;
mod written;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

pub use change::Change;
pub use watch::watch;
pub use written::WrittenObjects;

use super::{ClusterSnapshot, Update, ValidationError};
use input::Input;
use podgate_core::model::Name;
use store::ManifestStore;

/// How manifests are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The namespace of objects that name none; `default` when it is not given.
    pub namespace: Option<Name>,
    /// A path without any object is meant.
    pub allow_empty: bool,
}

/// Reads everything once, with the options that a cluster's own objects need.
pub fn read(paths: &[PathBuf]) -> ClusterSnapshot {
    read_with(paths, ReadOptions::default())
}

/// Reads everything once. A path that cannot be read is a problem like any other.
///
/// In a directory `*.yaml`, `*.yml` and `*.json` are read, in the order of their names and without hidden
/// files; a file that is named itself is read whatever its ending. Of an object that appears twice the later
/// one counts.
pub fn read_with(paths: &[PathBuf], options: ReadOptions) -> ClusterSnapshot {
    let mut store = ManifestStore::new(paths, options);
    for input in store.list() {
        let reading = store.read(&input);
        store.put(input, reading);
    }
    store.picture(&[])
}

/// The same, and how the objects are written.
pub fn read_written(paths: &[PathBuf], options: ReadOptions) -> (ClusterSnapshot, WrittenObjects) {
    let mut store = ManifestStore::new(paths, options).keeping_written();
    let mut written = BTreeMap::new();
    for input in store.list() {
        let mut reading = store.read(&input);
        written.insert(input.clone(), reading.take_written());
        store.put(input, reading);
    }
    let mut objects = WrittenObjects::default();
    for input in store.in_order() {
        objects.add(&input.to_string(), written.remove(input).unwrap_or_default());
    }
    (store.picture(&[]), objects)
}

/// What may keep the first picture waiting, in words: standard input or a pipe is read to its end, and that
/// comes when its writer closes it. `None`: all are files and directories.
pub fn waits_for_writer(paths: &[PathBuf]) -> Option<String> {
    let is_pipe = |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    let input = paths.iter().map(|path| Input::named(path)).find(|input| input.path().is_none_or(is_pipe))?;
    Some(format!("{input}: waiting for a writer to write it and to close it"))
}

#[cfg(test)]
mod tests;
