//! Test support that proves podgate right: a second, slow answer to "who may reach whom", and clusters to ask about.
//!
//! Written from the NetworkPolicy specification alone, on raw Kubernetes JSON; it shares no code with podgate.
//! A test crate takes it in with `#[path = "../oracle/oracle.rs"] mod oracle;`.

pub(crate) mod generate;
pub(crate) mod manifest;
pub(crate) mod naive;
pub(crate) mod question;
