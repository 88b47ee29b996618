//! podgate, the agent: from cluster objects to BPF maps.
//!
//! Data runs one way: `source` -> `model` -> `compiler` -> `publisher` -> `kernel`; see `ARCHITECTURE.md`.

pub mod compiler;
pub mod kernel;
pub mod memory;
pub mod model;
pub mod publisher;
