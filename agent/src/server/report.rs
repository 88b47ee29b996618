//! What the agent tells about itself: from a snapshot to the forms of the socket and the metrics.

use std::time::Instant;

use podgate_core::model::{Cluster, PolicyName};

use crate::{
    api::{
        EndpointCounts, EndpointStatus, EnforcedObject, Hits, Holds, HostCounts, Isolation, Latency, Lost,
        Mode, NameCounts, ObjectCounts, PolicyReport, PolicyStatus, ReportedState, RuleHits, ShortcutStatus,
        SourceStatus, Status, TableFill, UnenforcedPod,
    },
    endpoints::InterfaceState,
    observe::{DirectionHits, HitReport, PolicyHits, RuleCount},
    snapshot::{
        AppliedPolicies, EnforcedHost, EnforcedInterface, HoldCounts, HostState, PolicyVersions, Progress,
        ShortcutState, Snapshot, TableSize, Unenforced,
    },
};

/// Without what is read from elsewhere: counters, watches.
pub(super) fn status(snapshot: &Snapshot) -> Status {
    let now = Instant::now();
    let Progress { node, source, started, read, revision, latency, pins_lost, .. } = &snapshot.progress;
    let HoldCounts { long, expired } = snapshot.holds;
    Status {
        ready: snapshot.is_ready(),
        node: node.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: now.saturating_duration_since(*started).as_secs(),
        sources: vec![SourceStatus {
            name: (*source).to_owned(),
            kind: (*source).to_owned(),
            age_seconds: read.map(|read| now.saturating_duration_since(read).as_secs()),
            objects: objects(&snapshot.cluster),
            problems: problems(snapshot),
            watches: Vec::new(),
        }],
        endpoints: counts(snapshot),
        host_endpoints: host_counts(snapshot),
        unenforced: unenforced(snapshot),
        holds: Holds { long, expired },
        policies: snapshot.cluster.policies.len(),
        revision: *revision,
        latency: Latency::from(latency),
        tables: snapshot.tables.iter().copied().map(TableFill::from).collect(),
        counters: Vec::new(),
        evictions: Vec::new(),
        lost: Lost::default(),
        shortcut_packets: 0,
        names: NameCounts::default(),
        export: None,
        last_error: snapshot.last_error().map(str::to_owned),
        pins_lost: pins_lost.clone(),
    }
}

/// What policies have done.
pub(super) fn policies(
    HitReport { counted, policies, .. }: &HitReport,
    versions: &PolicyVersions,
) -> PolicyReport {
    let status = |(policy, hits): (&PolicyName, &PolicyHits)| PolicyStatus {
        policy: policy.to_string(),
        mode: if hits.audit { Mode::Audit } else { Mode::Enforce },
        object: versions.get(policy).map(EnforcedObject::from),
        pods: hits.pods.iter().map(ToString::to_string).collect(),
        ingress: hits.ingress.as_ref().map(Hits::from),
        egress: hits.egress.as_ref().map(Hits::from),
    };
    PolicyReport { counted_seconds: counted.as_secs(), policies: policies.iter().map(status).collect() }
}

impl From<&DirectionHits> for Hits {
    fn from(DirectionHits { rules, denied, would_deny }: &DirectionHits) -> Self {
        let rules = rules.iter().enumerate().map(|(rule, RuleCount { hits, idle })| RuleHits {
            rule,
            hits: *hits,
            idle_seconds: idle.map(|idle| idle.as_secs()),
        });
        Self { rules: rules.collect(), denied: *denied, would_deny: *would_deny }
    }
}

pub(super) fn unenforced(snapshot: &Snapshot) -> Vec<UnenforcedPod> {
    let now = Instant::now();
    let unenforced =
        snapshot.unenforced.iter().map(|(pod, Unenforced { reason, detail, since })| UnenforcedPod {
            pod: pod.to_string(),
            reason: reason.to_string(),
            detail: detail.clone(),
            age_seconds: now.saturating_duration_since(*since).as_secs(),
        });
    unenforced.collect()
}

fn problems(snapshot: &Snapshot) -> Vec<String> {
    let of_source = snapshot.progress.problems.iter().cloned();
    of_source.chain(snapshot.limited.iter().map(|(pod, limit)| format!("Pod {pod}: {limit}"))).collect()
}

fn objects(cluster: &Cluster) -> ObjectCounts {
    let Cluster { namespaces, pods, policies, cluster_policies, calico, nodes, services, slices } = cluster;
    ObjectCounts {
        namespaces: namespaces.len(),
        nodes: nodes.len(),
        pods: pods.len(),
        policies: policies.len(),
        cluster_policies: cluster_policies.len(),
        calico_policies: calico.policies().count(),
        services: services.len(),
        endpoint_slices: slices.len(),
    }
}

fn counts(snapshot: &Snapshot) -> EndpointCounts {
    let mut counts = EndpointCounts::default();
    for interface in snapshot.interfaces.values() {
        match interface.veth.state {
            InterfaceState::Identified { .. } => counts.identified += 1,
            InterfaceState::Pending => counts.pending += 1,
            InterfaceState::Unmanaged => counts.unmanaged += 1,
        }
    }
    counts
}

fn host_counts(snapshot: &Snapshot) -> HostCounts {
    let enforced = || snapshot.hosts.iter().filter(|host| host.unenforced.is_none());
    let count = |state| enforced().filter(|host| host.state == state).count();
    HostCounts {
        unenforced: snapshot.hosts.len() - enforced().count(),
        enforced: count(HostState::Enforced),
        unconfirmed: count(HostState::Unconfirmed),
        undone: count(HostState::Undone),
    }
}

impl From<TableSize> for TableFill {
    fn from(TableSize { name, entries, capacity }: TableSize) -> Self {
        Self { name: name.to_owned(), entries: entries as u64, capacity: capacity.map(u64::from) }
    }
}

/// Those with an interface, the host endpoints, then the pods without one that should be isolated.
pub(super) fn endpoints(snapshot: &Snapshot) -> Vec<EndpointStatus> {
    let mut endpoints: Vec<EndpointStatus> = snapshot.interfaces.values().map(endpoint).collect();
    endpoints.extend(snapshot.hosts.iter().map(host_endpoint));
    for pod in unenforced(snapshot) {
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
                shortcut: None,
            }),
        }
    }
    endpoints
}

fn endpoint(interface: &EnforcedInterface) -> EndpointStatus {
    let EnforcedInterface { veth, ingress, egress, since, attached: _, uid: _, shortcut, names: _ } =
        interface;
    let (pod, addresses, state) = match &veth.state {
        InterfaceState::Identified { pod, addresses, .. } => {
            (Some(pod.to_string()), addresses.iter().copied().collect(), ReportedState::Identified)
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
        ingress: isolation(ingress),
        egress: isolation(egress),
        revision: *since,
        unenforced: None,
        shortcut: match shortcut {
            ShortcutState::Off => None,
            ShortcutState::Open => Some(ShortcutStatus { open: true, obstacle: None }),
            ShortcutState::Closed(why) => Some(ShortcutStatus { open: false, obstacle: Some(why.clone()) }),
        },
    }
}

fn host_endpoint(host: &EnforcedHost) -> EndpointStatus {
    let EnforcedHost { name, interface, ifindex, addresses, state, ingress, egress, revision, unenforced } =
        host;
    EndpointStatus {
        pod: Some(name.to_string()),
        interface: interface.to_string(),
        ifindex: *ifindex,
        addresses: addresses.clone(),
        state: match state {
            HostState::Enforced => ReportedState::Identified,
            HostState::Unconfirmed => ReportedState::Unconfirmed,
            HostState::Undone => ReportedState::Undone,
        },
        ingress: isolation(ingress),
        egress: isolation(egress),
        revision: *revision,
        unenforced: unenforced.clone(),
        shortcut: None,
    }
}

fn isolation(applied: &AppliedPolicies) -> Isolation {
    let AppliedPolicies { policies, cluster_policies, calico_policies, isolates, audit } = applied;
    Isolation {
        isolated: *isolates,
        policies: policies.iter().map(|policy| policy.name.to_string()).collect(),
        cluster_policies: cluster_policies.iter().map(|policy| policy.name.to_string()).collect(),
        calico_policies: calico_policies.iter().map(|policy| policy.name.to_string()).collect(),
        audit: audit.clone(),
    }
}
