//! Many namespaces, each with as much as one may distinguish: far more than the tables of a node have room
//! for.

use serde_json::{Value, json};

use super::shapes::{HOSTILE, nested, peer, pod, policy};

/// Namespaces with a pod each, and with a policy that tells as much apart as one namespace may. No two of
/// them list the same.
pub(crate) fn crowd(namespaces: u32) -> Vec<Value> {
    let of_one = |at: u32| {
        let namespace = format!("{HOSTILE}-{at}");
        let rule = |inner: u32| {
            let own = 250 * at + inner;
            json!({"from": [with_all_but(own)], "ports": [nested(own)]})
        };
        let policy = policy(&namespace, "large", (0..250).map(rule).collect());
        [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
            pod(&namespace, "a", at + 150),
            policy,
        ]
    };
    (0..namespaces).flat_map(of_one).collect()
}

/// Everything but one address.
fn with_all_but(at: u32) -> Value {
    peer("0.0.0.0/0", &[format!("20.{}.{}.{}/32", at >> 16 & 0xff, at >> 8 & 0xff, at & 0xff)])
}
