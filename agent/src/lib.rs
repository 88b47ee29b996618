//! podgate, the agent: from cluster objects to BPF maps.
//!
//! Data runs one way: `source` -> `model` -> `compiler` -> `publisher` -> `datapath`; see `ARCHITECTURE.md`.

pub mod api;
pub mod check;
pub mod cli;
mod cni_plugin;
pub mod compiler;
pub mod datapath;
pub mod endpoints;
pub mod engines;
pub mod explain;
pub mod flows;
pub mod hits;
pub mod matrix;
pub mod memory;
pub mod model;
mod netlink;
pub mod options;
pub mod port_spec;
mod printable;
pub mod publisher;
pub mod reconciler;
pub mod report;
pub mod run;
pub mod server;
pub mod sockets;
pub mod source;
