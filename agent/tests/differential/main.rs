//! podgate against the naive evaluator.

#[path = "../oracle/oracle.rs"]
mod oracle;
