//! Calico's objects of one tenant: a large network set, or many small ones, and as many selectors as fit, of
//! the other end and of the pod's own.

use std::{sync::PoisonError, time::Duration};

use podgate::source::ClusterSnapshot;
use serde_json::{Value, json};

use super::{
    ALONE, MOST_MEMORY, MOST_TIME, MOST_TIME_OF_NEIGHBOUR, Node, changing,
    memory::Peak,
    read,
    shapes::{HONEST, HOSTILE, cluster},
};

const RULES_OF_A_POLICY: usize = 100;

/// Networks of one address each.
fn set(at: usize, nets: std::ops::Range<u32>) -> Value {
    let net = |at: u32| std::net::Ipv4Addr::from(0x0a80_0000 + 2 * at).to_string();
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "NetworkSet",
        "metadata": {"name": format!("s{at}"), "namespace": HOSTILE, "labels": {"set": at.to_string()}},
        "spec": {"nets": nets.map(net).collect::<Vec<_>>()},
    })
}

/// Every selector matches all sets but one.
fn policies(rules: usize) -> Vec<Value> {
    let rule = |at: usize| {
        let (others, own) = (format!("set != '{at}'"), format!("set == '{at}'"));
        json!({"action": "Allow", "source": {"selector": others}, "destination": {"notSelector": own}})
    };
    let rules: Vec<Value> = (0..rules).map(rule).collect();
    let policies = rules.chunks(RULES_OF_A_POLICY).enumerate().map(|(at, rules)| {
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
            "metadata": {"name": format!("p{at}"), "namespace": HOSTILE},
            "spec": {"selector": "all()", "types": ["Ingress"], "ingress": rules},
        })
    });
    policies.collect()
}

fn pictures() -> [(&'static str, ClusterSnapshot); 2] {
    let with = |sets: Vec<Value>| {
        let mut objects = cluster(sets);
        objects.extend(policies(500));
        read(&objects)
    };
    let small = (0..512_u32).map(|at| set(at as usize, 32 * at..32 * (at + 1))).collect();
    [("one large set", with(vec![set(0, 0..16_384)])), ("512 sets", with(small))]
}

#[test]
fn a_large_network_set_and_a_thousand_selectors_take_little_memory_and_time() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (what, picture) in pictures() {
        assert_eq!(picture.problems, [], "{what}");
        let peak = Peak::begin();
        let mut node = Node::default();
        let first = node.pass(&picture);
        let pictures = changing(&picture);
        let others: Vec<Duration> = pictures.iter().map(|picture| node.pass(picture)).collect();
        let slowest = others.iter().max().copied().unwrap_or_default();
        let used = peak.end();
        println!("{what}: {} MiB, first pass {first:?}, of a neighbour {slowest:?}", used >> 20);
        assert!(used < MOST_MEMORY, "{what}: {used} bytes");
        assert!(first < MOST_TIME, "{what}: {first:?}");
        assert!(slowest < MOST_TIME_OF_NEIGHBOUR, "{what}: {slowest:?}");
        assert!(node.isolates(HOSTILE) && node.allows(HONEST, 80) && !node.allows(HONEST, 81), "{what}");
    }
}
