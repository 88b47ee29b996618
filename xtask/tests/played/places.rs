//! The places that clusters run in: two nodes with pods at the generator's addresses, and a host outside.
//!
//! In: a cluster, and questions about it. Out: the answers that differ from the expected ones. The places and
//! their servers stay; the enforcement between them belongs to others.

use std::{collections::BTreeMap, thread};

use anyhow::{Context, Result};
use xtask::{
    lab::{Addresses, Lab, Node, Place, Pod, Server, Service},
    sandbox::Sandbox,
};

use crate::{
    asking::{self, Seen},
    cluster::{
        Cluster, Expected, FURTHER_OUTSIDE, NODES, PORTS, PlaceNumber, Question, node_place, outside,
        places_of_pods,
    },
    proxy::{self, PROXY},
};

#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) lab: Lab,
    pub(crate) nodes: Vec<Node>,
    /// Those at even places are on the first node.
    pub(crate) pods: Vec<Pod>,
    by_number: BTreeMap<PlaceNumber, Place>,
    _markers: Vec<Pod>,
    _servers: Vec<Server>,
}

impl Places {
    pub(crate) fn new(sandbox: Sandbox, name: &str) -> Result<Self> {
        let mut lab = Lab::new(sandbox, name)?;
        let nodes = NODES.iter().map(|name| lab.node(name)).collect::<Result<Vec<_>>>()?;
        let host = lab.outside("outside")?;
        let mut markers = Vec::new();
        for node in &nodes {
            // The clusters have objects of their own for the nodes.
            lab.manifests().remove(&format!("node-{}.yaml", node.name()))?;
            markers.push(node.pod(&format!("marker/{}", node.name())).start()?);
        }
        let mut pods = Vec::new();
        for (number, addresses) in places_of_pods().enumerate() {
            let node = &nodes[number % nodes.len()];
            let mut pod = node.pod(&format!("place/{number}")).plug()?;
            pod.addresses = Addresses::of(addresses)?;
            pod.assign()?;
            for place in [&host.place, &nodes[(number + 1) % nodes.len()].place] {
                place.ip(&pod.addresses.via(node.addresses))?;
            }
            pods.push(pod);
        }
        host.place.ip(&FURTHER_OUTSIDE.on("eth0"))?;
        nodes.iter().try_for_each(|node| node.place.ip(&FURTHER_OUTSIDE.via(host.addresses)))?;
        let mut by_number: BTreeMap<PlaceNumber, Place> =
            (0..).zip(&pods).map(|(number, pod)| (number, pod.place.clone())).collect();
        by_number
            .extend(nodes.iter().enumerate().map(|(number, node)| (node_place(number), node.place.clone())));
        by_number.insert(outside(), host.place.clone());
        for place in by_number.values() {
            // The groups that may send echo requests without a raw socket.
            place.sysctls(&[("ipv4/ping_group_range", "0 0")])?;
        }
        let servers = by_number.iter().map(|(number, place)| {
            let services =
                PORTS.map(|port| [Service::TcpName(port, *number), Service::UdpName(port, *number)]);
            place.serve_together(&services.concat())
        });
        let servers = servers.collect::<Result<_>>()?;
        Ok(Self { lab, nodes, pods, by_number, _markers: markers, _servers: servers })
    }

    /// Has the nodes lead the cluster's services to their endpoints.
    pub(crate) fn lead_services(&self, cluster: &Cluster) -> Result<()> {
        for node in &self.nodes {
            let ways = proxy::ways(&cluster.objects, node.name()).into_iter();
            node.translate(&PROXY, "services", &ways.map(|way| way.frontend).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Asks, and gives back what is not as expected.
    pub(crate) fn differences<'a>(
        &self,
        cluster: &Cluster,
        questions: &[&'a Question],
    ) -> Result<Vec<(&'a Question, Seen)>> {
        let of_place = |number: &PlaceNumber| -> Vec<&Question> {
            questions.iter().copied().filter(|question| question.from == *number).collect()
        };
        let answers = thread::scope(|scope| {
            let threads = self.by_number.iter().map(|(number, place)| {
                let questions = of_place(number);
                scope.spawn(move || {
                    let seen = asking::ask(place, &questions)?;
                    Ok(questions.into_iter().zip(seen).collect::<Vec<_>>())
                })
            });
            let threads: Vec<_> = threads.collect();
            let joined = threads.into_iter().map(|thread| thread.join().expect("asking does not panic"));
            joined.collect::<Result<Vec<_>>>()
        })
        .with_context(|| format!("cluster {}", cluster.number))?;
        let differs = |(question, seen): &(&Question, Seen)| match question.expected {
            Expected::Answer(number) => *seen != Seen::Answer(number),
            Expected::Silence => *seen != Seen::Silence,
        };
        Ok(answers.into_iter().flatten().filter(differs).collect())
    }
}
