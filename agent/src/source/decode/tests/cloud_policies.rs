//! Policies of AWS's and GKE's with names: what they mean, and what is not carried.

use podgate_common::Protocol;
use podgate_core::model::{Action, Cluster, ClusterPolicyKind, DomainPattern, NetworkPolicyKind, Tier};

use super::*;

const APPLICATION: &str = "ApplicationNetworkPolicy";
const FQDN: &str = "FQDNNetworkPolicy";

/// A policy `shop/web` of a kind, and its faults as `field: message`.
fn policy_of(kind: &str, spec: &Value) -> (NetworkPolicy, Vec<String>) {
    let version = if kind == FQDN { "networking.gke.io/v1alpha1" } else { "networking.k8s.aws/v1alpha1" };
    let (objects, faults) = decoded(&json!({
        "apiVersion": version, "kind": kind, "metadata": {"name": "web", "namespace": "shop"}, "spec": spec,
    }));
    let [Decoded::Policy(policy)] = &objects[..] else { panic!("{objects:?}") };
    let own = format!("{kind} shop/web: ");
    let field = |fault: &String| fault.strip_prefix(&own).expect("it names kind and object").to_owned();
    (policy.clone(), faults.iter().map(field).collect())
}

fn name(text: &str) -> Peer {
    Peer::Name(DomainPattern::parse(text).unwrap())
}

fn one_label(text: &str) -> Peer {
    Peer::Name(DomainPattern::parse_one_label(text).unwrap())
}

fn port(protocol: Protocol, number: u16) -> PortRule {
    PortRule::Range { protocol, first: number, last: number }
}

#[test]
fn an_application_network_policy_is_a_network_policy_whose_peers_may_be_names() {
    let block = json!({"ipBlock": {"cidr": "10.0.0.0/8"}});
    let (policy, faults) = policy_of(
        APPLICATION,
        &json!({
            "podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress", "Ingress"],
            "egress": [{"to": [block, {"domainNames": ["*.Example.com", "a.test."]}], "ports": [{"port": 443}]}],
            "ingress": [{"from": [{"podSelector": {}}]}],
        }),
    );
    assert_eq!(faults, [""; 0]);
    assert_eq!(policy.name.to_string(), "shop/ApplicationNetworkPolicy/web");
    let (kind, object) = NetworkPolicyKind::of(&policy.name);
    assert_eq!((kind, object.to_string()), (NetworkPolicyKind::ApplicationNetworkPolicy, "shop/web".into()));
    let egress = policy.egress.unwrap();
    let Peers::Listed(peers) = &egress[0].peers else { panic!("{egress:?}") };
    assert!(matches!(peers[0], Peer::Block(_)));
    assert_eq!(peers[1..], [name("*.example.com"), name("a.test")]);
    assert_eq!(egress[0].ports, Ports::Listed(vec![port(Tcp, 443)]));
    assert_eq!(policy.ingress.unwrap().len(), 1);
}

#[test]
fn of_a_list_of_names_what_is_not_understood_matches_nothing_and_is_named() {
    let rule = |to: &Value| {
        let (policy, faults) = policy_of(APPLICATION, &json!({"podSelector": {}, "egress": [{"to": [to]}]}));
        (policy.egress.unwrap().remove(0).peers, faults)
    };
    let (peers, faults) = rule(&json!({"domainNames": ["a.test", "a.*.test"]}));
    assert_eq!(peers, Peers::Listed(vec![name("a.test"), Peer::Nothing]));
    let star = "spec.egress[0].to[0].domainNames[1]: \"a.*.test\" has a * elsewhere than as its first label, \
                matches nothing";
    assert_eq!(faults, [star]);
    for (to, fault) in [
        (json!({"domainNames": []}), "spec.egress[0].to[0].domainNames: must not be empty"),
        (
            json!({"domainNames": ["a.test"], "podSelector": {}}),
            "spec.egress[0].to[0].podSelector: is not a known field",
        ),
    ] {
        assert_eq!(rule(&to), (Peers::Listed(vec![Peer::Nothing]), vec![fault.to_owned()]));
    }
    // Peers of ingress are as in a NetworkPolicy.
    let from = json!({"podSelector": {}, "ingress": [{"from": [{"domainNames": ["a.test"]}]}]});
    let (policy, faults) = policy_of(APPLICATION, &from);
    assert_eq!(policy.ingress.unwrap()[0].peers, Peers::Listed(vec![Peer::Nothing]));
    assert!(faults[0].starts_with("spec.ingress[0].from[0].domainNames: is not a known field"), "{faults:?}");
}

#[test]
fn an_fqdn_network_policy_isolates_egress_and_allows_names_of_one_more_label() {
    let (policy, faults) = policy_of(
        FQDN,
        &json!({
            "podSelector": {"matchLabels": {"app": "web"}},
            "egress": [
                {"matches": [{"name": "API.example.com"}, {"pattern": "*.example.org"}],
                 "ports": [{"protocol": "TCP", "port": 443}, {"protocol": "UDP"}, {"port": 53}]},
                {"matches": [{"name": "a.test"}]},
                {"matches": [{"name": "b.test"}], "ports": [{"protocol": "ALL"}]},
            ],
        }),
    );
    assert_eq!((faults, policy.ingress), (vec![], None));
    let listed = [port(Tcp, 443), PortRule::Protocol(Udp), port(Tcp, 53), port(Udp, 53), port(Sctp, 53)];
    let rule = |peers, ports| Rule { peers: Peers::Listed(peers), ports };
    let expected = [
        rule(vec![name("api.example.com"), one_label("*.example.org")], Ports::Listed(listed.into())),
        rule(vec![name("a.test")], Ports::Any),
        rule(vec![name("b.test")], Ports::Any),
    ];
    assert_eq!(policy.egress.unwrap(), expected);
}

#[test]
fn what_an_fqdn_network_policy_says_beyond_that_allows_nothing_and_is_named() {
    let matching = |entry: &Value| {
        let spec = json!({"podSelector": {}, "egress": [{"matches": [entry, {"name": "a.test"}]}]});
        let (policy, faults) = policy_of(FQDN, &spec);
        assert_eq!(policy.egress.unwrap()[0].peers, Peers::Listed(vec![Peer::Nothing, name("a.test")]));
        faults.join("; ")
    };
    const ENTRY: &str = "spec.egress[0].matches[0]";
    let star = "has a * elsewhere than as its first label, matches nothing";
    for pattern in ["*.*.example.com", "*example.com", "sub*.example.com", "a.*.com"] {
        let fault = matching(&json!({"pattern": pattern}));
        assert_eq!(fault, format!("{ENTRY}.pattern: \"{pattern}\" {star}"));
    }
    let fault = matching(&json!({"name": "*.example.com"}));
    assert_eq!(fault, format!("{ENTRY}.name: \"*.example.com\" is no name, matches nothing"));
    let fault = matching(&json!({"name": "b.test", "pattern": "*.test"}));
    assert_eq!(fault, format!("{ENTRY}: needs either name or pattern"));
    let fault = matching(&json!({"name": "b.test", "except": "c.test"}));
    assert_eq!(fault, format!("{ENTRY}.except: is not a known field"));
    for (ports, fault) in [
        (json!([{"protocol": "SCTP"}]), "[0].protocol: \"SCTP\" is not TCP, UDP or ALL"),
        (json!([{"port": 70_000}]), "[0].port: 70000 is not a port number (1 to 65535)"),
        (json!([{"port": 80, "endPort": 90}]), "[0].endPort: is not a known field"),
    ] {
        let rule = json!({"matches": [{"name": "a.test"}], "ports": ports});
        let (policy, faults) = policy_of(FQDN, &json!({"podSelector": {}, "egress": [rule]}));
        assert_eq!(policy.egress.unwrap()[0].ports, Ports::Listed(vec![PortRule::Nothing]));
        assert_eq!(faults, [format!("spec.egress[0].ports{fault}")]);
    }
    let rule = json!({"matches": [{"name": "a.test"}], "port": 443});
    let (policy, faults) = policy_of(FQDN, &json!({"podSelector": {}, "egress": [rule]}));
    assert_eq!(policy.egress.unwrap()[0].peers, Peers::Listed(vec![Peer::Nothing]));
    assert_eq!(faults, ["spec.egress[0].port: is not a known field"]);
    let (policy, faults) = policy_of(FQDN, &json!({"podSelector": {}, "egress": [{"matches": []}]}));
    assert_eq!(policy.egress.unwrap()[0].peers, Peers::Listed(vec![Peer::Nothing]));
    assert_eq!(faults, ["spec.egress[0].matches: must not be empty"]);
}

#[test]
fn a_cluster_network_policy_of_aws_stands_beside_that_of_kubernetes() {
    let rule = json!({
        "action": "Accept", "to": [{"domainNames": ["*.example.com"]}],
        "ports": [{"portNumber": {"protocol": "TCP", "port": 443}}],
    });
    let pass = json!({"action": "Pass", "to": [{"domainNames": ["a.test"]}]});
    let (objects, faults) = decoded(&json!({
        "apiVersion": "networking.k8s.aws/v1alpha1", "kind": "ClusterNetworkPolicy", "metadata": {"name": "base"},
        "spec": {"tier": "Admin", "priority": 3, "subject": {"namespaces": {}}, "egress": [rule, pass]},
    }));
    let [Decoded::ClusterPolicy(policy)] = &objects[..] else { panic!("{objects:?}") };
    assert_eq!(policy.name.kind, ClusterPolicyKind::AwsClusterNetworkPolicy);
    assert_eq!(policy.name.to_string(), "AWS ClusterNetworkPolicy base");
    assert_eq!((policy.tier, policy.priority), (Tier::Admin, 3));
    let expected = Rule {
        peers: Peers::Listed(vec![name("*.example.com")]),
        ports: Ports::Listed(vec![port(Tcp, 443)]),
    };
    assert_eq!((policy.egress[0].action, &policy.egress[0].matches), (Action::Accept, &expected));
    // To pass on by name is not carried: it fails closed.
    assert_eq!((policy.egress[1].action, &policy.egress[1].matches.peers), (Action::Deny, &Peers::Any));
    let object = "AWS ClusterNetworkPolicy base";
    assert_eq!(
        faults,
        [format!("{object}: spec.egress[1].to[0].domainNames: is only for rules that accept")]
    );
}

#[test]
fn kinds_of_one_name_are_apart_and_each_is_taken_away_alone() {
    let mut cluster = Cluster::default();
    let of_kind = |version: &str, kind: &str, spec: Value| json!({"apiVersion": version, "kind": kind, "metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
    let policies = [
        of_kind("networking.k8s.io/v1", "NetworkPolicy", json!({})),
        of_kind("networking.k8s.aws/v1alpha1", APPLICATION, json!({"podSelector": {}})),
        of_kind("networking.gke.io/v1alpha1", FQDN, json!({"podSelector": {}})),
    ];
    let mut ids = Vec::new();
    for policy in &policies {
        let (objects, faults) = decoded(policy);
        assert_eq!(faults, [""; 0]);
        for object in objects {
            ids.push(object.id());
            assert!(object.put(&mut cluster));
        }
    }
    assert_eq!(cluster.policies.len(), 3);
    for (index, id) in ids.into_iter().enumerate() {
        let kind = id.kind();
        assert!(kind.is_in(&cluster), "{kind}");
        assert!(id.remove(&mut cluster) && !kind.is_in(&cluster), "{kind}");
        assert_eq!(cluster.policies.len(), 2 - index);
    }
}

#[test]
fn other_versions_of_their_groups_are_faults_and_other_groups_are_not() {
    let of = |version: &str, kind: &str| {
        let object =
            json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a", "namespace": "x"}});
        decoded(&object)
    };
    // The controller of that version has rules of another form.
    let (objects, faults) = of("networking.gke.io/v1alpha3", FQDN);
    assert_eq!(objects, []);
    let known = "only networking.gke.io/v1alpha1";
    assert!(faults.len() == 1 && faults[0].contains(known), "{faults:?}");
    for (version, kind) in [("netsec.test/v1alpha1", FQDN), ("networking.gke.io/v1", "Service")] {
        assert_eq!(of(version, kind), (vec![], vec![]), "{version} {kind}");
    }
}
