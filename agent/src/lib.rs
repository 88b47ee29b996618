//! podgate, the agent: from cluster objects to BPF maps.
//!
//! Data runs one way: `source` -> `model` -> `compiler` -> `publisher` -> `datapath`; see `ARCHITECTURE.md`.

#![forbid(unsafe_code)]

pub mod api;
pub mod check;
pub mod cli;
mod cni_plugin;
pub mod control;
pub mod endpoints;
pub mod fleet;
pub mod names;
pub mod observe;
pub mod options;
pub mod otlp;
mod reachability;
pub mod run;
pub mod server;
pub mod snapshot;
pub mod source;
pub mod traces;
