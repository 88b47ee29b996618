//! Host endpoints of this node: their devices, and the programs there.
//!
//! In: the cluster and the node's devices. Out: the rule sets of each device, and what is reported of it. The
//! guard (`guard`) decides when a change of them counts.

mod guard;
mod services;
mod written;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use ipnet::IpNet;
use podgate_common::{Direction, EndpointState, HostKey, PortUse};
use podgate_core::{
    compiler::{CompiledTables, Subject},
    model::{Cluster, FailsafePorts, HostDevices, HostEndpoint, HostTraffic, Name, ObjectName, Pod},
    policy_walk::OrderedPolicies,
};
use podgate_datapath::{
    Device, DeviceRole, ProgramOrder,
    network::{Link, Network},
    publisher::{EndpointEntry, Wanted},
};

use self::{guard::HostChange, services::HostServices};
use super::{Reconciler, attaching::ways_out, wanted::heard_by_node};
use crate::{
    endpoints::Endpoints,
    options::AgentOptions,
    reachability::ReachabilityProbe,
    snapshot::{AppliedPolicies, EnforcedHost, HostState},
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
    /// What was written when they were.
    confirmed_written: u64,
    change: HostChange,
    /// How many changes were undone since the last one that was confirmed.
    undone: u32,
    /// What an earlier agent has left was looked at.
    has_begun: bool,
    services: HostServices,
    /// The devices as the last pass left them.
    enforced: Vec<EnforcedHost>,
    /// Host endpoints of this node that no device has.
    unplaced: Vec<HostEndpoint>,
    /// Why programs are not at a device, or not before those of others, by ifindex.
    obstacles: BTreeMap<u32, String>,
}

impl Hosts {
    /// Finds the host endpoint of each device of this node: of several for one device, the first by name. One
    /// for this device comes before one for all.
    fn find(&mut self, cluster: &Cluster, node: &Name, network: &Network, endpoints: &Endpoints) {
        let of_node = cluster.calico.host_endpoints().filter(|host| host.node == *node);
        let hosts: Vec<&HostEndpoint> = of_node.collect();
        self.devices.clear();
        self.unplaced.clear();
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
        let has_device = |host: &HostEndpoint| self.devices.values().any(|it| it.host.name == host.name);
        let unplaced = hosts.into_iter().filter(|host| !has_device(host));
        self.unplaced = unplaced.filter(|host| host.devices != HostDevices::Every).cloned().collect();
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
    fn want(&self, wanted: &mut Wanted, is_begun: bool) {
        let (now, before) = match &self.change {
            HostChange::Pending { from, to, .. } if is_begun => (to, Some(from)),
            HostChange::Pending { from, .. } => (&self.confirmed, Some(from)),
            // The deadline has passed: programs read the entries of before.
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
                let known = wanted.hosts.ports.entry(*port).or_default();
                *known = known.union(of);
            }
        }
        wanted.hosts.services.clone_from(&self.services.ends);
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
        if !self.hosts.devices.is_empty() {
            let heard = heard_by_node(network).filter(|address| !endpoints.own_addresses.contains(address));
            self.hosts.services.find(cluster, &endpoints.own_addresses, heard.collect());
        }
    }

    /// The pods to compile for, and the ends of host endpoints.
    pub(super) fn subjects(&self, pods: &BTreeMap<ObjectName, Arc<Pod>>) -> BTreeMap<ObjectName, Arc<Pod>> {
        let mut subjects = pods.clone();
        subjects.extend(self.hosts.ends());
        subjects
    }

    pub(super) fn want_hosts(&self, wanted: &mut Wanted, is_begun: bool) {
        self.hosts.want(wanted, is_begun);
    }

    /// The devices with host endpoints, as they are enforced, and host endpoints without a device.
    pub fn enforced_hosts(&self, revision: u32) -> Vec<EnforcedHost> {
        let enforced = self.hosts.enforced.iter().map(|host| {
            let unenforced = self.hosts.obstacles.get(&host.ifindex).cloned();
            EnforcedHost { revision, unenforced, ..host.clone() }
        });
        enforced.chain(self.hosts.unplaced.iter().map(without_device)).collect()
    }

    /// Looks for programs that others have taken away or put before those of host endpoints. Out: whether
    /// there must be a pass, and whether there is something else to report.
    pub(super) fn attend_hosts(&mut self) -> (bool, bool) {
        let mut pass = false;
        let before = self.hosts.obstacles.clone();
        for HostDevice { device, name, bare_ip, .. } in self.hosts.devices.values() {
            match self.attacher.order(&mut self.datapath, device, role(*bare_ip)) {
                Ok(ProgramOrder::First) if self.attacher.has(device, role(*bare_ip)) => {
                    self.hosts.obstacles.remove(&device.ifindex);
                }
                Ok(ProgramOrder::First) => pass = true,
                Ok(ProgramOrder::Behind(other)) => {
                    let why =
                        format!("{other} comes before podgate's program at {name} and can end the chain");
                    self.hosts.obstacles.insert(device.ifindex, why);
                }
                Ok(ProgramOrder::Missing) => {
                    tracing::warn!(interface = %name, "the program was detached by somebody else");
                    pass = true;
                }
                Err(error) => tracing::debug!(interface = %name, "{error:#}"),
            }
        }
        let new = self.hosts.obstacles.iter().filter(|(at, why)| before.get(at) != Some(*why));
        new.for_each(|(_, why)| tracing::warn!("a host endpoint is not enforced: {why}"));
        (pass, before != self.hosts.obstacles)
    }

    /// Notes the state of each device for `status` and `endpoints`.
    pub(super) fn note_hosts(&mut self, cluster: &Cluster, network: &Network) {
        let state = self.hosts.state();
        let devices = &self.hosts.devices;
        self.hosts.obstacles.retain(|ifindex, _| devices.contains_key(ifindex));
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
                unenforced: None,
            }
        });
        self.hosts.enforced = hosts.collect();
    }

    /// Attaches programs to each device with a host endpoint, and to no other.
    pub(super) fn attach_hosts(&mut self, links: &BTreeMap<Device, &Link>) -> Result<()> {
        let mut wanted = BTreeSet::new();
        for HostDevice { device, name, bare_ip, .. } in self.hosts.devices.values() {
            wanted.insert(*device);
            match self.attacher.attach(&mut self.datapath, role(*bare_ip), device, name) {
                Ok(true) => {
                    tracing::info!(interface = %name, "attached for its host endpoint");
                    self.hosts.obstacles.remove(&device.ifindex);
                }
                Ok(false) => {}
                Err(error) => {
                    let why = format!("{name}: {error:#}");
                    // It is tried again and again.
                    if self.hosts.obstacles.get(&device.ifindex) != Some(&why) {
                        tracing::error!("a host endpoint is not enforced: {why}");
                    }
                    self.hosts.obstacles.insert(device.ifindex, why);
                }
            }
        }
        let others = links.keys().filter(|device| !wanted.contains(device)).copied();
        self.attacher.detach(others.collect::<Vec<_>>(), &DeviceRole::HOSTS)
    }
}

fn has_any(link: &Link, addresses: &[IpAddr]) -> bool {
    link.addresses.iter().any(|net| addresses.contains(&net.addr()))
}

const fn role(bare_ip: bool) -> DeviceRole {
    if bare_ip { DeviceRole::HostEndpointBare } else { DeviceRole::HostEndpoint }
}

fn without_device(host: &HostEndpoint) -> EnforcedHost {
    let unenforced = match &host.devices {
        HostDevices::Named(name) => {
            format!("this node has no device {name}, or another host endpoint has it")
        }
        HostDevices::Every | HostDevices::WithAddress => {
            "no device of this node has its expectedIPs, or another host endpoint has it".to_owned()
        }
    };
    EnforcedHost {
        name: host.end(HostTraffic::Local).name.clone(),
        interface: Name::default(),
        ifindex: 0,
        addresses: host.local.addresses.to_vec(),
        state: HostState::Enforced,
        ingress: AppliedPolicies::default(),
        egress: AppliedPolicies::default(),
        revision: 0,
        unenforced: Some(unenforced),
    }
}
