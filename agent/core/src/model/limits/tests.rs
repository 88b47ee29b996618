//! What fits, and what becomes of the rest.

use podgate_common::Protocol;

use super::*;
use crate::model::{
    CalicoPolicy, CalicoPolicyKind, CalicoPolicyName, CalicoRule, ClusterPolicyKind, ClusterPolicyName,
    ClusterSubject, DEFAULT_TIER, EntityMatch, ObjectName, PolicyScope, Tier, TierOrder,
};

fn policy(name: &str, ingress: Vec<Rule>) -> Arc<NetworkPolicy> {
    Arc::new(NetworkPolicy {
        name: ObjectName::new("x", name),
        subject: Selector::EVERYTHING,
        ingress: Some(ingress),
        egress: None,
        audit: false,
    })
}

fn ports(ranges: impl IntoIterator<Item = (u16, u16)>) -> Ports {
    let range = |(first, last)| PortRule::Range { protocol: Protocol::Tcp, first, last };
    Ports::Listed(ranges.into_iter().map(range).collect())
}

fn block(number: u32) -> Peer {
    let cidr = std::net::Ipv4Addr::from(0x0a00_0000 + 2 * number);
    Peer::Block(IpBlock { cidr: IpNet::from(std::net::IpAddr::from(cidr)), except: BTreeSet::new() })
}

/// The policies with rules that do not fit, how many, and why.
fn misfits(policies: &[Arc<NetworkPolicy>]) -> Vec<(String, usize, Limit)> {
    let limited = limited(policies);
    limited.iter().map(|it| (it.policy.name.name.to_string(), it.rules, it.limit)).collect()
}

#[test]
fn one_list_may_be_long_whatever_its_ranges_and_blocks_are() {
    let nested = ports((1..=6_000).map(|at| (at, 60_000 - at)));
    let blocks = Peers::Listed((0..8_000).map(block).collect());
    let many = ports((1..=8_000).map(|at| (2 * at, 2 * at)));
    let policies = [
        policy("nested", vec![Rule { peers: Peers::Any, ports: nested }]),
        policy("product", vec![Rule { peers: blocks, ports: many }]),
    ];
    assert_eq!(misfits(&policies), []);
}

#[test]
fn rules_beyond_a_limit_match_nothing_and_the_others_are_as_they_were() {
    let rule = |at: u32| Rule { peers: Peers::Listed(vec![block(at)]), ports: Ports::Any };
    let rules = |count: usize| (0..).take(count).map(rule).collect::<Vec<_>>();
    assert_eq!(misfits(&[policy("p", rules(MAX_GROUPS - 1))]), []);
    let policies = [policy("p", rules(MAX_GROUPS + 9))];
    let found = limited(&policies);
    assert_eq!(found.len(), 1);
    let Limited { policy, first, limit, rules } = &found[0];
    assert_eq!((*first, *limit, *rules), ((Direction::Ingress, MAX_GROUPS - 1), Limit::AddressGroups, 10));
    let (before, after) = (policies[0].ingress.as_deref().unwrap(), policy.ingress.as_deref().unwrap());
    assert_eq!(before[..MAX_GROUPS - 1], after[..MAX_GROUPS - 1]);
    assert!(after[MAX_GROUPS - 1..].iter().all(|rule| rule.peers == Peers::Listed(vec![Peer::Nothing])));
}

#[test]
fn each_thing_that_rules_may_list_has_a_limit() {
    let any = |ports| Rule { peers: Peers::Any, ports };
    let of = |peers| Rule { peers: Peers::Listed(peers), ports: Ports::Any };
    let most = |most: usize| u32::try_from(most).unwrap();
    let selector = |at: u32| Peer::Pods {
        namespaces: None,
        pods: Selector::All(vec![crate::model::Requirement::Exists(at.to_string().into())]),
    };
    let single = |at: u16| any(ports([(2 * at + 1, 2 * at + 1)]));
    for (rules, limit) in [
        (vec![of((0..=most(MAX_NETWORKS)).map(block).collect())], Limit::Networks),
        (vec![any(ports((0..=16_384).map(|at| (2 * at + 1, 2 * at + 1))))], Limit::Ranges),
        (vec![of((0..=most(MAX_SELECTORS)).map(selector).collect())], Limit::Selectors),
        (vec![any(Ports::Any); MAX_RULES + 1], Limit::Rules),
        ((0..512).map(single).collect(), Limit::PortGroups),
    ] {
        assert_eq!(misfits(&[policy("p", rules)]), [("p".to_owned(), 1, limit)]);
    }
}

#[test]
fn a_large_policy_never_takes_the_room_of_a_small_one() {
    let rule = |at: u32| Rule { peers: Peers::Listed(vec![block(at)]), ports: Ports::Any };
    let large = policy("a-large", (0..2_000).map(rule).collect());
    let small = policy("z-small", (5_000..5_010).map(rule).collect());
    let found = misfits(&[large, small]);
    assert_eq!(found, [("a-large".to_owned(), 2_000 - 501, Limit::AddressGroups)]);
}

#[test]
fn lists_tell_no_more_groups_apart_than_counted() {
    assert_eq!(groups([].into_iter(), 0, 100), 2);
    assert_eq!(groups([1, 1, 1].into_iter(), 3, 1), 5);
    assert_eq!(groups([5_000, 3].into_iter(), 5_003, 2), 8);
    assert_eq!(groups([5_000, 4_000, 1, 1, 1, 1, 1].into_iter(), 9_005, 3), 4 * 9);
}

#[test]
fn what_the_clusters_policies_have_no_room_for_accepts_nothing_and_denies_at_least_as_much() {
    let rule = |at: u32, action| ClusterRule {
        action,
        matches: Rule { peers: Peers::Listed(vec![block(at)]), ports: Ports::Any },
    };
    let actions = [Action::Accept, Action::Deny, Action::Pass];
    let fitting = u32::try_from(MAX_GROUPS).unwrap() - 1;
    let rules = (0..fitting + 3).map(|at| rule(at, actions[at as usize % 3]));
    let policy = Arc::new(ClusterNetworkPolicy {
        name: ClusterPolicyName { name: "p".into(), kind: ClusterPolicyKind::ClusterNetworkPolicy },
        tier: Tier::Admin,
        priority: 1,
        subject: ClusterSubject { namespaces: Selector::EVERYTHING, pods: Selector::EVERYTHING },
        ingress: Vec::new(),
        egress: rules.collect(),
        audit: false,
    });
    let found = limited_of_cluster([&policy]);
    assert_eq!(found.len(), 1);
    let Limited { policy: limited, first, limit, rules } = &found[0];
    let kept = MAX_GROUPS - 1;
    assert_eq!((*first, *limit, *rules), ((Direction::Egress, kept), Limit::AddressGroups, 3));
    assert_eq!(limited.egress[..kept], policy.egress[..kept]);
    for (before, after) in policy.egress[kept..].iter().zip(&limited.egress[kept..]) {
        let peers = match before.action {
            Action::Accept | Action::Log => Peers::Listed(vec![Peer::Nothing]),
            Action::Deny | Action::Pass => Peers::Any,
        };
        let action = if before.action == Action::Accept { Action::Accept } else { Action::Deny };
        let matches = Rule { peers, ports: Ports::Any };
        assert_eq!(*after, ClusterRule { action, matches });
    }
}

#[test]
fn policies_of_calico_beyond_the_limits_fail_closed() {
    let net =
        |at: u32| -> IpNet { std::net::IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + 2 * at)).into() };
    let rule = |action: Action, at: u32| {
        let peer = EntityMatch { nets: Some([net(at)].into()), ..EntityMatch::default() };
        let ends = CalicoEnds { peer, ..CalicoEnds::default() };
        CalicoRule { action, matches: Rule { peers: Peers::Calico(Box::new(ends)), ports: Ports::Any } }
    };
    let policy = |name: &str, first: u32, rules: usize| {
        let actions = [Action::Accept, Action::Deny, Action::Pass].into_iter().cycle();
        let ingress = actions.zip(first..).take(rules).map(|(action, at)| rule(action, at)).collect();
        let kind = CalicoPolicyKind::GlobalNetworkPolicy;
        Arc::new(CalicoPolicy {
            name: CalicoPolicyName { namespace: None, name: name.into(), kind },
            tier: DEFAULT_TIER.0.into(),
            order: TierOrder::LAST,
            subject: LabelExpression::EVERYTHING,
            ingress: Some(ingress),
            egress: None,
            audit: false,
            removes: false,
            scope: PolicyScope::Local,
        })
    };
    // What two objects are called is different, though both say that they have the same name.
    let policies = [policy("large", 0, MAX_GROUPS + 9), policy("large", 5_000, 9)];
    let objects =
        ["z", "default.z"].map(|name| CalicoPolicyName { name: name.into(), ..policies[0].name.clone() });
    let found = limited_of_calico(objects.iter().zip(&policies));
    let [(object, Limited { policy, first: (Direction::Ingress, first), limit, rules })] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!((&*object.name, *limit, *rules), ("z", Limit::AddressGroups, 19));
    for rule in &policy.ingress.as_ref().unwrap()[*first..] {
        let closed = match rule.action {
            Action::Accept => Peers::Listed(vec![Peer::Nothing]),
            Action::Deny => Peers::Any,
            Action::Pass | Action::Log => panic!("{rule:?}"),
        };
        assert_eq!(rule.matches, Rule { peers: closed, ports: Ports::Any });
    }
}

#[test]
fn each_name_of_a_rule_counts_as_a_rule() {
    let name = |at: usize| Peer::Name(crate::model::DomainPattern::parse(&format!("n{at}.test")).unwrap());
    let names = |from: usize, count: usize| Rule {
        peers: Peers::Listed((from..from + count).map(name).collect()),
        ports: Ports::Any,
    };
    assert_eq!(misfits(&[policy("all", vec![names(0, MAX_RULES)])]), []);
    let policies = [policy("large", vec![names(0, MAX_RULES)]), policy("small", vec![names(0, 1)])];
    assert_eq!(misfits(&policies), [("large".to_owned(), 1, Limit::Rules)]);
}
