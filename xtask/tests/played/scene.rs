//! Places to play clusters in: two nodes with pods at the generator's addresses, and a host outside.
//!
//! In: clusters, one after the other, and what is asked about them. Out: an error that lists what was
//! answered otherwise. The places and their servers stay; objects, services and policies change. One kind of
//! scene has podgate on its nodes, the other iptables rules.

use std::{collections::BTreeMap, thread};

use anyhow::{Context, Result, ensure};
use xtask::{
    lab::{Addresses, Agent, Lab, Node, PATIENT, Place, Pod, Server, Service},
    peers::calico::{self, Family},
    sandbox::Sandbox,
};

use crate::{
    asking::{self, Seen},
    cluster::{
        Cluster, Expected, FURTHER_OUTSIDE, NODES, PORTS, PlaceNumber, Question, marker, node_place, outside,
        places_of_pods,
    },
    proxy::{self, PROXY},
};

#[derive(Debug)]
pub(crate) struct Scene {
    lab: Lab,
    nodes: Vec<Node>,
    pods: Vec<Pod>,
    places: BTreeMap<PlaceNumber, Place>,
    filter: Filter,
    _markers: Vec<Pod>,
    _servers: Vec<Server>,
}

/// What stands between the places.
#[derive(Debug)]
enum Filter {
    Podgate(Vec<Agent>),
    Iptables,
}

/// How many differences are shown.
const SHOWN: usize = 8;
const MANIFEST: &str = "cluster.yaml";

impl Scene {
    pub(crate) fn with_podgate(sandbox: Sandbox, name: &str) -> Result<Self> {
        let mut scene = Self::new(sandbox, name)?;
        // The clusters come later, one after the other.
        let agents = scene.nodes.iter().map(|node| Agent::start(node, &["--allow-empty"]));
        scene.filter = Filter::Podgate(agents.collect::<Result<_>>().with_context(|| scene.lab.logs())?);
        Ok(scene)
    }

    pub(crate) fn with_iptables(sandbox: Sandbox, name: &str) -> Result<Self> {
        Self::new(sandbox, name)
    }

    fn new(sandbox: Sandbox, name: &str) -> Result<Self> {
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
        let mut places: BTreeMap<PlaceNumber, Place> =
            (0..).zip(&pods).map(|(number, pod)| (number, pod.place.clone())).collect();
        places
            .extend(nodes.iter().enumerate().map(|(number, node)| (node_place(number), node.place.clone())));
        places.insert(outside(), host.place.clone());
        let servers = places.iter().map(|(number, place)| {
            let services =
                PORTS.map(|port| [Service::TcpName(port, *number), Service::UdpName(port, *number)]);
            place.serve_together(&services.concat())
        });
        let servers = servers.collect::<Result<_>>()?;
        Ok(Self { lab, nodes, pods, places, filter: Filter::Iptables, _markers: markers, _servers: servers })
    }

    /// Sets the cluster up, asks, and compares.
    pub(crate) fn play(&self, cluster: &Cluster, questions: &[Question]) -> Result<()> {
        self.lab.manifests().write(MANIFEST, &cluster.text())?;
        for node in &self.nodes {
            let ways = proxy::ways(&cluster.objects, node.name()).into_iter();
            node.translate(&PROXY, "services", &ways.map(|way| way.frontend).collect::<Vec<_>>())?;
        }
        match &self.filter {
            Filter::Podgate(agents) => agents.iter().try_for_each(|agent| wait_for(agent, cluster))?,
            Filter::Iptables => self.write_iptables(cluster)?,
        }
        let differences = self.differences(cluster, questions)?;
        ensure!(differences.is_empty(), "{}", self.complaint(&differences));
        Ok(())
    }

    fn write_iptables(&self, cluster: &Cluster) -> Result<()> {
        for (number, node) in self.nodes.iter().enumerate() {
            let here = (0..).zip(&self.pods).skip(number).step_by(self.nodes.len());
            let here: Vec<_> = here.map(|(place, pod)| (place, pod.host_interface.as_str())).collect();
            let pods = cluster.objects.iter().filter_map(|object| {
                let of_object = cluster.place_of(object)?;
                let (_, veth) = here.iter().find(|(place, _)| *place == of_object)?;
                Some((object, *veth))
            });
            let pods: Vec<_> = pods.collect();
            for family in Family::BOTH {
                let rules = calico::rules(&cluster.objects, cluster.number, family, &pods);
                node.place.feed(&["ipset", "restore"], &rules.sets)?;
                node.place.feed(&[family.restore()], &rules.filter)?;
            }
        }
        Ok(())
    }

    fn differences<'a>(
        &self,
        cluster: &Cluster,
        questions: &'a [Question],
    ) -> Result<Vec<(&'a Question, Seen)>> {
        // Calico's rules evaluate what a pod sends to itself; podgate always lets it pass.
        let is_asked =
            |question: &&Question| matches!(self.filter, Filter::Podgate(_)) || !question.is_to_itself;
        let of_place = |number: &PlaceNumber| -> Vec<&Question> {
            questions.iter().filter(is_asked).filter(|question| question.from == *number).collect()
        };
        let answers = thread::scope(|scope| {
            let threads = self.places.iter().map(|(number, place)| {
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

    fn complaint(&self, differences: &[(&Question, Seen)]) -> String {
        let filter = match &self.filter {
            Filter::Podgate(_) => "podgate",
            Filter::Iptables => "iptables",
        };
        let mut text = format!("{} differences with {filter}\n", differences.len());
        for (question, seen) in differences.iter().take(SHOWN) {
            let Question { source, to, protocol, expected, .. } = question;
            text += &format!("{source} to {to} {}: {seen:?}, not {expected:?}\n", protocol.name());
            if matches!(self.filter, Filter::Podgate(_)) {
                text += &self.explained(question);
            }
        }
        text + &self.lab.logs()
    }

    /// What the agents of both nodes say about it.
    fn explained(&self, question: &Question) -> String {
        let (from, to) = (question.source.ip().to_string(), question.to.ip().to_string());
        let port = format!("{}/{}", question.protocol.name(), question.to.port());
        let answers = self.nodes.iter().map(|node| {
            match node.podgate(&["explain", "--from", &from, "--to", &to, "--port", &port]) {
                Ok(asked) => format!("{} explains: {}\n", node.name(), asked.text()),
                Err(error) => format!("{} does not explain: {error:#}\n", node.name()),
            }
        });
        answers.collect()
    }
}

/// Until the node's agent enforces this cluster: its marker pod has this cluster's policy.
fn wait_for(agent: &Agent, cluster: &Cluster) -> Result<()> {
    let wanted = format!("marker/{}", marker(cluster.number));
    agent.until(&format!("cluster {} is enforced", cluster.number), PATIENT, "endpoints", |endpoints| {
        endpoints.to_string().contains(&format!("\"{wanted}\""))
    })?;
    let status = agent.ask(&["status"])?;
    ensure!(status["last_error"].is_null(), "the agent reports {}", status["last_error"]);
    ensure!(
        status["sources"][0]["problems"] == serde_json::json!([]),
        "the agent reports {}",
        status["sources"]
    );
    Ok(())
}
