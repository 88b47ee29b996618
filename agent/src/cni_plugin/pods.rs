//! What the plugin knows of each pod, one file for each: for the agent that runs, and for those that come
//! later.
//!
//! The files lie beside the agent's socket, so that a reboot takes them away as it takes the pods. They have
//! the form of libcni's result cache, which the agent reads anyway; that one is written only when all plugins
//! are done, and need not be where the agent looks for it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use podgate_core::model::ObjectName;
use podgate_datapath::network::HostSide;
use serde::Deserialize;
use serde_json::json;

use super::request::Attachment;
use crate::{endpoints::cni::CniResult, options::run_directory};

const DIRECTORY: &str = "cni-pods";

/// Where the plugin leaves what it knows of pods. `socket`: the agent's.
pub(crate) fn pods_directory(socket: &Path) -> PathBuf {
    run_directory(socket).join(DIRECTORY)
}

/// A pod with its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AttachedPod {
    pub(super) pod: ObjectName,
    /// Empty where the runtime does not say it.
    pub(super) uid: String,
    pub(super) result: CniResult,
    pub(super) host: HostSide,
}

impl AttachedPod {
    /// Writes the file in one step.
    pub(super) fn write(&self, socket: &Path, network: &str, attachment: &Attachment) -> Result<()> {
        let directory = pods_directory(socket);
        let make = || fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        make().with_context(|| format!("cannot make {}", directory.display()))?;
        let path = directory.join(file_name(attachment));
        // Outside of the directory: the agent reads each file in it that is written.
        let temporary = unfinished(socket, attachment);
        let write = || -> io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(self.json(network, attachment).as_bytes())?;
            fs::rename(&temporary, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    fn json(&self, network: &str, Attachment { container, interface }: &Attachment) -> String {
        let sandbox = self.result.namespaces.first().map(|path| path.to_string_lossy());
        let addresses = self.result.addresses.iter();
        let addresses: Vec<_> =
            addresses.map(|address| json!({"address": address.to_string(), "interface": 1})).collect();
        let record = json!({
            "kind": "podgate",
            "networkName": network,
            "containerId": container,
            "ifName": interface,
            "netns": sandbox,
            "cniArgs": [
                ["K8S_POD_NAMESPACE", &*self.pod.namespace],
                ["K8S_POD_NAME", &*self.pod.name],
                ["K8S_POD_UID", self.uid],
            ],
            "result": {
                "cniVersion": "1.0.0",
                "interfaces": [
                    {"name": &*self.host.name},
                    {"name": interface, "sandbox": sandbox.as_deref().unwrap_or("none")},
                ],
                "ips": addresses,
            },
        });
        record.to_string()
    }
}

/// Forgets an interface; one that is not known is fine.
pub(super) fn remove(socket: &Path, attachment: &Attachment) -> Result<()> {
    for path in [pods_directory(socket).join(file_name(attachment)), unfinished(socket, attachment)] {
        absent_is_fine(fs::remove_file(&path))
            .with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// The file of an ADD that is still writing, or was killed while it wrote.
fn unfinished(socket: &Path, attachment: &Attachment) -> PathBuf {
    run_directory(socket).join(format!(".{}.new", file_name(attachment)))
}

/// Forgets all of a network but these. One that cannot be forgotten keeps none of the others.
pub(super) fn keep(socket: &Path, network: &str, valid: &[Attachment]) -> Result<()> {
    let directory = pods_directory(socket);
    let valid: Vec<String> = valid.iter().map(file_name).collect();
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", directory.display())),
    };
    let mut failed = None;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", directory.display()))?;
        if valid.iter().any(|valid| entry.file_name() == **valid) || is_of_another(&entry.path(), network) {
            continue;
        }
        let removed = absent_is_fine(fs::remove_file(entry.path()));
        if let Err(error) = removed.with_context(|| format!("cannot remove {}", entry.path().display())) {
            failed = Some(error);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Whether a file says that its pod was attached to another network, of which no one has spoken.
fn is_of_another(path: &Path, network: &str) -> bool {
    #[derive(Deserialize)]
    struct Record {
        #[serde(rename = "networkName")]
        network: String,
    }
    let record = fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    record.is_some_and(|record: Record| record.network != network)
}

fn file_name(Attachment { container, interface }: &Attachment) -> String {
    format!("{container}-{interface}")
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_collection_of_one_network_forgets_nothing_of_another() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("podgate.sock");
        let attachment =
            |container: &str| Attachment { container: container.into(), interface: "eth0".into() };
        for (network, container) in [("one", "a"), ("one", "b"), ("two", "c")] {
            let result =
                br#"{"ifName": "eth0", "cniArgs": [["K8S_POD_NAMESPACE", "x"], ["K8S_POD_NAME", "p"]]}"#;
            let result = CniResult::parse(result).unwrap().unwrap();
            let pod = AttachedPod {
                pod: result.pod.clone(),
                uid: String::new(),
                result,
                host: HostSide::default(),
            };
            pod.write(&socket, network, &attachment(container)).unwrap();
        }
        // No file of ours, and one that cannot be removed.
        fs::write(pods_directory(&socket).join("garbage"), "{").unwrap();
        fs::create_dir(pods_directory(&socket).join("0-directory")).unwrap();
        let left = || {
            let names = fs::read_dir(pods_directory(&socket)).unwrap();
            let mut names: Vec<_> = names.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert!(keep(&socket, "one", &[attachment("b")]).is_err(), "a directory is in the way");
        assert_eq!(left(), ["0-directory", "b-eth0", "c-eth0"]);
        fs::write(unfinished(&socket, &attachment("b")), "{").unwrap();
        remove(&socket, &attachment("b")).unwrap();
        assert_eq!(left(), ["0-directory", "c-eth0"]);
        assert!(!unfinished(&socket, &attachment("b")).exists());
    }
}
