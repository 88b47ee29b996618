//! From what is true to what is enforced: one pass over cluster, network and CNI results.
//!
//! In: full pictures. Out: the kernel in the state that they ask for, or an error with what was in force still in
//! force. It owns everything that writes to the kernel, and has no task, timer or channel of its own.

mod arrival;
mod attaching;
mod holds;
mod judging;
mod telling;
mod unenforced;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use podgate_common::{Direction, MAX_ENDPOINTS, MAX_OWNERS};

use self::{
    attaching::ways_out, holds::LongHolds, judging::Change, unenforced::UnenforcedPods, wanted::wanted,
};
pub use self::{
    holds::HoldCounts,
    judging::Judging,
    unenforced::{Attention, Reason, Unenforced},
};
use crate::{
    compiler::{Incremental, IncrementalInput, Site, Tables},
    endpoints::{Endpoints, Evidence, History, LocalPods, Network, State, Veth, cni::CniResults, resolve},
    hits::HitCounts,
    kernel::{Attacher, Device, Kernel, Past, Place, Tallies},
    model::{Cluster, Name, ObjectName, Pod, Uid},
    publisher::{Published, Publisher, Wanted},
};

/// Brings one node's kernel to where its sources say it should be.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Reconciler {
    node: Name,
    kernel: Kernel,
    attacher: Attacher,
    local: LocalPods,
    compiler: Incremental,
    publisher: Publisher,
    endpoints: Endpoints,
    holds: LongHolds,
    unenforced: UnenforcedPods,
    /// Why programs could not be attached.
    refused: BTreeMap<Device, String>,
    /// What these were found in; `None` when they must be found anew.
    looked_at: Option<(Arc<Network>, Arc<CniResults>)>,
    /// The pods behind the veths as they were last seen: one that is force-deleted runs on under its last policies.
    pods: BTreeMap<ObjectName, Arc<Pod>>,
    /// The veths that were there when the agent came; `None` until its first pass.
    older: Option<BTreeSet<Device>>,
    /// The devices that were there in the last pass.
    devices: BTreeSet<Device>,
    /// Since which epoch each veth is judged as it is.
    since: BTreeMap<u32, Dated>,
    /// Pods whose policies may be others than when their veths were dated.
    undated: BTreeSet<ObjectName>,
    tallies: Option<Tallies>,
    hits: HitCounts,
    /// Where the flow table is swept next.
    swept: usize,
}

/// How a veth is judged, and since which epoch.
#[derive(Clone, Debug, Default)]
struct Dated {
    pod: Option<ObjectName>,
    ingress: Judging,
    egress: Judging,
    since: u32,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The one that is now in force.
    pub epoch: u32,
    /// When every packet was judged by it.
    pub enforced: Instant,
}

/// One veth after a pass.
#[derive(Clone, Debug)]
pub struct Enforced {
    pub veth: Veth,
    pub ingress: Judging,
    pub egress: Judging,
    pub since: u32,
    /// Programs of this process are at it.
    pub attached: bool,
    /// Of the pod by whose object it is judged.
    pub uid: Option<Uid>,
}

impl Reconciler {
    /// `counting`: since when the kernel's tallies count.
    pub fn new(node: Name, mut kernel: Kernel, attacher: Attacher, counting: SystemTime) -> Self {
        let veths = kernel.maps.endpoints.entries();
        let veths = veths.iter().map(|(ifindex, endpoint)| (*ifindex, endpoint.known_state()));
        let history = History::of_earlier_agent(veths);
        Self {
            tallies: kernel.tallies.take(),
            hits: HitCounts::new(counting),
            swept: 0,
            kernel,
            attacher,
            local: LocalPods::new(node.clone()),
            compiler: Incremental::default(),
            publisher: Publisher::default(),
            endpoints: Endpoints { history, ..Endpoints::default() },
            holds: LongHolds::default(),
            unenforced: UnenforcedPods::default(),
            refused: BTreeMap::new(),
            looked_at: None,
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
    /// When the tables cannot be compiled or the kernel refuses a write. A program that cannot be attached to one
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
            let endpoints = resolve(&evidence, &|pod| cluster.is_judged(pod), &self.endpoints, now);
            let pods = self.pods_behind(&endpoints, cluster);
            (endpoints, pods)
        };
        let wire = ways_out(network, &endpoints);
        let devices: BTreeSet<Device> =
            endpoints.veths.values().map(device).chain(wire.keys().copied()).collect();
        if self.devices != devices {
            self.attacher.keep(&devices)?;
            self.devices = devices;
        }
        // Whatever becomes of this pass: a pod that starts must not talk before it is known what it may.
        self.attach_pending(cluster, &endpoints, &pods);
        let tables = self.compile(cluster, &endpoints, &pods)?;
        if tables.services.leave_node {
            // Before any pod is judged by tables that leave a verdict to them.
            self.attach_wire(&wire);
        }
        let published = self.publish(&tables, &wanted(&endpoints, &tables, cluster, network))?;
        let attached = self.attach_pods(&endpoints, network, cni);
        if !tables.services.leave_node {
            self.attacher.detach(wire.into_keys())?;
        }
        self.endpoints = endpoints;
        self.pods = pods;
        let epoch = published.epoch;
        let pass = Pass { epoch, enforced: attached.unwrap_or(published.enforced) };
        if !published.settled {
            // The rule sets of before are in no use any more: the tables need not be fine enough for them.
            let endpoints = self.endpoints.clone();
            let pods = self.pods.clone();
            self.compile(cluster, &endpoints, &pods)
                .and_then(|tables| self.publish(&tables, &wanted(&endpoints, &tables, cluster, network)))
                .context("cannot tidy up after a change")?;
        }
        self.date(cluster, epoch);
        self.looked_at = Some((network.clone(), cni.clone()));
        Ok(pass)
    }

    /// Whether the first pass reads the sockets of pods, which nobody may any more afterwards.
    pub const fn reads_sockets(&self) -> bool {
        matches!(self.kernel.past, Past::None)
    }

    /// Veths that were held for long.
    pub const fn holds(&self) -> HoldCounts {
        self.holds.counts()
    }

    /// The veths as they are enforced, by ifindex.
    pub fn enforced(&self) -> Vec<Enforced> {
        let enforced = self.endpoints.veths.values().map(|veth| {
            let Dated { pod: _, ingress, egress, since } =
                self.since.get(&veth.ifindex).cloned().unwrap_or_default();
            let attached = self.attacher.has(&device(veth), Place::Pod);
            let uid = veth.last.as_ref().and_then(|pod| self.pods.get(pod)?.uid);
            Enforced { veth: veth.clone(), ingress, egress, since, attached, uid }
        });
        enforced.collect()
    }

    /// How often this process has written to the kernel's tables.
    pub fn writes(&self) -> u64 {
        let maps = &self.kernel.maps;
        maps.endpoints.writes() + maps.owners.writes() + self.publisher.writes()
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
        &mut self,
        cluster: &Cluster,
        endpoints: &Endpoints,
        pods: &BTreeMap<ObjectName, Arc<Pod>>,
    ) -> Result<Tables> {
        let site = Some(Site { node: &self.node, own_addresses: &endpoints.own_addresses });
        let retained = self.publisher.in_force();
        let step = IncrementalInput { cluster, site, subjects: pods, retained: &retained };
        let tables = self.compiler.compile(&step)?.clone();
        self.undated.extend(self.compiler.reconsidered().iter().cloned());
        Ok(tables)
    }

    fn publish(&mut self, tables: &Tables, wanted: &Wanted) -> Result<Published> {
        self.publisher.publish(&mut self.kernel.maps, tables, wanted)
    }

    /// Notes since which epoch each veth is judged as it is, and logs what changed.
    fn date(&mut self, cluster: &Cluster, epoch: u32) {
        let mut before = std::mem::take(&mut self.since);
        let undated = std::mem::take(&mut self.undated);
        for veth in self.endpoints.veths.values() {
            let pod = match &veth.state {
                State::Known { pod, .. } => Some(pod),
                State::Held | State::Open => None,
            };
            let known = before.remove(&veth.ifindex).filter(|known| known.pod.as_ref() == pod);
            let dated = match known {
                Some(known) if pod.is_none_or(|pod| !undated.contains(pod)) => known,
                known => self.dated(veth, pod, known, cluster, epoch),
            };
            self.since.insert(veth.ifindex, dated);
        }
    }

    /// `known`: how the pod behind this veth was judged until now, if it was there.
    fn dated(
        &self,
        veth: &Veth,
        pod: Option<&ObjectName>,
        known: Option<Dated>,
        cluster: &Cluster,
        epoch: u32,
    ) -> Dated {
        let object = pod.and_then(|pod| self.pods.get(pod));
        let [ingress, egress] = [Direction::Ingress, Direction::Egress].map(|direction| {
            object.map_or_else(Judging::default, |pod| Judging::of(cluster, pod, direction))
        });
        let until_now = known.clone().unwrap_or_default();
        let text = pod.map(ToString::to_string);
        let mut changed = known.is_none();
        for (direction, before, now) in [
            (Direction::Ingress, &until_now.ingress, &ingress),
            (Direction::Egress, &until_now.egress, &egress),
        ] {
            changed |= before.audit != now.audit;
            for Change { policy, added, removed } in before.changes(now, direction) {
                changed = true;
                tracing::info!(pod = text, policy, %direction, added, removed, epoch, "rules");
            }
        }
        if !changed {
            return until_now;
        }
        tracing::info!(interface = %veth.name, pod = text, %ingress, %egress, epoch, "judged");
        Dated { pod: pod.cloned(), ingress, egress, since: epoch }
    }
}

const fn device(veth: &Veth) -> Device {
    Device { ifindex: veth.ifindex, generation: veth.generation }
}
