//! The publisher on real maps: what stands in the kernel after each change, and what packets meet during it.

mod during;
mod failed;
mod growth;
mod ids;
mod restart;
mod scale;
mod verdicts;
