//! `podgate cluster` against an API server made here, with simulated agents behind `pods/exec`.

mod advise;
#[path = "../verbs/browser.rs"]
mod browser;
mod calico;
mod dump;
mod explain;
mod flows;
mod names;
mod plugin;
mod report;
mod rollout;
mod server;
mod survey;
mod what_if;
