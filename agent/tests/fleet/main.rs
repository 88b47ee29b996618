//! `podgate cluster` against an API server made here, with simulated agents behind `pods/exec`.

mod advise;
mod calico;
mod dump;
mod explain;
mod flows;
mod names;
mod plugin;
mod rollout;
mod server;
mod survey;
