//! Calico's policies for the server: many in many tiers, of which the last one of the last tier allows the
//! client.

use std::sync::Arc;

use ipnet::IpNet;
use podgate_common::Protocol;
use podgate_core::model::{
    Action, CalicoEnds, CalicoPolicy, CalicoPolicyKind, CalicoPolicyName, CalicoRule, CalicoTier,
    EntityMatch, LabelExpression, LabelTest, Name, Peers, PolicyScope, Rule, TierOrder,
};

use crate::{
    OPEN,
    packets::world::{Host, World, port},
};

/// At most: one policy has one.
pub(crate) const TIERS: usize = 20;

/// None of the policies is like another. A tier hands on what its policies do not match, but for the last
/// one.
pub(crate) fn world(policies: usize) -> World {
    let mut world = World::new();
    let tiers = policies.min(TIERS);
    for tier in 0..tiers {
        let made = CalicoTier { order: place(tier), passes_rest: tier + 1 < tiers };
        world.cluster.calico.v3.tiers.insert(tier_name(tier), Arc::new(made));
    }
    for number in 0..policies {
        let is_last = number + 1 == policies;
        let tier = if is_last { tiers - 1 } else { number % tiers };
        let [_, a, b, c] = u32::try_from(number).expect("few policies").to_be_bytes();
        let block: IpNet = format!("100.{a}.{b}.{c}/32").parse().expect("a network");
        let (peer, to) = match is_last {
            true => (EntityMatch::default(), OPEN),
            false => {
                let nets = Some([block].into());
                (
                    EntityMatch { nets, ..EntityMatch::default() },
                    1_000 + u16::try_from(number % 300).expect("< 300"),
                )
            }
        };
        let peers = Peers::Calico(Box::new(CalicoEnds { peer, ..CalicoEnds::default() }));
        let rule =
            CalicoRule { action: Action::Accept, matches: Rule { peers, ports: port(Protocol::Tcp, to) } };
        let server = world.cluster.pods[&Host::B.name()].labels["app"].clone();
        let name = CalicoPolicyName {
            namespace: None,
            name: format!("policy-{number}").into(),
            kind: CalicoPolicyKind::GlobalNetworkPolicy,
        };
        let policy = CalicoPolicy {
            name: name.clone(),
            tier: tier_name(tier),
            order: place(number),
            subject: LabelExpression::Label("app".into(), LabelTest::In([server].into())),
            ingress: Some(vec![rule]),
            egress: None,
            audit: false,
            removes: false,
            scope: PolicyScope::Local,
        };
        world.cluster.calico.v3.policies.insert(name, Arc::new(policy));
    }
    world
}

fn tier_name(tier: usize) -> Name {
    format!("tier-{tier}").into()
}

fn place(number: usize) -> TierOrder {
    TierOrder::of(f64::from(u32::try_from(number).expect("few of them"))).expect("a number")
}
