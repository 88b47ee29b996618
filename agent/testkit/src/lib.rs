//! Test support that proves podgate right: a second, slow answer to "who may reach whom", and clusters to ask
//! about.
//!
//! Written from the NetworkPolicy specification alone, on raw Kubernetes JSON; it shares no code with
//! podgate.

#![forbid(unsafe_code)]

pub mod generate;
pub mod manifest;
pub mod naive;
pub mod question;
