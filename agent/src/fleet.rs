//! The agents of all nodes, asked one by one through the API server.
//!
//! In: a kubeconfig, and a command of podgate. Out: what the agent of each node answers, and why a node does
//! not. Agents listen on no port: each is asked by `pods/exec`, as `kubectl exec` does, so RBAC of the
//! cluster says who may ask. Left out: what the answers mean (`cli::cluster`).

mod agents;
mod connection;
mod exec;
mod failure;
mod lines;
mod survey;

pub(crate) use agents::all_pages;
pub use agents::{Agent, Fleet, FleetQuery, find, find_on, labelled};
pub use connection::{ApiTarget, TargetOptions, api_failure, connect};
pub use exec::Executor;
pub use failure::Failure;
pub use lines::Line;
pub(crate) use survey::{AT_ONCE, names, other_versions, read_answer, version_notes};
pub use survey::{Answer, FleetSurvey, ask};
