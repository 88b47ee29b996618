//! Programs at the veths of pods and at the ways out of the node, and what is connected when they come.
//!
//! In: the veths after a pass. Out: programs at each. One that cannot be attached is logged, and tried again.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use podgate_core::{
    model::{Cluster, ObjectName, Pod},
    policy_walk::OrderedPolicies,
};
use podgate_datapath::{
    Datapath, Device, DeviceRole, Past,
    network::{Link, Network},
};

use super::{Reconciler, bootstrap::Bootstrap, device};
use crate::endpoints::{Endpoints, InterfaceState, PodInterface, cni::CniResults};

impl Reconciler {
    /// Attaches programs to veths of pods that policies have a say in, and to those whose pod is not known
    /// yet, if they have come since the first pass: without an entry in the table of endpoints they pass
    /// nothing. Those that were there when the agent came have connections that are to go on, and wait for
    /// their tables.
    pub(super) fn attach_pending(
        &mut self,
        cluster: &Cluster,
        endpoints: &Endpoints,
        pods: &BTreeMap<ObjectName, Arc<Pod>>,
    ) {
        let Some(older) = &self.older else { return };
        let policies = LazyCell::new(|| OrderedPolicies::of(cluster));
        let is_pending = |veth: &&PodInterface| match &veth.state {
            InterfaceState::Identified { pod, .. } => {
                pods.get(pod).is_some_and(|pod| policies.is_any_enforced(pod))
            }
            InterfaceState::Pending => true,
            InterfaceState::Unmanaged => false,
        };
        let new = endpoints.veths.values().filter(|veth| !older.contains(&device(veth)));
        for veth in new.filter(is_pending) {
            if self.attacher.has(&device(veth), DeviceRole::Pod) {
                continue;
            }
            match self.attacher.attach(&mut self.datapath, DeviceRole::Pod, &device(veth), &veth.name) {
                Ok(_) => tracing::info!(interface = %veth.name, state = ?veth.state, "attached"),
                // The pass goes on to try again, and reports what the kernel says then.
                Err(error) => tracing::debug!(interface = %veth.name, "{error:#}"),
            }
        }
    }

    /// Out: when the last program was attached, if any was.
    pub(super) fn attach_pods(
        &mut self,
        endpoints: &Endpoints,
        network: &Network,
        cni: &CniResults,
    ) -> Option<Instant> {
        let mut last = None;
        let before = std::mem::take(&mut self.refused);
        let first = self.older.is_none();
        let held = &self.datapath.held;
        let older = self.older.get_or_insert_with(|| match self.datapath.past {
            Past::None => {
                let veths = endpoints.veths.values().map(device);
                veths.filter(|device| !held.contains(&device.ifindex)).collect()
            }
            // The flow table of an earlier agent has the connections that it let pass. Sockets of pods that
            // claim more prove nothing.
            Past::Kept | Past::Tables(_) => BTreeSet::new(),
        });
        let new_interfaces = endpoints.veths.values().filter(|veth| older.contains(&device(veth)));
        let new_interfaces: Vec<&PodInterface> = new_interfaces
            .filter(|veth| {
                let new = self.attacher.is_new(&device(veth));
                let new = new.inspect_err(|error| tracing::warn!(interface = %veth.name, "{error:#}"));
                // Programs of an agent with other maps may be there; what it knew of connections cannot be
                // read.
                new.unwrap_or(false) || first
            })
            .collect();
        if first {
            self.enter_past();
        }
        let bootstrap = Bootstrap::new(&new_interfaces, endpoints, network, cni);
        for veth in endpoints.veths.values() {
            let mut connections = bootstrap.connections(veth);
            if let Some(connections) = &mut connections {
                // A failure is logged, and there is a second time.
                let _ = connections.enter(&mut self.datapath);
            }
            match self.attacher.attach(&mut self.datapath, DeviceRole::Pod, &device(veth), &veth.name) {
                Ok(true) => {
                    last = Some(Instant::now());
                    tracing::info!(interface = %veth.name, state = ?veth.state, "attached");
                }
                Ok(false) => {}
                Err(error) => {
                    let error = format!("{error:#}");
                    // It is tried again and again.
                    if before.get(&device(veth)) != Some(&error) {
                        tracing::error!(interface = %veth.name, "{error}");
                    }
                    self.refused.insert(device(veth), error);
                }
            }
            if let Some(entered) = connections.and_then(|mut pod| pod.enter(&mut self.datapath)) {
                tracing::info!(interface = %veth.name, connections = entered, "existing connections taken over");
            }
        }
        if first {
            // And what they have let pass meanwhile: until now both have evaluated.
            let entered = self.enter_past();
            if matches!(self.datapath.past, Past::Tables(_)) {
                tracing::info!(connections = entered, "connections of the previous agent taken over");
                self.datapath.past = Past::Kept;
            }
        }
        last
    }

    /// Enters the connections of an agent with other maps.
    fn enter_past(&mut self) -> usize {
        let Datapath { past, maps, .. } = &self.datapath;
        let entered = maps.flows.open().and_then(|flows| past.enter_into(&flows));
        entered.unwrap_or_else(|error| {
            tracing::warn!("cannot take over the connections of the previous agent: {error:#}");
            0
        })
    }

    pub(super) fn attach_wire(&mut self, wire: &BTreeMap<Device, &Link>) {
        for (device, link) in wire {
            let place = if link.bare_ip { DeviceRole::Tunnel } else { DeviceRole::Wire };
            match self.attacher.attach(&mut self.datapath, place, device, &link.name) {
                Ok(true) => tracing::info!(interface = %link.name, "attached where packets leave the node"),
                Ok(false) => {}
                Err(error) => tracing::error!(interface = %link.name, "{error:#}"),
            }
        }
    }
}

/// The devices by which a pod's packet may leave the node: all but pods' veths, the bridges that these are
/// ports of, and the loopback device.
pub(super) fn ways_out<'a>(network: &'a Network, endpoints: &Endpoints) -> BTreeMap<Device, &'a Link> {
    let bridges: BTreeSet<u32> = endpoints.veths.values().map(|veth| veth.master).collect();
    let ways = network.links.iter().filter(|(ifindex, link)| {
        &*link.name != LOOPBACK && !endpoints.veths.contains_key(ifindex) && !bridges.contains(ifindex)
    });
    ways.map(|(&ifindex, link)| (Device { ifindex, generation: link.generation }, link)).collect()
}

const LOOPBACK: &str = "lo";
