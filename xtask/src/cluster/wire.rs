//! The network between the machines of the cluster: the lab's wire, with IPv4 alone.
//!
//! In: places. Out: each has its address of the lab's plan and a fixed link address, so that a node that
//! comes back from a reboot is known to the others at once, and ways to the pods of the nodes.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::{NODES, cni};
use crate::{
    flags::Cni,
    lab::{Addresses, FIRST_NODE, FIRST_OUTSIDE, Place, Wire, pod_networks},
};

/// Member of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    ControlPlane,
    /// Counted from 1.
    Node(u8),
}

/// All pods.
pub(super) const PODS: &str = "10.244.0.0/16";

/// The wire.
pub(super) const NODES_NETWORK: &str = "10.10.0.0/24";

/// What belongs to a node's pods.
pub(super) fn pods_of(node: u8) -> String {
    let [v4, _] = pod_networks(node);
    v4
}

impl Member {
    /// Gives a place its `eth0`. A node whose daemon leads to other nodes' pods gets no ways to them.
    pub(super) fn join(self, wire: &Wire, place: &Place, cni: Cni) -> Result<()> {
        wire.plug(place, self.number())?;
        let leads = self == Self::ControlPlane || !cni::makes_ways(cni);
        let nodes =
            (1..).zip(NODES).map(|(number, _)| number).filter(|node| leads && Self::Node(*node) != self);
        let routes: String = nodes
            .map(|node| format!("route add {} via {}\n", pods_of(node), Self::Node(node).address()))
            .collect();
        place.ip(&format!("addr add {}/24 dev eth0\n{routes}", self.address()))?;
        if self == Self::ControlPlane {
            return Ok(());
        }
        // Without a way out a node would not even try to reach the address of a service. It leads nowhere.
        place.ip(&format!("route add default via {}\n", Self::ControlPlane.address()))?;
        place.forward()
    }

    pub(super) fn address(self) -> Ipv4Addr {
        Addresses::on_wire(self.number()).v4
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Self::ControlPlane => FIRST_OUTSIDE,
            Self::Node(number) => FIRST_NODE + number - 1,
        }
    }
}
