//! EndpointSlices, as the endpoint controller writes them from the pods, or by hand for a service without
//! selector.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    super::{NODES, set, zone},
    Backing, Endpoint, Families, Family, Form, Hints, Port, Service, Target,
};

impl Service {
    pub(super) fn slices(&self, service: &Value, pods: &[Value]) -> Vec<Value> {
        let families = match self.families {
            Families::V4 => &[Family::V4][..],
            Families::V6 => &[Family::V6],
            Families::Dual | Families::DualV6First => &[Family::V4, Family::V6],
        };
        let mut slices = match &self.backing {
            // There is nothing to select for a name.
            Backing::Selector if self.form == Form::ExternalName => Vec::new(),
            Backing::Selector => {
                families.iter().flat_map(|family| self.controlled(service, *family, pods)).collect()
            }
            Backing::ByHand(endpoints) => self.by_hand(service, endpoints),
        };
        for slice in &mut slices {
            let endpoints = slice["endpoints"].as_array_mut().into_iter().flatten();
            for (index, endpoint) in endpoints.enumerate() {
                set(endpoint, "hints", self.outside.hints.of(index));
            }
        }
        slices
    }

    /// One slice for each set of port numbers that the pods give, at least one.
    fn controlled(&self, service: &Value, family: Family, pods: &[Value]) -> Vec<Value> {
        let mut by_ports: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| is_selected(service, pod)) {
            let Some(address) = address(pod, family) else { continue };
            let ports: Vec<Value> =
                (0..).zip(&self.ports).filter_map(|(index, port)| self.target(index, port, pod)).collect();
            let ports = Value::from(ports);
            let is_serving = pod["status"]["conditions"][0]["status"] == "True";
            let is_terminating = !pod["metadata"]["deletionTimestamp"].is_null();
            let is_ready =
                service["spec"]["publishNotReadyAddresses"] == true || is_serving && !is_terminating;
            let endpoint = json!({
                "addresses": [address],
                "conditions": {"ready": is_ready, "serving": is_serving, "terminating": is_terminating},
                "nodeName": pod["spec"]["nodeName"],
                "targetRef": {"kind": "Pod", "name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]},
            });
            by_ports.entry(ports.to_string()).or_insert((ports, Vec::new())).1.push(endpoint);
        }
        if by_ports.is_empty() {
            by_ports.insert(String::new(), (Value::Null, Vec::new()));
        }
        let slices = by_ports.into_values().enumerate().map(|(index, (ports, endpoints))| {
            let endpoints = if endpoints.is_empty() { Value::Null } else { endpoints.into() };
            let mut slice =
                slice(service, &format!("{}-{index}", family.name().to_lowercase()), family.name());
            slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] =
                json!("endpointslice-controller.k8s.io");
            if self.form == Form::Headless {
                slice["metadata"]["labels"]["service.kubernetes.io/headless"] = json!("");
            }
            (slice["ports"], slice["endpoints"]) = (ports, endpoints);
            slice
        });
        slices.collect()
    }

    /// The port of a slice for a pod; `None` when the pod has no port of that name.
    fn target(&self, index: usize, port: &Port, pod: &Value) -> Option<Value> {
        let protocol = port.protocol.unwrap_or("TCP");
        let number = match port.target {
            Target::Same => port.number.into(),
            Target::Number(number) => number.into(),
            Target::Name(name) => container_port(pod, name, protocol)?,
        };
        Some(json!({"name": self.port_name(index).unwrap_or_default(), "protocol": protocol, "port": number}))
    }

    fn by_hand(&self, service: &Value, endpoints: &[Endpoint]) -> Vec<Value> {
        let ports: Vec<Value> = (0..)
            .zip(&self.ports)
            .map(|(index, port)| {
                let number = match port.target {
                    Target::Number(number) => number,
                    Target::Same | Target::Name(_) => port.number,
                };
                let mut object = json!({"port": number});
                set(&mut object, "name", self.port_name(index).map(Value::from));
                set(&mut object, "protocol", port.protocol.map(Value::from));
                object
            })
            .collect();
        let of_family = |family: Family| {
            let those =
                endpoints.iter().filter(|endpoint| endpoint.address.contains(':') == (family == Family::V6));
            let those: Vec<Value> = those.map(Endpoint::object).collect();
            let mut slice = slice(service, &format!("hand-{}", family.name().to_lowercase()), family.name());
            (slice["ports"], slice["endpoints"]) = (ports.clone().into(), those.into());
            slice
        };
        let mut named = slice(service, "hand-name", "FQDN");
        (named["ports"], named["endpoints"]) =
            (ports.clone().into(), json!([{"addresses": ["elsewhere.example"]}]));
        vec![of_family(Family::V4), of_family(Family::V6), named]
    }
}

impl Hints {
    /// Of the endpoint at this place of its slice.
    fn of(self, index: usize) -> Option<Value> {
        let node = NODES[index % NODES.len()].0;
        match self {
            Self::None => None,
            Self::SomeZones if index % 2 == 1 => None,
            Self::Zones | Self::SomeZones => Some(json!({"forZones": [{"name": zone(node)}]})),
            Self::Nodes => Some(json!({"forNodes": [{"name": node}]})),
        }
    }
}

impl Endpoint {
    fn object(&self) -> Value {
        let mut object = json!({"addresses": [self.address]});
        set(&mut object, "conditions", self.conditions.clone());
        let node = NODES.iter().find(|(_, address)| *address == self.address);
        set(&mut object, "nodeName", node.map(|(name, _)| json!(name)));
        object
    }
}

/// A finished pod is no endpoint; one on the host network is.
fn is_selected(service: &Value, pod: &Value) -> bool {
    let namespace = |object: &Value| object["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
    let wanted = service["spec"]["selector"].as_object().into_iter().flatten();
    !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
        && namespace(service) == namespace(pod)
        && wanted.into_iter().all(|(key, value)| pod["metadata"]["labels"][key] == *value)
}

/// The first of the family.
fn address(pod: &Value, family: Family) -> Option<&str> {
    let several = pod["status"]["podIPs"].as_array().into_iter().flatten().map(|entry| &entry["ip"]);
    let all = several.chain([&pod["status"]["podIP"]]).filter_map(Value::as_str);
    all.into_iter().find(|address| address.contains(':') == (family == Family::V6))
}

/// The first of that name, in containers before sidecars.
fn container_port(pod: &Value, name: &str, protocol: &str) -> Option<u64> {
    let list = |field: &str| pod["spec"][field].as_array().cloned().unwrap_or_default();
    let sidecars =
        list("initContainers").into_iter().filter(|container| container["restartPolicy"] == "Always");
    let containers = list("containers").into_iter().chain(sidecars);
    let mut ports =
        containers.flat_map(|container| container["ports"].as_array().cloned().unwrap_or_default());
    let port =
        ports.find(|port| port["name"] == name && port["protocol"].as_str().unwrap_or("TCP") == protocol);
    port.and_then(|port| port["containerPort"].as_u64())
}

/// Without ports and endpoints.
fn slice(service: &Value, suffix: &str, address_type: &str) -> Value {
    let name = service["metadata"]["name"].as_str().expect("generated services have names");
    let mut metadata =
        json!({"name": format!("{name}-{suffix}"), "labels": {"kubernetes.io/service-name": name}});
    set(&mut metadata, "namespace", service["metadata"].get("namespace").cloned());
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": address_type})
}
