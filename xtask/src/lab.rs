//! The lab: nodes, pods and outside hosts made from network namespaces, for the demo, the tests and for
//! trying things.
//!
//! In: a sandbox, then calls that add nodes and pods. Out: places to run servers, probes and agents in, and a
//! directory of manifests that describes the same cluster as Kubernetes would. Nodes are joined by a wire (a
//! bridge in a namespace of its own) and route to each other's pods; pods hang on routed veths or on a
//! bridge, dual stack. All neighbours on the wire are written down, so that nothing depends on timing. Left
//! out: overlays. Everything vanishes with the sandbox.

mod address;
mod agent;
mod capture;
mod cni;
mod daemon;
mod manifests;
mod node;
mod place;
mod pod;
mod probe;
mod proxy;
mod resolver;
mod server;
mod service;
mod wait;
mod wire;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

pub use address::Addresses;
pub use agent::{Agent, Asked, Follower, Source};
pub use capture::{Capture, Packet};
pub use daemon::Daemon;
pub(crate) use daemon::Log;
pub use manifests::Manifests;
pub use node::{Node, PodNetworkMode};
pub use place::Place;
pub use pod::{Pod, PodSpec};
pub use probe::{BRIEF, HttpAnswer, PATIENT, Seen, Traffic, http_get, unspecified};
pub use proxy::{Choice, Frontend, Masquerade, Proxy};
pub use resolver::Resolver;
pub use server::{Server, Service};
pub use service::ClusterService;
pub(crate) use wait::PATIENCE;
pub use wait::{join, until};

use crate::sandbox::Sandbox;
use address::Mac;
pub(crate) use address::pod_networks;
pub(crate) use wire::Wire;

/// One small cluster. Several can live in one sandbox: they share nothing.
#[derive(Debug)]
pub struct Lab {
    sandbox: Sandbox,
    directory: PathBuf,
    manifests: Manifests,
    wire: Wire,
    members: Vec<Member>,
    agent_options: Vec<String>,
}

/// A host outside the cluster, on the same wire as the nodes. It routes to pods as the nodes do.
#[derive(Clone, Debug)]
pub struct Host {
    pub place: Place,
    pub addresses: Addresses,
}

/// Something with an `eth0` on the wire.
#[derive(Debug)]
struct Member {
    place: Place,
    number: u8,
    addresses: Addresses,
    /// Which node's pods are reached through it.
    node: Option<u8>,
}

/// Node N is member 10 + N of the wire, outside hosts are members 100 and up.
pub(crate) const FIRST_NODE: u8 = 11;
pub(crate) const FIRST_OUTSIDE: u8 = 100;

impl Lab {
    /// An empty cluster; `name` tells it from others in the same sandbox.
    pub fn new(sandbox: Sandbox, name: &str) -> Result<Self> {
        let directory = Path::new("/run/lab").join(name);
        let manifests = Manifests::new(&directory.join("manifests"))?;
        let wire = Wire::new(sandbox)?;
        Ok(Self { sandbox, directory, manifests, wire, members: Vec::new(), agent_options: Vec::new() })
    }

    /// Gives all agents on nodes that are added from now on these options too.
    pub fn with_agent_options(mut self, options: &[&str]) -> Self {
        self.agent_options.extend(options.iter().map(|&option| option.to_owned()));
        self
    }

    /// Adds a node whose pods hang on routed veths.
    pub fn node(&mut self, name: &str) -> Result<Node> {
        self.wired_node(name, PodNetworkMode::Routed)
    }

    /// Adds a node.
    pub fn wired_node(&mut self, name: &str, wiring: PodNetworkMode) -> Result<Node> {
        let nodes = self.members.iter().filter(|member| member.node.is_some()).count();
        let index = u8::try_from(nodes).context("too many nodes")?;
        let place = Place::new(self.sandbox, name)?;
        let addresses = self.join(&place, FIRST_NODE + index, Some(index + 1))?;
        let directory = self.directory.join(name);
        let mut node =
            Node::new(self.sandbox, place, index + 1, addresses, wiring, &directory, self.manifests.clone())?;
        node.agent_options.clone_from(&self.agent_options);
        Ok(node)
    }

    /// Adds a host outside the cluster.
    pub fn outside(&mut self, name: &str) -> Result<Host> {
        let hosts = self.members.iter().filter(|member| member.node.is_none()).count();
        let place = Place::new(self.sandbox, name)?;
        let number = FIRST_OUTSIDE + u8::try_from(hosts).context("too many hosts")?;
        let addresses = self.join(&place, number, None)?;
        Ok(Host { place, addresses })
    }

    /// Where the cluster's objects are, as files; policies are written next to them.
    pub fn manifests(&self) -> &Manifests {
        &self.manifests
    }

    /// Where the lab keeps its files.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// What the agents of this lab have written, for the report of a failed test.
    pub fn logs(&self) -> String {
        let logs = self.members.iter().filter_map(|member| {
            let file = self.directory.join(member.place.name()).join(agent::LOG);
            let text = fs::read_to_string(file).ok()?;
            Some(format!("--- agent on {} ---\n{text}", member.place.name()))
        });
        logs.collect()
    }

    fn join(&mut self, place: &Place, number: u8, node: Option<u8>) -> Result<Addresses> {
        let addresses = Addresses::on_wire(number);
        let newcomer = Member { place: place.clone(), number, addresses, node };
        self.wire.plug(place, number)?;
        place.ip(&addresses.in_network("eth0"))?;
        for member in &self.members {
            member.place.ip(&newcomer.known_to_others())?;
            place.ip(&member.known_to_others())?;
        }
        self.members.push(newcomer);
        Ok(addresses)
    }
}

impl Member {
    /// `ip` lines by which another member knows this one's link address and pods.
    fn known_to_others(&self) -> String {
        let Addresses { v4, v6 } = self.addresses;
        let mac = Mac::of_member(self.number);
        let mut lines = format!(
            "neigh add {v4} lladdr {mac} dev eth0 nud permanent\nneigh add {v6} lladdr {mac} dev eth0 nud permanent\n"
        );
        if let Some([pods4, pods6]) = self.node.map(pod_networks) {
            lines += &format!("route add {pods4} via {v4}\nroute add {pods6} via {v6}\n");
        }
        lines
    }
}
