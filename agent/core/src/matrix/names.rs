//! Which pods reach which names of the DNS: those that rules speak of, at an address that nothing but the
//! name opens or closes.
//!
//! It reads the rows that the kernel reads. Whether a pod can resolve a name is left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use podgate_common::{BITS_PER_ROW, ClassId, Direction, Strata};
use serde::Serialize;

use super::{MatrixScope, PairVerdict, VerdictRow};
use crate::{
    compiler::{self, CompiledTables, NamePlace, Subject, name_key},
    explain::unlisted_addresses,
    model::{Cluster, DomainPattern, IpFamily, Name, Pod, PolicyRef, Rule},
    port_spec::{Port, PortSpec},
};

/// Verdicts of pods on the names that rules speak of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NameMatrix {
    /// As rules have them, sorted. A wildcard stands for all names that it matches and no other rule does.
    pub names: Vec<String>,
    /// For each port the row of each pod, `namespace/name`.
    pub ports: BTreeMap<PortSpec, BTreeMap<Name, VerdictRow>>,
}

/// Computes the matrix of the sources that are meant. A port by name is one of no name of the DNS.
pub fn name_matrix(cluster: &Cluster, ports: &BTreeSet<PortSpec>, scope: &MatrixScope) -> NameMatrix {
    let pods = cluster.pods.values().map(Arc::as_ref);
    let pods: Vec<&Pod> = pods.filter(|pod| scope.is_source(pod)).collect();
    let tables = compiler::compile(cluster, None, pods.iter().copied(), []);
    let patterns = patterns(cluster);
    let addresses = unlisted_addresses(cluster);
    let rows = ports.iter().map(|port| {
        let of_pods = pods.iter().map(|pod| {
            let reach = Reach { tables: &tables, pod, addresses: &addresses, port };
            let row = patterns.iter().map(|pattern| reach.verdict(pattern)).collect();
            (Name::from(pod.name.to_string()), VerdictRow(row))
        });
        (port.clone(), of_pods.collect())
    });
    NameMatrix { ports: rows.collect(), names: patterns.iter().map(ToString::to_string).collect() }
}

/// Of rules for egress.
fn patterns(cluster: &Cluster) -> BTreeSet<DomainPattern> {
    let policies = cluster.policies.values().map(|policy| PolicyRef::Namespaced(policy));
    let policies = policies.chain(cluster.cluster_policies.values().map(|policy| PolicyRef::Cluster(policy)));
    let rules = policies.flat_map(|policy| policy.rules(Direction::Egress));
    rules.flat_map(Rule::names).cloned().collect()
}

/// One pod, and one port of servers elsewhere.
struct Reach<'a> {
    tables: &'a CompiledTables,
    pod: &'a Pod,
    /// One of each family.
    addresses: &'a [IpAddr],
    port: &'a PortSpec,
}

impl Reach<'_> {
    fn verdict(&self, pattern: &DomainPattern) -> PairVerdict {
        let Port::Number(number) = self.port.port else { return PairVerdict::NoPort };
        let class = self.tables.classes.class(self.port.protocol, number);
        let class =
            ClassId(u16::try_from(class).expect("the compiler refuses more classes than an id has room for"));
        let has_family = |address: &&IpAddr| {
            let family = IpFamily::of(address);
            self.port.family().is_none_or(|of_port| of_port == family)
                && self.pod.addresses.iter().any(|own| IpFamily::of(own) == family)
        };
        let mut addresses = self.addresses.iter().filter(has_family).peekable();
        let is_allowed = addresses.peek().is_some()
            && addresses
                .all(|address| places(pattern).iter().all(|place| self.opens(place, *address, class)));
        if is_allowed { PairVerdict::Allowed } else { PairVerdict::Denied }
    }

    /// Whether the pod reaches an address that it has learnt for a name.
    fn opens(&self, place: &NamePlace, address: IpAddr, class: ClassId) -> bool {
        let tables = self.tables;
        let egress = tables.subjects.get(&self.pod.name).copied().unwrap_or(Subject::NOT_ISOLATED).egress;
        let has = |rule_set: usize, identity: usize| {
            let row = tables.rows.row(rule_set, identity, usize::from(class.0 / BITS_PER_ROW));
            row.is_some_and(|row| row.has(class))
        };
        let of_address = tables.identities.identity(address);
        if egress == Subject::NOT_ISOLATED.egress || has(egress, of_address) {
            return true;
        }
        let Some(of_name) = identity(tables, place) else { return false };
        let strata = tables.strata.get(&egress).into_iter().flat_map(|strata| strata.iter());
        strata.take(Strata::MOST).any(|stratum| {
            has(stratum.names, of_name) && (stratum.open == 0 || has(stratum.open, of_address))
        })
    }
}

/// What a name is to the rules: by as many of its last labels as they have.
fn identity(tables: &CompiledTables, (labels, left): &NamePlace) -> Option<usize> {
    (0..labels.len()).find_map(|at| {
        let before = u32::try_from(at).unwrap_or(2) + left;
        let place = (labels[at..].to_vec(), before.min(2));
        tables.identities.addresses.get(&name_key(&place)).copied()
    })
}

/// The names that a pattern stands for, as far as rules tell them from others.
fn places(pattern: &DomainPattern) -> Vec<NamePlace> {
    let labels: Vec<Box<[u8]>> = pattern.labels().map(Into::into).collect();
    let left = (0..3_u32).filter(|left| pattern.matches_before(*left as usize));
    left.map(|left| (labels.clone(), left)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures::{cluster, from, policy, rule},
        model::{Peer, Peers, PortRule},
    };

    fn name(text: &str) -> Peer {
        Peer::Name(DomainPattern::parse(text).unwrap())
    }

    #[test]
    fn a_row_has_what_each_pod_reaches_of_the_names_of_all_rules() {
        let https = crate::model::Ports::Listed(vec![PortRule::Range {
            protocol: podgate_common::Protocol::Tcp,
            first: 443,
            last: 443,
        }]);
        let one_label = Peer::Name(DomainPattern::parse_one_label("*.one.test").unwrap());
        let mut other = policy("q", None, Some(vec![from(name("*.other.test"))]));
        other.name.namespace = "y".into();
        let egress = vec![
            rule(Peers::Listed(vec![name("api.test"), one_label]), https),
            from(name("*.test")),
            from(name("deep.one.test")),
        ];
        let cluster = cluster(vec![policy("p", None, Some(egress)), other]);
        let ports = ["TCP/443", "TCP/80", "TCP/http"].map(|port| port.parse().unwrap());
        let matrix = name_matrix(&cluster, &ports.clone().into(), &MatrixScope::default());
        let expected = ["api.test", "deep.one.test", "*.other.test", "*.test", "*.one.test (one label)"];
        assert_eq!(matrix.names, expected);
        let row = |port: usize, pod: &str| matrix.ports[&ports[port]][pod].to_string();
        // `*.test` is there, too.
        assert_eq!([row(0, "x/a"), row(1, "x/a"), row(2, "x/a")], [".....", ".....", "-----"]);
        assert_eq!([row(0, "y/c"), row(1, "y/v6")], ["XX.XX", "XX.XX"]);
    }

    #[test]
    fn a_pod_that_no_policy_isolates_reaches_all_names() {
        let mut of_x = policy("p", None, Some(vec![from(name("a.test"))]));
        of_x.name.namespace = "x".into();
        let ports = ["TCP/443".parse().unwrap()].into();
        let matrix = name_matrix(&cluster(vec![of_x]), &ports, &MatrixScope::default());
        let rows = &matrix.ports.values().next().unwrap();
        assert!(rows.values().all(|row| row.to_string() == "."), "{rows:?}");
    }
}
