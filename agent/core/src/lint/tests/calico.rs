//! Policies of Calico's, beside what looks like a mistake and is none.

use super::*;
use crate::model::{
    Action, CalicoEnds, CalicoPolicy, CalicoPolicyKind, CalicoPolicyName, CalicoRule, DEFAULT_TIER,
    EntityMatch, LabelExpression, LabelTest, Name, NetworkSet, Peers, PolicyScope, PortRule, Ports, Rule,
    TierOrder,
};

fn label(key: &str, value: &str) -> LabelExpression {
    LabelExpression::Label(key.into(), LabelTest::In([value.into()].into()))
}

fn rule(action: Action, selector: Option<LabelExpression>, ports: Ports) -> CalicoRule {
    let peer = EntityMatch { selector, ..EntityMatch::default() };
    let peers = Peers::Calico(Box::new(CalicoEnds { peer, ..CalicoEnds::default() }));
    CalicoRule { action, matches: Rule { peers, ports } }
}

fn global(name: &str, order: f64, subject: LabelExpression, ingress: Vec<CalicoRule>) -> CalicoPolicy {
    CalicoPolicy {
        name: CalicoPolicyName {
            namespace: None,
            name: name.into(),
            kind: CalicoPolicyKind::GlobalNetworkPolicy,
        },
        tier: DEFAULT_TIER.0.into(),
        order: TierOrder::of(order).expect("a number"),
        subject,
        ingress: Some(ingress),
        egress: None,
        audit: false,
        removes: false,
        scope: PolicyScope::Local,
    }
}

fn with(policies: Vec<CalicoPolicy>) -> Cluster {
    let mut cluster = cluster(Vec::new());
    for policy in policies {
        cluster.calico.v3.policies.insert(policy.name.clone(), Arc::new(policy));
    }
    cluster
}

fn found(cluster: &Cluster, name: LintName) -> Vec<String> {
    places(cluster, &ObjectNotes::default(), name)
}

#[test]
fn a_policy_that_selects_no_pod_is_found_with_what_it_misspells() {
    for (subject, is_empty, is_misspelt) in [
        (label("role", "backend"), false, false),
        (label("role", "backned"), true, true),
        (label("rolle", "backend"), true, true),
        (label("role", "nothing"), true, false),
        (label("pcns.purpose", "test"), false, false),
        (label("pcns.purpose", "tset"), true, true),
        (LabelExpression::Not(Box::new(label("role", "backned"))), false, false),
        (LabelExpression::Any(vec![label("role", "backned"), label("role", "nothing")]), true, false),
        // Reported when it was read, or on purpose.
        (LabelExpression::NOTHING, false, false),
    ] {
        let cluster = with(vec![global("g", 1.0, subject.clone(), Vec::new())]);
        let expected = |is_found: bool| {
            is_found
                .then(|| "GlobalNetworkPolicy g: spec.selector".to_owned())
                .into_iter()
                .collect::<Vec<_>>()
        };
        assert_eq!(found(&cluster, LintName::PolicySelectsNoPod), expected(is_empty), "{subject}");
        assert_eq!(found(&cluster, LintName::MisspeltLabel), expected(is_misspelt), "{subject}");
    }
}

#[test]
fn a_peer_may_be_a_network_set() {
    let policy = |peer: &str| {
        let rule = rule(Action::Accept, Some(label("kind", peer)), Ports::Any);
        global("g", 1.0, LabelExpression::EVERYTHING, vec![rule])
    };
    let field = "GlobalNetworkPolicy g: spec.ingress[0].source".to_owned();
    assert_eq!(found(&with(vec![policy("office")]), LintName::PeerMatchesNoPod), [field]);
    let mut cluster = with(vec![policy("office")]);
    let labels = Arc::new([("kind".into(), "office".into())].into());
    let set = NetworkSet { namespace: None, labels, nets: ["192.0.2.0/24".parse().unwrap()].into() };
    cluster.calico.v3.network_sets.insert((None, Name::from("office")), Arc::new(set));
    assert!(found(&cluster, LintName::PeerMatchesNoPod).is_empty());
}

#[test]
fn names_of_ports_are_looked_up_on_the_selected_pods() {
    let port = |name: &str| Ports::Listed(vec![PortRule::Named(None, name.into())]);
    for (name, is_found) in [("http", false), ("htp", true)] {
        let rules = vec![rule(Action::Accept, None, port(name))];
        let cluster = with(vec![global("g", 1.0, label("role", "backend"), rules)]);
        let found = found(&cluster, LintName::UndeclaredPortName);
        assert_eq!(!found.is_empty(), is_found, "{name}: {found:?}");
        assert!(found.iter().all(|it| it.ends_with("spec.ingress[0].destination.ports[0]")), "{found:?}");
    }
}

#[test]
fn a_rule_after_one_that_decides_the_same_is_shadowed() {
    let tcp = |first, last| Ports::Listed(vec![PortRule::Range { protocol: Protocol::Tcp, first, last }]);
    let backend = || label("role", "backend");
    let narrow = || rule(Action::Accept, Some(label("role", "frontend")), tcp(80, 80));
    let shadowed = |first: CalicoRule, subject: LabelExpression, second_at: f64| {
        let first = global("first", 1.0, subject, vec![first]);
        let second = global("second", second_at, backend(), vec![narrow()]);
        found(&with(vec![first, second]), LintName::ShadowedRule)
    };
    let second = ["GlobalNetworkPolicy second: spec.ingress[0]"];
    let all = || rule(Action::Deny, None, Ports::Any);
    assert_eq!(shadowed(all(), backend(), 2.0), second);
    assert_eq!(shadowed(all(), LabelExpression::EVERYTHING, 2.0), second);
    assert_eq!(shadowed(rule(Action::Pass, None, tcp(1, 90)), backend(), 2.0), second);
    // It decides nothing, is for other pods, comes later, or says less.
    assert!(shadowed(rule(Action::Log, None, Ports::Any), backend(), 2.0).is_empty());
    assert!(shadowed(all(), label("role", "frontend"), 2.0).is_empty());
    assert!(shadowed(all(), backend(), 0.5).is_empty());
    assert!(shadowed(rule(Action::Deny, None, tcp(81, 90)), backend(), 2.0).is_empty());
    // It says what it says of IPv4 alone.
    let mut of_v4 = all();
    let ends = CalicoEnds { family: Some(crate::model::IpFamily::V4), ..CalicoEnds::default() };
    of_v4.matches.peers = Peers::Calico(Box::new(ends));
    assert!(shadowed(of_v4, backend(), 2.0).is_empty());
}

#[test]
fn dns_that_is_forgotten_is_found() {
    let egress = |action, ports: &[(Protocol, u16)]| {
        let ports = ports.iter().map(|(protocol, port)| PortRule::Range {
            protocol: *protocol,
            first: *port,
            last: *port,
        });
        let rule = rule(action, None, Ports::Listed(ports.collect()));
        let mut policy = global("g", 1.0, label("role", "backend"), Vec::new());
        policy.ingress = None;
        policy.egress = Some(vec![rule]);
        found(&with(vec![policy]), LintName::DnsUnreachable)
    };
    let to = [(Protocol::Tcp, 443), (Protocol::Udp, 53)];
    assert_eq!(egress(Action::Accept, &to[..1]), ["GlobalNetworkPolicy g: spec.egress"]);
    assert!(egress(Action::Accept, &to).is_empty());
    // Sealed on purpose.
    assert!(egress(Action::Deny, &to[..1]).is_empty());
}
