//! Sequences of packets with the outcome of each, evaluated by the kernel and by user space.

mod addresses;
mod calico;
mod cluster;
mod cluster_policies;
mod connections;
mod crowd;
mod encapsulation;
mod external;
mod fragments;
mod hosts;
mod icmp;
mod lifecycle;
mod link_addresses;
mod names;
mod neighbours;
mod nowhere;
mod odd;
mod older;
mod over_limit;
mod policies;
mod reported;
mod services;
mod shortcut;
