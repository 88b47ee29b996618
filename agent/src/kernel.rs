//! The kernel's side: programs, maps, links and their pins. The only module that makes bpf system calls.
//!
//! In: ids, keys and values as `podgate-common` defines them. It knows nothing of clusters and policies, and decides
//! nothing: what is written when is the publisher's business.

mod attach;
pub mod bpffs;
mod btf;
mod cluster_id;
mod events;
mod fill;
mod flows;
mod link;
mod lock;
mod maps;
mod past;
mod pinned_programs;
mod pins;
mod ports;
mod programs;
mod stand_in;
mod sys;
mod table;
mod tallies;

pub use attach::{Attacher, Device, Mode, Order, Place, Programs};
pub use events::{EventRing, Events};
pub use fill::ProgramTables;
pub use flows::{FlowTable, Flows};
pub use link::{Linked, linked};
pub use lock::Lock;
pub use maps::{Capacity, Counters, Maps, TableSet};
pub use past::Past;
pub use pins::{Detached, Pins, Predecessors, detach};
pub use ports::PortTable;
pub use programs::{Kernel, KernelOptions, Program, Refused as ProgramRefused};
pub use stand_in::{NewInterface, StandIn, is_guarded, stand_in};
pub use table::{Store, Table};
pub use tallies::{Counted, Tallies};
