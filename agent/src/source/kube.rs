//! The Kubernetes source: the objects of an API server, listed once and watched from then on.
//!
//! In: an API server. Out: an [`Update`] whenever something changed that a verdict can depend on, the first
//! one when every kind has been listed to its end, and the [`Health`] of the watches. What was learned stays
//! while the server is away; a list that must be made again takes the place of the one before when it is
//! complete, not before. Left out: what an object means (`decode`).

mod calico;
mod client;
mod dump;
mod events;
mod health;
mod object;
mod pod_warnings;
mod served;
mod shape;
mod store;
mod stream;
mod watch;

pub(crate) use calico::CalicoGroups;
pub(crate) use client::client;
pub use client::{ApiConnection, ApiProbe, connect};
pub(crate) use dump::{DumpError, DumpPart, dump, read_calico, read_cluster, read_written};
pub use health::{Health, WatchHealth};
pub use pod_warnings::{PodWarning, warn_pods};
pub(crate) use served::{Served, look};
pub use watch::watch;

use super::{ClusterSnapshot, PolicyObject, PolicyObjects, Update, ValidationError, decode, limited};
