//! The network between the machines of the cluster: one bridge in a namespace of its own.
//!
//! In: places. Out: each has an `eth0` with a fixed address and a fixed link address, so that a node that
//! comes back from a reboot is known to the others at once, and ways to the pods of the nodes.
//!
//! | who | address | pods |
//! |---|---|---|
//! | node N | 10.10.0.10+N | 10.244.N.0/24 |
//! | control plane | 10.10.0.100 | |

use std::net::Ipv4Addr;

use anyhow::Result;

use super::NODES;
use crate::{lab::Place, sandbox::Sandbox};

/// The bridge.
#[derive(Clone, Debug)]
pub(super) struct Wire(Place);

/// Member of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    ControlPlane,
    /// Counted from 1.
    Node(u8),
}

/// All pods.
pub(super) const PODS: &str = "10.244.0.0/16";

/// What belongs to a node's pods.
pub(super) fn pods_of(node: u8) -> String {
    format!("10.244.{node}.0/24")
}

impl Wire {
    pub(super) fn new(sandbox: Sandbox) -> Result<Self> {
        let wire = Place::new(sandbox, "wire")?;
        wire.ip("link add wire type bridge\nlink set wire up\n")?;
        Ok(Self(wire))
    }

    /// Gives a place its `eth0`.
    pub(super) fn join(&self, place: &Place, member: Member) -> Result<()> {
        let number = member.number();
        self.0.ip(&format!(
            "link add port{number} type veth peer name eth0 address 02:90:02:00:00:{number:02x} netns {}\n\
             link set port{number} master wire up\n",
            place.path()
        ))?;
        let nodes = (1..).zip(NODES).map(|(number, _)| number).filter(|node| Member::Node(*node) != member);
        let routes: String = nodes
            .map(|node| format!("route add {} via {}\n", pods_of(node), Member::Node(node).address()))
            .collect();
        place.ip(&format!("link set eth0 up\naddr add {}/24 dev eth0\n{routes}", member.address()))?;
        if member == Member::ControlPlane {
            return Ok(());
        }
        // Without a way out a node would not even try to reach the address of a service. It leads nowhere.
        place.ip(&format!("route add default via {}\n", Member::ControlPlane.address()))?;
        place.sysctls(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])
    }

    /// Takes the `eth0` of a place away that has ended, which the kernel might do only later.
    pub(super) fn leave(&self, member: Member) {
        let _ = self.0.ip(&format!("link del port{}\n", member.number()));
    }
}

impl Member {
    pub(super) fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 10, 0, self.number())
    }

    fn number(self) -> u8 {
        match self {
            Self::ControlPlane => 100,
            Self::Node(number) => 10 + number,
        }
    }
}
