//! The cluster as files: one manifest per object in one directory, as `kubectl get -o yaml` would show them.
//!
//! In: objects of the lab and the text of policies. Out: files that appear and change in one step, so that a
//! watcher never reads half of one.

use std::{
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::json;

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

    /// Declares a namespace.
    pub fn namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let mut text = format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {}\n", quoted(name));
        write_labels(&mut text, labels.iter().copied());
        self.write(&format!("namespace-{name}.yaml"), &text)
    }
}

/// Appends `labels` to the `metadata` that `text` ends with.
pub(super) fn write_labels<'a>(text: &mut String, labels: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let mut labels = labels.into_iter().peekable();
    if labels.peek().is_some() {
        text.push_str("  labels:\n");
    }
    for (key, value) in labels {
        writeln!(text, "    {}: {}", quoted(key), quoted(value)).expect("writing to a string");
    }
}

/// A YAML scalar that stays a string, whatever is in it: YAML takes JSON's quoting.
pub(super) fn quoted(text: &str) -> String {
    json!(text).to_string()
}
