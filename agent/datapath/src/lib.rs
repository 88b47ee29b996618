//! The kernel's side: programs, maps, links and their pins. The only module that makes bpf system calls.
//!
//! In: ids, keys and values as `podgate-common` defines them. It knows nothing of clusters and policies, and
//! decides nothing: what is written when is the publisher's business.

#![warn(missing_docs)]

mod address_filter;
mod allocator;
mod attach;
pub mod bpffs;
mod btf;
mod clock;
mod cluster_id;
pub mod engines;
mod events;
mod fill;
mod flow_counters;
mod flows;
mod host_maps;
mod link;
pub mod link_addresses;
mod lock;
mod mapping;
mod maps;
pub mod names;
pub mod netlink;
pub mod network;
mod open_veths;
mod past;
mod pinned_programs;
mod pins;
mod ports;
pub mod privileges;
mod programs;
pub mod publisher;
mod random;
mod readable;
mod readers;
mod shortcut;
pub mod sockets;
mod stand_in;
mod sys;
mod table;
mod trace;
mod tunnel_ports;
mod users;
mod writer;

pub use address_filter::AddressFilterTable;
pub use allocator::return_free_memory;
pub use attach::{Attacher, Device, DeviceRole, HookKind, ProgramOrder, Programs};
pub use clock::monotonic;
pub use events::{EventRing, EventStream};
pub use fill::ProgramTables;
pub use flow_counters::{CounterSum, FlowCounterReader, FlowCounterWriter};
pub use flows::{FlowTable, FlowTableReader, MappedFlows, OpenedServer};
pub use host_maps::{HostGuardMap, HostTables, LeftGuard, WantedHosts};
pub use link::{KernelReads, Linked, linked};
pub use link_addresses::LinkAddressTable;
pub use lock::AgentLock;
pub use maps::{BpfMaps, Capacity, Counters, TableSet};
pub use open_veths::OpenVethTable;
pub use past::Past;
pub use pins::{Detached, Pins, PreviousAgents, detach};
pub use ports::PortTable;
pub use programs::{Datapath, DatapathOptions, OBJECT, Program, RejectedProgram};
pub use random::random_bytes;
pub use readable::watch_inotify;
pub use readers::{DatapathReaders, TickClock, VerdictReader};
pub use shortcut::{NodeObstacles, Obstacle, ObstacleFinder, kernel_obstacle};
pub use stand_in::{NewInterface, StandIn, is_guarded, stand_in};
pub use table::{MapStore, MapTable};
pub use trace::{
    TRACING_OBJECT, TraceReader, TraceStream, TracingPrograms, forget_tracing, hand_over_tracing,
};
pub use tunnel_ports::TunnelPortTable;
pub use users::{effective_user, exchange_files, may_change, peer_user};
pub use writer::has_writer;
