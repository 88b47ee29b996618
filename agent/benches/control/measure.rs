//! The measurements of one cluster, from an empty kernel on.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use podgate::{
    control::{Pass, Reconciler},
    endpoints::cni::CniResults,
};
use podgate_core::model::{Cluster, ObjectName, Pod, PodAddresses};
use podgate_datapath::{
    Attacher, Datapath, DatapathOptions, HookKind, Pins,
    network::{Link, Network, VethPeer},
};

use crate::{
    cluster::{Engine, LOCAL_PODS, NODE, Policy, Scale, address, space},
    figures::{Figures, allocated, cpu_time, resident},
    kernel_memory::kernel_memory,
    sandbox,
};

/// Policies of the burst.
const BURST: usize = 1_000;
/// The first number of an address, and of a policy, that the cluster itself does not use.
const NOT_ISOLATED: usize = 1 << 20;

pub(crate) fn measure(scale: Scale, quick: bool) -> Result<()> {
    let figures = Figures { variant: scale.variant() };
    let progress = |doing: &str| eprintln!("control: {}: {doing}", figures.variant);
    let bpffs = sandbox::enter(u32::try_from(LOCAL_PODS)?)?;
    let mut node = Node::new(scale, &bpffs, &figures)?;

    progress("cold start");
    let (started, cpu) = (Instant::now(), cpu_time());
    let pass = node.pass()?;
    figures.print_one("cold start", "s", (pass.enforced - started).as_secs_f64(), Some(15.0));
    figures.print_one("cold start, CPU", "s", (cpu_time() - cpu).as_secs_f64(), None);
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    figures.print_one("memory, allocated", "MiB", allocated() as f64 / 1_048_576.0, None);
    let large = scale.pods >= 100_000;
    let goal = if large { 100.0 } else { 40.0 };
    let [now, peak] = resident()?;
    figures.print_one("resident memory after the cold start", "MiB", now, Some(goal));
    figures.print_one("peak memory of the cold start", "MiB", peak, Some(1.5 * goal));

    let rounds = if quick { 100 } else { 1_000 };
    progress("pod events");
    node.pod_events(rounds)?;
    progress("policy events");
    node.policy_events(if quick { 50 } else { 300 })?;
    progress("a burst of policies");
    node.burst(if quick { 1 } else { 5 })?;

    let [now, peak] = resident()?;
    figures.print_one("resident memory", "MiB", now, Some(goal));
    figures.print_one("peak memory", "MiB", peak, Some(1.5 * goal));
    figures.print_one("kernel memory of the maps", "MB", kernel_memory()?, Some(32.0));
    Ok(())
}

/// The agent without its sources: pictures are made here.
struct Node<'a> {
    figures: &'a Figures,
    engine: Engine,
    cluster: Cluster,
    local: Vec<Arc<Pod>>,
    network: Arc<Network>,
    cni: Arc<CniResults>,
    reconciler: Reconciler,
}

impl<'a> Node<'a> {
    fn new(scale: Scale, bpffs: &std::path::Path, figures: &'a Figures) -> Result<Self> {
        let before = allocated();
        let mut cluster = scale.pods();
        let of_pods = allocated() - before;
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        figures.print_one("memory of a pod", "B", of_pods as f64 / scale.pods as f64, Some(300.0));
        scale.fill(&mut cluster);
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        figures.print_one("memory of the cluster", "MiB", (allocated() - before) as f64 / 1_048_576.0, None);
        let is_local = |pod: &&Arc<Pod>| pod.node.as_deref() == Some(NODE);
        let local: Vec<Arc<Pod>> = cluster.pods.values().filter(is_local).take(LOCAL_PODS).cloned().collect();
        let links = local.iter().zip(sandbox::FIRST_VETH..).map(|(pod, ifindex)| {
            let peer =
                VethPeer { namespace: 0, ifindex: 2, addresses: pod.addresses.iter().copied().collect() };
            let name = format!("veth{ifindex}").into();
            (ifindex, Link { name, peer: Some(peer), ..Link::default() })
        });
        let pins = Pins::create(bpffs)?;
        let options = DatapathOptions { share: true, ..DatapathOptions::with_room(262_144) };
        let (datapath, _) = Datapath::load(Some(&pins), options)?;
        let attacher = Attacher::new(HookKind::of_this_kernel()?, &pins)?;
        Ok(Self {
            figures,
            engine: scale.of,
            network: Arc::new(Network { links: links.collect() }),
            cluster,
            local,
            cni: Arc::default(),
            reconciler: Reconciler::new(NODE.into(), datapath, attacher),
        })
    }

    fn pass(&mut self) -> Result<Pass> {
        self.reconciler.reconcile(&self.cluster, &self.network, &self.cni)
    }

    /// A pod of another node appears without an address, gets one, changes its labels, and goes.
    fn pod_events(&mut self, rounds: usize) -> Result<()> {
        let like: Vec<Arc<Pod>> = self.cluster.pods.values().step_by(97).take(rounds).cloned().collect();
        let mut cost = BTreeMap::new();
        for round in 0..rounds {
            let like = &like[round % like.len()];
            let other = &self.local[round % self.local.len()].labels;
            let name = ObjectName::new(like.name.namespace.clone(), format!("new-{round}"));
            let made = Pod { name: name.clone(), addresses: PodAddresses::new(), ..(**like).clone() };
            let made = Pod { node: Some("node-elsewhere".into()), ..made };
            let running = Pod { addresses: [address(NOT_ISOLATED + round)].into(), ..made.clone() };
            let relabelled = Pod { labels: other.clone(), ..running.clone() };
            for (event, pod) in [
                ("made", Some(made)),
                ("given an address", Some(running)),
                ("relabelled", Some(relabelled)),
                ("gone", None),
            ] {
                let spent = self.event(|cluster| match pod {
                    Some(pod) => {
                        cluster.pods.insert(name.clone(), Arc::new(pod));
                    }
                    None => {
                        cluster.pods.remove(&name);
                    }
                })?;
                cost.entry(event).or_insert_with(Vec::new).push(spent);
            }
        }
        let all: Vec<Spent> = cost.values().flatten().copied().collect();
        self.figures.print("pod event, CPU", "ms", milliseconds(&all, |spent| spent.cpu), Some(1.0));
        for (event, spent) in cost {
            let name = format!("pod event, CPU ({event})");
            self.figures.print(&name, "ms", milliseconds(&spent, |spent| spent.cpu), Some(1.0));
        }
        let writes: Vec<f64> = all.iter().map(|spent| f64::from(spent.writes)).collect();
        self.figures.print("pod event, map writes", "writes", writes.clone(), None);
        self.figures.print_percentile("pod event, map writes, p99", "writes", 99, &writes, None);
        Ok(())
    }

    /// Policies for local pods come, get a port that no other has, and go.
    fn policy_events(&mut self, rounds: usize) -> Result<()> {
        let mut all = Vec::new();
        for round in 0..rounds {
            let made = self.policy_for_local(round);
            let changed = made.clone().with_port(9_000 + u16::try_from(round % 10)?);
            all.push(self.event(|cluster| made.enter(cluster))?);
            all.push(self.event(|cluster| changed.enter(cluster))?);
            all.push(self.event(|cluster| made.remove(cluster))?);
        }
        let took = milliseconds(&all, |spent| spent.enforced);
        for (percent, goal) in [(50, Some(10.0)), (99, Some(50.0)), (100, None)] {
            let name = if percent == 100 { "max".to_owned() } else { format!("p{percent}") };
            let name = format!("policy event until it is enforced, {name}");
            self.figures.print_percentile(&name, "ms", percent, &took, goal);
        }
        self.figures.print("policy event, whole pass", "ms", milliseconds(&all, |spent| spent.whole), None);
        self.figures.print("policy event, CPU", "ms", milliseconds(&all, |spent| spent.cpu), None);
        let writes = all.iter().map(|spent| f64::from(spent.writes)).collect();
        self.figures.print("policy event, map writes", "writes", writes, None);
        Ok(())
    }

    /// Many policies for local pods at once.
    fn burst(&mut self, rounds: usize) -> Result<()> {
        let mut took = Vec::new();
        for _ in 0..rounds {
            let policies: Vec<Policy> = (0..BURST).map(|number| self.policy_for_local(number)).collect();
            let spent = self.event(|cluster| policies.iter().for_each(|policy| policy.enter(cluster)))?;
            took.push(spent.enforced.as_secs_f64());
            self.event(|cluster| policies.iter().for_each(|policy| policy.remove(cluster)))?;
        }
        let local = self.local.len();
        self.figures.print(&format!("{BURST} policies on {local} local pods"), "s", took, Some(1.0));
        Ok(())
    }

    /// A policy that selects at least one pod of this node.
    fn policy_for_local(&self, number: usize) -> Policy {
        let pod = &self.local[number % self.local.len()];
        let app = pod.labels["app"].trim_start_matches("app-").parse().expect("the number of an app");
        let space = space(&pod.name.namespace);
        // Peers of its own.
        self.engine.policy(space, NOT_ISOLATED + number, app).with_team(number)
    }

    /// Something happens, and is enforced.
    fn event(&mut self, happen: impl FnOnce(&mut Cluster)) -> Result<Spent> {
        let (started, cpu, writes) = (Instant::now(), cpu_time(), self.reconciler.writes());
        // As a source does: the picture before is still in the agent's hands.
        let mut next = self.cluster.clone();
        happen(&mut next);
        self.cluster = next;
        let pass = self.pass().context("a pass failed")?;
        ensure!(pass.revision > 0, "nothing is enforced");
        let writes = u32::try_from(self.reconciler.writes() - writes).context("writes of one event")?;
        let enforced = pass.enforced.saturating_duration_since(started);
        Ok(Spent { cpu: cpu_time() - cpu, enforced, whole: started.elapsed(), writes })
    }
}

/// What one event cost.
#[derive(Clone, Copy)]
struct Spent {
    cpu: Duration,
    enforced: Duration,
    whole: Duration,
    writes: u32,
}

fn milliseconds(spent: &[Spent], of: impl Fn(&Spent) -> Duration) -> Vec<f64> {
    spent.iter().map(|spent| of(spent).as_secs_f64() * 1_000.0).collect()
}
