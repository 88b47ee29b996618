//! Manifests that a verb reads once, without an agent.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};

use crate::{
    model::Cluster,
    source::{
        Picture,
        manifests::{self, Change},
    },
};

/// What is changed in a cluster before the answer. Each thing in it that is not in order is one line on stderr.
///
/// # Errors
///
/// When a part of it cannot be read, and when it stands on standard input as the manifests do.
pub(super) fn read_change(paths: &[PathBuf], manifests: &[PathBuf]) -> anyhow::Result<Change> {
    if [paths, manifests].iter().all(|paths| paths.iter().any(|path| path == Path::new("-"))) {
        bail!("standard input can be read only once");
    }
    let (change, problems) = Change::read(paths)?;
    for problem in &problems {
        eprintln!("{problem}");
    }
    Ok(change)
}

/// The cluster that the files describe. Each object that is not in order is one line on stderr; the rest goes on.
///
/// # Errors
///
/// When a path is not there, and when nothing at all could be read.
pub(super) fn read(paths: &[PathBuf]) -> anyhow::Result<Cluster> {
    for path in paths.iter().filter(|path| *path != Path::new("-")) {
        fs::metadata(path).with_context(|| path.display().to_string())?;
    }
    let Picture { cluster, problems, .. } = manifests::read(paths);
    for problem in &problems {
        eprintln!("{problem}");
    }
    if !problems.is_empty() && *cluster == Cluster::default() {
        bail!("the manifests hold nothing that could be read");
    }
    Ok(Arc::unwrap_or_clone(cluster))
}
