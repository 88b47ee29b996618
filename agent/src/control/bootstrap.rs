//! The agent's arrival on a node where pods are running: what is connected stays so, whatever the policies
//! say.
//!
//! In: veths at which no agent has been. Out: their pods' live connections in the flow table. It is read when
//! the first agent of a node has just come, and only then: a pod that starts later has nothing that is older
//! than the agent, and an agent that takes another's place takes over what that one's table has. Whatever
//! fails is logged, and the pod is evaluated all the same; its live connections then count as new ones.
//!
//! A socket is a pod's own word, which it can prepare. Only connections that were answered count
//! ([`Answered`](podgate_datapath::sockets::Answered)).
//!
//! A pod's connections are entered twice, right before and right after its programs are attached:
//!
//! * before, because a packet without an entry is evaluated as the first of a new connection: where that is
//!   denied it is dropped, and where it is allowed its sender counts as the client;
//! * after, because of what was opened in between. The packets of such a connection may be dropped until it
//!   is entered, some milliseconds later. A drop is no reset: they are sent again, and pass.
//!
//! A connection that is not there yet when the programs are attached is a new one, and evaluated.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use podgate_common::FlowKey;
use podgate_datapath::{
    Datapath,
    network::Network,
    sockets::{Answered, Namespaces, PodSockets, sides},
};

use crate::endpoints::{Endpoints, InterfaceState, PodInterface, cni::CniResults};

/// How long all pods together may take; they take some milliseconds each. Those after that are not waited
/// for.
const TIME: Duration = Duration::from_secs(10);

/// Connections of one pod that are entered. More would push those of other pods out of the flow table.
const MOST_CONNECTIONS: usize = 65_536;

/// The pods whose connections are to be entered.
#[derive(Debug, Default)]
pub(super) struct Bootstrap {
    namespaces: Namespaces,
    /// By ifindex of the veth.
    pods: BTreeMap<u32, LocalPod>,
    answered: Answered,
    /// The bridges that addresses of pods are at.
    bridges: BTreeMap<IpAddr, u32>,
    deadline: Option<Instant>,
}

#[derive(Debug)]
struct LocalPod {
    namespace: i32,
    addresses: BTreeSet<IpAddr>,
}

/// One pod's connections.
#[derive(Debug)]
pub(super) struct Connections<'a> {
    sockets: PodSockets,
    veth: &'a PodInterface,
    addresses: &'a BTreeSet<IpAddr>,
    bootstrap: &'a Bootstrap,
}

impl Bootstrap {
    pub(super) fn new(
        new_interfaces: &[&PodInterface],
        endpoints: &Endpoints,
        network: &Network,
        cni: &CniResults,
    ) -> Self {
        let pods: BTreeMap<u32, LocalPod> = new_interfaces
            .iter()
            .filter_map(|veth| {
                let peer = network.links.get(&veth.ifindex)?.peer.as_ref()?;
                let addresses = addresses(veth, &peer.addresses, endpoints);
                Some((veth.ifindex, LocalPod { namespace: peer.namespace, addresses }))
            })
            .collect();
        if pods.is_empty() {
            return Self::default();
        }
        let deadline = Instant::now() + TIME;
        let wanted = pods.values().map(|pod| pod.namespace).collect();
        let named = cni.0.iter().flat_map(|result| &result.namespaces).cloned();
        let namespaces = Namespaces::find(&wanted, named, deadline).unwrap_or_else(|error| {
            tracing::warn!("cannot look for the pods' network namespaces: {error:#}");
            Namespaces::default()
        });
        let own = pods.values().flat_map(|pod| &pod.addresses).copied().collect();
        let answered = Answered::read(&own).unwrap_or_else(|error| {
            tracing::warn!("cannot read the node's connection tracking: {error:#}");
            Answered::default()
        });
        let bridges = endpoints.veths.values().filter(|veth| veth.master != 0).flat_map(|veth| {
            let addresses = pods.get(&veth.ifindex).into_iter().flat_map(|pod| &pod.addresses);
            addresses.map(|address| (*address, veth.master))
        });
        let bridges = bridges.collect();
        Self { namespaces, pods, answered, bridges, deadline: Some(deadline) }
    }

    /// Whether a connection's peer has answered. What goes from port to port of one bridge need not pass
    /// conntrack.
    fn proves(&self, key: &FlowKey) -> bool {
        let [low, high] = key.addresses().map(|end| self.bridges.get(&end.into()));
        self.answered.proves(key, low.is_some() && low == high)
    }

    /// The connections of the pod behind a veth, if they are to be entered.
    pub(super) fn connections<'a>(&'a self, veth: &'a PodInterface) -> Option<Connections<'a>> {
        let pod = self.pods.get(&veth.ifindex)?;
        let sockets = self.sockets(pod).inspect_err(|error| warn(veth, error)).ok()?;
        Some(Connections { sockets, veth, addresses: &pod.addresses, bootstrap: self })
    }

    fn sockets(&self, pod: &LocalPod) -> Result<PodSockets> {
        anyhow::ensure!(
            self.deadline.is_some_and(|deadline| Instant::now() < deadline),
            "the time for it is up"
        );
        let namespace = self.namespaces.get(pod.namespace).with_context(|| {
            format!(
                "network namespace {} is in no CNI result, not below /run/netns, and no process's in /proc",
                pod.namespace
            )
        })?;
        PodSockets::open(namespace)
    }
}

impl Connections<'_> {
    /// Enters those that there are now; returns how many.
    pub(super) fn enter(&mut self, datapath: &mut Datapath) -> Option<usize> {
        self.try_to_enter(datapath).inspect_err(|error| warn(self.veth, error)).ok()
    }

    fn try_to_enter(&mut self, datapath: &mut Datapath) -> Result<usize> {
        let mut sides = sides(&self.sockets.read()?, self.addresses);
        sides.retain(|key, _| self.bootstrap.proves(key));
        if sides.len() > MOST_CONNECTIONS {
            tracing::warn!(
                interface = %self.veth.name, pod = pod(self.veth), connections = sides.len(),
                "more existing connections than are taken over: {MOST_CONNECTIONS}"
            );
        }
        // Read before the entries are written: none may come from the future.
        let now = datapath.clock.now()?;
        let entered = sides.len().min(MOST_CONNECTIONS);
        let flows = datapath.maps.flows.open()?;
        for (key, side) in sides.iter().take(entered) {
            flows.enter(*key, |known| side.entry(known, self.veth.ifindex, now))?;
        }
        Ok(entered)
    }
}

/// The addresses at the pod's end of its connections. For a pod that is not known, those that it has itself,
/// without those of other pods and of the node.
fn addresses(veth: &PodInterface, at_peer: &BTreeSet<IpAddr>, endpoints: &Endpoints) -> BTreeSet<IpAddr> {
    let known = |veth: &PodInterface| match &veth.state {
        InterfaceState::Identified { addresses, .. } => addresses.clone(),
        InterfaceState::Pending | InterfaceState::Unmanaged => BTreeSet::new(),
    };
    let own = known(veth);
    if !own.is_empty() {
        return own;
    }
    let owned: BTreeSet<IpAddr> = endpoints.veths.values().flat_map(known).collect();
    at_peer
        .iter()
        .filter(|at| !owned.contains(at) && !endpoints.own_addresses.contains(at))
        .copied()
        .collect()
}

fn pod(veth: &PodInterface) -> Option<String> {
    veth.last.as_ref().map(ToString::to_string)
}

fn warn(veth: &PodInterface, error: &anyhow::Error) {
    tracing::warn!(
        interface = %veth.name, pod = pod(veth), error = format!("{error:#}"),
        "existing connections cannot be read: they are evaluated as new"
    );
}
