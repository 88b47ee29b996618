//! The cluster as files: one manifest per object in one directory, as `kubectl get` would show them.
//!
//! In: objects of the lab and the text of policies. Out: files that appear and change in one step, so that a
//! watcher never reads half of one.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// A directory of manifests. Clones share it.
#[derive(Clone, Debug)]
pub struct Manifests {
    directory: PathBuf,
}

impl Manifests {
    pub(super) fn new(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        Ok(Self { directory: directory.to_owned() })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Creates or replaces the file `name`.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let (draft, file) = (self.directory.join(format!(".{name}.draft")), self.directory.join(name));
        fs::write(&draft, text)
            .and_then(|()| fs::rename(&draft, &file))
            .with_context(|| format!("writing {}", file.display()))
    }

    /// Deletes the file `name`; one that is not there is fine.
    pub fn remove(&self, name: &str) -> Result<()> {
        let file = self.directory.join(name);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("deleting {}", file.display()))
            }
            _ => Ok(()),
        }
    }

    /// The same with objects, as JSON, which is YAML too.
    pub(super) fn write_objects(&self, name: &str, objects: &[Value]) -> Result<()> {
        let documents: Vec<_> = objects.iter().map(|object| format!("{object:#}\n")).collect();
        self.write(name, &documents.join("---\n"))
    }

    /// Declares a namespace.
    pub fn namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let metadata = json!({"name": name, "labels": labels});
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        self.write_objects(&format!("namespace-{name}.yaml"), &[object])
    }
}
