//! Pods: IPv4, IPv6 and dual stack, on the host network, finished, without address, with named ports of
//! several containers and of sidecars.

use proptest::{collection::vec, option, prelude::*, sample};
use serde_json::{Value, json};

use super::{LABEL_VALUES, NAMESPACES, NODES, PORT_NAMES, PORT_NUMBERS, PROTOCOLS, labels, optional, set};

pub(super) const KEYS: &[&str] = &["app", "role", "example.com/tier"];

/// A pod that has no name and no address yet: both come from its place in the list.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    namespace: usize,
    stack: Stack,
    status: Status,
    phase: Option<&'static str>,
    node: usize,
    labels: Option<Value>,
    containers: Vec<Value>,
    init_containers: Vec<Value>,
    is_ready: bool,
    is_terminating: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stack {
    V4,
    Dual,
    V6,
    DualV6First,
    HostNetwork,
}

/// Which fields of `status` tell the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Both,
    PodIpsAlone,
    PodIpAlone,
    None,
}

pub(super) fn pod() -> impl Strategy<Value = Pod> {
    let stack = prop_oneof![
        4 => Just(Stack::V4),
        4 => Just(Stack::Dual),
        2 => Just(Stack::V6),
        1 => Just(Stack::DualV6First),
        1 => Just(Stack::HostNetwork),
    ];
    let status = prop_oneof![
        12 => Just(Status::Both),
        2 => Just(Status::PodIpsAlone),
        2 => Just(Status::PodIpAlone),
        1 => Just(Status::None),
    ];
    let phase = prop_oneof![
        10 => Just(Some("Running")),
        2 => Just(None),
        1 => Just(Some("Pending")),
        1 => Just(Some("Unknown")),
        1 => Just(Some("Succeeded")),
        1 => Just(Some("Failed")),
    ];
    (
        (0..NAMESPACES.len(), stack, status, phase, 0..NODES.len()),
        optional(labels(KEYS)),
        vec(container(), 1..=2),
        vec((container(), any::<bool>()).prop_map(init_container), 0..=2),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(
                (namespace, stack, status, phase, node),
                labels,
                containers,
                init_containers,
                is_ready,
                is_terminating,
            )| {
                Pod {
                    namespace,
                    stack,
                    status,
                    phase,
                    node,
                    labels,
                    containers,
                    init_containers,
                    is_ready,
                    is_terminating,
                }
            },
        )
}

/// The same pods, on one node after the other.
pub(super) fn in_turn(mut pods: Vec<Pod>) -> Vec<Pod> {
    pods.iter_mut().enumerate().for_each(|(slot, pod)| pod.node = slot % NODES.len());
    pods
}

/// The objects, in `namespaces` namespaces. A finished pod may hold the address that its neighbour has now.
pub(super) fn place(pods: &[Pod], namespaces: usize) -> Vec<Value> {
    pods.iter()
        .enumerate()
        .map(|(slot, pod)| {
            let is_finished = matches!(pod.phase, Some("Succeeded" | "Failed"));
            pod.object(slot, if is_finished { (slot + 1) % pods.len() } else { slot }, namespaces)
        })
        .collect()
}

impl Pod {
    fn object(&self, slot: usize, address_slot: usize, namespaces: usize) -> Value {
        let (node, node_address) = NODES[self.node];
        let mut metadata = json!({"name": format!("p{slot}"), "resourceVersion": "7"});
        set_namespace(&mut metadata, self.namespace % namespaces, slot);
        set(&mut metadata, "labels", self.labels.clone());
        if self.is_terminating {
            metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let mut spec = json!({"nodeName": node, "containers": self.containers});
        if !self.init_containers.is_empty() {
            spec["initContainers"] = json!(self.init_containers);
        }
        if self.stack == Stack::HostNetwork {
            spec["hostNetwork"] = json!(true);
        }
        let (v4, v6) = (ipv4(address_slot), ipv6(address_slot));
        let addresses = match self.stack {
            Stack::V4 => vec![v4],
            Stack::V6 => vec![v6],
            Stack::Dual => vec![v4, v6],
            Stack::DualV6First => vec![v6, v4],
            Stack::HostNetwork => vec![node_address.into()],
        };
        let is_ready = if self.is_ready { "True" } else { "False" };
        let mut status = json!({"conditions": [{"type": "Ready", "status": is_ready}]});
        set(&mut status, "phase", self.phase.map(Value::from));
        let entries: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
        if matches!(self.status, Status::Both | Status::PodIpsAlone) {
            status["podIPs"] = entries.into();
        }
        if matches!(self.status, Status::Both | Status::PodIpAlone) {
            status["podIP"] = json!(addresses[0]);
        }
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status})
    }
}

/// In `default`, every other object says so by saying nothing.
pub(super) fn set_namespace(metadata: &mut Value, namespace: usize, slot: usize) {
    if NAMESPACES[namespace] != "default" || slot.is_multiple_of(2) {
        metadata["namespace"] = json!(NAMESPACES[namespace]);
    }
}

/// Three pods share a /24 (a /96), six a /16 (a /80), all of them 10.0.0.0/8 (fd00::/16).
pub(super) fn ipv4(slot: usize) -> String {
    format!("10.{}.{}.{}", slot / 6, slot / 3 % 2, slot + 1)
}

pub(super) fn ipv6(slot: usize) -> String {
    format!("fd00:0:0:0:{:x}:{:x}:0:{:x}", slot / 6, slot / 3 % 2, slot + 1)
}

fn container() -> impl Strategy<Value = Value> {
    vec(container_port(), 0..=3).prop_map(|ports| {
        let mut container = json!({"name": "main", "image": "registry.example/app:1"});
        let ports = without_double_names(ports);
        if !ports.is_empty() {
            container["ports"] = ports.into();
        }
        container
    })
}

fn container_port() -> impl Strategy<Value = Value> {
    (
        option::weighted(0.8, sample::select(PORT_NAMES)),
        sample::select(PORT_NUMBERS),
        option::of(sample::select(PROTOCOLS)),
    )
        .prop_map(|(name, number, protocol)| {
            let mut port = json!({"containerPort": number});
            set(&mut port, "name", name.map(Value::from));
            set(&mut port, "protocol", protocol.map(Value::from));
            port
        })
}

/// The API server refuses a name that one container has twice; several containers may share one.
fn without_double_names(ports: Vec<Value>) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for port in ports {
        if port["name"].is_null() || kept.iter().all(|other| other["name"] != port["name"]) {
            kept.push(port);
        }
    }
    kept
}

fn init_container((mut container, is_sidecar): (Value, bool)) -> Value {
    container["name"] = json!("before");
    if is_sidecar {
        container["restartPolicy"] = json!("Always");
    }
    container
}

/// The value of a label, or of a selector for one.
pub(super) fn label_value() -> impl Strategy<Value = &'static str> {
    sample::select(LABEL_VALUES)
}
