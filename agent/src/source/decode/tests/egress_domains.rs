//! The annotation with names that a NetworkPolicy lets its pods reach.

use podgate_common::{Direction, Protocol};
use podgate_core::model::{DomainPattern, EGRESS_DOMAINS};

use super::*;

const ISOLATES: &str = "Egress";

fn annotated(annotation: &Value, types: &[&str]) -> (NetworkPolicy, Vec<String>) {
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "x", "annotations": {EGRESS_DOMAINS: annotation}},
        "spec": {"podSelector": {}, "policyTypes": types, "egress": [{"to": [{"podSelector": {}}]}]},
    });
    let (decoded, faults) = Decoder::default().decode_as(Kind::NetworkPolicy, &object);
    let Some(Decoded::Policy(policy)) = decoded else { panic!("{decoded:?}") };
    let line = |fault: FieldError| format!("{}: {}: {}", fault.object, fault.field, fault.message);
    (policy, faults.into_iter().map(line).collect())
}

fn rule(name: &str, ports: Ports) -> Rule {
    Rule { peers: Peers::Listed(vec![Peer::Name(DomainPattern::parse(name).unwrap())]), ports }
}

fn ports(protocol: Protocol, first: u16, last: u16) -> Ports {
    Ports::Listed(vec![PortRule::Range { protocol, first, last }])
}

#[test]
fn entries_of_all_forms_are_rules_behind_those_of_the_spec() {
    let expected = [
        rule("api.example.com", ports(Tcp, 443, 443)),
        rule("*.example.org", ports(Udp, 8_000, 8_100)),
        rule("a.test", Ports::Any),
        rule("b.test", Ports::Listed(vec![PortRule::Protocol(Sctp)])),
    ];
    for text in [
        "API.example.com.:443,*.example.org:8000-8100/UDP, a.test ,b.test/SCTP",
        "- api.example.com:443\n- *.example.org:8000-8100/UDP\n- 'a.test'\n- \"b.test/SCTP\"\n",
        "[\"api.example.com:443\", '*.example.org:8000-8100/UDP', a.test, b.test/SCTP]",
        "api.example.com:443/TCP\n*.example.org:8000-8100/UDP\n\na.test,,b.test/SCTP,",
    ] {
        let (policy, faults) = annotated(&json!(text), &[ISOLATES]);
        assert_eq!(faults, [""; 0], "{text}");
        let egress = policy.egress.as_deref().unwrap();
        assert_eq!(egress[1..], expected, "{text}");
        let from = |index| policy.annotation(Direction::Egress, index);
        assert_eq!([from(0), from(1), from(4)], [None, Some(EGRESS_DOMAINS), Some(EGRESS_DOMAINS)]);
    }
}

#[test]
fn what_is_not_understood_is_reported_with_its_place_and_leaves_the_rest() {
    const OBJECT: &str = "NetworkPolicy x/p: metadata.annotations.podgate.io/egress-domains: ";
    let text =
        "a.test, x y, b.test:0, c.test:9-8, d.test:http, e.test/ICMP, *.*.test, f.test:1-99999, g.test:80";
    let (policy, faults) = annotated(&json!(text), &[ISOLATES]);
    let expected = [
        "[1]: \"x y\" has a label that is not 1 to 63 letters, digits, - or _, matches nothing",
        "[2]: \"b.test:0\" has a port that is not 1 to 65535, matches nothing",
        "[3]: \"c.test:9-8\" has a range of ports that ends before it begins, matches nothing",
        "[4]: \"d.test:http\" has a port that is not 1 to 65535, matches nothing",
        "[5]: \"e.test/ICMP\" has a protocol that is not TCP, UDP or SCTP, matches nothing",
        "[6]: \"*.*.test\" has a * elsewhere than as its first label, matches nothing",
        "[7]: \"f.test:1-99999\" has a port that is not 1 to 65535, matches nothing",
    ];
    assert_eq!(faults, expected.map(|fault| format!("{OBJECT}{fault}")));
    let left = [rule("a.test", Ports::Any), rule("g.test", ports(Tcp, 80, 80))];
    assert_eq!(policy.egress.as_deref().unwrap()[1..], left);

    let many = vec!["a.test"; 27].join(",");
    let (policy, faults) = annotated(&json!(many), &[ISOLATES]);
    assert_eq!(faults, [format!("{OBJECT}has 27 entries; those from [25] on match nothing")]);
    assert_eq!(policy.egress.unwrap().len(), 26);

    let (policy, faults) = annotated(&json!(["a.test"]), &[ISOLATES]);
    assert_eq!(faults, [format!("{OBJECT}is a list, not text")]);
    assert_eq!(policy.egress.unwrap().len(), 1, "it isolates, and has the rule of its spec");
}

#[test]
fn a_policy_that_does_not_isolate_egress_gets_nothing_from_it() {
    let (policy, faults) = annotated(&json!("a.test"), &["Ingress"]);
    assert_eq!(policy.egress, None);
    let [fault] = &faults[..] else { panic!("{faults:?}") };
    assert!(fault.ends_with("has no effect: the policy does not isolate egress (policyTypes)"), "{fault}");
    for empty in [json!(null), json!("")] {
        let (policy, faults) = annotated(&empty, &["Ingress"]);
        assert_eq!((policy.egress, faults.len()), (None, 0));
    }
}
