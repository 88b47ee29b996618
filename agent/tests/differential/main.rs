//! podgate against the naive evaluator: on generated clusters, and on conformance cases with verdicts by hand.

mod conformance;
mod narrowing;
#[path = "../oracle/oracle.rs"]
mod oracle;
mod runner;
