//! Which veth is which pod.
//!
//! In: the node's network ([`netlink`]), what CNI plug-ins left behind ([`cni`]), the cluster. Out: [`Endpoints`], made
//! by the pure function [`resolve`]. Attaching programs and writing maps is left to others.

pub mod cni;
pub mod netlink;
mod network;

pub use network::{Link, Network, Peer};
