//! What a source says: a cluster, and what in it is not in order.

use std::{fmt, sync::Arc, time::Instant};

use crate::{model::Cluster, source::decode::Fault};

/// A full picture of a cluster, as a source has it now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    pub cluster: Arc<Cluster>,
    pub problems: Vec<Problem>,
}

/// A picture that differs from the one before.
#[derive(Clone, Debug)]
pub struct Update {
    pub picture: Picture,
    /// When the source learned of the oldest change in it.
    pub learned: Instant,
}

/// One thing that is wrong; printed as one line, as in
/// `policies.yaml: NetworkPolicy shop/web: spec.ingress[0].ports[1].endPort: 79 is less than port 80`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as it was named, or found in the directory that was named. Empty: an API server's object.
    pub file: String,
    /// As in `NetworkPolicy shop/web`, or where in the file when that is not known. Empty: the file itself.
    pub object: String,
    /// As in `spec.ingress[0].ports[1].endPort`. Empty: the object itself.
    pub field: String,
    pub message: String,
}

impl Problem {
    pub(super) fn of_file(file: String, message: String) -> Self {
        Self { file, object: String::new(), field: String::new(), message }
    }

    pub(super) fn of_fault(file: String, Fault { object, field, message }: Fault) -> Self {
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
