//! Which cluster's policies are pinned: an empty directory in the pin directory, named by the cluster's id.
//!
//! A bpffs holds no ordinary files. The note goes with the pins: at a reboot, and by `podgate detach`.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::pins::{Pins, entries, remove_directory};

const CLUSTER: &str = "cluster";

impl Pins {
    /// The cluster whose policies are in force, by the pins of this layout, else by those of an agent with
    /// other maps.
    ///
    /// # Errors
    ///
    /// When the pin directory cannot be read.
    pub fn cluster_id(&self) -> Result<Option<String>> {
        let root = self.directory().parent().context("the pin directory has no parent")?;
        let others = entries(root)?.into_iter().filter(|layout| layout != self.directory());
        let mut layouts = vec![self.directory().to_owned()];
        layouts.extend(others);
        for layout in layouts {
            if let Some(note) = entries(&layout.join(CLUSTER))?.first() {
                let name = note.file_name().context("a note has a name")?;
                return Ok(Some(name.to_string_lossy().into_owned()));
            }
        }
        Ok(None)
    }

    /// Notes the cluster in the place of the one that was noted before.
    ///
    /// # Errors
    ///
    /// When the id is no name for a directory of a bpffs, or it cannot be made.
    pub fn note_cluster_id(&self, id: &str) -> Result<()> {
        let is_name = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        ensure!(is_name && !id.is_empty(), "{id:?} is no id of a cluster");
        let notes = self.directory().join(CLUSTER);
        let note = notes.join(id);
        fs::create_dir_all(&note).with_context(|| format!("cannot make {}", note.display()))?;
        let others = entries(&notes)?.into_iter().filter(|other| *other != note);
        others.into_iter().try_for_each(|other| remove_directory(&other))
    }
}

/// Forgets the cluster of one layout.
pub(super) fn remove(layout: &Path) -> Result<()> {
    let notes = layout.join(CLUSTER);
    entries(&notes)?.iter().try_for_each(|note| remove_directory(note))?;
    remove_directory(&notes)
}
