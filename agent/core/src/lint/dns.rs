//! Pods that may connect to something, but not to a resolver: somebody wrote rules for egress and forgot
//! names.
//!
//! The verdict is that of the compiled tables, all policies together. Pods that may connect to nothing at all
//! are sealed on purpose, and not found.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::Ipv6Addr,
    sync::Arc,
};

use podgate_common::{BITS_PER_ROW, ClassId, Direction, Protocol, Row};

use super::{
    LintFinding, LintName,
    survey::{Survey, SurveyedPolicy, count_of_pods},
};
use crate::{
    compiler::{self, CompiledTables, Subject, name_key},
    model::{Action, Cluster, PolicyRef},
};

/// The port of resolvers (RFC 1035, 4.2).
const DNS: u16 = 53;

pub(super) fn find(survey: &Survey<'_>, findings: &mut Vec<LintFinding>) {
    let writers = writers(survey);
    if writers.is_empty() {
        return;
    }
    let cluster = with_addresses(survey.cluster);
    let pods = writers.keys().map(|workload| survey.workloads[*workload].pod);
    let tables = compiler::compile(&cluster, None, pods, []);
    // Pods by policy and finding.
    let mut found: BTreeMap<(usize, LintName), usize> = BTreeMap::new();
    let mut known: HashMap<usize, Option<LintName>> = HashMap::new();
    for (workload, policy) in &writers {
        let workload = &survey.workloads[*workload];
        let subject = tables.subjects.get(&workload.pod.name).copied().unwrap_or(Subject::NOT_ISOLATED);
        let lacking = *known.entry(subject.egress).or_insert_with(|| lacking(&tables, subject.egress));
        if let Some(name) = lacking {
            *found.entry((*policy, name)).or_default() += workload.pods;
        }
    }
    for ((policy, name), pods) in found {
        let (port, consequence) = match name {
            LintName::DnsTcpUnreachable => ("TCP/53", "long answers of resolvers are lost"),
            _ => ("UDP/53", "names are not resolved"),
        };
        let pods = count_of_pods(pods);
        let message = format!("{pods} that it isolates may reach nothing on {port}: {consequence}");
        findings.push(survey.policies[policy].finding("spec.egress", name, message));
    }
}

/// The workloads that are isolated for egress, each with the first policy that says to what they may connect.
fn writers(survey: &Survey<'_>) -> BTreeMap<usize, usize> {
    let has_rules = |policy: &SurveyedPolicy<'_>| {
        // A ClusterNetworkPolicy leaves to others what its rules do not match.
        let may_isolate = !matches!(policy.policy, PolicyRef::Cluster(_));
        may_isolate && !policy.audit && policy.policy.actions(Direction::Egress).contains(&Action::Accept)
    };
    let mut writers = BTreeMap::new();
    for (place, policy) in survey.policies.iter().enumerate().filter(|(_, policy)| has_rules(policy)) {
        for workload in &policy.selected {
            writers.entry(*workload).or_insert(place);
        }
    }
    writers
}

/// What a rule set lacks.
fn lacking(tables: &CompiledTables, rule_set: usize) -> Option<LintName> {
    let rows: Vec<(usize, &Arc<[Row]>)> = tables
        .rows
        .allowed
        .range((rule_set, 0)..(rule_set + 1, 0))
        .map(|((_, identity), rows)| (*identity, rows))
        .collect();
    // Before a name is resolved it opens no resolver.
    let names = tables.names.iter().filter_map(|name| tables.identities.addresses.get(&name_key(name)));
    let names: HashSet<usize> = names.copied().collect();
    let of_addresses = || rows.iter().filter(|(identity, _)| !names.contains(identity)).map(|(_, rows)| rows);
    let reaches = |protocol| {
        let class = tables.classes.class(protocol, DNS);
        let class =
            ClassId(u16::try_from(class).expect("the compiler refuses more classes than an id has room for"));
        of_addresses()
            .any(|row| row.get(usize::from(class.0 / BITS_PER_ROW)).is_some_and(|row| row.has(class)))
    };
    if rule_set == Subject::NOT_ISOLATED.egress || rows.is_empty() {
        return None;
    }
    match (reaches(Protocol::Udp), reaches(Protocol::Tcp)) {
        (true, true) => None,
        (true, false) => Some(LintName::DnsTcpUnreachable),
        (false, _) => Some(LintName::DnsUnreachable),
    }
}

/// Pods without an address get one, so that the tables know them: manifests need not have a status.
fn with_addresses(cluster: &Cluster) -> Cluster {
    let mut cluster = cluster.clone();
    let without = |pod: &&Arc<_>| -> bool {
        let pod: &crate::model::Pod = pod;
        !pod.host_network && pod.addresses.is_empty()
    };
    let pods: Vec<_> = cluster.pods.values().filter(without).cloned().collect();
    for (number, mut pod) in (0_u128..).zip(pods) {
        // No one else has them: they are for packets to be discarded (RFC 6666).
        let address = Ipv6Addr::from((0x100 << 112) + number);
        Arc::make_mut(&mut pod).addresses.push(address.into());
        cluster.pods.insert(pod.name.clone(), pod);
    }
    cluster
}
