//! Large objects, each of a shape that some way of compiling is quadratic in, and the small ones beside them.

use serde_json::{Value, json};

pub(crate) const HOSTILE: &str = "hostile";
pub(crate) const HONEST: &str = "honest";

/// Of the rules of a policy.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// 6,000 ranges of ports, each in the one before.
    NestedRanges,
    /// 1,800 blocks and 1,800 ports in one rule.
    Product,
    /// 20 blocks with 2,500 exceptions each.
    Excepts,
    /// The same, each in a rule of its own with a port of its own.
    ExceptsInRules,
    /// 80 rules of 80 blocks and 80 ports.
    RulesOfBlocksAndPorts,
    /// 1,500 rules with a range of ports that lies in the one before.
    RuleForEachPort,
    /// 1,500 rules with a block that lies in the one before, or beside it.
    RuleForEachBlock,
    /// 1,000 selectors of pods in any namespace.
    Selectors,
}

impl Shape {
    pub(crate) const ALL: [Self; 8] = [
        Self::NestedRanges,
        Self::Product,
        Self::Excepts,
        Self::ExceptsInRules,
        Self::RulesOfBlocksAndPorts,
        Self::RuleForEachPort,
        Self::RuleForEachBlock,
        Self::Selectors,
    ];

    pub(crate) fn policy(self, name: &str, factor: u32) -> Value {
        policy(HOSTILE, name, self.rules(factor))
    }

    fn rules(self, factor: u32) -> Vec<Value> {
        match self {
            Self::NestedRanges => vec![json!({"ports": (0..6_000 * factor).map(nested).collect::<Vec<_>>()})],
            Self::Product => {
                let blocks: Vec<Value> = (0..1_800 * factor).map(|at| block(at, &[])).collect();
                let ports: Vec<Value> = (0..1_800 * factor).map(|at| port(2 * at + 1)).collect();
                vec![json!({"from": blocks, "ports": ports})]
            }
            Self::Excepts => {
                let blocks: Vec<Value> = (0..20).map(|at| with_excepts(at, factor)).collect();
                vec![json!({"from": blocks, "ports": [port(80)]})]
            }
            Self::ExceptsInRules => {
                let rule = |at| json!({"from": [with_excepts(at, factor)], "ports": [port(80 + at)]});
                (0..20).map(rule).collect()
            }
            Self::RulesOfBlocksAndPorts => {
                let rule = |at: u32| {
                    let blocks: Vec<Value> =
                        (0..80).map(|block| peer(&format!("172.16.{block}.0/24"), &[])).collect();
                    let ports = (0..80).map(|number| port(1_000 + 2 * number));
                    let ports: Vec<Value> = ports.chain([port(10_000 + at)]).collect();
                    json!({"from": blocks, "ports": ports})
                };
                (0..80 * factor).map(rule).collect()
            }
            Self::RuleForEachPort => (0..1_500 * factor)
                .map(|at| json!({"from": [block(at, &[])], "ports": [nested(at)]}))
                .collect(),
            Self::RuleForEachBlock => {
                let rule = |at| json!({"from": [block(at / 2, &[]), block(0, &[at + 1])], "ports": [port(at % 9 + 1)]});
                (0..1_500 * factor).map(rule).collect()
            }
            Self::Selectors => {
                let peer = |at: u32| {
                    json!({
                        "namespaceSelector": {}, "podSelector": {"matchLabels": {"app": format!("app-{at}")}},
                    })
                };
                vec![json!({"from": (0..1_000 * factor).map(peer).collect::<Vec<_>>()})]
            }
        }
    }
}

/// One pod and policy of each tenant, pods of others, and these policies.
pub(crate) fn cluster(policies: Vec<Value>) -> Vec<Value> {
    let mut objects = policies;
    objects.push(policy(HOSTILE, "isolate", Vec::new()));
    objects.push(honest_policy("open", 80));
    for namespace in [HOSTILE, HONEST] {
        objects.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}));
        for (at, name) in (0..).zip(["a", "b", "c", "d", "e"]) {
            objects.push(pod(namespace, name, at + if namespace == HONEST { 1 } else { 101 }));
        }
    }
    objects
}

pub(crate) fn pod(namespace: &str, name: &str, last: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": format!("app-{last}")}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": format!("10.244.0.{last}")}]},
    })
}

pub(crate) fn honest_policy(name: &str, number: u16) -> Value {
    policy(HONEST, name, vec![json!({"ports": [port(number.into())]})])
}

pub(crate) fn policy(namespace: &str, name: &str, rules: Vec<Value>) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": rules},
    })
}

fn port(number: u32) -> Value {
    json!({"protocol": "TCP", "port": (number - 1) % 65_535 + 1})
}

pub(crate) fn nested(at: u32) -> Value {
    let at = at % 30_000;
    json!({"protocol": "TCP", "port": 1 + at, "endPort": 65_535 - at})
}

/// Blocks that do not touch.
fn block(at: u32, excepts: &[u32]) -> Value {
    let excepts: Vec<String> = excepts
        .iter()
        .map(|at| format!("10.{}.{}.{}/32", at >> 16 & 0xff, at >> 8 & 0xff, at & 0xff))
        .collect();
    if excepts.is_empty() {
        let at = 2 * at;
        return peer(&format!("172.{}.{}.{}/32", at >> 16 & 0xff, at >> 8 & 0xff, at & 0xff), &[]);
    }
    peer("10.0.0.0/8", &excepts)
}

fn with_excepts(at: u32, factor: u32) -> Value {
    let net = |inner: u32| {
        let inner = 2 * inner;
        format!("{}.{}.{}.{}/32", 20 + at, inner >> 16 & 0xff, inner >> 8 & 0xff, inner & 0xff)
    };
    let excepts: Vec<String> = (0..2_500 * factor).map(net).collect();
    peer(&format!("{}.0.0.0/8", 20 + at), &excepts)
}

pub(crate) fn peer(cidr: &str, excepts: &[String]) -> Value {
    json!({"ipBlock": {"cidr": cidr, "except": excepts}})
}
