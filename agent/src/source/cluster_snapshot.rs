//! What a source says: a cluster, and what in it is not in order.

use std::{fmt, sync::Arc, time::Instant};

use podgate_core::{
    model::{Cluster, Name},
    printable::printable,
};

use super::PolicyObjects;
use crate::source::decode::FieldError;

/// A picture of a cluster, as a source has it now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSnapshot {
    pub cluster: Arc<Cluster>,
    pub problems: Vec<ValidationError>,
    /// Why this is no picture of a cluster at all: a path that is missing, a server without namespaces.
    pub missing: Vec<ValidationError>,
    /// Policies that could not be read: what they would change is not known.
    pub unread: Vec<Unread>,
    /// What is known to be lacking: objects that could never be read.
    pub lacking: Vec<ValidationError>,
    /// Which cluster it is, where the source knows: the uid of its namespace kube-system.
    pub cluster_id: Option<String>,
    /// Which versions of the policies these are, where the source has versions.
    pub policy_objects: PolicyObjects,
}

/// A policy that could not be read, or what may have been one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    pub problem: ValidationError,
    /// Whose pods it may be for; `None`: any.
    pub namespace: Option<Name>,
}

/// What the node enforces while a picture is considered.
#[derive(Clone, Copy, Debug)]
pub struct InForce<'a> {
    /// An agent before this one has left programs and tables that are in force.
    pub is_pinned: bool,
    /// The cluster whose policies these are, where that is known.
    pub cluster_id: Option<&'a str>,
}

impl ClusterSnapshot {
    /// Why it must not replace what is in force; `None`: it may.
    ///
    /// A picture without some of the policies would open pods that they isolate. Where nothing is in force no
    /// pod is isolated, and the part that could be read is better than nothing.
    pub fn refusal(&self, in_force: InForce<'_>) -> Option<String> {
        if let Some(problem) = self.missing.first() {
            return Some(problem.to_string());
        }
        if let (Some(before), Some(now)) = (in_force.cluster_id, &self.cluster_id)
            && before != now
        {
            return Some(format!(
                "this is another cluster (namespace kube-system has uid {now}) than the one whose policies are in \
                 force ({before}); if that is meant, run `podgate detach` first"
            ));
        }
        self.lacking.first().filter(|_| in_force.is_pinned).map(|problem| {
            format!(
                "{problem}; what an agent before this one has left stays in force until that is put right"
            )
        })
    }
}

/// A picture that differs from the one before.
#[derive(Clone, Debug)]
pub struct Update {
    pub picture: ClusterSnapshot,
    /// When the source learned of the oldest change in it.
    pub learned: Instant,
}

/// One thing that is wrong; printed as one line, as in
/// `policies.yaml: NetworkPolicy shop/web: spec.ingress[0].ports[1].endPort: 79 is less than port 80`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidationError {
    /// The file as it was named, or found in the directory that was named. Empty: an API server's object.
    pub file: String,
    /// As in `NetworkPolicy shop/web`, or where in the file when that is not known. Empty: the file itself.
    pub object: String,
    /// As in `spec.ingress[0].ports[1].endPort`. Empty: the object itself.
    pub field: String,
    pub message: String,
}

impl ValidationError {
    pub(super) fn of_file(file: String, message: String) -> Self {
        Self { file, object: String::new(), field: String::new(), message }
    }

    pub(super) fn of_fault(file: String, FieldError { object, field, message }: FieldError) -> Self {
        Self { file, object, field, message }
    }
}

impl fmt::Display for ValidationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, object, field, message } = self;
        let parts = [file, object, field].into_iter().filter(|part| !part.is_empty());
        for part in parts {
            write!(f, "{}: ", OneLine(part))?;
        }
        OneLine(message).fmt(f)
    }
}

impl std::error::Error for ValidationError {}

/// Text of a user with its control characters escaped: names may hold anything, a problem stays one line.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: InForce<'_> = InForce { is_pinned: false, cluster_id: None };

    fn problem(message: &str) -> Vec<ValidationError> {
        vec![ValidationError::of_file("policies".into(), message.into())]
    }

    #[test]
    fn a_picture_without_its_source_is_refused_whatever_is_in_force() {
        let picture = ClusterSnapshot { missing: problem("cannot be read"), ..ClusterSnapshot::default() };
        for is_pinned in [false, true] {
            let refusal = picture.refusal(InForce { is_pinned, ..NOTHING });
            assert_eq!(refusal.as_deref(), Some("policies: cannot be read"));
        }
        assert_eq!(ClusterSnapshot::default().refusal(InForce { is_pinned: true, ..NOTHING }), None);
    }

    #[test]
    fn a_picture_that_lacks_objects_is_refused_only_over_pinned_tables() {
        let picture = ClusterSnapshot { lacking: problem("is no YAML"), ..ClusterSnapshot::default() };
        assert_eq!(picture.refusal(NOTHING), None);
        let refusal = picture.refusal(InForce { is_pinned: true, ..NOTHING }).unwrap();
        assert!(refusal.starts_with("policies: is no YAML; "), "{refusal}");
    }

    #[test]
    fn the_picture_of_another_cluster_is_refused() {
        let picture = ClusterSnapshot { cluster_id: Some("b".into()), ..ClusterSnapshot::default() };
        assert_eq!(picture.refusal(NOTHING), None, "no cluster is known yet");
        assert_eq!(picture.refusal(InForce { cluster_id: Some("b"), ..NOTHING }), None);
        let refusal = picture.refusal(InForce { cluster_id: Some("a"), ..NOTHING }).unwrap();
        assert!(refusal.contains("another cluster") && refusal.contains("podgate detach"), "{refusal}");
        let unknown = ClusterSnapshot::default();
        assert_eq!(unknown.refusal(InForce { cluster_id: Some("a"), ..NOTHING }), None, "of manifests");
    }
}
