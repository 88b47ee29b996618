//! Sources: what fills the [`model`](podgate_core::model).
//!
//! In: Kubernetes objects as JSON or YAML. Out: a full picture of the cluster, and what in it was not
//! understood. `decode` reads one object and knows nothing of where it came from; every source uses it.

mod cluster_snapshot;
mod decode;
pub mod kube;
mod limited;
pub mod manifests;
mod policy_objects;

pub(crate) use decode::{Kind, group};
pub(crate) use policy_objects::PolicyObjectChange;
pub use policy_objects::{PolicyObject, PolicyObjects};

pub use cluster_snapshot::{ClusterSnapshot, InForce, Unread, Update, ValidationError};
