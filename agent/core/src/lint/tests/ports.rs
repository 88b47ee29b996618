//! Ports that no container declares.

use podgate_common::Protocol::{Tcp, Udp};

use super::*;
use crate::{
    fixtures::{block, has, policy, rule},
    model::{Peers, PortRule, Ports},
};

fn name(protocol: Protocol, name: &str) -> PortRule {
    PortRule::Named(Some(protocol), name.into())
}

fn range(first: u16, last: u16) -> PortRule {
    PortRule::Range { protocol: Tcp, first, last }
}

#[test]
fn a_port_name_that_no_pod_in_question_has_is_found() {
    let own = |role: &str| Peers::Listed(vec![in_own(has("role", role))]);
    let blocks = || Peers::Listed(vec![in_own(has("role", "frontend")), block("10.0.0.0/8", &[])]);
    // Of ingress the port is the selected pods', of egress the peers'.
    for (subject, is_ingress, peers, port, is_found) in [
        (has("role", "backend"), true, Peers::Any, name(Tcp, "http"), false),
        (has("role", "backend"), true, Peers::Any, name(Udp, "http"), true),
        (has("role", "backend"), true, Peers::Any, name(Tcp, "https"), true),
        (has("role", "backend"), true, Peers::Any, PortRule::Named(None, "http".into()), false),
        (has("role", "frontend"), true, Peers::Any, name(Tcp, "http"), true),
        (Selector::EVERYTHING, true, Peers::Any, name(Tcp, "http"), false),
        // It selects no pod, which is reported.
        (has("role", "x"), true, Peers::Any, name(Tcp, "http"), false),
        (has("role", "frontend"), false, own("backend"), name(Tcp, "http"), false),
        (has("role", "backend"), false, own("frontend"), name(Tcp, "http"), true),
        (has("role", "backend"), false, Peers::Any, name(Tcp, "http"), false),
        (has("role", "backend"), false, Peers::Any, name(Tcp, "https"), true),
        (has("role", "backend"), false, blocks(), name(Tcp, "http"), false),
    ] {
        let rules =
            Some(vec![rule(peers.clone(), Ports::Listed(vec![PortRule::Protocol(Tcp), port.clone()]))]);
        let (ingress, egress) = if is_ingress { (rules, None) } else { (None, rules) };
        let policy = NetworkPolicy { subject: subject.clone(), ..policy("web", ingress, egress) };
        let found = places_with(vec![policy], LintName::UndeclaredPortName);
        let direction = if is_ingress { "ingress" } else { "egress" };
        let expected = is_found.then(|| format!("NetworkPolicy x/web: spec.{direction}[0].ports[1]"));
        assert_eq!(found, Vec::from_iter(expected), "{direction} {subject:?} {peers:?} {port:?}");
    }
}

#[test]
fn a_port_number_is_noted_only_where_every_pod_declares_others() {
    let declared = |ports: &[(&str, u16)]| {
        let ports = ports
            .iter()
            .map(|(pod, port)| (ObjectName::new("x", *pod), Arc::new(BTreeSet::from([(Tcp, *port)]))));
        ObjectNotes { container_ports: ports.collect(), ..ObjectNotes::default() }
    };
    for (notes, port, is_found) in [
        (declared(&[("a", 1), ("b", 2)]), range(3, 3), true),
        (declared(&[("a", 1), ("b", 2)]), range(2, 2), false),
        (declared(&[("a", 1), ("b", 2)]), range(2, 9), false),
        (declared(&[("a", 1), ("b", 2)]), range(3, 9), true),
        (declared(&[("a", 1), ("b", 2)]), PortRule::Range { protocol: Udp, first: 1, last: 1 }, true),
        // Pod b declares none, or is not known.
        (declared(&[("a", 1)]), range(3, 3), false),
        (ObjectNotes::default(), range(3, 3), false),
    ] {
        let policy = policy("web", Some(vec![crate::fixtures::port(port.clone())]), None);
        let found = places(&cluster(vec![policy]), &notes, LintName::UndeclaredPortNumber);
        let expected = is_found.then(|| "NetworkPolicy x/web: spec.ingress[0].ports[0]".to_owned());
        assert_eq!(found, Vec::from_iter(expected), "{notes:?} {port:?}");
    }
}

#[test]
fn a_port_number_of_egress_is_that_of_the_peers_when_these_are_pods() {
    let notes = ObjectNotes {
        container_ports: [(ObjectName::new("x", "b"), Arc::new(BTreeSet::from([(Tcp, 8080)])))].into(),
        ..ObjectNotes::default()
    };
    let backend = in_own(has("role", "backend"));
    for (peers, number, is_found) in [
        (Peers::Listed(vec![backend.clone()]), 80, true),
        (Peers::Listed(vec![backend.clone()]), 8080, false),
        (Peers::Listed(vec![backend, block("192.0.2.0/24", &[])]), 80, false),
        (Peers::Any, 80, false),
    ] {
        let rules = vec![rule(peers.clone(), Ports::Listed(vec![range(number, number)]))];
        let cluster = cluster(vec![policy("web", None, Some(rules))]);
        let found = places(&cluster, &notes, LintName::UndeclaredPortNumber);
        assert_eq!(found.len(), usize::from(is_found), "{peers:?} {number}");
    }
}
