//! The objects of a lab, at an API server: what the lab writes as files is created, changed and deleted
//! there.
//!
//! In: the directory of manifests. Out: the same objects at the server, with the namespaces that they live
//! in. It looks when it is told to, so that a test knows what the server has.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::ControlPlane;
use crate::lab::Manifests;

/// What was mirrored last.
#[derive(Debug)]
pub struct Mirror {
    manifests: Manifests,
    files: BTreeMap<PathBuf, Vec<Value>>,
    namespaces: BTreeSet<String>,
}

impl Mirror {
    pub fn new(manifests: &Manifests) -> Self {
        Self { manifests: manifests.clone(), files: BTreeMap::new(), namespaces: BTreeSet::new() }
    }

    /// Brings the server to what the files say now.
    pub fn sync(&mut self, server: &ControlPlane) -> Result<()> {
        let files = self.read()?;
        let namespaces: BTreeSet<String> = files.values().flatten().filter_map(namespace).collect();
        let new: Vec<Value> = namespaces
            .difference(&self.namespaces)
            .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
            .collect();
        server.apply(&new)?;
        let changed = files.iter().filter(|(file, objects)| self.files.get(*file) != Some(objects));
        let changed: Vec<Value> = changed.flat_map(|(_, objects)| objects).cloned().collect();
        server.apply(&changed)?;
        let gone = self.files.iter().filter(|(file, _)| !files.contains_key(*file));
        let gone: Vec<Value> = gone.flat_map(|(_, objects)| objects).cloned().collect();
        server.delete(&gone)?;
        self.namespaces.extend(namespaces);
        self.files = files;
        Ok(())
    }

    fn read(&self) -> Result<BTreeMap<PathBuf, Vec<Value>>> {
        let directory = self.manifests.directory();
        let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
        let mut files = BTreeMap::new();
        for entry in entries {
            let path = entry.context("listing manifests")?.path();
            // Drafts begin with a dot.
            if path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b".")) {
                let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                let objects = serde_saphyr::from_multiple(&text);
                let mut objects: Vec<Value> = objects.with_context(|| path.display().to_string())?;
                // The server gives its own; it would look for one that exists with this.
                for object in &mut objects {
                    object["metadata"].as_object_mut().map(|metadata| metadata.remove("uid"));
                }
                files.insert(path, objects);
            }
        }
        Ok(files)
    }
}

/// Where an object lives; a Namespace is not in one, and is applied by itself when a file has it.
fn namespace(object: &Value) -> Option<String> {
    Some(object["metadata"]["namespace"].as_str()?.to_owned())
}
