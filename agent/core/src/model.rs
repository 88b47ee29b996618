//! The cluster as podgate sees it: small structs that hold what a verdict can depend on, and nothing else.
//!
//! In: objects that a source has decoded, defaulted and validated. Out: read by the compiler and by
//! `explain`. No I/O, no clock, no Kubernetes client types. A field that a source could not understand
//! arrives here as a variant that matches nothing (`Selector::Nothing`, `Peer::Nothing`,
//! `PortRule::Nothing`): it allows nothing, and the policy that holds it still isolates. A rule of a
//! ClusterNetworkPolicy, or of Calico's, fails closed by its action.

mod calico;
mod cluster;
mod cluster_dns;
mod cluster_policy;
mod domain;
mod limits;
mod name;
mod policy;
mod policy_ref;
mod ports;
mod selector;
mod service;
pub mod syntax;

pub use calico::{
    ADMIN_TIER, BASELINE_TIER, Calico, CalicoApi, CalicoEnds, CalicoObjects, CalicoPolicy, CalicoPolicyKind,
    CalicoPolicyName, CalicoRule, CalicoTier, DEFAULT_ALLOW_PROFILE, DEFAULT_TIER, EndpointLabels,
    EnforcedName, EntityMatch, FailsafePorts, HOST_ENDPOINTS, HostDevices, HostEndpoint, HostSubject,
    HostTraffic, IpFamily, LabelExpression, LabelTest, NETWORK_POLICY_ORDER, NetworkSet, NetworkSetName,
    PolicyScope, TierOrder, label_keys,
};
pub use cluster::{
    Cluster, HostPort, NAMESPACE_NAME_LABEL, NamedPort, Namespace, Node, Objects, Pod, PodAddresses,
};
pub use cluster_dns::{OPENSHIFT_DNS, OPENSHIFT_NODE};
pub use cluster_policy::{
    Action, ClusterNetworkPolicy, ClusterPolicyKind, ClusterPolicyName, ClusterRule, ClusterSubject, Tier,
};
pub use domain::{DomainName, DomainPattern};
pub use limits::{
    Limit, Limited, MAX_FRONTENDS, MAX_FRONTENDS_OF_SMALL, MAX_GROUPS, MAX_GROUPS_OF_ALL_SETS, MAX_NETWORKS,
    MAX_RANGES, MAX_RULES, MAX_SELECTORS, NamedServices, NetworkSetLimit, SMALL_SERVICE, limited,
    limited_of_calico, limited_of_cluster, named_services, network_sets_over_limit, services_over_limit,
    services_over_room, without_services,
};
pub use name::{Labels, Name, ObjectName, Uid};
pub use policy::{
    EGRESS_DOMAINS, IpBlock, NetworkPolicy, NetworkPolicyKind, Peer, Peers, PortRule, Ports, Rule,
};
pub use policy_ref::{PolicyName, PolicyRef};
pub use ports::{PortRange, PortSet};
pub use selector::{LabelValues, Requirement, Selector};
pub use service::{
    EndpointSlice, Frontend, Hints, Proxy, Service, ServiceEndpoints, ServicePort, SliceEndpoint, SlicePort,
    SlicesByService,
};
