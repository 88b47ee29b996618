//! Services, and their EndpointSlices as the endpoint controller writes them from the pods.
//!
//! Each service is made after one of the pods: in its namespace, and with a selector for one of its labels,
//! so that most have endpoints. Some have no selector; their slices are written by hand and name other
//! addresses.

mod slices;

use proptest::{collection::vec, option, prelude::*, sample};
use serde_json::{Value, json};

use super::{
    NODES, PODS, PORT_NAMES, PORT_NUMBERS, PROTOCOLS,
    pods::{ipv4, ipv6},
    set,
};

/// A service that has no name and no addresses yet: both come from its place in the list.
#[derive(Clone, Debug)]
pub(super) struct Service {
    /// The place of the pod that it is made after.
    model: usize,
    form: Form,
    families: Families,
    ports: Vec<Port>,
    backing: Backing,
    /// The fields of `spec` that are taken as they stand.
    options: Value,
    outside: Outside,
}

/// What is about other addresses than its own, and about who leads there.
#[derive(Clone, Copy, Debug)]
struct Outside {
    has_external_ip: bool,
    /// The place of the service whose cluster addresses this one claims as external ones.
    claims: Option<usize>,
    /// Another proxy than kube-proxy serves it.
    is_foreign: bool,
    hints: Hints,
    balancer_mode: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    ClusterIp,
    NodePort,
    LoadBalancer,
    Headless,
    ExternalName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Families {
    V4,
    Dual,
    V6,
    DualV6First,
}

#[derive(Clone, Debug)]
struct Port {
    number: u16,
    protocol: Option<&'static str>,
    target: Target,
}

#[derive(Clone, Copy, Debug)]
enum Target {
    /// `targetPort` is missing: the service's own number.
    Same,
    Number(u16),
    Name(&'static str),
}

#[derive(Clone, Debug)]
enum Backing {
    Selector,
    ByHand(Vec<Endpoint>),
}

/// What topology hints its endpoints have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hints {
    None,
    Zones,
    /// An endpoint in two has none.
    SomeZones,
    Nodes,
}

/// An endpoint without a pod behind it that the controller knows of.
#[derive(Clone, Debug)]
struct Endpoint {
    address: String,
    conditions: Option<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

pub(super) fn service() -> impl Strategy<Value = Service> {
    let form = prop_oneof![
        5 => Just(Form::ClusterIp),
        3 => Just(Form::NodePort),
        3 => Just(Form::LoadBalancer),
        1 => Just(Form::Headless),
        1 => Just(Form::ExternalName),
    ];
    let families = prop_oneof![
        4 => Just(Families::Dual),
        3 => Just(Families::V4),
        1 => Just(Families::V6),
        1 => Just(Families::DualV6First),
    ];
    let backing =
        prop_oneof![3 => Just(Backing::Selector), 2 => vec(endpoint(), 0..=8).prop_map(Backing::ByHand)];
    (0..PODS, form, families, vec(port(), 1..=3), backing, options(), outside()).prop_map(
        |(model, form, families, ports, backing, options, outside)| Service {
            model,
            form,
            families,
            ports: without_doubles(ports),
            backing,
            options,
            outside,
        },
    )
}

/// Each service, and its slices.
pub(super) fn place(services: &[Service], pods: &[Value]) -> Vec<Value> {
    let mut objects = Vec::new();
    for (slot, service) in services.iter().enumerate() {
        let start = service.model % pods.len();
        let mut from_there = pods[start..].iter().chain(&pods[..start]);
        // One that has a label to select by, where there is one.
        let model = from_there.find(|pod| first_label(pod).is_some()).unwrap_or(&pods[start]);
        let object = service.object(slot, model);
        objects.extend(service.slices(&object, pods));
        objects.push(object);
    }
    objects
}

impl Service {
    fn object(&self, slot: usize, model: &Value) -> Value {
        let mut metadata = json!({"name": format!("svc{slot}")});
        set(&mut metadata, "namespace", model["metadata"].get("namespace").cloned());
        let mut spec = self.options.clone();
        let (v4, v6) = (format!("10.96.0.{}", slot + 1), format!("fd96::{:x}", slot + 1));
        let addresses = match self.families {
            Families::V4 => vec![v4],
            Families::V6 => vec![v6],
            Families::Dual => vec![v4, v6],
            Families::DualV6First => vec![v6, v4],
        };
        match self.form {
            Form::ExternalName => spec["externalName"] = json!("elsewhere.example"),
            Form::Headless => (spec["clusterIP"], spec["clusterIPs"]) = (json!("None"), json!(["None"])),
            Form::ClusterIp | Form::NodePort | Form::LoadBalancer => {
                // What users write by hand names one address.
                if addresses.len() > 1 || slot.is_multiple_of(2) {
                    spec["clusterIPs"] = json!(addresses);
                }
                spec["clusterIP"] = json!(addresses[0]);
            }
        }
        match self.form {
            Form::ClusterIp | Form::Headless => {}
            Form::NodePort => spec["type"] = json!("NodePort"),
            Form::LoadBalancer => spec["type"] = json!("LoadBalancer"),
            Form::ExternalName => spec["type"] = json!("ExternalName"),
        }
        let mut external = Vec::new();
        if self.outside.has_external_ip {
            external.extend([format!("198.51.100.{}", slot + 1), format!("2001:db8:1::{:x}", slot + 1)]);
        }
        if let Some(other) = self.outside.claims {
            external.extend([format!("10.96.0.{}", other + 1), format!("fd96::{:x}", other + 1)]);
        }
        if !external.is_empty() {
            spec["externalIPs"] = json!(external);
        }
        if self.outside.is_foreign {
            metadata["labels"] = json!({"service.kubernetes.io/service-proxy-name": "another"});
        }
        if matches!(self.backing, Backing::Selector) {
            spec["selector"] = first_label(model).unwrap_or_else(|| json!({"app": "a"}));
        }
        spec["ports"] =
            self.ports.iter().enumerate().map(|(index, port)| self.port(slot, index, port)).collect();
        let mut object = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec});
        if self.form == Form::LoadBalancer {
            let mut balancer = json!({"ip": format!("198.51.100.{}", slot + 101)});
            set(&mut balancer, "ipMode", self.outside.balancer_mode.map(Value::from));
            object["status"]["loadBalancer"]["ingress"] = json!([balancer, {"hostname": "balancer.example"}]);
        }
        object
    }

    fn port(&self, slot: usize, index: usize, port: &Port) -> Value {
        let mut object = json!({"port": port.number});
        set(&mut object, "name", self.port_name(index).map(Value::from));
        set(&mut object, "protocol", port.protocol.map(Value::from));
        match port.target {
            Target::Same => {}
            Target::Number(number) => object["targetPort"] = json!(number),
            Target::Name(name) => object["targetPort"] = json!(name),
        }
        if matches!(self.form, Form::NodePort | Form::LoadBalancer) {
            object["nodePort"] = json!(30_000 + slot * 10 + index);
        }
        object
    }

    /// A port that is alone needs no name.
    fn port_name(&self, index: usize) -> Option<String> {
        (self.ports.len() > 1).then(|| format!("port-{index}"))
    }
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

fn port() -> impl Strategy<Value = Port> {
    let target = prop_oneof![
        4 => Just(Target::Same),
        6 => sample::select(PORT_NUMBERS).prop_map(Target::Number),
        1 => sample::select(PORT_NAMES).prop_map(Target::Name),
    ];
    (sample::select(PORT_NUMBERS), option::of(sample::select(PROTOCOLS)), target)
        .prop_map(|(number, protocol, target)| Port { number, protocol, target })
}

/// The API server refuses a number that one protocol has twice.
fn without_doubles(ports: Vec<Port>) -> Vec<Port> {
    let key = |port: &Port| (port.protocol.unwrap_or("TCP"), port.number);
    let mut kept: Vec<Port> = Vec::new();
    for port in ports {
        if kept.iter().all(|other| key(other) != key(&port)) {
            kept.push(port);
        }
    }
    kept
}

fn outside() -> impl Strategy<Value = Outside> {
    let hints = prop_oneof![
        6 => Just(Hints::None),
        2 => Just(Hints::Zones),
        1 => Just(Hints::SomeZones),
        1 => Just(Hints::Nodes),
    ];
    (
        prop::bool::weighted(0.2),
        option::weighted(0.2, 0..3_usize),
        prop::bool::weighted(0.1),
        hints,
        sample::select(&[None, Some("VIP"), Some("Proxy")][..]),
    )
        .prop_map(|(has_external_ip, claims, is_foreign, hints, balancer_mode)| Outside {
            has_external_ip,
            claims,
            is_foreign,
            hints,
            balancer_mode,
        })
}

fn options() -> impl Strategy<Value = Value> {
    let policy = || option::weighted(0.2, sample::select(&["Cluster", "Local"][..]).prop_map(Value::from));
    let affinity = option::weighted(0.2, Just(json!("ClientIP")));
    let unready = option::weighted(0.1, Just(json!(true)));
    (policy(), policy(), affinity, unready).prop_map(|(internal, external, affinity, unready)| {
        let mut spec = json!({});
        set(&mut spec, "internalTrafficPolicy", internal);
        set(&mut spec, "externalTrafficPolicy", external);
        set(&mut spec, "sessionAffinity", affinity);
        set(&mut spec, "publishNotReadyAddresses", unready);
        spec
    })
}

/// Outside, a node, or a pod that no selector names.
fn endpoint() -> impl Strategy<Value = Endpoint> {
    let address = prop_oneof![
        2 => Just("203.0.113.9".to_owned()),
        1 => Just("2001:db8::9".to_owned()),
        2 => sample::select(NODES).prop_map(|(_, address)| (*address).to_owned()),
        6 => (0..PODS).prop_map(ipv4),
        4 => (0..PODS).prop_map(ipv6),
    ];
    let conditions = option::weighted(
        0.4,
        sample::select(vec![
            json!({}),
            json!({"ready": null}),
            json!({"ready": true}),
            json!({"ready": false}),
            json!({"ready": false, "serving": true, "terminating": true}),
        ]),
    );
    (address, conditions).prop_map(|(address, conditions)| Endpoint { address, conditions })
}

fn first_label(pod: &Value) -> Option<Value> {
    let labels = pod["metadata"]["labels"].as_object().into_iter().flatten();
    labels.map(|(key, value)| json!({key: value})).next()
}
