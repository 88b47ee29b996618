//! The manifests source: files of Kubernetes objects in place of an API server.
//!
//! In: paths of files and directories (the files directly in them), or `-` for standard input; YAML or JSON,
//! single objects, lists, several documents in a file. Out: a [`Picture`], once by [`read`] or after each
//! change by [`watch`]: the cluster, and every [`Problem`] that was found on the way. A problem never stops
//! the rest. Left out: what an object means (`decode`).

mod document;
mod route;
mod store;
mod watch;
mod writer;

use std::{fmt, path::PathBuf};

use crate::{model::Cluster, source::decode::Fault};

pub use watch::watch;

use store::Store;

/// All that the manifests say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    pub cluster: Cluster,
    pub problems: Vec<Problem>,
}

/// One thing that is wrong; printed as one line, as in
/// `policies.yaml: NetworkPolicy shop/web: spec.ingress[0].ports[1].endPort: 79 is less than port 80`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as it was named, or found in the directory that was named.
    pub file: String,
    /// As in `NetworkPolicy shop/web`, or where in the file when that is not known. Empty: the file itself.
    pub object: String,
    /// As in `spec.ingress[0].ports[1].endPort`. Empty: the object itself.
    pub field: String,
    pub message: String,
}

/// Reads everything once. A path that cannot be read is a problem like any other.
///
/// In a directory `*.yaml`, `*.yml` and `*.json` are read, in the order of their names and without hidden
/// files; a file that is named itself is read whatever its ending. Of an object that appears twice the later
/// one counts.
pub fn read(paths: &[PathBuf]) -> Picture {
    let mut store = Store::new(paths);
    for input in store.list() {
        let reading = store.read(&input);
        store.put(input, reading);
    }
    store.picture()
}

impl Problem {
    fn of_file(file: String, message: String) -> Self {
        Self { file, object: String::new(), field: String::new(), message }
    }

    fn of_fault(file: String, Fault { object, field, message }: Fault) -> Self {
        Self { file, object, field, message }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, object, field, message } = self;
        let parts = [file, object, field].into_iter().filter(|part| !part.is_empty());
        for part in parts {
            write!(f, "{}: ", OneLine(part))?;
        }
        OneLine(message).fmt(f)
    }
}

impl std::error::Error for Problem {}

/// Text of a user with its control characters escaped: names may hold anything, a problem stays one line.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character.is_control() {
            true => write!(f, "{}", character.escape_default()),
            false => write!(f, "{character}"),
        })
    }
}

#[cfg(test)]
mod tests;
