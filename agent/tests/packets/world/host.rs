//! Who sends and receives packets, and where.

use std::net::IpAddr;

use podgate_common::{Direction, Hook};
use podgate_core::model::ObjectName;

/// Where packets of other nodes and of the outside come in.
pub(crate) const UPLINK: u32 = 2;
pub(crate) const BRIDGE: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];
}

/// Who sends and receives packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// Pods of this node, in namespace `x`, labelled `app=a` and so on.
    A,
    B,
    Z,
    /// A pod of another node, in namespace `y`, labelled `app=a`.
    Remote,
    Outside,
    /// This node.
    Node,
    OtherNode,
}

impl Host {
    pub(crate) const LOCAL: [Self; 3] = [Self::A, Self::B, Self::Z];
    pub(crate) const PODS: [Self; 4] = [Self::A, Self::B, Self::Z, Self::Remote];
    pub(crate) const ALL: [Self; 7] =
        [Self::A, Self::B, Self::Z, Self::Remote, Self::Outside, Self::Node, Self::OtherNode];

    pub(crate) fn at(self, family: Family) -> IpAddr {
        let (v4, v6) = match self {
            Self::A => ("10.1.0.1", "fd00:1::1"),
            Self::B => ("10.1.0.2", "fd00:1::2"),
            Self::Z => ("10.1.0.26", "fd00:1::26"),
            Self::Remote => ("10.2.0.1", "fd00:2::1"),
            Self::Outside => ("192.0.2.1", "2001:db8::1"),
            Self::Node => ("172.16.0.1", "fd00:f::1"),
            Self::OtherNode => ("172.16.0.2", "fd00:f::2"),
        };
        ip(if family == Family::V4 { v4 } else { v6 })
    }

    /// Ifindex of the host side of a local pod's veth.
    pub(crate) fn veth(self) -> u32 {
        match self {
            Self::A => 11,
            Self::B => 12,
            Self::Z => 13,
            other => panic!("{other:?} has no veth on this node"),
        }
    }

    pub(super) fn app(self) -> &'static str {
        match self {
            Self::A | Self::Remote => "a",
            Self::B => "b",
            Self::Z => "z",
            other => panic!("{other:?} is no pod"),
        }
    }

    pub(crate) fn name(self) -> ObjectName {
        match self {
            Self::Remote => ObjectName::new("y", "remote"),
            local => ObjectName::new("x", local.app()),
        }
    }
}

/// A port of every node's addresses that leads to the service.
pub(crate) const NODE_PORT: u16 = 30_080;

/// Where tunnels of nodes listen.
pub(crate) const TUNNEL_PORTS: [u16; 2] = [4_789, 6_081];

/// The service's own address.
pub(crate) fn service_at(family: Family) -> IpAddr {
    ip(if family == Family::V4 { "10.96.0.10" } else { "fd00:96::10" })
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal of the test")
}

/// The program at a pod's veth that sees what the pod sends.
pub(crate) fn leaves(pod: Host) -> Hook {
    Hook { direction: Direction::Egress, ifindex: pod.veth(), ingress_ifindex: pod.veth() }
}

/// The program at a pod's veth that sees what the pod receives.
pub(crate) fn arrives(pod: Host, ingress_ifindex: u32) -> Hook {
    Hook { direction: Direction::Ingress, ifindex: pod.veth(), ingress_ifindex }
}
