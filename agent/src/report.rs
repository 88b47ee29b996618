//! What the agent tells about itself: from its state to the forms of the socket and the metrics.

use std::time::Instant;

use podgate_core::model::{Cluster, Name};

use crate::{
    api::{
        EndpointCounts, EndpointStatus, Holds, Isolation, Latency, Lost, ObjectCounts, ReportedState,
        SourceStatus, Status, TableFill, UnenforcedPod,
    },
    endpoints::InterfaceState,
    reconciler::{AppliedPolicies, CLOSED, Enforced, HoldCounts, Reconciler, Unenforced},
    server::{ReportedInterface, Snapshot},
    source::ClusterSnapshot,
};

/// What [`snapshot`] cannot learn from the reconciler.
#[derive(Debug)]
pub struct Progress {
    pub node: Name,
    /// As in `manifests`.
    pub source: &'static str,
    pub started: Instant,
    /// When the source last reported a change.
    pub read: Option<Instant>,
    /// The last pass succeeded, and every source had given a full picture.
    pub ready: bool,
    pub revision: u32,
    pub latency: Latency,
    pub last_error: Option<String>,
    /// Of the newest picture, also of one that is not enforced.
    pub problems: Vec<String>,
    /// Why the newest picture is not enforced, or is known to lack something.
    pub source_error: Option<String>,
    /// An agent with pods that should be isolated and are not does not call itself ready.
    pub unenforced_is_not_ready: bool,
    /// As in [`Status::pins_lost`].
    pub pins_lost: Option<String>,
}

/// The agent's state, for all who ask.
pub fn snapshot(progress: &Progress, picture: Option<&ClusterSnapshot>, reconciler: &Reconciler) -> Snapshot {
    let taken = Instant::now();
    let nothing = ClusterSnapshot::default();
    let picture = picture.unwrap_or(&nothing);
    let enforced = reconciler.enforced();
    let unenforced: Vec<UnenforcedPod> = reconciler
        .unenforced()
        .map(|(pod, Unenforced { reason, detail, since })| UnenforcedPod {
            pod: pod.to_string(),
            reason: reason.to_string(),
            detail: detail.clone(),
            age_seconds: taken.saturating_duration_since(*since).as_secs(),
        })
        .collect();
    let HoldCounts { long, expired } = reconciler.holds();
    Snapshot {
        taken,
        status: Status {
            ready: progress.ready && (unenforced.is_empty() || !progress.unenforced_is_not_ready),
            node: progress.node.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: (taken - progress.started).as_secs(),
            sources: vec![SourceStatus {
                name: progress.source.to_owned(),
                kind: progress.source.to_owned(),
                age_seconds: progress.read.map(|read| (taken - read).as_secs()),
                objects: objects(&picture.cluster),
                problems: problems(progress, reconciler),
                watches: Vec::new(),
            }],
            endpoints: counts(&enforced),
            holds: Holds { long, expired },
            policies: picture.cluster.policies.len(),
            revision: progress.revision,
            latency: progress.latency.clone(),
            tables: reconciler.sizes().into_iter().map(fill).collect(),
            counters: Vec::new(),
            evictions: Vec::new(),
            lost: Lost::default(),
            last_error: progress.last_error.clone().or_else(|| progress.source_error.clone()),
            unenforced: unenforced.clone(),
            pins_lost: progress.pins_lost.clone(),
        },
        interfaces: enforced.iter().map(interface).collect(),
        endpoints: endpoints(enforced, &unenforced),
        cluster: picture.cluster.clone(),
    }
}

fn problems(progress: &Progress, reconciler: &Reconciler) -> Vec<String> {
    let of_source = progress.problems.iter().cloned();
    let closed = reconciler.closed().into_iter().map(|pod| format!("Pod {pod}: {CLOSED}"));
    of_source.chain(closed).collect()
}

fn objects(cluster: &Cluster) -> ObjectCounts {
    let Cluster { namespaces, pods, policies, cluster_policies, nodes, services, slices } = cluster;
    ObjectCounts {
        namespaces: namespaces.len(),
        nodes: nodes.len(),
        pods: pods.len(),
        policies: policies.len(),
        cluster_policies: cluster_policies.len(),
        services: services.len(),
        endpoint_slices: slices.len(),
    }
}

fn counts(enforced: &[Enforced]) -> EndpointCounts {
    let mut counts = EndpointCounts::default();
    for endpoint in enforced {
        match endpoint.veth.state {
            InterfaceState::Identified { .. } => counts.identified += 1,
            InterfaceState::Pending => counts.pending += 1,
            InterfaceState::Unmanaged => counts.unmanaged += 1,
        }
    }
    counts
}

/// How full a table is: (name, entries, room).
pub fn fill((name, entries, capacity): (&'static str, usize, Option<u32>)) -> TableFill {
    TableFill { name: name.to_owned(), entries: entries as u64, capacity: capacity.map(u64::from) }
}

/// Those with an interface, then the pods without one that should be isolated.
fn endpoints(enforced: Vec<Enforced>, unenforced: &[UnenforcedPod]) -> Vec<EndpointStatus> {
    let mut endpoints: Vec<EndpointStatus> = enforced.into_iter().map(endpoint).collect();
    for pod in unenforced {
        let is_its = |endpoint: &&mut EndpointStatus| endpoint.pod.as_ref() == Some(&pod.pod);
        let why = Some(format!("{}: {}", pod.reason, pod.detail));
        match endpoints.iter_mut().find(is_its) {
            Some(endpoint) => endpoint.unenforced = why,
            None => endpoints.push(EndpointStatus {
                pod: Some(pod.pod.clone()),
                interface: String::new(),
                ifindex: 0,
                addresses: Vec::new(),
                state: ReportedState::Unmanaged,
                ingress: Isolation::default(),
                egress: Isolation::default(),
                revision: 0,
                unenforced: why,
            }),
        }
    }
    endpoints
}

fn interface(Enforced { veth, attached, uid, .. }: &Enforced) -> (u32, ReportedInterface) {
    let state = match &veth.state {
        InterfaceState::Identified { .. } => ReportedState::Identified,
        InterfaceState::Pending => ReportedState::Pending,
        InterfaceState::Unmanaged => ReportedState::Unmanaged,
    };
    let (name, pod) = (veth.name.clone(), veth.last.clone());
    (veth.ifindex, ReportedInterface { name, pod, uid: *uid, state, attached: *attached })
}

fn endpoint(Enforced { veth, ingress, egress, since, attached: _, uid: _ }: Enforced) -> EndpointStatus {
    let (pod, addresses, state) = match veth.state {
        InterfaceState::Identified { pod, addresses, .. } => {
            (Some(pod.to_string()), addresses.into_iter().collect(), ReportedState::Identified)
        }
        InterfaceState::Pending => (None, Vec::new(), ReportedState::Pending),
        InterfaceState::Unmanaged => (None, Vec::new(), ReportedState::Unmanaged),
    };
    EndpointStatus {
        pod,
        interface: veth.name.to_string(),
        ifindex: veth.ifindex,
        addresses,
        state,
        ingress: isolation(&ingress),
        egress: isolation(&egress),
        revision: since,
        unenforced: None,
    }
}

fn isolation(AppliedPolicies { policies, cluster_policies, audit }: &AppliedPolicies) -> Isolation {
    Isolation {
        isolated: !policies.is_empty(),
        policies: policies.iter().map(|policy| policy.name.to_string()).collect(),
        cluster_policies: cluster_policies.iter().map(|policy| policy.name.to_string()).collect(),
        audit: audit.clone(),
    }
}
