//! What stands between the places of a cluster: podgate on the nodes, or iptables rules.
//!
//! In: clusters, one after the other, and what is asked about them. Out: an error that lists what was
//! answered otherwise.

use anyhow::{Context, Result, ensure};
use xtask::{
    lab::{Agent, PATIENT},
    peers::calico::{self, Family},
    sandbox::Sandbox,
};

use crate::{
    asking::Seen,
    cluster::{Cluster, Question, marker},
    places::Places,
};

#[derive(Debug)]
pub(crate) struct Scene {
    places: Places,
    filter: Filter,
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
        let places = Places::new(sandbox, name)?;
        // The clusters come later, one after the other.
        let agents = places.nodes.iter().map(|node| Agent::start(node, &["--allow-empty"]));
        let agents = agents.collect::<Result<_>>().with_context(|| places.lab.logs())?;
        Ok(Self { places, filter: Filter::Podgate(agents) })
    }

    pub(crate) fn with_iptables(sandbox: Sandbox, name: &str) -> Result<Self> {
        Ok(Self { places: Places::new(sandbox, name)?, filter: Filter::Iptables })
    }

    /// Sets the cluster up, asks, and compares.
    pub(crate) fn play(&self, cluster: &Cluster, questions: &[Question]) -> Result<()> {
        self.places.lab.manifests().write(MANIFEST, &cluster.text())?;
        self.places.lead_services(cluster)?;
        match &self.filter {
            Filter::Podgate(agents) => agents.iter().try_for_each(|agent| wait_for(agent, cluster))?,
            Filter::Iptables => self.write_iptables(cluster)?,
        }
        // Calico's rules evaluate what a pod sends to itself; podgate always lets it pass.
        let is_asked =
            |question: &&Question| matches!(self.filter, Filter::Podgate(_)) || !question.is_to_itself;
        let asked: Vec<&Question> = questions.iter().filter(is_asked).collect();
        let differences = self.places.differences(cluster, &asked)?;
        ensure!(differences.is_empty(), "{}", self.complaint(&differences));
        Ok(())
    }

    fn write_iptables(&self, cluster: &Cluster) -> Result<()> {
        for (number, node) in self.places.nodes.iter().enumerate() {
            let here = (0..).zip(&self.places.pods).skip(number).step_by(self.places.nodes.len());
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

    fn complaint(&self, differences: &[(&Question, Seen)]) -> String {
        let filter = match &self.filter {
            Filter::Podgate(_) => "podgate",
            Filter::Iptables => "iptables",
        };
        let mut text = format!("{} differences with {filter}\n", differences.len());
        for (question, seen) in differences.iter().take(SHOWN) {
            text += &format!("{question}: {seen:?}, not {:?}\n", question.expected);
            if matches!(self.filter, Filter::Podgate(_)) {
                text += &self.explained(question);
            }
        }
        text + &self.places.lab.logs()
    }

    /// What the agents of both nodes say about it.
    fn explained(&self, question: &Question) -> String {
        let (from, to) = (question.source.ip().to_string(), question.to.ip().to_string());
        let (protocol, port) = question.protocol.asked(question.to);
        let port = format!("{protocol}/{port}");
        let answers = self.places.nodes.iter().map(|node| {
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
