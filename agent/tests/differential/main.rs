//! podgate against the naive evaluator: on generated clusters, and on conformance cases with verdicts by
//! hand.

mod agreement;
mod answers;
mod attribution;
mod calico;
mod changes;
mod conformance;
mod convert;
mod hosts;
mod incremental;
mod large;
mod limits;
mod lint;
mod names;
mod narrowing;
mod outside;
mod reasons;
mod runner;
mod services;
