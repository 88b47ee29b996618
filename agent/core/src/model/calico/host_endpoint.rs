//! Host endpoints: devices of a node to which Calico's global policies apply.
//!
//! A host endpoint has no namespace. As an end of connections, to which rules apply and which selectors
//! match, it is represented by a [`Pod`] in a namespace that no cluster has: one for the traffic of the
//! node's own processes and one for forwarded traffic, because different policies apply to the two.

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
    /// The node that has the devices.
    pub node: Name,
    /// Which of the node's devices it covers.
    pub devices: HostDevices,
    /// Its end for the traffic of the node's own processes. Selectors of rules match this one, too.
    pub local: Arc<Pod>,
    /// Its end for forwarded traffic.
    pub forwarded: Arc<Pod>,
}

/// Which devices of its node a host endpoint covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostDevices {
    /// All that have no host endpoint of their own, but for the loopback device and those of pods.
    Every,
    /// The one of this name.
    Named(Name),
    /// The one that has one of its addresses.
    WithAddress,
}

/// The properties of an end of connections that represents a host endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSubject {
    /// Which traffic it is for.
    pub traffic: HostTraffic,
    /// One of its profiles allows what no policy decides.
    pub is_open: bool,
    /// It covers all devices of its node.
    pub is_of_every_device: bool,
}

impl HostSubject {
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
    /// Through the node: of its pods, and of others that use it as a router.
    Forwarded,
}

/// The traffic of host endpoints to which a policy of Calico's applies. To pods apply only the first two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyScope {
    /// Traffic of the node's own processes.
    #[default]
    Local,
    /// That, and forwarded traffic (`applyOnForward`).
    OnForward,
    /// All incoming traffic, by its destination before translation; evaluated before the others (`preDNAT`).
    PreDnat,
    /// All traffic, evaluated before anything else (`doNotTrack`).
    Untracked,
}

impl HostEndpoint {
    /// `labels` and `ports` are the object's, `addresses` its `expectedIPs`.
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
                host: Some(Box::new(HostSubject { traffic, is_open, is_of_every_device })),
            })
        };
        let [local, forwarded] = HostTraffic::ALL.map(end);
        Self { name, node, devices, local, forwarded }
    }

    /// The end that represents it for this traffic.
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
    /// Whether the policy applies to pods, too.
    pub const fn is_for_pods(self) -> bool {
        match self {
            Self::Local | Self::OnForward => true,
            Self::PreDnat | Self::Untracked => false,
        }
    }

    /// Whether the policy applies to this traffic of a host endpoint.
    pub const fn covers(self, host: &HostSubject, direction: Direction) -> bool {
        match (self, host.traffic, direction) {
            (Self::Local, HostTraffic::Local, _) | (Self::OnForward, ..) => true,
            (Self::Local, HostTraffic::Forwarded, _) | (Self::PreDnat, _, Direction::Egress) => false,
            (Self::PreDnat, _, Direction::Ingress) => true,
            (Self::Untracked, ..) => !host.is_of_every_device,
        }
    }

    /// The stages of evaluation. Traffic that no rule of one of the first two matches is not dropped at the
    /// end of their tiers: the next stage evaluates it.
    pub const STAGES: [&'static [Self]; 3] =
        [&[Self::Untracked], &[Self::PreDnat], &[Self::Local, Self::OnForward]];
}

impl CalicoPolicy {
    /// Whether it applies to this traffic of a host endpoint, given that its selector matches.
    pub fn is_for_host(&self, host: &HostSubject, direction: Direction) -> bool {
        self.name.namespace.is_none() && self.scope.covers(host, direction)
    }
}

/// Ports that host endpoints leave open in one direction whatever policies say, so that no policy cuts the
/// node off from its administrators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailsafePorts {
    /// Destination ports of incoming traffic.
    pub inbound: Vec<(Protocol, u16)>,
    /// Destination ports of outgoing traffic.
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
