//! The chained CNI plugin: no container of a pod starts before the pod's policies are enforced.
//!
//! In: what the container runtime says of a pod (CNI specification 0.3 to 1.1), after the other plugins have
//! made its interface. Out: the result of the plugins before, unchanged, as soon as the agent enforces the
//! pod's policies. While there is no agent the plugin puts programs at the interface itself. What it knows of
//! the pod is left in the agent's run directory, for agents to come. How it gets into the runtime's
//! configuration is in `conflist` and `install`.

mod conflist;
mod error;
mod files;
mod install;
mod json;
mod namespaces;
mod plugin;
mod pods;
mod request;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    install::{Installation, Installed},
    namespaces::keep_namespaces,
    plugin::run,
    pods::pods_directory,
    request::{TIMEOUT, WhenUnknown},
};
