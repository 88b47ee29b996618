//! The forms of the matrix, letter by letter, and whom it leaves out.

use podgate_common::Protocol;

use super::*;
use crate::{
    explain::{Question, Verdict, explain},
    fixtures::{block, cluster, from, has, named, policy, port, rule},
    model::{ObjectName, Peer, Peers, PortRule, Ports, Rule},
};

fn ports(list: &str) -> BTreeSet<PortSpec> {
    list.split(',').map(|port| port.parse().unwrap()).collect()
}

#[test]
fn the_json_form_is_that_of_the_contract() {
    let frontend = from(Peer::Pods { namespaces: None, pods: has("role", "frontend") });
    let only_80 = Rule {
        ports: Ports::Listed(vec![PortRule::Range { protocol: Protocol::Tcp, first: 80, last: 80 }]),
        ..frontend
    };
    let mut backend = policy("p", Some(vec![only_80]), None);
    backend.subject = has("role", "backend");
    let matrix = matrix(&cluster(vec![backend]), &ports("TCP/443,TCP/80,TCP/http"));
    let expected = r#"{
        "pods": ["x/a", "x/b", "y/c", "y/v4", "y/v6"],
        "ports": {
            "TCP/80": {"x/a": ".....", "x/b": ".....", "y/c": ".X...", "y/v4": ".X..X", "y/v6": ".X.X."},
            "TCP/443": {"x/a": ".X...", "x/b": ".....", "y/c": ".X...", "y/v4": ".X..X", "y/v6": ".X.X."},
            "TCP/http": {"x/a": "-X---", "x/b": "-.---", "y/c": "-X---", "y/v4": "-X---", "y/v6": "-X---"}
        }
    }"#;
    let without_space: String = expected.split_whitespace().collect();
    assert_eq!(serde_json::to_string(&matrix).unwrap(), without_space);
}

#[test]
fn pods_are_sorted_by_their_printed_name() {
    let mut cluster = cluster(vec![]);
    let mut other = (*cluster.pods[&ObjectName::new("x", "a")]).clone();
    other.name = ObjectName::new("x-y", "a");
    cluster.pods.insert(other.name.clone(), other.into());
    let pods = matrix(&cluster, &ports("TCP/80")).pods;
    assert!(pods.is_sorted(), "{pods:?}");
    assert_eq!(&*pods[0], "x-y/a");
}

#[test]
fn a_cluster_without_pods_has_an_empty_matrix() {
    let matrix = matrix(&Cluster::default(), &ports("TCP/80"));
    assert_eq!(serde_json::to_string(&matrix).unwrap(), r#"{"pods":[],"ports":{"TCP/80":{}}}"#);
}

/// The compiled tables and the model must say the same.
#[test]
fn matrix_and_explain_agree_on_every_pair_and_port() {
    let listed = |ports| rule(Peers::Any, Ports::Listed(ports));
    let range = |first, last| PortRule::Range { protocol: Protocol::Tcp, first, last };
    let everywhere = || Some(crate::model::Selector::EVERYTHING);
    let rules: Vec<Vec<Rule>> = vec![
        vec![],
        vec![rule(Peers::Any, Ports::Any)],
        vec![from(block("10.0.0.0/30", &["10.0.0.1/32"]))],
        vec![from(block("10.0.0.0/30", &["10.0.0.1/32"])), from(block("fd00::/16", &[]))],
        vec![from(block("10.0.0.0/8", &[])), from(block("fd00::/126", &["fd00::2/128"]))],
        vec![from(Peer::Pods { namespaces: everywhere(), pods: has("role", "frontend") })],
        vec![from(Peer::Pods {
            namespaces: Some(has("purpose", "test")),
            pods: crate::model::Selector::EVERYTHING,
        })],
        vec![listed(vec![range(80, 90)]), listed(vec![PortRule::Protocol(Protocol::Udp)])],
        vec![port(PortRule::Named(Some(Protocol::Tcp), "http".into()))],
        vec![port(PortRule::Named(Some(Protocol::Tcp), "many".into()))],
        vec![listed(vec![range(1, 1)])],
        vec![from(Peer::Nothing), port(PortRule::Nothing)],
    ];
    let ports = ports("TCP/1,TCP/2,TCP/80,TCP/8080,UDP/80,SCTP/80,TCP/http,TCP/many,UDP/http");
    let mut cells = 0;
    for ingress in std::iter::once(None).chain(rules.iter().map(Some)) {
        for egress in std::iter::once(None).chain(rules.iter().map(Some)) {
            let mut cluster = cluster(vec![policy("p", ingress.cloned(), egress.cloned())]);
            let c = Arc::make_mut(cluster.pods.get_mut(&ObjectName::new("y", "c")).unwrap());
            c.ports = [named("http", 80)].into();
            let matrix = matrix(&cluster, &ports);
            for (port, rows) in &matrix.ports {
                for (source, row) in rows {
                    for (destination, verdict) in matrix.pods.iter().zip(&row.0) {
                        let question = Question {
                            from: source.parse().unwrap(),
                            to: destination.parse().unwrap(),
                            port: port.clone(),
                        };
                        let expected = match explain(&cluster, &question).map(|answer| answer.verdict) {
                            Ok(Verdict::Allow) => PairVerdict::Allowed,
                            Ok(Verdict::Deny) => PairVerdict::Denied,
                            Err(_) => PairVerdict::NoPort,
                        };
                        assert_eq!(*verdict, expected, "{question:?} {ingress:?} {egress:?}");
                        cells += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cells, 13 * 13 * 9 * 5 * 5);
}
