//! The one thing that goes from `control` to all who only read: the agent's state after its last change.
//!
//! In: made by the thread that enforces, and by no one else. Out: never changed; readers swap theirs for the
//! next one when they like. It holds no handle on anything.

mod applied_policies;
mod contexts;
mod latency;
mod policy_versions;
mod unenforced;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use podgate_common::{Resolver, ServiceKey};
use podgate_core::model::{Cluster, Name, ObjectName, Uid};

pub(crate) use self::applied_policies::PolicyChange;
pub use self::{
    applied_policies::AppliedPolicies,
    contexts::{Context, Contexts},
    latency::LatencyHistogram,
    policy_versions::{EnforcedPolicy, PolicyVersions},
    unenforced::{Unenforced, UnenforcedReason},
};
use crate::endpoints::{InterfaceState, PodInterface};

/// The agent's state.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// A pass writes: until the next snapshot the kernel's tables are on the way to another state.
    pub is_changing: bool,
    pub progress: Progress,
    /// The newest state of the cluster that may be enforced.
    pub cluster: Arc<Cluster>,
    /// The pods' interfaces as they are enforced, by ifindex.
    pub interfaces: BTreeMap<u32, EnforcedInterface>,
    /// The node's devices with host endpoints.
    pub hosts: Vec<EnforcedHost>,
    pub unenforced: BTreeMap<ObjectName, Unenforced>,
    /// Pods of whose policies something is left out.
    pub limited: BTreeSet<(ObjectName, PodLimit)>,
    pub holds: HoldCounts,
    pub tables: Vec<TableSize>,
    pub contexts: Contexts,
    pub versions: PolicyVersions,
    /// Servers of which the DNS replies of pods are believed.
    pub resolvers: Arc<BTreeMap<ServiceKey, Resolver>>,
}

/// How far enforcement has come.
#[derive(Clone, Debug)]
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
    pub latency: LatencyHistogram,
    pub last_error: Option<String>,
    /// Of the newest picture, also of one that is not enforced.
    pub problems: Vec<String>,
    /// Why the newest picture is not enforced, or is known to lack something.
    pub source_error: Option<String>,
    /// An agent with pods that should be isolated and are not does not call itself ready.
    pub unenforced_is_not_ready: bool,
    /// Why enforcement ends with the agent, if it does.
    pub pins_lost: Option<String>,
}

/// One veth after a pass.
#[derive(Clone, Debug)]
pub struct EnforcedInterface {
    pub veth: PodInterface,
    pub ingress: AppliedPolicies,
    pub egress: AppliedPolicies,
    /// Since which revision it is evaluated as it is.
    pub since: u32,
    /// Programs of this process are at it.
    pub attached: bool,
    /// Of the object by which its pod is evaluated.
    pub uid: Option<Uid>,
    pub shortcut: ShortcutState,
    /// The number of the table of what its pod has learnt of names; 0: none.
    pub names: u32,
}

/// The state of a host endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostState {
    /// Its policies are enforced, and confirmed.
    Enforced,
    /// Its policies are enforced; the last change is undone unless it is confirmed in time.
    Unconfirmed,
    /// The last change was undone: the policies of before are enforced.
    Undone,
}

/// A device of the node's with a host endpoint.
#[derive(Clone, Debug)]
pub struct EnforcedHost {
    /// The name of its end, for example `HostEndpoint/n1-eth0`.
    pub name: ObjectName,
    pub interface: Name,
    pub ifindex: u32,
    /// The node's addresses on this device.
    pub addresses: Vec<IpAddr>,
    pub state: HostState,
    pub ingress: AppliedPolicies,
    pub egress: AppliedPolicies,
    /// The revision that was published last.
    pub revision: u32,
    /// Why it is not enforced, if it is not: then the rest says what would be.
    pub unenforced: Option<String>,
}

/// Whether packets to and from a pod may take the short cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShortcutState {
    /// The agent was not asked to.
    Off,
    Open,
    /// What is in the way.
    Closed(String),
}

/// Veths that were held for long, since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HoldCounts {
    /// That lasted.
    pub long: u64,
    /// Of these, those that ended without an answer: the veth is free from then on.
    pub expired: u64,
}

/// How full a table of the kernel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSize {
    pub name: &'static str,
    pub entries: usize,
    /// `None`: only memory limits it.
    pub capacity: Option<u32>,
}

/// Why something of a pod's policies is left out: it allows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodLimit {
    /// A limit of the node ([`podgate_core::compiler::TableLimits`]) closes its policies.
    Closed,
    /// The kernel cannot read names.
    NamesUnsupported,
    /// There is no table for what it learns.
    NamesWithoutTable,
    /// Its rules with names stand in more parts than count.
    NamesInManyParts,
}

impl fmt::Display for PodLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => {
                "its policies tell more ports and networks apart than this node has room for; they allow nothing"
            }
            Self::NamesUnsupported => {
                "its rules with domainNames allow nothing: this node's kernel has no type information (BTF)"
            }
            Self::NamesWithoutTable => {
                "its rules with domainNames allow nothing: this node has no table for the names that it learns"
            }
            Self::NamesInManyParts => {
                "of its rules with domainNames those behind the fourth part between Deny and Pass rules allow nothing"
            }
        })
    }
}

impl Snapshot {
    pub fn is_ready(&self) -> bool {
        self.progress.ready && (self.unenforced.is_empty() || !self.progress.unenforced_is_not_ready)
    }

    /// The last thing that failed and was not put right since.
    pub fn last_error(&self) -> Option<&str> {
        self.progress.last_error.as_deref().or(self.progress.source_error.as_deref())
    }

    /// The interface that a pod was identified behind.
    pub fn interface_of(&self, pod: &ObjectName) -> Option<&PodInterface> {
        let is_its = |veth: &&PodInterface| matches!(&veth.state, InterfaceState::Identified { pod: known, .. } if known == pod);
        self.interfaces.values().map(|interface| &interface.veth).find(is_its)
    }
}

#[cfg(test)]
impl Snapshot {
    /// Of the interface in [`crate::api::EndpointStatus::example`], in a small cluster.
    pub(crate) fn example(ready: bool) -> Self {
        use std::time::Duration;

        use podgate_core::{
            fixtures::{cluster, policy},
            model::{
                ClusterNetworkPolicy, ClusterPolicyKind, ClusterPolicyName, ClusterSubject, Selector, Tier,
            },
        };

        let cluster = cluster(vec![]);
        let pod = ObjectName::new("x", "a");
        let addresses = cluster.pods[&pod].addresses.iter().copied().collect();
        let veth = PodInterface {
            ifindex: 3,
            generation: 0,
            name: "veth1".into(),
            master: 0,
            link_address: None,
            state: InterfaceState::Identified { pod: pod.clone(), addresses, gone: false },
            last: Some(pod),
        };
        let base = ClusterNetworkPolicy {
            name: ClusterPolicyName { name: "base".into(), kind: ClusterPolicyKind::ClusterNetworkPolicy },
            tier: Tier::Admin,
            priority: 1,
            subject: ClusterSubject { namespaces: Selector::EVERYTHING, pods: Selector::EVERYTHING },
            ingress: vec![],
            egress: vec![],
            audit: false,
        };
        let ingress = AppliedPolicies {
            policies: ["p", "q"].map(|name| Arc::new(policy(name, Some(vec![]), None))).into(),
            cluster_policies: vec![Arc::new(base)],
            calico_policies: vec![],
            isolates: true,
            audit: vec![],
        };
        let egress = AppliedPolicies::default();
        let interface = EnforcedInterface {
            veth,
            ingress,
            egress,
            since: 7,
            attached: true,
            uid: None,
            shortcut: ShortcutState::Off,
            names: 0,
        };
        let ago = |seconds| Instant::now() - Duration::from_secs(seconds);
        Self {
            is_changing: false,
            progress: Progress {
                node: "n1".into(),
                source: "manifests",
                started: ago(160),
                read: Some(ago(105)),
                ready,
                revision: 7,
                latency: LatencyHistogram::default(),
                last_error: None,
                problems: vec![],
                source_error: None,
                unenforced_is_not_ready: false,
                pins_lost: None,
            },
            cluster: Arc::new(cluster),
            interfaces: [(3, interface)].into(),
            hosts: Vec::new(),
            unenforced: BTreeMap::new(),
            limited: BTreeSet::new(),
            holds: HoldCounts::default(),
            tables: vec![],
            contexts: Contexts::default(),
            versions: PolicyVersions::default(),
            resolvers: Arc::default(),
        }
    }
}
