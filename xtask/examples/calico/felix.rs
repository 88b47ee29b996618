//! Felix on both nodes, a new process for each cluster.
//!
//! In: a cluster with its objects in the datastore. Out: Felix, after it has written everything that it first
//! read. A new process knows the whole cluster before it writes; a running one does not report when it has
//! enforced a change. Its rules stay when it ends, and the next one takes them over.

use std::{fs::File, io::Read, net::TcpStream, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use xtask::{
    kubernetes::CalicoPrograms,
    lab::{Daemon, Place, until},
};

use crate::{
    cluster::{Cluster, NODES},
    places::Places,
};

#[derive(Debug)]
pub(crate) struct Felix {
    calico: CalicoPrograms,
    kubeconfig: PathBuf,
    /// What the host's end of each place's veth is called.
    veths: Vec<String>,
}

/// Where Calico keeps its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dataplane {
    Iptables,
    Nftables,
}

/// How long Felix may take to start, and to end.
const START: Duration = Duration::from_secs(90);
const END: Duration = Duration::from_secs(30);
const LOG: &str = "/run/felix";
const HEALTH: (&str, u16) = ("127.0.0.1", 9099);

impl Felix {
    pub(crate) fn new(places: &Places, calico: &CalicoPrograms, kubeconfig: PathBuf) -> Self {
        let veths = places.pods.iter().map(|pod| pod.host_interface.clone()).collect();
        Self { calico: calico.clone(), kubeconfig, veths }
    }

    /// Names the veths after the cluster's pods, starts Felix on each node, and waits until it enforces.
    pub(crate) fn start(
        &mut self,
        places: &Places,
        cluster: &Cluster,
        dataplane: Dataplane,
    ) -> Result<Vec<Daemon>> {
        self.name_veths(places, cluster)?;
        let running = places.nodes.iter().map(|node| self.run(&node.place, dataplane));
        let running = running.collect::<Result<Vec<_>>>()?;
        for node in &places.nodes {
            let is_ready = || Ok(is_ready(&node.place).unwrap_or(false).then_some(()));
            until(&format!("Felix enforces on {}", node.name()), START, is_ready)
                .with_context(|| tail(node.name()))?;
        }
        Ok(running)
    }

    pub(crate) fn stop(&self, running: Vec<Daemon>) -> Result<()> {
        for felix in running {
            felix.terminate(END)?;
        }
        Ok(())
    }

    /// All rules of the nodes, to look at.
    pub(crate) fn rules(&self, places: &Places, dataplane: Dataplane) -> Result<String> {
        let commands: &[&[&str]] = match dataplane {
            Dataplane::Iptables => &[&["iptables-save", "-c"], &["ip6tables-save", "-c"], &["ipset", "list"]],
            Dataplane::Nftables => &[&["nft", "list", "ruleset"]],
        };
        let mut text = String::new();
        for node in &places.nodes {
            for command in commands {
                let output = node.place.command(command[0]).args(&command[1..]).output();
                let output = output.with_context(|| format!("starting {}", command[0]))?;
                text += &format!(
                    "### {}: {command:?}\n{}\n",
                    node.name(),
                    String::from_utf8_lossy(&output.stdout)
                );
            }
        }
        Ok(text)
    }

    fn run(&self, node: &Place, dataplane: Dataplane) -> Result<Daemon> {
        let log = File::create(format!("{LOG}-{}.log", node.name())).context("the log of Felix")?;
        let error_log = log.try_clone().context("sharing the log")?;
        let nftables = if dataplane == Dataplane::Nftables { "Enabled" } else { "Disabled" };
        let mut command = node.command(self.calico.path("calico-felix"));
        command.env("KUBECONFIG", &self.kubeconfig).env("FELIX_FELIXHOSTNAME", node.name());
        command.envs(CalicoPrograms::FELIX).env("FELIX_NFTABLESMODE", nftables);
        // Both nodes have the same files.
        command.env("FELIX_ENDPOINTSTATUSPATHPREFIX", "none");
        Daemon::spawn(&format!("Felix on {}", node.name()), command.stdout(log).stderr(error_log))
    }

    /// Felix finds a pod's interface by a name that is made of the pod's. Routes are written again: Felix
    /// has taken those away that belong to no pod of its own.
    fn name_veths(&mut self, places: &Places, cluster: &Cluster) -> Result<()> {
        let mut pods = vec![None; places.pods.len()];
        for object in &cluster.objects {
            if let Some(place) = cluster.place_of(object) {
                let text = |field: &str| object["metadata"][field].as_str().filter(|text| !text.is_empty());
                let name = text("name").context("pods have names")?;
                pods[usize::from(place)] = Some(format!("{}/{name}", text("namespace").unwrap_or("default")));
            }
        }
        let program = self.calico.path("calico-veths");
        let output = std::process::Command::new(program).args(pods.iter().flatten()).output();
        let output = output.context("starting calico-veths")?;
        ensure!(output.status.success(), "calico-veths: {}", output.status);
        let output = String::from_utf8(output.stdout).context("names of veths")?;
        let mut names = output.lines();
        for (number, (pod, named)) in places.pods.iter().zip(&pods).enumerate() {
            let name = match named {
                Some(_) => names.next().context("a name for each pod")?,
                None => &pod.host_interface,
            };
            let node = &places.nodes[number % NODES.len()].place;
            let before = &self.veths[number];
            if before != name {
                node.ip(&format!("link set {before} name {name}\n"))?;
            }
            let xtask::lab::Addresses { v4, v6 } = pod.addresses;
            node.ip(&format!("route replace {v4} dev {name} scope link\nroute replace {v6} dev {name}\n"))?;
            self.veths[number] = name.to_owned();
        }
        Ok(())
    }
}

/// Whether Felix has read everything and written it.
fn is_ready(node: &Place) -> Result<bool> {
    node.run(|| {
        let mut stream = TcpStream::connect(HEALTH)?;
        stream.set_read_timeout(Some(START))?;
        std::io::Write::write_all(&mut stream, b"GET /readiness HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split(' ').nth(1).is_some_and(|code| code.starts_with('2')))
    })
}

/// The end of its log.
fn tail(node: &str) -> String {
    let text = std::fs::read_to_string(format!("{LOG}-{node}.log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
