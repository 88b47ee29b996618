//! The thread that enforces: it owns the reconciler, and makes a pass whenever an input has changed.
//!
//! In: the newest picture of each source. Out: the kernel's state, and a snapshot after each change. A pass
//! may take long: nothing else runs on this thread, and no one asks it anything. No write before every source
//! has given a picture.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use podgate_core::model::{Name, ObjectName};
use podgate_datapath::{
    Pins, PreviousAgents, forget_tracing,
    network::Network,
    privileges::{self, Needs},
};
use tokio::{
    sync::{mpsc, watch},
    time::interval,
};

use super::{
    Attention, Earlier, Pass, Reconciler,
    inputs::{InputChanges, Inputs},
};
use crate::{
    endpoints::cni::{CniResult, CniResults},
    options::{AgentOptions, UnenforcedMode},
    snapshot::{Contexts, LatencyHistogram, PodLimit, PolicyVersions, Progress, Snapshot},
    source::{ClusterSnapshot, kube::PodWarning, manifests},
    traces::TraceRequest,
};

/// How often it is checked what time alone changes, and how long after a pass that failed the next one is
/// made: the kernel was out of memory, or a device was just going away.
const ATTENDING: Duration = Duration::from_secs(1);

/// How often a part of the flow table is swept.
const SWEEPING: Duration = Duration::from_secs(1);

/// How often flow counters are removed.
const REMOVING: Duration = Duration::from_secs(5);

/// The newest of every source, and what was made of it.
pub(crate) struct Enforcement {
    reconciler: Reconciler,
    picture: Option<ClusterSnapshot>,
    network: Option<Arc<Network>>,
    cni: Option<Arc<CniResults>>,
    cni_pods: Option<Arc<CniResults>>,
    /// Both of these, as far as they are about interfaces that are there.
    cni_merged: Option<Arc<CniResults>>,
    progress: Progress,
    contexts: Contexts,
    versions: PolicyVersions,
    /// When a source learned of the oldest change that is not enforced yet.
    learned: Option<Instant>,
    /// Problems that were logged, so that each is logged once.
    problems: BTreeSet<String>,
    pins: Pins,
    /// Until they are gone.
    previous_agents: Option<PreviousAgents>,
    earlier: Earlier,
    /// Where warnings about pods go, to become Events.
    pod_warnings: Option<mpsc::Sender<PodWarning>>,
    /// Pods of whose policies a limit of the node leaves out a part.
    limited: BTreeSet<(ObjectName, PodLimit)>,
    needs: Needs,
    /// Where traces are asked for.
    traces: Option<mpsc::UnboundedReceiver<TraceRequest>>,
    /// Veths that are traced.
    traced: BTreeSet<u32>,
}

impl Enforcement {
    /// `source`: as in `manifests`.
    pub(crate) fn new(
        options: &AgentOptions,
        source: &'static str,
        reconciler: Reconciler,
        (pins, previous_agents, earlier): (Pins, PreviousAgents, Earlier),
    ) -> Self {
        let progress = Progress {
            node: options.node.clone(),
            source,
            started: Instant::now(),
            read: None,
            ready: false,
            revision: 0,
            latency: LatencyHistogram::default(),
            last_error: None,
            problems: Vec::new(),
            // Until the first picture.
            source_error: manifests::waits_for_writer(&options.manifests),
            unenforced_is_not_ready: options.unenforced == UnenforcedMode::NotReady,
            pins_lost: pins.lost().map(str::to_owned),
        };
        Self {
            reconciler,
            picture: None,
            network: None,
            cni: None,
            cni_pods: None,
            cni_merged: None,
            progress,
            contexts: Contexts::default(),
            versions: PolicyVersions::default(),
            learned: None,
            problems: BTreeSet::new(),
            pins,
            previous_agents: Some(previous_agents),
            earlier,
            pod_warnings: None,
            limited: BTreeSet::new(),
            needs: Needs::default(),
            traces: None,
            traced: BTreeSet::new(),
        }
    }

    /// Pods that should be isolated and are not are written about to an API server, too.
    pub(crate) fn with_pod_warnings(mut self, pod_warnings: Option<mpsc::Sender<PodWarning>>) -> Self {
        self.pod_warnings = pod_warnings;
        self
    }

    /// Pods are traced when that is asked for here.
    pub(crate) fn with_traces(mut self, traces: mpsc::UnboundedReceiver<TraceRequest>) -> Self {
        self.traces = Some(traces);
        self
    }

    /// What this thread may still do after its first pass.
    pub(crate) fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }

    /// Enforces for ever.
    pub(crate) async fn run(
        mut self,
        inputs: Arc<Inputs>,
        snapshots: watch::Sender<Arc<Snapshot>>,
    ) -> Result<()> {
        let mut is_restricted = !self.reconciler.reads_sockets();
        if is_restricted {
            privileges::give_up(self.needs)?;
        }
        let mut traces = self.traces.take();
        let mut remove = interval(REMOVING);
        let mut sweep = interval(SWEEPING);
        let mut attend = interval(ATTENDING);
        loop {
            tokio::select! {
                () = inputs.changed() => self.take(inputs.take()),
                Some(request) = next(&mut traces) => {
                    self.trace(request);
                    snapshots.send_replace(Arc::new(self.snapshot()));
                    continue;
                }
                _ = attend.tick() => {
                    self.end_traces();
                    let Attention { pass, changed, .. } = self.attend();
                    if !pass && self.progress.last_error.is_none() {
                        if changed {
                            snapshots.send_replace(Arc::new(self.snapshot()));
                        }
                        continue;
                    }
                }
                _ = sweep.tick() => {
                    self.sweep();
                    continue;
                }
                _ = remove.tick() => {
                    if let Err(error) = self.reconciler.remove_gone() {
                        tracing::warn!("{error:#}");
                    }
                    continue;
                }
            }
            snapshots.send_modify(|snapshot| Arc::make_mut(snapshot).is_changing = true);
            self.pass();
            if self.progress.ready {
                if !is_restricted {
                    is_restricted = true;
                    privileges::give_up(self.needs)?;
                }
                self.earlier.note_cluster(self.picture.as_ref(), &self.pins);
                if let Some(before) = self.previous_agents.take_if(|before| !before.is_empty()) {
                    remove_previous(before, &self.pins);
                }
            }
            snapshots.send_replace(Arc::new(self.snapshot()));
        }
    }

    fn trace(&mut self, request: TraceRequest) {
        match request {
            TraceRequest::Start { ifindex, answer } => {
                let started = self.reconciler.start_trace(&self.pins, ifindex);
                if started.is_ok() {
                    self.traced.insert(ifindex);
                }
                // Who does not wait for it has dropped its claim, which ends it.
                let _ = answer.send(started);
            }
            TraceRequest::End { ifindex, answer } => {
                self.traced.remove(&ifindex);
                if let Err(error) = forget_tracing(&self.pins, ifindex) {
                    tracing::warn!("{error:#}");
                }
                self.end_traces();
                if let Some(answer) = answer {
                    let _ = answer.send(());
                }
            }
        }
    }

    /// Puts the agent's own programs back where no trace runs; what fails is tried again.
    fn end_traces(&mut self) {
        if let Err(error) = self.reconciler.end_traces(&self.traced) {
            tracing::error!("{error:#}; the tracing programs stay attached, and their verdicts are the same");
        }
    }

    /// Removes connections whose time is up.
    fn sweep(&mut self) {
        match self.reconciler.sweep() {
            Ok(0) => {}
            Ok(connections) => tracing::debug!(connections, "removed connections that timed out"),
            Err(error) => tracing::warn!("{error:#}"),
        }
    }

    fn take(&mut self, InputChanges { picture, learned, network, cni, cni_pods }: InputChanges) {
        if let Some(picture) = picture {
            let problems: BTreeSet<String> = picture.problems.iter().map(ToString::to_string).collect();
            for problem in problems.difference(&self.problems) {
                tracing::warn!("{problem}");
            }
            self.progress.problems = picture.problems.iter().map(ToString::to_string).collect();
            self.problems = problems;
            self.progress.read = Some(Instant::now());
            self.consider(picture, learned);
        }
        let is_new = network.is_some() || cni.is_some() || cni_pods.is_some();
        self.network = network.or(self.network.take());
        self.cni = cni.or(self.cni.take());
        self.cni_pods = cni_pods.or(self.cni_pods.take());
        if is_new {
            self.merge_cni();
        }
    }

    /// What the CNI plugin has left of a pod counts while its interface is there: the plugin may never have
    /// been called when the pod ended.
    fn merge_cni(&mut self) {
        let (Some(network), Some(cni), Some(pods)) = (&self.network, &self.cni, &self.cni_pods) else {
            return;
        };
        let mut merged = CniResults::clone(cni);
        let names: BTreeSet<&Name> = network.links.values().map(|link| &link.name).collect();
        let is_there = |pod: &&CniResult| pod.host_interfaces.iter().any(|name| names.contains(name));
        merged.0.extend(pods.0.iter().filter(is_there).cloned());
        if self.cni_merged.as_deref() != Some(&merged) {
            self.cni_merged = Some(Arc::new(merged));
        }
    }

    /// Takes a picture to be enforced, unless it is not of this cluster or lacks too much.
    fn consider(&mut self, picture: ClusterSnapshot, learned: Option<Instant>) {
        let refusal = self.earlier.refusal(&picture, self.progress.ready);
        let error = refusal.clone().or_else(|| picture.lacking.first().map(ToString::to_string));
        if let Some(error) = error.as_ref().filter(|error| self.progress.source_error.as_ref() != Some(error))
        {
            tracing::error!(enforced = refusal.is_none(), "no complete state of the cluster: {error}");
        }
        self.progress.source_error = error;
        if refusal.is_none() {
            self.learned = self.learned.or(learned);
            self.picture = Some(picture);
        }
    }

    /// Enforces what is known, once everything is.
    fn pass(&mut self) {
        let (Some(picture), Some(network), Some(cni)) = (&self.picture, &self.network, &self.cni_merged)
        else {
            return;
        };
        let started = Instant::now();
        match self.reconciler.reconcile(&picture.cluster, network, cni) {
            Ok(Pass { revision, enforced }) => {
                let latency = self.learned.map(|learned| enforced.saturating_duration_since(learned));
                self.contexts = self.contexts.with(self.reconciler.context(revision));
                if revision != self.progress.revision {
                    tracing::info!(revision, took = ?started.elapsed(), ?latency, "enforced");
                }
                self.progress.revision = revision;
                self.versions.enforce(&picture.policy_objects, enforced);
                if let Some(latency) = latency {
                    self.progress.latency.observe(latency);
                    self.learned = None;
                }
                self.progress.ready = true;
                self.progress.last_error = None;
                self.report_limited();
            }
            Err(error) => {
                tracing::error!("{error:#}; the policies in force stay");
                self.progress.last_error = Some(format!("{error:#}"));
            }
        }
    }

    /// Reports each pod once for as long as a limit leaves out a part of its policies.
    fn report_limited(&mut self) {
        let limited = self.reconciler.limited();
        for (pod, limit) in limited.difference(&self.limited) {
            tracing::warn!(%pod, "{limit}");
            self.warn(pod, "LimitExceeded", limit.to_string());
        }
        self.limited = limited;
    }

    /// Nothing waits for it; the log has it.
    fn warn(&self, pod: &ObjectName, reason: &'static str, note: String) {
        if let Some(warnings) = &self.pod_warnings {
            let _ = warnings.try_send(PodWarning { pod: pod.clone(), reason, note });
        }
    }

    /// Looks at what changes without an event.
    fn attend(&mut self) -> Attention {
        let (Some(picture), Some(cni)) = (&self.picture, &self.cni_merged) else {
            return Attention::default();
        };
        let attention = self.reconciler.attend(&picture.cluster, cni);
        for (pod, unenforced) in &attention.new {
            let note = format!("NetworkPolicy is not enforced on this pod: {}", unenforced.detail);
            self.warn(pod, "NetworkPolicyNotEnforced", note);
        }
        attention
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let unenforced = self.reconciler.unenforced();
        Snapshot {
            is_changing: false,
            progress: self.progress.clone(),
            cluster: self.picture.as_ref().map(|picture| picture.cluster.clone()).unwrap_or_default(),
            interfaces: self.reconciler.enforced(),
            hosts: self.reconciler.enforced_hosts(self.progress.revision),
            unenforced: unenforced.map(|(pod, unenforced)| (pod.clone(), unenforced.clone())).collect(),
            limited: self.reconciler.limited(),
            holds: self.reconciler.holds(),
            tables: self.reconciler.sizes(),
            contexts: self.contexts.clone(),
            versions: self.versions.clone(),
            resolvers: self.reconciler.resolvers(),
        }
    }
}

/// An agent that ends leaves its own programs at all hooks.
impl Drop for Enforcement {
    fn drop(&mut self) {
        self.traced.clear();
        self.end_traces();
    }
}

/// The next request; never one where there are no traces.
async fn next(traces: &mut Option<mpsc::UnboundedReceiver<TraceRequest>>) -> Option<TraceRequest> {
    match traces {
        Some(traces) => traces.recv().await,
        None => std::future::pending().await,
    }
}

/// Programs of an agent with other maps evaluate no longer. What cannot be removed is tried by the next
/// agent.
fn remove_previous(previous_agents: PreviousAgents, pins: &Pins) {
    match previous_agents.remove_previous(pins) {
        Ok(links) => tracing::info!(links, "removed the pins of an agent with another layout"),
        Err(error) => tracing::error!("cannot remove the pins of an agent with another layout: {error:#}"),
    }
}
