//! What policies of Calico's say of a connection, and each field of their rules of its two ends.
//!
//! In: what the rule wants of its ends, and who they are. Out: one entry for each field that is given: the
//! rule matches when all of them do.

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use podgate_common::Direction;

use serde::{Deserialize, Serialize};

use super::{
    ClusterRuleTrace, RuleTrace, Wording,
    findings::{EntryFinding, EntryName, RuleList, TriedEntry},
    peers::{OtherEnd, PeerFinding, SelectedPods},
    service_peer::ServiceWish,
};
use crate::{
    compiler::selected_sets,
    model::{
        Action, CalicoEnds, CalicoPolicy, CalicoPolicyKind, Cluster, EndpointLabels, EntityMatch, IpFamily,
        LabelExpression, Labels, Name, Pod, TierOrder,
    },
    policy_walk::WalkedPolicy,
};

/// One policy of Calico's and what its rules say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalicoPolicyTrace {
    /// The kind of the object.
    pub kind: CalicoPolicyKind,
    /// The policy's namespace, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// The policy's name.
    pub name: Name,
    /// The tier that it is in.
    pub tier: Name,
    /// Its place in the tier; `None`: after those that have one.
    pub order: Option<String>,
    /// As in `pods with role == 'backend'`.
    #[serde(default)]
    pub selects: Wording<SelectedPods>,
    /// Indexes of the rules that match at least one of the addresses and ports in question.
    pub matched: Vec<usize>,
    /// Those among them that settle it for at least one.
    pub decided: Vec<usize>,
    /// Whether the end of its tier denies at least one.
    pub denied_at_end: bool,
    /// Its rules of this direction, in their order.
    pub rules: Vec<ClusterRuleTrace>,
}

/// Labels that are wanted by an expression, and what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelWish {
    /// What is wanted.
    pub wanted: LabelExpression,
    /// It is wanted that it does not match.
    pub is_excluded: bool,
    /// Who was tried.
    pub name: String,
    /// The labels in question, of a pod; each with its value, if it is there.
    pub labels: Option<Vec<(Name, Option<Name>)>>,
    /// It matches, by its labels or as part of a network set.
    pub matched: bool,
}

/// Networks that an address is wanted in, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkWish {
    /// As many as are shown.
    pub wanted: Vec<IpNet>,
    /// How many more there are.
    pub more: usize,
    /// It is wanted that it is in none.
    pub is_excluded: bool,
    /// The address.
    pub address: IpAddr,
    /// It is in one.
    pub matched: bool,
}

/// How many networks of a list are shown.
const SHOWN_NETWORKS: usize = 4;

/// The fields of an end, as they are written.
struct FieldNames {
    selector: &'static str,
    not_selector: &'static str,
    nets: &'static str,
    not_nets: &'static str,
    services: &'static str,
}

const SOURCE: FieldNames = FieldNames {
    selector: "source.selector",
    not_selector: "source.notSelector",
    nets: "source.nets",
    not_nets: "source.notNets",
    services: "source.services",
};
const DESTINATION: FieldNames = FieldNames {
    selector: "destination.selector",
    not_selector: "destination.notSelector",
    nets: "destination.nets",
    not_nets: "destination.notNets",
    services: "destination.services",
};

/// One for each field; a single one for the rule when it has none.
pub(super) fn entries(
    cluster: &Cluster,
    ends: &CalicoEnds,
    direction: Direction,
    own: &Pod,
    &OtherEnd { resolved, address, port, name: _ }: &OtherEnd<'_>,
) -> Vec<TriedEntry> {
    let (of_peer, of_own) = match direction {
        Direction::Ingress => (SOURCE, DESTINATION),
        Direction::Egress => (DESTINATION, SOURCE),
    };
    let mut entries = Vec::new();
    if let Some(wanted) = ends.family {
        let finding = PeerFinding::Family { wanted, address };
        entries.push(entry("ipVersion", IpFamily::of(&address) == wanted, finding));
    }
    let host = || cluster.calico.host_subjects().find(|end| end.addresses.contains(&address));
    let end = resolved.policed().or_else(|| host().map(Arc::as_ref));
    let peer = TriedEnd::of(cluster, end, resolved.shown.clone(), Some(address));
    peer.tries(&ends.peer, &of_peer, &mut entries);
    if let Some(service) = &ends.peer.service {
        let wish = ServiceWish::of(cluster, service, direction, address, port);
        entries.push(entry(of_peer.services, wish.matched(), PeerFinding::Service(wish)));
    }
    let own_address = own.addresses.iter().copied().find(|own| own.is_ipv4() == address.is_ipv4());
    let own_end = TriedEnd::of(cluster, Some(own), own.name.to_string(), own_address);
    own_end.tries(&ends.own, &of_own, &mut entries);
    if entries.is_empty() {
        let list = match direction {
            Direction::Ingress => RuleList::Field("source"),
            Direction::Egress => RuleList::Field("destination"),
        };
        entries.push(TriedEntry { entry: EntryName { list, index: None }, found: Ok(EntryFinding::AnyPeer) });
    }
    entries
}

/// A label that is looked at, and its value if it is there.
type FoundLabel = (Name, Option<Name>);

/// One end of a connection.
struct TriedEnd<'a> {
    cluster: &'a Cluster,
    pod: Option<(&'a Pod, Labels)>,
    name: String,
    /// `None`: the pod has none of this family.
    address: Option<IpAddr>,
}

impl<'a> TriedEnd<'a> {
    fn of(cluster: &'a Cluster, pod: Option<&'a Pod>, name: String, address: Option<IpAddr>) -> Self {
        let pod = pod.map(|pod| (pod, cluster.namespace_labels(&pod.name.namespace)));
        Self { cluster, pod, name, address }
    }

    fn tries(&self, wanted: &EntityMatch, names: &FieldNames, entries: &mut Vec<TriedEntry>) {
        let EntityMatch { selector, not_selector, nets, not_nets, service: _ } = wanted;
        let selectors = [(selector, names.selector, false), (not_selector, names.not_selector, true)];
        for (selector, field, is_excluded) in selectors {
            let Some(wanted) = selector else { continue };
            let (labels, matched) = self.is_selected(wanted);
            let (wanted, name) = (wanted.clone(), self.name.clone());
            let wish = LabelWish { wanted, is_excluded, name, labels, matched };
            let finding = PeerFinding::Expression(wish);
            entries.push(entry(field, matched != is_excluded, finding));
        }
        let lists = [(nets.as_ref(), names.nets, false), (Some(not_nets), names.not_nets, true)];
        for (list, field, is_excluded) in lists {
            let Some(list) = list.filter(|list| !is_excluded || !list.is_empty()) else { continue };
            let matched = self.is_in(list);
            let wanted: Vec<IpNet> = list.iter().take(SHOWN_NETWORKS).copied().collect();
            let more = list.len() - wanted.len();
            let Some(address) = self.address else { continue };
            let finding = PeerFinding::Networks(NetworkWish { wanted, more, is_excluded, address, matched });
            entries.push(entry(field, matched != is_excluded, finding));
        }
    }

    /// The labels of a pod that are looked at, and whether the expression matches, by them or by a network
    /// set.
    fn is_selected(&self, wanted: &LabelExpression) -> (Option<Vec<FoundLabel>>, bool) {
        let of_pod = self.pod.as_ref().map(|(pod, namespace)| {
            let labels: EndpointLabels<'_> = self.cluster.calico.labels_of(pod, namespace);
            let found = wanted.keys().into_iter().map(|key| (key.clone(), labels.get(key).map(Name::from)));
            (found.collect(), wanted.matches(&labels))
        });
        let (labels, is_pod) = of_pod.map_or((None, false), |(labels, is_pod)| (Some(labels), is_pod));
        let matched = is_pod || selected_sets(wanted, self.cluster).any(|set| self.is_in(&set.nets));
        (labels, matched)
    }

    fn is_in(&self, nets: &BTreeSet<IpNet>) -> bool {
        self.address.is_some_and(|address| nets.iter().any(|net| net.contains(&address)))
    }
}

fn entry(field: &'static str, matched: bool, finding: PeerFinding) -> TriedEntry {
    let finding = EntryFinding::Peer(finding);
    TriedEntry {
        entry: EntryName { list: RuleList::Field(field), index: None },
        found: if matched { Ok(finding) } else { Err(finding) },
    }
}

impl CalicoPolicyTrace {
    /// `rules`: what each of its rules says.
    pub(super) fn of(
        policy: &CalicoPolicy,
        direction: Direction,
        walked: &WalkedPolicy<'_>,
        rules: Vec<RuleTrace>,
    ) -> Self {
        let actions = walked.policy.actions(direction);
        let decides = |action| match action {
            Action::Accept | Action::Deny => true,
            Action::Pass | Action::Log => false,
        };
        let decided = actions.iter().zip(&walked.hits).enumerate();
        let decided = decided.filter(|(_, (action, hits))| decides(**action) && !hits.is_empty());
        Self {
            kind: policy.name.kind,
            namespace: policy.name.namespace.clone(),
            name: policy.name.name.clone(),
            tier: policy.tier.clone(),
            order: (policy.order != TierOrder::LAST).then(|| policy.order.to_string()),
            selects: Wording::Meaning(SelectedPods::By(policy.subject.clone())),
            matched: rules.iter().filter(|trace| trace.matched).map(|trace| trace.rule).collect(),
            decided: decided.map(|(rule, _)| rule).collect(),
            denied_at_end: !walked.dropped_at_end.is_empty(),
            rules: actions
                .iter()
                .zip(rules)
                .map(|(action, trace)| ClusterRuleTrace { action: *action, trace })
                .collect(),
        }
    }
}

/// The backends of a service may be evaluated by different ones; those that are known keep their order.
pub(super) fn add_policies(known: &mut Vec<CalicoPolicyTrace>, more: Vec<CalicoPolicyTrace>) {
    let is_same = |one: &CalicoPolicyTrace, other: &CalicoPolicyTrace| {
        (one.kind, &one.namespace, &one.name) == (other.kind, &other.namespace, &other.name)
    };
    for policy in more {
        let Some(known) = known.iter_mut().find(|known| is_same(known, &policy)) else {
            known.push(policy);
            continue;
        };
        for (list, more) in [(&mut known.matched, policy.matched), (&mut known.decided, policy.decided)] {
            list.extend(more);
            list.sort_unstable();
            list.dedup();
        }
        known.denied_at_end |= policy.denied_at_end;
        for (known, rule) in known.rules.iter_mut().zip(policy.rules) {
            known.trace.merge(rule.trace);
        }
    }
}

impl fmt::Display for LabelWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, is_excluded, name, labels, matched } = self;
        write!(f, "wants {}{wanted}, ", if *is_excluded { "what is not " } else { "" })?;
        match labels {
            Some(labels) if !labels.is_empty() => {
                let found = labels.iter().map(|(key, value)| match value {
                    Some(value) => format!("{key}={value}"),
                    None => format!("no {key}"),
                });
                write!(f, "{name} has {}", found.collect::<Vec<_>>().join(" and "))
            }
            Some(_) => write!(f, "{name} is {}", if *matched { "one" } else { "none" }),
            None if *matched => write!(f, "{name} is in a network set that it selects"),
            None => write!(f, "{name} is neither such a pod nor in such a network set"),
        }
    }
}

impl fmt::Display for NetworkWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, more, is_excluded, address, matched } = self;
        let nets: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        write!(f, "wants {}{}", if *is_excluded { "none of " } else { "" }, nets.join(", "))?;
        if *more > 0 {
            write!(f, " and {more} more")?;
        }
        write!(f, ", {address} is {}", if *matched { "inside" } else { "outside" })
    }
}
