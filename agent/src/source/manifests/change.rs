//! A change to a cluster that somebody thinks about: objects to add, to put in the place of others, or to
//! remove.
//!
//! In: manifest files. Out: the changed cluster, and what in the new objects is not in order. An object that
//! is to be removed says so itself (`removal` in `decode`). Unlike manifests that describe a cluster, a
//! change is read whole or not at all: an answer about half of it would be the answer to another question.

use std::path::PathBuf;

use anyhow::Context as _;
use podgate_core::model::Cluster;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::source::decode::{Contents, Decoded, Decoder, ObjectLocation};

use super::{
    ValidationError,
    document::{self, LineDetail, YamlDocument},
    input::{Input, expand, is_of_kustomize, unreadable},
    namespace,
};

/// The objects of a change as they were written: what is asked of an agent travels like this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Change {
    documents: Vec<ChangeDocument>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ChangeDocument {
    file: String,
    position: String,
    value: Value,
}

impl Change {
    /// Reads files and directories, `-` for standard input. Out: what is not in order, too; such an entry has
    /// the effect that it has in manifests.
    ///
    /// # Errors
    ///
    /// With the first file that cannot be read, and the first document that holds no object that can be read.
    pub fn read(paths: &[PathBuf]) -> Result<(Self, Vec<ValidationError>), ValidationError> {
        Self::read_in(paths, None)
    }

    /// `namespace`: of objects that name none.
    ///
    /// # Errors
    ///
    /// As [`Change::read`].
    pub fn read_in(
        paths: &[PathBuf],
        namespace: Option<&str>,
    ) -> Result<(Self, Vec<ValidationError>), ValidationError> {
        let mut change = Self::default();
        for path in paths {
            let input = Input::named(path);
            let of_file = |message| ValidationError::of_file(input.to_string(), message);
            for input in expand(&input).map_err(|error| of_file(unreadable(&error)))? {
                change.documents.extend(documents(&input, namespace)?);
            }
        }
        let problems = change.decode(|_, _| Ok(()))?;
        Ok((change, problems))
    }

    /// Reads what [`Change::to_json`] has written; out as for [`Change::read`].
    ///
    /// # Errors
    ///
    /// When it is something else, and as [`Change::read`].
    pub fn of_json(bytes: &[u8]) -> anyhow::Result<(Self, Vec<ValidationError>)> {
        let change: Self = serde_json::from_slice(bytes).context("the change")?;
        let problems = change.decode(|_, _| Ok(()))?;
        Ok((change, problems))
    }

    /// Its objects with the files that they are of, so that an agent's problems name these.
    ///
    /// # Errors
    ///
    /// None that a change of [`Change::read`] has.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }

    /// Whether it holds an object of a kind that answers depend on, understood or not.
    pub fn has_objects(&self) -> bool {
        let mut found = false;
        let problems = self.decode(|_, _| {
            found = true;
            Ok(())
        });
        found || problems.is_ok_and(|problems| !problems.is_empty())
    }

    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// Changes a cluster, object by object in the order in which they stand.
    ///
    /// # Errors
    ///
    /// As [`Change::read`], and when an object that is to be removed does not exist.
    pub fn apply(&self, cluster: &mut Cluster) -> Result<(), ValidationError> {
        self.decode(|file, object| {
            let removed = matches!(object, Decoded::Removed(_)).then(|| object.id().to_string());
            match (object.put(cluster), removed) {
                (false, Some(object)) => {
                    let message = "is to be removed, but does not exist".to_owned();
                    Err(ValidationError { file: file.to_owned(), object, field: String::new(), message })
                }
                _ => Ok(()),
            }
        })?;
        Ok(())
    }

    /// Hands over each object with its file. Out: what is not in order.
    fn decode(
        &self,
        mut take: impl FnMut(&str, Decoded) -> Result<(), ValidationError>,
    ) -> Result<Vec<ValidationError>, ValidationError> {
        let mut decoder = Decoder::of_changes();
        let mut problems = Vec::new();
        for ChangeDocument { file, position, value } in &self.documents {
            let place = ObjectLocation { origin: file.clone(), position: position.clone() };
            let Contents { objects, faults, incomplete, unread: _, written: _ } =
                decoder.decode(value, &place);
            let mut faults = faults.into_iter().map(|fault| ValidationError::of_fault(file.clone(), fault));
            if incomplete {
                return Err(faults.next().expect("what cannot be read has been reported"));
            }
            problems.extend(faults);
            objects.into_iter().try_for_each(|object| take(file, object))?;
        }
        Ok(problems)
    }
}

fn documents(input: &Input, namespace: Option<&str>) -> Result<Vec<ChangeDocument>, ValidationError> {
    let file = input.to_string();
    let of_file = |message| ValidationError::of_file(file.clone(), message);
    let bytes = input.bytes().map_err(|error| of_file(unreadable(&error)))?;
    let documents = document::read(&bytes, LineDetail::Documents).map_err(of_file)?.into_iter();
    let documents = documents
        .filter(|document| !document.value.as_ref().is_ok_and(|value| is_of_kustomize(input, value)));
    let documents = documents.map(|YamlDocument { position, lines: _, value }| match value {
        Ok(mut value) => {
            namespace.into_iter().for_each(|name| namespace::fill(&mut value, name));
            Ok(ChangeDocument { file: file.clone(), position, value })
        }
        Err(message) => {
            Err(ValidationError { file: file.clone(), object: position, field: String::new(), message })
        }
    });
    documents.collect()
}

#[cfg(test)]
mod tests;
