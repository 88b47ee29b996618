//! Which veth is which pod.
//!
//! In: the node's network (`podgate_datapath::network`), what CNI plug-ins left behind ([`cni`]), the
//! cluster. Out: [`Endpoints`], made by the pure function [`resolve`]. Attaching programs and writing maps is
//! left to others.

pub mod cni;
mod local;
mod resolve;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

pub use self::{
    local::LocalPods,
    resolve::{Evidence, History, LONGEST_HOLD, resolve},
};
use podgate_core::model::{Name, ObjectName};

/// What is known of the node's veths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// By ifindex: every veth that a pod is behind, or may be.
    pub veths: BTreeMap<u32, PodInterface>,
    /// By ifindex: why veths are held that are.
    pub holds: BTreeMap<u32, Hold>,
    /// Ifindexes of veths that lead out of the node. No pod is behind them: they are neither evaluated nor
    /// held.
    pub uplinks: BTreeSet<u32>,
    /// The addresses that the node's own stack answers to.
    pub own_addresses: BTreeSet<IpAddr>,
    /// Since when veths and pods are known.
    pub history: History,
}

impl Endpoints {
    /// When a hold ends, if nothing decides before.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.holds.values().filter_map(|hold| hold.until).min()
    }
}

/// A veth that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub since: Instant,
    /// `None`: until it is decided which of its pods it is.
    pub until: Option<Instant>,
    /// The isolated pods that may be behind it. Never empty.
    pub pods: BTreeSet<ObjectName>,
}

/// The node's end of a veth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInterface {
    pub ifindex: u32,
    /// With another generation it is another device, and what was attached to the old one is gone.
    pub generation: u32,
    pub name: Name,
    /// Ifindex of the bridge that it is a port of, 0 if none.
    pub master: u32,
    /// The link-layer address that the CNI plugin has given the pod's end, if it says so.
    pub link_address: Option<[u8; 6]>,
    pub state: InterfaceState,
    /// The pod that it was found to be last, also while nothing decides. The pod behind a veth never changes.
    pub last: Option<ObjectName>,
}

/// How far the pod behind a veth is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceState {
    Identified {
        pod: ObjectName,
        /// What the pod may send from. Never empty; no two known veths share an address.
        addresses: BTreeSet<IpAddr>,
        /// The pod's object is gone and its containers are not (a forced deletion): what was in force last
        /// stays.
        gone: bool,
    },
    /// Not known, and a pod that could be isolated may be behind it.
    Pending,
    /// Not known, and no pod that could be isolated can be behind it.
    Unmanaged,
}
