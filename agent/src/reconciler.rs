//! From what is true to what is enforced: one pass over cluster, network and CNI results.
//!
//! In: full pictures. Out: the kernel in the state that they ask for, or an error with what was in force still in
//! force. It owns everything that writes to the kernel, and has no task, timer or channel of its own.

mod arrival;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use podgate_common::{Direction, EndpointState, MAX_ENDPOINTS, MAX_OWNERS, NODE};

use self::arrival::Arrival;
use crate::{
    compiler::{Site, Subject, Tables, compile},
    endpoints::{Endpoints, Evidence, Link, Network, State, Veth, cni::CniResults, resolve},
    kernel::{Attacher, Device, Kernel, Place},
    model::{Cluster, ClusterPolicyName, Name, ObjectName, Pod, Tier},
    publisher::{Judged, Published, Publisher, Wanted},
};

/// Brings one node's kernel to where its sources say it should be.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Reconciler {
    node: Name,
    kernel: Kernel,
    attacher: Attacher,
    publisher: Publisher,
    endpoints: Endpoints,
    /// The pods behind the veths as they were last seen: one that is force-deleted runs on under its last policies.
    pods: BTreeMap<ObjectName, Arc<Pod>>,
    /// The veths that were there when the agent came; `None` until its first pass.
    older: Option<BTreeSet<Device>>,
    /// Since which epoch each veth is judged as it is.
    since: BTreeMap<u32, (Fingerprint, u32)>,
}

/// What must not change for a veth to count as "judged as before".
type Fingerprint = (Option<ObjectName>, Judging, Judging);

/// The policies that have a say in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judging {
    /// Those that isolate.
    pub policies: Vec<ObjectName>,
    /// Those with rules, in the order in which they are asked.
    pub cluster_policies: Vec<ClusterPolicyName>,
}

/// One veth after a pass.
#[derive(Clone, Debug)]
pub struct Enforced {
    pub veth: Veth,
    pub ingress: Judging,
    pub egress: Judging,
    pub since: u32,
}

impl Reconciler {
    pub fn new(node: Name, kernel: Kernel, attacher: Attacher) -> Self {
        Self {
            node,
            kernel,
            attacher,
            publisher: Publisher::default(),
            endpoints: Endpoints::default(),
            pods: BTreeMap::new(),
            older: None,
            since: BTreeMap::new(),
        }
    }

    /// One pass; returns the epoch that is now in force.
    ///
    /// # Errors
    ///
    /// When the tables cannot be compiled or the kernel refuses a write. A program that cannot be attached to one
    /// veth is logged, and tried again with the next pass.
    pub fn reconcile(&mut self, cluster: &Cluster, network: &Network, cni: &CniResults) -> Result<u32> {
        let evidence = Evidence { network, cni, cluster, node: &self.node };
        let endpoints = resolve(&evidence, &|pod| cluster.is_judged(pod), &self.endpoints);
        let pods = self.pods_behind(&endpoints, cluster);
        let tables = self.compile(cluster, &endpoints, &pods)?;
        let wire = ways_out(network, &endpoints);
        self.attacher.keep(&endpoints.veths.values().map(device).chain(wire.keys().copied()).collect())?;
        if tables.services.leave_node {
            // Before any pod is judged by tables that leave a verdict to them.
            self.attach_wire(&wire);
        }
        let published = self.publish(&tables, &endpoints)?;
        self.attach_pods(&endpoints, network, cni);
        if !tables.services.leave_node {
            self.attacher.detach(wire.into_keys())?;
        }
        self.endpoints = endpoints;
        self.pods = pods;
        let epoch = published.epoch;
        if !published.settled {
            // The rule sets of before are in no use any more: the tables need not be fine enough for them.
            let endpoints = self.endpoints.clone();
            self.compile(cluster, &endpoints, &self.pods)
                .and_then(|tables| self.publish(&tables, &endpoints))
                .context("cannot tidy up after a change")?;
        }
        self.date(cluster, epoch);
        Ok(epoch)
    }

    /// The veths as they are enforced, by ifindex.
    pub fn enforced(&self, cluster: &Cluster) -> Vec<Enforced> {
        let enforced = self.endpoints.veths.values().map(|veth| {
            let (_, ingress, egress) = self.fingerprint(veth, cluster);
            let since = self.since.get(&veth.ifindex).map_or(0, |(_, epoch)| *epoch);
            Enforced { veth: veth.clone(), ingress, egress, since }
        });
        enforced.collect()
    }

    /// Entries and room of the kernel's tables: (name, entries, room, `None` where only memory limits it).
    pub fn sizes(&self) -> Vec<(&'static str, usize, Option<u32>)> {
        let maps = &self.kernel.maps;
        let mut sizes = vec![
            ("endpoints", maps.endpoints.entries().len(), u32::try_from(MAX_ENDPOINTS).ok()),
            ("owners", maps.owners.entries().len(), u32::try_from(MAX_OWNERS).ok()),
        ];
        sizes.extend(self.publisher.sizes());
        sizes
    }

    fn pods_behind(&self, endpoints: &Endpoints, cluster: &Cluster) -> BTreeMap<ObjectName, Arc<Pod>> {
        let known = endpoints.veths.values().filter_map(|veth| match &veth.state {
            State::Known { pod, .. } => Some(pod),
            State::Held | State::Open => None,
        });
        known
            .filter_map(|name| {
                let pod = cluster.pods.get(name).or_else(|| self.pods.get(name))?;
                Some((name.clone(), pod.clone()))
            })
            .collect()
    }

    fn compile(
        &self,
        cluster: &Cluster,
        endpoints: &Endpoints,
        pods: &BTreeMap<ObjectName, Arc<Pod>>,
    ) -> Result<Tables> {
        let site = Site { node: &self.node, own_addresses: &endpoints.own_addresses };
        Ok(compile(cluster, Some(site), pods.values().map(Arc::as_ref), self.publisher.in_force())?)
    }

    fn publish(&mut self, tables: &Tables, endpoints: &Endpoints) -> Result<Published> {
        self.publisher.publish(&mut self.kernel.maps, tables, &wanted(endpoints, tables))
    }

    fn attach_pods(&mut self, endpoints: &Endpoints, network: &Network, cni: &CniResults) {
        let older = self.older.get_or_insert_with(|| endpoints.veths.values().map(device).collect());
        let newcomers = endpoints.veths.values().filter(|veth| older.contains(&device(veth)));
        let newcomers: Vec<&Veth> = newcomers
            .filter(|veth| {
                let new = self.attacher.is_new(&device(veth));
                new.inspect_err(|error| tracing::warn!(interface = %veth.name, "{error:#}")).unwrap_or(false)
            })
            .collect();
        let arrival = Arrival::new(&newcomers, endpoints, network, cni);
        for veth in endpoints.veths.values() {
            let mut connections = arrival.connections(veth);
            if let Some(connections) = &mut connections {
                // A failure is logged, and there is a second time.
                let _ = connections.enter(&mut self.kernel);
            }
            match self.attacher.attach(&mut self.kernel, Place::Pod, &device(veth), &veth.name) {
                Ok(true) => tracing::info!(interface = %veth.name, state = ?veth.state, "attached"),
                Ok(false) => {}
                Err(error) => tracing::error!(interface = %veth.name, "{error:#}"),
            }
            if let Some(entered) = connections.and_then(|mut pod| pod.enter(&mut self.kernel)) {
                tracing::info!(interface = %veth.name, connections = entered, "live connections go on");
            }
        }
    }

    fn attach_wire(&mut self, wire: &BTreeMap<Device, &Link>) {
        for (device, link) in wire {
            match self.attacher.attach(&mut self.kernel, Place::Wire, device, &link.name) {
                Ok(true) => tracing::info!(interface = %link.name, "attached where packets leave the node"),
                Ok(false) => {}
                Err(error) => tracing::error!(interface = %link.name, "{error:#}"),
            }
        }
    }

    /// Notes since which epoch each veth is judged as it is, and logs what changed.
    fn date(&mut self, cluster: &Cluster, epoch: u32) {
        let mut since = BTreeMap::new();
        for veth in self.endpoints.veths.values() {
            let fingerprint = self.fingerprint(veth, cluster);
            let dated = match self.since.get(&veth.ifindex) {
                Some(known) if known.0 == fingerprint => known.clone(),
                _ => {
                    let (pod, ingress, egress) = &fingerprint;
                    let pod = pod.as_ref().map(ToString::to_string);
                    tracing::info!(
                        interface = %veth.name, pod, ingress = %ingress, egress = %egress, epoch, "judged"
                    );
                    (fingerprint, epoch)
                }
            };
            since.insert(veth.ifindex, dated);
        }
        self.since = since;
    }

    fn fingerprint(&self, veth: &Veth, cluster: &Cluster) -> Fingerprint {
        let State::Known { pod: name, .. } = &veth.state else {
            return (None, Judging::default(), Judging::default());
        };
        let judging = |direction| {
            self.pods.get(name).map_or_else(Judging::default, |pod| Judging::of(cluster, pod, direction))
        };
        (Some(name.clone()), judging(Direction::Ingress), judging(Direction::Egress))
    }
}

const fn device(veth: &Veth) -> Device {
    Device { ifindex: veth.ifindex, generation: veth.generation }
}

/// The devices by which a pod's packet may leave the node: all but pods' veths, the bridges that these are ports of, and
/// the loopback device.
fn ways_out<'a>(network: &'a Network, endpoints: &Endpoints) -> BTreeMap<Device, &'a Link> {
    let bridges: BTreeSet<u32> = endpoints.veths.values().map(|veth| veth.master).collect();
    let ways = network.links.iter().filter(|(ifindex, link)| {
        &*link.name != LOOPBACK && !endpoints.veths.contains_key(ifindex) && !bridges.contains(ifindex)
    });
    ways.map(|(&ifindex, link)| (Device { ifindex, generation: link.generation }, link)).collect()
}

const LOOPBACK: &str = "lo";

/// What the kernel shall know of the veths.
fn wanted(endpoints: &Endpoints, tables: &Tables) -> Wanted {
    let mut wanted = Wanted::default();
    wanted.owners.extend(endpoints.own_addresses.iter().map(|address| (*address, NODE)));
    for veth in endpoints.veths.values() {
        let (state, subject) = match &veth.state {
            State::Known { pod, addresses, .. } => {
                wanted.owners.extend(addresses.iter().map(|address| (*address, veth.ifindex)));
                (EndpointState::Known, tables.subjects.get(pod).copied().unwrap_or(Subject::FREE))
            }
            State::Held => (EndpointState::Held, Subject::FREE),
            State::Open => (EndpointState::Open, Subject::FREE),
        };
        wanted.endpoints.insert(veth.ifindex, Judged { state, subject, master: veth.master });
    }
    wanted
}

impl Judging {
    fn of(cluster: &Cluster, pod: &Pod, direction: Direction) -> Self {
        let of_tier = |tier| cluster.judging(pod, tier, direction);
        Self {
            policies: cluster.isolating(pod, direction).map(|policy| policy.name.clone()).collect(),
            cluster_policies: Tier::ALL
                .into_iter()
                .flat_map(of_tier)
                .map(|policy| policy.name.clone())
                .collect(),
        }
    }
}

/// Names for a log line.
impl fmt::Display for Judging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policies, cluster_policies } = self;
        let names = policies.iter().map(ToString::to_string);
        let names: Vec<_> = names.chain(cluster_policies.iter().map(ToString::to_string)).collect();
        f.write_str(if names.is_empty() { "free" } else { "" })?;
        f.write_str(&names.join(","))
    }
}
