//! Whether one clause matches everything that another one does, whatever pods there are: by what the clauses
//! say, not by who has their properties now.
//!
//! In: two clauses for the same pod. Out: yes, or not for certain: what several properties cover only
//! together is not found.

use super::{Atom, Clause, ClausePorts, Shared, TableLimits, atoms, prefixes};
use crate::model::{NAMESPACE_NAME_LABEL, Name, Requirement, Selector};

impl Clause {
    /// Whether it matches whatever the other one matches.
    pub fn covers(&self, other: &Self) -> bool {
        // Whatever narrows the other one besides, it only matches less.
        let Self { peers: _, ports: _, conditions, except_ports } = self;
        if !conditions.iter().all(|condition| other.conditions.contains(condition))
            || except_ports.is_some() && *except_ports != other.except_ports
        {
            return false;
        }
        let ports = match (&self.ports, &other.ports) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(wide), Some(narrow)) => wide.covers(narrow),
        };
        ports
            && match (&self.peers, &other.peers) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(wide), Some(narrow)) => {
                    narrow.iter().all(|atom| wide.contains(atom) || wide.iter().any(|it| covers(it, atom)))
                }
            }
    }
}

impl ClausePorts {
    fn covers(&self, other: &Self) -> bool {
        self.numbers.covers(&other.numbers)
            && other.named.iter().all(|(name, numbers)| {
                self.numbers.covers(numbers) || self.named.get(name).is_some_and(|own| own.covers(numbers))
            })
    }
}

/// Whether every address with the other property has this one.
fn covers(wide: &Shared<Atom>, narrow: &Shared<Atom>) -> bool {
    match (&**wide, &**narrow) {
        (Atom::PodsIn(namespace, pods), Atom::PodsIn(narrow_namespace, narrow_pods)) => {
            namespace == narrow_namespace && pods.covers(narrow_pods)
        }
        (Atom::PodsAcross { namespaces, pods }, Atom::PodsIn(namespace, narrow_pods)) => {
            pods.covers(narrow_pods) && namespaces.covers(&of_name(namespace))
        }
        (Atom::PodsIn(namespace, pods), Atom::PodsAcross { namespaces, pods: narrow_pods }) => {
            pods.covers(narrow_pods) && of_name(namespace).covers(namespaces)
        }
        (
            Atom::PodsAcross { namespaces, pods },
            Atom::PodsAcross { namespaces: narrow_namespaces, pods: narrow_pods },
        ) => pods.covers(narrow_pods) && namespaces.covers(narrow_namespaces),
        (Atom::Blocks(_), Atom::Blocks(_)) => has_blocks_of(wide, narrow),
        (Atom::Node(wide), Atom::Node(narrow)) => wide.covers(narrow),
        (Atom::Port(wide), Atom::Port(narrow)) => wide == narrow,
        // Of expressions only the same is known to match the same.
        (Atom::Endpoints(wide), Atom::Endpoints(narrow)) => wide == narrow,
        (Atom::Names(wide), Atom::Names(narrow)) => narrow.is_subset(wide),
        (Atom::PodsIn(..) | Atom::PodsAcross { .. }, _)
        | (Atom::Endpoints(_), _)
        | (Atom::Port(_), _)
        | (Atom::Blocks(_), _)
        | (Atom::Node(_), _)
        | (Atom::Names(_), _) => false,
    }
}

/// What selects this namespace alone: no other one has its label.
fn of_name(namespace: &Name) -> Selector {
    Selector::All(vec![Requirement::In(NAMESPACE_NAME_LABEL.into(), [namespace.clone()].into())])
}

/// Whether the blocks of one hold all addresses of the other's: no prefix at which these hold lacks those.
fn has_blocks_of(wide: &Shared<Atom>, narrow: &Shared<Atom>) -> bool {
    let both = atoms::blocks([wide, narrow]);
    prefixes::compile(&both, &TableLimits::NONE).is_some_and(|prefixes| {
        prefixes.values().all(|signature| signature.contains(wide) || !signature.contains(narrow))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use podgate_common::{
        Direction,
        Protocol::{Tcp, Udp},
    };

    use crate::{
        compiler::RuleCompiler,
        fixtures::{block, cluster, has, rule},
        model::{Name, ObjectName, Peer, Peers, PortRule, Ports, Rule, Selector},
    };

    fn in_own(pods: Selector) -> Peer {
        Peer::Pods { namespaces: None, pods }
    }

    fn across(namespaces: Selector, pods: Selector) -> Peer {
        Peer::Pods { namespaces: Some(namespaces), pods }
    }

    fn peers(peers: &[Peer]) -> Rule {
        rule(Peers::Listed(peers.to_vec()), Ports::Any)
    }

    fn ports(ports: &[PortRule]) -> Rule {
        rule(Peers::Any, Ports::Listed(ports.to_vec()))
    }

    fn range(first: u16, last: u16) -> PortRule {
        PortRule::Range { protocol: Tcp, first, last }
    }

    #[test]
    fn a_clause_covers_what_it_says_more_widely() {
        let cluster = cluster(Vec::new());
        let compiler_ports = BTreeMap::new();
        let compiler = RuleCompiler::new(&cluster, &compiler_ports);
        let b = &cluster.pods[&ObjectName::new("x", "b")];
        let x = Name::from("x");
        let clause = |rule: &Rule| compiler.clause_for(rule, Some(&x), b, Direction::Ingress);
        let web = has("app", "web");
        let everything = Selector::EVERYTHING;
        let name = has("kubernetes.io/metadata.name", "x");
        let http = || PortRule::Named(Some(Tcp), "http".into());
        for (wide, narrow, expected) in [
            (peers(&[in_own(everything.clone())]), peers(&[in_own(web.clone())]), true),
            (peers(&[in_own(web.clone())]), peers(&[in_own(everything.clone())]), false),
            (peers(&[across(everything.clone(), web.clone())]), peers(&[in_own(web.clone())]), true),
            (peers(&[across(name, web.clone())]), peers(&[in_own(web.clone())]), true),
            (peers(&[in_own(web.clone())]), peers(&[across(everything.clone(), web.clone())]), false),
            (peers(&[across(has("team", "a"), web.clone())]), peers(&[in_own(web.clone())]), false),
            (peers(&[block("10.0.0.0/8", &[])]), peers(&[block("10.1.0.0/16", &[])]), true),
            (peers(&[block("10.0.0.0/8", &["10.1.2.0/24"])]), peers(&[block("10.1.0.0/16", &[])]), false),
            (
                peers(&[block("10.0.0.0/8", &["10.1.2.0/24"])]),
                peers(&[block("10.1.0.0/16", &["10.1.2.0/23"])]),
                true,
            ),
            // Together they are the same: not found.
            (
                peers(&[block("10.0.0.0/9", &[]), block("10.128.0.0/9", &[])]),
                peers(&[block("10.0.0.0/8", &[])]),
                false,
            ),
            (peers(&[block("::/0", &[])]), peers(&[block("10.0.0.0/8", &[])]), false),
            // An address of a pod may change.
            (peers(&[block("0.0.0.0/0", &[])]), peers(&[in_own(web.clone())]), false),
            (rule(Peers::Any, Ports::Any), peers(&[in_own(web.clone())]), true),
            (peers(&[in_own(everything)]), rule(Peers::Any, Ports::Any), false),
            (ports(&[range(80, 90)]), ports(&[range(80, 80), range(85, 90)]), true),
            (ports(&[range(80, 84), range(85, 90)]), ports(&[range(80, 90)]), true),
            (ports(&[range(80, 90)]), ports(&[range(80, 91)]), false),
            (ports(&[PortRule::Protocol(Tcp)]), ports(&[range(1, 2)]), true),
            (ports(&[PortRule::Protocol(Udp)]), ports(&[range(1, 2)]), false),
            (ports(&[PortRule::Protocol(Tcp)]), rule(Peers::Any, Ports::Any), false),
            (ports(&[range(8080, 8080)]), ports(&[http()]), true),
            (ports(&[http()]), ports(&[range(8080, 8081)]), false),
        ] {
            assert_eq!(clause(&wide).covers(&clause(&narrow)), expected, "{wide:?}\n{narrow:?}");
        }
    }
}
