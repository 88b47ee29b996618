//! Manifests that a verb reads once, without an agent.

use std::path::PathBuf;

use crate::{model::Cluster, source::manifests};

/// The cluster that the files describe. Each object that is not in order is one line on stderr; the rest goes on.
pub(super) fn read(paths: &[PathBuf]) -> anyhow::Result<Cluster> {
    let picture = manifests::read(paths)?;
    for problem in &picture.problems {
        eprintln!("{problem}");
    }
    Ok(picture.cluster)
}
