//! The real programs, run by the kernel on crafted packets (`BPF_PROG_TEST_RUN`), against the same decision
//! in user space: every packet is evaluated by both, over tables that the real publisher has written and over
//! the compiled ones.
//!
//! Needs root. Each test has network devices and a bpffs of its own, in namespaces that vanish with its
//! thread.

mod agreement;
mod corpus;
mod detaching;
mod generate;
mod loading;
mod naive;
mod neighbours;
mod node;
mod objects;
mod passes;
mod publishing;
mod sandbox;
mod scenarios;
mod snapshot;
mod stack;
mod translated;
mod tunnels;
mod with_shortcut;
mod world;
