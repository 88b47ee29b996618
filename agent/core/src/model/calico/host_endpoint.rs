//! Host endpoints: devices of a node, whose traffic Calico's policies of the cluster are for.
//!
//! A host endpoint has no namespace. As an end of connections, to which rules are applied and which selectors
//! match, it is written as a [`Pod`] in a namespace that no cluster has: once for the traffic of the node's
//! own processes and once for what the node forwards, as different policies have a say in the two.

use std::{fmt, net::IpAddr, sync::Arc};

use podgate_common::{Direction, Protocol};

use super::CalicoPolicy;
use crate::model::{Labels, Name, NamedPort, ObjectName, Pod, PodAddresses};

/// Stands for the namespace of host endpoints: no namespace has capitals.
pub const HOST_ENDPOINTS: &str = "HostEndpoint";

/// The profile that allows everything, in both directions.
pub const DEFAULT_ALLOW_PROFILE: &str = "projectcalico-default-allow";

/// A host endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEndpoint {
    /// Its object's name.
    pub name: Name,
    /// The node that it is of.
    pub node: Name,
    /// Which of the node's devices.
    pub devices: HostDevices,
    /// For the traffic of the node's own processes. It is also what selectors of rules match.
    pub local: Arc<Pod>,
    /// For what the node forwards.
    pub forwarded: Arc<Pod>,
}

/// Which devices of its node a host endpoint stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostDevices {
    /// All that have no host endpoint of their own, but for the loopback device and those of pods.
    Every,
    /// The one of this name.
    Named(Name),
    /// The one that has one of its addresses.
    WithAddress,
}

/// What an end of connections is that stands for a host endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEnd {
    /// Which traffic it is for.
    pub traffic: HostTraffic,
    /// One of its profiles allows what no policy decides.
    pub is_open: bool,
    /// It stands for all devices of its node.
    pub is_of_every_device: bool,
}

impl HostEnd {
    /// Whether it denies what no policy decides.
    #[must_use]
    pub fn denies_undecided(&self) -> bool {
        self.traffic == HostTraffic::Local && !self.is_open
    }
}

/// Traffic of a host endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostTraffic {
    /// To and from processes of the node.
    Local,
    /// From elsewhere to elsewhere: of pods, and of others that the node is a router for.
    Forwarded,
}

/// Which traffic of host endpoints a policy of Calico's is for. For pods only the first two are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyScope {
    /// Of the node's own processes.
    #[default]
    Local,
    /// That, and what is forwarded (`applyOnForward`).
    OnForward,
    /// All that comes in, by the destination that it has before it is translated; asked before the others
    /// (`preDNAT`).
    PreDnat,
    /// All, before anything else is asked (`doNotTrack`).
    Untracked,
}

impl HostEndpoint {
    /// `labels` and `ports` are the object's, `addresses` what it expects its devices to have.
    pub fn new(
        name: Name,
        node: Name,
        devices: HostDevices,
        labels: Labels,
        ports: Arc<[NamedPort]>,
        addresses: &[IpAddr],
        is_open: bool,
    ) -> Self {
        let is_of_every_device = devices == HostDevices::Every;
        let end = |traffic: HostTraffic| {
            let name = match traffic {
                HostTraffic::Local => name.clone(),
                HostTraffic::Forwarded => format!("{name} (forwarded)").into(),
            };
            let addresses: PodAddresses = addresses.iter().copied().collect();
            Arc::new(Pod {
                name: ObjectName::new(HOST_ENDPOINTS, name),
                uid: None,
                labels: labels.clone(),
                service_account: None,
                node: Some(node.clone()),
                addresses,
                host_network: false,
                ports: ports.clone(),
                host_ports: Box::default(),
                host: Some(Box::new(HostEnd { traffic, is_open, is_of_every_device })),
            })
        };
        let [local, forwarded] = HostTraffic::ALL.map(end);
        Self { name, node, devices, local, forwarded }
    }

    /// What stands for it as an end of connections.
    pub const fn end(&self, traffic: HostTraffic) -> &Arc<Pod> {
        match traffic {
            HostTraffic::Local => &self.local,
            HostTraffic::Forwarded => &self.forwarded,
        }
    }
}

impl HostTraffic {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Local, Self::Forwarded];
}

impl PolicyScope {
    /// Whether a policy is for pods, too.
    pub const fn is_for_pods(self) -> bool {
        match self {
            Self::Local | Self::OnForward => true,
            Self::PreDnat | Self::Untracked => false,
        }
    }

    /// Whether it has a say in this traffic of a host endpoint.
    pub const fn covers(self, host: &HostEnd, direction: Direction) -> bool {
        match (self, host.traffic, direction) {
            (Self::Local, HostTraffic::Local, _) | (Self::OnForward, ..) => true,
            (Self::Local, HostTraffic::Forwarded, _) | (Self::PreDnat, _, Direction::Egress) => false,
            (Self::PreDnat, _, Direction::Ingress) => true,
            (Self::Untracked, ..) => !host.is_of_every_device,
        }
    }

    /// Those that are asked one after the other: what rules of the first two do not match is not dropped at
    /// the end of their tiers, but is for the next.
    pub const STAGES: [&'static [Self]; 3] =
        [&[Self::Untracked], &[Self::PreDnat], &[Self::Local, Self::OnForward]];
}

impl CalicoPolicy {
    /// Whether it has a say in this traffic of a host endpoint, given that it selects it.
    pub fn is_for_host(&self, host: &HostEnd, direction: Direction) -> bool {
        self.name.namespace.is_none() && self.scope.covers(host, direction)
    }
}

/// Ports on which host endpoints let everything in or out, whatever policies say, so that no policy cuts a
/// node off from those who could take it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailsafePorts {
    /// Of what comes in.
    pub inbound: Vec<(Protocol, u16)>,
    /// Of what goes out.
    pub outbound: Vec<(Protocol, u16)>,
}

impl FailsafePorts {
    /// Whether a connection to this port passes.
    pub fn has(&self, direction: Direction, protocol: Protocol, port: u16) -> bool {
        let ports = match direction {
            Direction::Ingress => &self.inbound,
            Direction::Egress => &self.outbound,
        };
        ports.contains(&(protocol, port))
    }
}

/// Calico's: SSH, DHCP, DNS, BGP, etcd, Typha, and the API server.
impl Default for FailsafePorts {
    fn default() -> Self {
        let common = [179, 2379, 2380, 5473, 6443, 6666, 6667].map(|port| (Protocol::Tcp, port));
        let with = |own: &[(Protocol, u16)]| own.iter().copied().chain(common).collect();
        Self {
            inbound: with(&[(Protocol::Tcp, 22), (Protocol::Udp, 68)]),
            outbound: with(&[(Protocol::Udp, 53), (Protocol::Udp, 67)]),
        }
    }
}

impl fmt::Display for HostTraffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "traffic of the node's own processes",
            Self::Forwarded => "forwarded traffic",
        })
    }
}
