//! What policies mean: from the cluster as small structs to tables, answers and reasons. Pure: no I/O, no
//! time, no kernel.
//!
//! Data runs one way: `model` -> `policy_walk` -> `compiler` -> tables; `explain`, `matrix`, `lint` and
//! `coverage` answer from the same model, `explain` and `coverage` by the same walk over policies.
//! `podgate-common` has what the BPF programs share: keys, values and the decision.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod address_filter;
pub mod advise;
pub mod compiler;
pub mod convert;
pub mod coverage;
pub mod explain;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
pub mod lint;
pub mod matrix;
pub mod memory;
pub mod model;
pub mod name_check;
pub mod policy_walk;
pub mod port_spec;
pub mod printable;
pub mod tunnels;
pub mod workload;
