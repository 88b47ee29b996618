//! Host endpoints of this node: their devices, and the programs there.
//!
//! In: the cluster and the node's devices. Out: the rule sets of each device, and what is reported of it. The
//! guard (`guard`) decides when a change of them counts.

mod closing;
mod guard;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use ipnet::IpNet;
use podgate_common::{Direction, EndpointState, HostKey, PortUse, Protocol};
use podgate_core::{
    compiler::{CompiledTables, Subject},
    model::{Cluster, FailsafePorts, HostDevices, HostEndpoint, HostTraffic, Name, ObjectName, Pod, Proxy},
    policy_walk::OrderedPolicies,
};
use podgate_datapath::{
    Device, DeviceRole,
    network::{Link, Network},
    publisher::{EndpointEntry, Wanted},
};

use self::guard::HostChange;
use super::{Reconciler, attaching::ways_out};
use crate::{
    endpoints::Endpoints,
    options::AgentOptions,
    reachability::ReachabilityProbe,
    snapshot::{AppliedPolicies, EnforcedHost},
};

/// How host endpoints are enforced.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    /// Ports that stay open whatever policies say.
    pub failsafe: FailsafePorts,
    /// How long a change is enforced without a confirmation; `None`: for good.
    pub guard: Option<Duration>,
}

impl HostOptions {
    pub(crate) fn of(options: &AgentOptions) -> Self {
        let failsafe = FailsafePorts {
            inbound: options.failsafe_inbound.0.clone(),
            outbound: options.failsafe_outbound.0.clone(),
        };
        let guard = Duration::from_secs(options.host_endpoints_guard.into());
        Self { failsafe, guard: (!guard.is_zero()).then_some(guard) }
    }
}

/// A device with a host endpoint.
#[derive(Clone, Debug)]
pub(super) struct HostDevice {
    pub(super) device: Device,
    pub(super) name: Name,
    pub(super) bare_ip: bool,
    pub(super) host: HostEndpoint,
}

/// The rule sets of each device, by ifindex: for traffic of the node's own processes and for forwarded
/// traffic.
type HostRuleSets = BTreeMap<u32, [Subject; 2]>;

/// The host endpoints of this node as they are enforced, and how far that is confirmed.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    options: HostOptions,
    reachability: Option<ReachabilityProbe>,
    /// By ifindex.
    pub(super) devices: BTreeMap<u32, HostDevice>,
    /// The rule sets that were confirmed last.
    confirmed: HostRuleSets,
    change: HostChange,
    /// The tables of the last pass.
    tables: Option<CompiledTables>,
    /// The devices as the last pass left them.
    enforced: Vec<EnforcedHost>,
}

impl Hosts {
    /// Finds the host endpoint of each device of this node: of several for one device, the first by name. One
    /// for this device comes before one for all.
    fn find(&mut self, cluster: &Cluster, node: &Name, network: &Network, endpoints: &Endpoints) {
        let of_node = cluster.calico.host_endpoints().filter(|host| host.node == *node);
        let hosts: Vec<&HostEndpoint> = of_node.collect();
        self.devices.clear();
        if hosts.is_empty() {
            return;
        }
        for (device, link) in ways_out(network, endpoints) {
            let is_of = |host: &&&HostEndpoint| match &host.devices {
                HostDevices::Every => false,
                HostDevices::Named(name) => *name == link.name,
                HostDevices::WithAddress => has_any(link, &host.local.addresses),
            };
            let of_all = || hosts.iter().find(|host| host.devices == HostDevices::Every);
            let Some(host) = hosts.iter().find(is_of).or_else(of_all) else { continue };
            if device.ifindex > HostKey::MAX_IFINDEX {
                tracing::error!(interface = %link.name, "its number is too large for a host endpoint");
                continue;
            }
            let (name, bare_ip) = (link.name.clone(), link.bare_ip);
            let host = HostEndpoint::clone(host);
            self.devices.insert(device.ifindex, HostDevice { device, name, bare_ip, host });
        }
    }

    /// The ends that policies are compiled for.
    fn ends(&self) -> BTreeMap<ObjectName, Arc<Pod>> {
        let ends = self.devices.values().flat_map(|it| HostTraffic::ALL.map(|traffic| it.host.end(traffic)));
        ends.map(|end| (end.name.clone(), end.clone())).collect()
    }

    fn evaluated(&self, tables: &CompiledTables) -> HostRuleSets {
        let subject = |end: &Arc<Pod>| tables.subjects.get(&end.name).copied().unwrap_or_default();
        let devices = self.devices.iter();
        devices.map(|(at, it)| (*at, HostTraffic::ALL.map(|traffic| subject(it.host.end(traffic))))).collect()
    }

    /// Their ends by the keys that the programs report.
    pub(super) fn known(&self) -> impl Iterator<Item = (u32, Arc<Pod>)> {
        self.devices.iter().flat_map(|(ifindex, device)| {
            let local = HostKey::of(*ifindex);
            HostTraffic::ALL.map(|traffic| {
                let key = match traffic {
                    HostTraffic::Local => local,
                    HostTraffic::Forwarded => local.forwarded(),
                };
                (key.0, device.host.end(traffic).clone())
            })
        })
    }

    /// Adds the entries of host endpoints, those that count before a change, and the uses of the node's
    /// ports.
    fn want(&self, wanted: &mut Wanted, cluster: &Cluster, is_begun: bool) {
        let (now, before) = match &self.change {
            HostChange::Pending { from, to, .. } if is_begun => (to, Some(from)),
            HostChange::Pending { from, .. } => (&self.confirmed, Some(from)),
            // Until the guard is disarmed, programs read the entries of before.
            HostChange::Undone { .. } => (&self.confirmed, Some(&self.confirmed)),
            HostChange::None => (&self.confirmed, None),
        };
        let mut put = |key: HostKey, subject: Subject| {
            let entry = EndpointEntry { state: EndpointState::Identified, subject, master: 0 };
            wanted.endpoints.insert(key.0, entry);
        };
        for (ifindex, [local, forwarded]) in now {
            put(HostKey::of(*ifindex), *local);
            put(HostKey::of(*ifindex).forwarded(), *forwarded);
        }
        for (ifindex, [local, forwarded]) in before.into_iter().flatten() {
            put(HostKey::of(*ifindex).before(), *local);
            put(HostKey::of(*ifindex).forwarded().before(), *forwarded);
        }
        if self.devices.is_empty() {
            return;
        }
        let FailsafePorts { inbound, outbound } = &self.options.failsafe;
        for (ports, of) in [(inbound, PortUse::FAILSAFE_IN), (outbound, PortUse::FAILSAFE_OUT)] {
            for port in ports {
                let known = wanted.host_ports.entry(*port).or_default();
                *known = known.union(of);
            }
        }
        for port in node_ports(cluster) {
            let known = wanted.host_ports.entry(port).or_default();
            *known = known.union(PortUse::OF_SERVICE);
        }
    }
}

impl Reconciler {
    /// Sets other than the default options for host endpoints.
    #[must_use]
    pub(crate) fn with_hosts(
        mut self,
        options: HostOptions,
        reachability: Option<ReachabilityProbe>,
    ) -> Self {
        (self.hosts.options, self.hosts.reachability) = (options, reachability);
        self
    }

    pub(super) fn find_hosts(&mut self, cluster: &Cluster, network: &Network, endpoints: &Endpoints) {
        let node = self.node.clone();
        self.hosts.find(cluster, &node, network, endpoints);
    }

    /// The pods to compile for, and the ends of host endpoints.
    pub(super) fn subjects(&self, pods: &BTreeMap<ObjectName, Arc<Pod>>) -> BTreeMap<ObjectName, Arc<Pod>> {
        let mut subjects = pods.clone();
        subjects.extend(self.hosts.ends());
        subjects
    }

    pub(super) fn want_hosts(&self, wanted: &mut Wanted, cluster: &Cluster, is_begun: bool) {
        self.hosts.want(wanted, cluster, is_begun);
    }

    /// The devices with host endpoints, as they are enforced.
    pub fn enforced_hosts(&self, revision: u32) -> Vec<EnforcedHost> {
        self.hosts.enforced.iter().map(|host| EnforcedHost { revision, ..host.clone() }).collect()
    }

    /// Notes the state of each device for `status` and `endpoints`.
    pub(super) fn note_hosts(&mut self, cluster: &Cluster, network: &Network) {
        let state = self.hosts.state();
        if self.hosts.devices.is_empty() {
            self.hosts.enforced.clear();
            return;
        }
        let policies = OrderedPolicies::of(cluster);
        let hosts = self.hosts.devices.iter().map(|(ifindex, device)| {
            let end = device.host.end(HostTraffic::Local);
            let addresses = network.links.get(ifindex).map(|link| &link.addresses);
            let [ingress, egress] = [Direction::Ingress, Direction::Egress]
                .map(|direction| AppliedPolicies::of(&policies, end, direction));
            EnforcedHost {
                name: end.name.clone(),
                interface: device.name.clone(),
                ifindex: *ifindex,
                addresses: addresses.into_iter().flatten().map(IpNet::addr).collect(),
                state,
                ingress,
                egress,
                revision: 0,
            }
        });
        self.hosts.enforced = hosts.collect();
    }

    /// Attaches programs to each device with a host endpoint, and to no other.
    pub(super) fn attach_hosts(&mut self, links: &BTreeMap<Device, &Link>) -> Result<()> {
        let mut wanted = BTreeSet::new();
        for HostDevice { device, name, bare_ip, .. } in self.hosts.devices.values() {
            let role = if *bare_ip { DeviceRole::HostEndpointBare } else { DeviceRole::HostEndpoint };
            wanted.insert(*device);
            match self.attacher.attach(&mut self.datapath, role, device, name) {
                Ok(true) => tracing::info!(interface = %name, "attached for its host endpoint"),
                Ok(false) => {}
                Err(error) => tracing::error!(interface = %name, "{error:#}"),
            }
        }
        let others = links.keys().filter(|device| !wanted.contains(device)).copied();
        self.attacher.detach(others.collect::<Vec<_>>(), &DeviceRole::HOSTS)
    }
}

fn has_any(link: &Link, addresses: &[IpAddr]) -> bool {
    link.addresses.iter().any(|net| addresses.contains(&net.addr()))
}

/// Ports of the node's addresses that kube-proxy leads to services.
fn node_ports(cluster: &Cluster) -> impl Iterator<Item = (Protocol, u16)> {
    let services = cluster.services.values().filter(|service| service.proxy == Proxy::KubeProxy);
    let ports = services.flat_map(|service| &service.ports);
    ports.filter_map(|port| Some((port.protocol, port.node_port?)))
}
