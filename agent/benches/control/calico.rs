//! The same cluster with Calico's policies: the same peers and ports, in tiers.

use std::sync::Arc;

use podgate_common::Protocol;
use podgate_core::model::{
    Action, CalicoEnds, CalicoPolicy, CalicoPolicyKind, CalicoPolicyName, CalicoRule, CalicoTier, Cluster,
    EntityMatch, LabelExpression, LabelTest, Name, Peers, PolicyScope, PortRule, Ports, Rule, TierOrder,
};

use crate::cluster::{TEAMS, namespace, tcp};

pub(crate) const TIERS: usize = 20;

/// Each tier leaves to the next one what its policies do not match; the last tier denies it for every pod.
pub(crate) fn add_tiers(cluster: &mut Cluster) {
    let denies_rest = CalicoPolicy {
        name: CalicoPolicyName {
            namespace: None,
            name: "deny-rest".into(),
            kind: CalicoPolicyKind::GlobalNetworkPolicy,
        },
        tier: tier_name(TIERS - 1),
        order: TierOrder::LAST,
        subject: LabelExpression::EVERYTHING,
        ingress: Some(Vec::new()),
        egress: Some(Vec::new()),
        audit: false,
        removes: false,
        scope: PolicyScope::Local,
    };
    cluster.calico.v3.policies.insert(denies_rest.name.clone(), Arc::new(denies_rest));
    for tier in 0..TIERS {
        let made = CalicoTier { order: place(tier), passes_rest: tier + 1 < TIERS };
        cluster.calico.v3.tiers.insert(tier_name(tier), Arc::new(made));
    }
}

/// As the NetworkPolicy of these numbers, in one of the tiers.
pub(crate) fn policy(space: usize, number: usize, kind: usize) -> CalicoPolicy {
    let here = |app| EntityMatch {
        selector: Some(LabelExpression::all_of([
            LabelExpression::in_namespace(&namespace(space)),
            equals("app", format!("app-{app}")),
        ])),
        ..EntityMatch::default()
    };
    let dns = LabelExpression::all_of([equals("k8s-app", "kube-dns".to_owned())]);
    let dns = EntityMatch { selector: Some(dns), ..EntityMatch::default() };
    let block = format!("198.51.{}.0/24", number % 100).parse().expect("a network");
    let block = EntityMatch { nets: Some([block].into()), ..EntityMatch::default() };
    let udp = PortRule::Range { protocol: Protocol::Udp, first: 53, last: 53 };
    let ingress = vec![
        allow(here(kind + 1), vec![tcp(8080)]),
        CalicoRule {
            action: Action::Accept,
            matches: Rule { peers: team(space + kind), ports: Ports::Listed(vec![tcp(8080)]) },
        },
    ];
    let egress = vec![
        allow(here(kind + 2), vec![tcp(8080), tcp(443)]),
        allow(block, vec![tcp(8080), tcp(443)]),
        allow(dns, vec![udp]),
    ];
    CalicoPolicy {
        name: CalicoPolicyName {
            namespace: Some(namespace(space)),
            name: format!("policy-{number}").into(),
            kind: CalicoPolicyKind::NetworkPolicy,
        },
        tier: tier_name(number % TIERS),
        order: place(number),
        subject: equals("app", format!("app-{}", kind % 5)),
        ingress: Some(ingress),
        egress: kind.is_multiple_of(2).then_some(egress),
        audit: false,
        removes: false,
        scope: PolicyScope::Local,
    }
}

/// The pods of one app in the namespaces of one team, one of 200 such peers.
pub(crate) fn team(number: usize) -> Peers {
    let selector = LabelExpression::all_of([
        equals("pcns.team", format!("team-{}", number % TEAMS)),
        equals("app", format!("app-{}", number / TEAMS % 5)),
    ]);
    of(EntityMatch { selector: Some(selector), ..EntityMatch::default() })
}

fn allow(peer: EntityMatch, ports: Vec<PortRule>) -> CalicoRule {
    CalicoRule { action: Action::Accept, matches: Rule { peers: of(peer), ports: Ports::Listed(ports) } }
}

fn of(peer: EntityMatch) -> Peers {
    Peers::Calico(Box::new(CalicoEnds { peer, ..CalicoEnds::default() }))
}

fn equals(key: &str, value: String) -> LabelExpression {
    LabelExpression::Label(key.into(), LabelTest::In([value.into()].into()))
}

fn tier_name(tier: usize) -> Name {
    format!("tier-{tier}").into()
}

fn place(number: usize) -> TierOrder {
    TierOrder::of(f64::from(u32::try_from(number).expect("few of them"))).expect("a number")
}
