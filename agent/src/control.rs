//! From what is true to what is enforced: one pass over cluster, network and CNI results.
//!
//! In: full pictures. Out: the kernel in the state that they ask for, or an error with what was in force
//! still in force. The reconciler owns everything that writes to the kernel, and has no task, timer or
//! channel of its own; [`enforcement`] is its thread. What others may know of it goes into snapshots.

mod attaching;
mod bootstrap;
mod counters;
mod earlier;
pub(crate) mod enforcement;
mod holds;
mod hosts;
mod inputs;
mod limited;
mod nodes;
mod resolvers;
mod shortcut;
mod tracing_pods;
mod unenforced;
mod wanted;

use std::{
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use podgate_common::{Direction, HostKey, MAX_ENDPOINTS, MAX_OWNERS, Resolver, ServiceKey};
use podgate_core::{
    compiler::{CompileInput, CompiledTables, Incremental, Site},
    model::{Cluster, Name, ObjectName, Pod},
    policy_walk::OrderedPolicies,
};
use podgate_datapath::{
    Attacher, Datapath, Device, DeviceRole, Past,
    network::Network,
    publisher::{Published, Publisher},
    return_free_memory,
};

use self::{
    attaching::ways_out, counters::GoneVeths, holds::LongHolds, hosts::Hosts, nodes::Nodes,
    resolvers::Resolvers, shortcut::ShortcutGates, unenforced::UnenforcedPods, wanted::wanted,
};
pub(crate) use self::{earlier::Earlier, inputs::Inputs, resolvers::resolvers};
pub use self::{hosts::HostOptions, unenforced::Attention};
use crate::{
    endpoints::{
        Endpoints, Evidence, History, InterfaceState, LocalPods, PodInterface, cni::CniResults, resolve,
    },
    snapshot::{self, AppliedPolicies, EnforcedInterface, HoldCounts, PolicyChange, TableSize},
};

/// It takes some milliseconds when the agent holds 100 MB.
const RETURN_MEMORY_EVERY: Duration = Duration::from_secs(10);

/// Brings one node's kernel to where its sources say it should be.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Reconciler {
    node: Name,
    datapath: Datapath,
    attacher: Attacher,
    local: LocalPods,
    compiler: Incremental,
    publisher: Publisher,
    endpoints: Endpoints,
    holds: LongHolds,
    nodes: Nodes,
    unenforced: UnenforcedPods,
    shortcut: ShortcutGates,
    resolvers: Resolvers,
    hosts: Hosts,
    /// Why programs could not be attached.
    refused: BTreeMap<Device, String>,
    /// What these were found in; `None` when they must be found again.
    looked_at: Option<(Arc<Network>, Arc<CniResults>)>,
    /// When memory was given back last.
    memory_returned: Option<Instant>,
    /// The pods behind the veths as they were last seen: one that is force-deleted runs on under its last
    /// policies.
    pods: BTreeMap<ObjectName, Arc<Pod>>,
    /// The veths that were there when the agent came; `None` until its first pass.
    older: Option<BTreeSet<Device>>,
    /// The devices that were there in the last pass.
    devices: BTreeSet<Device>,
    /// Since which revision each veth is evaluated as it is.
    since: BTreeMap<u32, Dated>,
    /// Pods whose policies may be others than when their veths were dated.
    undated: BTreeSet<ObjectName>,
    gone: GoneVeths,
    /// Where the flow table is swept next.
    swept: usize,
}

/// How a veth is evaluated, and since which revision.
#[derive(Clone, Debug, Default)]
struct Dated {
    pod: Option<ObjectName>,
    ingress: AppliedPolicies,
    egress: AppliedPolicies,
    since: u32,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The one that is now in force.
    pub revision: u32,
    /// When every packet was evaluated by it.
    pub enforced: Instant,
}

impl Reconciler {
    pub fn new(node: Name, datapath: Datapath, attacher: Attacher) -> Self {
        let veths = datapath.maps.endpoints.entries().iter();
        let veths = veths
            .filter(|(key, _)| !HostKey::is_host(**key))
            .map(|(ifindex, endpoint)| (*ifindex, endpoint.known_state()));
        let history = History::of_earlier_agent(veths);
        Self {
            gone: GoneVeths::default(),
            swept: 0,
            datapath,
            attacher,
            local: LocalPods::new(node.clone()),
            compiler: Incremental::default(),
            publisher: Publisher::default(),
            endpoints: Endpoints { history, ..Endpoints::default() },
            holds: LongHolds::default(),
            nodes: Nodes::default(),
            unenforced: UnenforcedPods::default(),
            shortcut: ShortcutGates::default(),
            resolvers: Resolvers::default(),
            hosts: Hosts::default(),
            refused: BTreeMap::new(),
            looked_at: None,
            memory_returned: None,
            pods: BTreeMap::new(),
            older: None,
            devices: BTreeSet::new(),
            since: BTreeMap::new(),
            undated: BTreeSet::new(),
            node,
        }
    }

    /// One pass. What the sources gave is kept, to tell in the next one what changed.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a write. A program that cannot be attached to one
    /// veth is logged, and tried again with the next pass.
    pub fn reconcile(
        &mut self,
        cluster: &Cluster,
        network: &Arc<Network>,
        cni: &Arc<CniResults>,
    ) -> Result<Pass> {
        let now = Instant::now();
        let evidence_changed = self.local.follow(cluster)
            || self.endpoints.next_deadline().is_some_and(|deadline| deadline <= now)
            || self.looked_at.as_ref().is_none_or(|(known_network, known_cni)| {
                !Arc::ptr_eq(known_network, network) || !Arc::ptr_eq(known_cni, cni)
            });
        if evidence_changed {
            // Forgotten until the pass has succeeded.
            self.looked_at = None;
        }
        let (endpoints, pods) = if self.looked_at.is_some() {
            (self.endpoints.clone(), self.pods.clone())
        } else {
            let evidence = Evidence { network, cni, cluster, node: &self.node, local: self.local.pods() };
            let policies = OrderedPolicies::of(cluster);
            let endpoints = resolve(&evidence, &|pod| policies.is_any_enforced(pod), &self.endpoints, now);
            let pods = self.pods_behind(&endpoints, cluster);
            (endpoints, pods)
        };
        let wire = ways_out(network, &endpoints);
        self.find_hosts(cluster, network, &endpoints);
        let devices: BTreeSet<Device> =
            endpoints.veths.values().map(device).chain(wire.keys().copied()).collect();
        if self.devices != devices {
            self.attacher.keep(&devices)?;
            self.devices = devices;
        }
        // Whatever becomes of this pass: a pod that starts must not talk before it is known what it may.
        self.attach_pending(cluster, &endpoints, &pods);
        let tables = self.compile(cluster, &endpoints, &pods);
        if tables.services.leave_node {
            // Before any pod is evaluated by tables that leave a verdict to them.
            self.attach_wire(&wire);
        }
        if let Some(window) = self.settle_hosts(&tables, cluster)? {
            self.begin_change(window, |this| {
                this.publish(&tables, &endpoints, cluster, network, false).map(|_| ())
            })?;
        }
        let published = self.publish(&tables, &endpoints, cluster, network, true)?;
        self.attach_hosts(&wire)?;
        self.hosts.ask();
        let attached = self.attach_pods(&endpoints, network, cni);
        if !tables.services.leave_node {
            self.attacher.detach(wire.into_keys(), &DeviceRole::WAYS_OUT)?;
        }
        self.endpoints = endpoints;
        self.pods = pods;
        let revision = published.revision;
        let pass = Pass { revision, enforced: attached.unwrap_or(published.enforced) };
        if !published.settled {
            // The rule sets of before are in no use any more: the tables need not be fine enough for them.
            let endpoints = self.endpoints.clone();
            let pods = self.pods.clone();
            let tables = self.compile(cluster, &endpoints, &pods);
            self.publish(&tables, &endpoints, cluster, network, true)
                .context("cannot tidy up after a change")?;
        }
        self.date(cluster, revision);
        self.note_hosts(cluster, network);
        self.looked_at = Some((network.clone(), cni.clone()));
        if self.memory_returned.is_none_or(|at| now.duration_since(at) >= RETURN_MEMORY_EVERY) {
            return_free_memory();
            self.memory_returned = Some(now);
        }
        Ok(pass)
    }

    /// Whether the first pass reads the sockets of pods, which no one may any more afterwards.
    pub const fn reads_sockets(&self) -> bool {
        matches!(self.datapath.past, Past::None)
    }

    /// Veths that were held for long.
    pub const fn holds(&self) -> HoldCounts {
        self.holds.counts()
    }

    /// The veths as they are enforced, by ifindex.
    pub fn enforced(&self) -> BTreeMap<u32, EnforcedInterface> {
        let enforced = self.endpoints.veths.values().map(|veth| {
            let Dated { pod: _, ingress, egress, since } =
                self.since.get(&veth.ifindex).cloned().unwrap_or_default();
            let attached = self.attacher.has(&device(veth), DeviceRole::Pod);
            let uid = veth.last.as_ref().and_then(|pod| self.pods.get(pod)?.uid);
            let shortcut = self.shortcut.state(veth.ifindex);
            let names = self.datapath.maps.endpoints.entries().get(&veth.ifindex).map_or(0, |it| it.names);
            let veth = veth.clone();
            (veth.ifindex, EnforcedInterface { veth, ingress, egress, since, attached, uid, shortcut, names })
        });
        enforced.collect()
    }

    /// How often this process has written to the kernel's tables.
    pub fn writes(&self) -> u64 {
        let maps = &self.datapath.maps;
        maps.endpoints.writes() + maps.owners.writes() + self.publisher.writes()
    }

    /// Servers of which pods' DNS replies are believed now.
    pub fn resolvers(&self) -> Arc<BTreeMap<ServiceKey, Resolver>> {
        Arc::new(self.datapath.maps.names.resolvers.entries().clone())
    }

    /// Entries and room of the kernel's tables.
    pub fn sizes(&self) -> Vec<TableSize> {
        let maps = &self.datapath.maps;
        let mut sizes = vec![
            ("endpoints", maps.endpoints.entries().len(), u32::try_from(MAX_ENDPOINTS).ok()),
            ("owners", maps.owners.entries().len(), u32::try_from(MAX_OWNERS).ok()),
        ];
        sizes.extend(maps.names.sizes());
        sizes.extend(self.publisher.sizes());
        sizes.into_iter().map(|(name, entries, capacity)| TableSize { name, entries, capacity }).collect()
    }

    /// What evaluates packets since the last pass.
    fn context(&self, revision: u32) -> snapshot::Context {
        let known = self.endpoints.veths.values().filter_map(|veth| match &veth.state {
            InterfaceState::Identified { pod, .. } => Some((veth.ifindex, self.pods.get(pod)?.clone())),
            InterfaceState::Pending | InterfaceState::Unmanaged => None,
        });
        let pods = Arc::new(known.chain(self.hosts.known()).collect());
        let tables = self.datapath.maps.endpoints.entries().iter();
        let tables = tables.filter(|(_, endpoint)| endpoint.names != 0);
        let name_tables = Arc::new(tables.map(|(ifindex, endpoint)| (*ifindex, endpoint.names)).collect());
        snapshot::Context { revision, policy_snapshot: self.compiler.policy_snapshot(), pods, name_tables }
    }

    fn pods_behind(&self, endpoints: &Endpoints, cluster: &Cluster) -> BTreeMap<ObjectName, Arc<Pod>> {
        let known = endpoints.veths.values().filter_map(|veth| match &veth.state {
            InterfaceState::Identified { pod, .. } => Some(pod),
            InterfaceState::Pending | InterfaceState::Unmanaged => None,
        });
        known
            .filter_map(|name| {
                let pod = cluster.pods.get(name).or_else(|| self.pods.get(name))?;
                Some((name.clone(), pod.clone()))
            })
            .collect()
    }

    fn compile(
        &mut self,
        cluster: &Cluster,
        endpoints: &Endpoints,
        pods: &BTreeMap<ObjectName, Arc<Pod>>,
    ) -> CompiledTables {
        let site = Some(Site { node: &self.node, own_addresses: &endpoints.own_addresses });
        let retained = self.publisher.in_force();
        let subjects = self.subjects(pods);
        let step = CompileInput { cluster, site, subjects: &subjects, retained: &retained };
        let tables = self.compiler.compile(&step).clone();
        self.undated.extend(self.compiler.reconsidered().iter().cloned());
        tables
    }

    /// Believes these servers in place of the cluster's own.
    #[must_use]
    pub fn with_resolvers(mut self, configured: Vec<SocketAddr>) -> Self {
        self.resolvers.configured = configured;
        self
    }

    /// `is_begun`: whether the current change of host endpoints is published, else the state before it.
    fn publish(
        &mut self,
        tables: &CompiledTables,
        endpoints: &Endpoints,
        cluster: &Cluster,
        network: &Network,
        is_begun: bool,
    ) -> Result<Published> {
        let mut wanted = wanted(endpoints, tables, cluster, network, &mut self.nodes);
        wanted.resolvers.clone_from(self.resolvers.find(cluster, &endpoints.own_addresses));
        self.want_hosts(&mut wanted, is_begun);
        self.publisher.publish(&mut self.datapath.maps, tables, &wanted)
    }

    /// Notes since which revision each veth is evaluated as it is, and logs what changed.
    fn date(&mut self, cluster: &Cluster, revision: u32) {
        let mut before = std::mem::take(&mut self.since);
        let undated = std::mem::take(&mut self.undated);
        let policies = LazyCell::new(|| OrderedPolicies::of(cluster));
        for veth in self.endpoints.veths.values() {
            let pod = match &veth.state {
                InterfaceState::Identified { pod, .. } => Some(pod),
                InterfaceState::Pending | InterfaceState::Unmanaged => None,
            };
            let known = before.remove(&veth.ifindex).filter(|known| known.pod.as_ref() == pod);
            let dated = match known {
                Some(known) if pod.is_none_or(|pod| !undated.contains(pod)) => known,
                known => self.dated(veth, pod, known, &policies, revision),
            };
            self.since.insert(veth.ifindex, dated);
        }
    }

    /// `known`: how the pod behind this veth was evaluated until now, if it was there.
    fn dated(
        &self,
        veth: &PodInterface,
        pod: Option<&ObjectName>,
        known: Option<Dated>,
        policies: &OrderedPolicies<'_>,
        revision: u32,
    ) -> Dated {
        let object = pod.and_then(|pod| self.pods.get(pod));
        let [ingress, egress] = [Direction::Ingress, Direction::Egress].map(|direction| {
            object.map_or_else(AppliedPolicies::default, |pod| AppliedPolicies::of(policies, pod, direction))
        });
        let until_now = known.clone().unwrap_or_default();
        let text = pod.map(ToString::to_string);
        let mut changed = known.is_none();
        for (direction, before, now) in [
            (Direction::Ingress, &until_now.ingress, &ingress),
            (Direction::Egress, &until_now.egress, &egress),
        ] {
            changed |= before.audit != now.audit;
            for PolicyChange { policy, added, removed } in before.changes(now, direction) {
                changed = true;
                tracing::info!(pod = text, policy, %direction, added, removed, revision, "rules");
            }
        }
        if !changed {
            return until_now;
        }
        tracing::info!(interface = %veth.name, pod = text, %ingress, %egress, revision, "evaluated");
        Dated { pod: pod.cloned(), ingress, egress, since: revision }
    }
}

const fn device(veth: &PodInterface) -> Device {
    Device { ifindex: veth.ifindex, generation: veth.generation }
}
