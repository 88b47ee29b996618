//! Calico's objects beside generated clusters: policies of few tiers and orders, so that they meet, network
//! sets, tiers, service accounts; in the words of users and in those of Calico's store.

use proptest::{collection::vec, option, prelude::*, sample};
use serde_json::{Value, json};

use super::{LABEL_VALUES, NAMESPACES, PORT_NAMES, PORT_NUMBERS, SERVICES, pods, policies::ip_block, set};

/// A cluster with objects of Calico's: at least one policy.
pub fn with_calico(cluster: impl Strategy<Value = Vec<Value>>) -> impl Strategy<Value = Vec<Value>> {
    let policies = vec(policy(), 1..=6);
    (cluster, policies, vec(network_set(), 0..=3), tiers(), accounts()).prop_map(
        |(mut objects, policies, sets, tiers, accounts)| {
            for (place, pod) in objects.iter_mut().filter(|object| object["kind"] == "Pod").enumerate() {
                if let Some(name) = ACCOUNTS.get(place % (ACCOUNTS.len() + 1)) {
                    pod["spec"]["serviceAccountName"] = json!(name);
                }
            }
            objects.extend(accounts);
            objects.extend(tiers);
            objects.extend(sets.into_iter().enumerate().map(|(slot, set)| set.object(format!("set{slot}"))));
            let policies = policies.into_iter().enumerate();
            let services = objects.iter().filter(|object| object["kind"] == "Service");
            let services: Vec<(Value, Value)> = services
                .map(|service| {
                    let namespace = service["metadata"]["namespace"].as_str().unwrap_or("default");
                    (namespace.into(), service["metadata"]["name"].clone())
                })
                .collect();
            objects.extend(policies.map(|(slot, policy)| {
                let mut policy = policy.object(format!("p{}", 9 - slot));
                lead(&mut policy, &services);
                policy
            }));
            objects
        },
    )
}

const ACCOUNTS: &[&str] = &["default", "robot"];
const TIERS: &[&str] = &["default", "default", "default", "security", "platform", "missing"];
const KEYS: &[&str] = &["app", "role", "example.com/tier", "pcns.team", "projectcalico.org/serviceaccount"];

/// How an object is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    V3,
    /// As Calico stores it.
    Stored,
    /// By hand, into Calico's store.
    ByHand,
}

/// An object that has no name yet.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) kind: &'static str,
    pub(super) namespace: Option<&'static str>,
    pub(super) labels: Option<Value>,
    pub(super) form: Form,
    pub(super) spec: Value,
}

impl Object {
    pub(super) fn object(self, name: String) -> Value {
        let Self { kind, namespace, labels, form, spec } = self;
        let mut metadata = json!({"name": name});
        set(&mut metadata, "namespace", namespace.map(Value::from));
        let version = match form {
            Form::V3 => "projectcalico.org/v3",
            Form::Stored | Form::ByHand => "crd.projectcalico.org/v1",
        };
        match form {
            Form::V3 | Form::ByHand => set(&mut metadata, "labels", labels),
            Form::Stored => {
                let kept = json!({"name": name, "labels": labels});
                metadata["annotations"] = json!({"projectcalico.org/metadata": kept.to_string()});
                if kind.ends_with("Policy") && spec["tier"].as_str().is_none_or(|tier| tier == "default") {
                    metadata["name"] = format!("default.{name}").into();
                }
            }
        }
        json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})
    }
}

pub(super) fn form() -> impl Strategy<Value = Form> {
    prop_oneof![3 => Just(Form::V3), 2 => Just(Form::Stored), 1 => Just(Form::ByHand)]
}

fn tiers() -> impl Strategy<Value = Vec<Value>> {
    let order = option::weighted(0.8, sample::select(&[500.0, 2_000_000.0, 1.5, 20_000_000.0][..]));
    let tier = || (order.clone(), option::of(sample::select(&["Deny", "Pass"][..])), form());
    (tier(), tier()).prop_map(|(security, platform)| {
        let object = |name: &str, (order, action, form): (Option<f64>, Option<&str>, Form)| {
            let mut spec = json!({});
            set(&mut spec, "order", order.map(Value::from));
            set(&mut spec, "defaultAction", action.map(Value::from));
            Object { kind: "Tier", namespace: None, labels: None, form, spec }.object(name.into())
        };
        vec![object("security", security), object("platform", platform)]
    })
}

fn accounts() -> impl Strategy<Value = Vec<Value>> {
    let account = (sample::select(NAMESPACES), sample::select(ACCOUNTS), sample::select(LABEL_VALUES));
    vec(account, 0..=3).prop_map(|accounts| {
        let mut known = std::collections::BTreeSet::new();
        let accounts = accounts.into_iter().filter(|(namespace, name, _)| known.insert((*namespace, *name)));
        let objects = accounts.map(|(namespace, name, value)| {
            json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": name, "namespace": namespace, "labels": {"team": value}},
            })
        });
        objects.collect()
    })
}

pub(super) fn network_set() -> impl Strategy<Value = Object> {
    let labels = super::labels(pods::KEYS);
    (option::of(sample::select(NAMESPACES)), labels, form(), vec(net(), 0..=3)).prop_map(
        |(namespace, labels, form, nets)| Object {
            kind: if namespace.is_some() { "NetworkSet" } else { "GlobalNetworkSet" },
            namespace,
            labels: Some(labels),
            form,
            spec: json!({"nets": nets}),
        },
    )
}

pub(super) fn net() -> impl Strategy<Value = Value> {
    prop_oneof![4 => ip_block().prop_map(|block| block["cidr"].clone()), 1 => Just(json!("10.0.0.16"))]
}

pub(super) fn policy() -> impl Strategy<Value = Object> {
    let order = option::weighted(0.8, sample::select(&[1.0, 10.5, 1_000.0, 1_500.0][..]));
    let types = option::weighted(
        0.7,
        sample::select(vec![json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]),
    );
    let subject =
        (selector(), option::weighted(0.2, namespaces()), option::weighted(0.1, accounts_selector()));
    let rules = (option::of(vec(rule(), 0..=4)), option::of(vec(rule(), 0..=4)));
    let place = (option::of(sample::select(NAMESPACES)), sample::select(TIERS), order, form());
    (place, types, subject, rules).prop_map(
        |((namespace, tier, order, form), types, (selector, spaces, accounts), (ingress, egress))| {
            let mut spec = json!({"selector": selector});
            set(&mut spec, "tier", (tier != "default").then(|| tier.into()));
            set(&mut spec, "order", order.map(Value::from));
            set(&mut spec, "types", types);
            set(&mut spec, "namespaceSelector", spaces.filter(|_| namespace.is_none()).map(Value::from));
            set(&mut spec, "serviceAccountSelector", accounts.map(Value::from));
            set(&mut spec, "ingress", ingress.map(Value::from));
            set(&mut spec, "egress", egress.map(Value::from));
            let kind = if namespace.is_some() { "NetworkPolicy" } else { "GlobalNetworkPolicy" };
            Object { kind, namespace, labels: None, form, spec }
        },
    )
}

fn rule() -> impl Strategy<Value = Value> {
    let actions = sample::select(&["Allow", "Allow", "Deny", "Deny", "Pass", "Log"][..]);
    let family = option::weighted(0.1, sample::select(&[4, 6][..]));
    // Mostly the peer is described, sometimes the pod itself.
    let ends = (option::weighted(0.6, entity()), option::weighted(0.6, entity()));
    (actions, family, ends, (protocol(), icmp()), odd()).prop_map(
        |(action, family, (source, destination), (protocol, icmp), odd)| {
            let mut rule = json!({"action": action});
            let protocol = match icmp {
                Some((protocol, messages, not_messages)) => {
                    set(&mut rule, "icmp", messages);
                    set(&mut rule, "notICMP", not_messages);
                    ("protocol", Some(protocol), None, None)
                }
                None => protocol,
            };
            set(&mut rule, "ipVersion", family.map(Value::from));
            set(&mut rule, "source", source);
            let (name, protocol, ports, not_ports) = protocol;
            set(&mut rule, name, protocol);
            let mut destination = destination;
            // These are the ports of a service, but for a few rules that are not valid.
            let has_service = destination.as_ref().is_some_and(|end| end["services"].is_object());
            let (ports, not_ports) =
                if has_service && family.is_none() { (None, None) } else { (ports, not_ports) };
            for (list, ports) in [("ports", ports), ("notPorts", not_ports)] {
                if let Some(ports) = ports {
                    destination.get_or_insert_with(|| json!({}))[list] = ports;
                }
            }
            set(&mut rule, "destination", destination);
            if let Some((field, value)) = odd {
                rule[field] = value;
            }
            rule
        },
    )
}

/// What is not carried.
fn odd() -> impl Strategy<Value = Option<(&'static str, Value)>> {
    let fields = vec![
        ("http", json!({"methods": ["GET"]})),
        // Of whatever protocol.
        ("icmp", json!({"type": 8})),
        ("notICMP", json!({"type": 8, "code": 0})),
    ];
    option::weighted(0.05, sample::select(fields))
}

/// A version of ICMP, the messages of it, and those that do not match.
fn icmp() -> impl Strategy<Value = Option<(Value, Option<Value>, Option<Value>)>> {
    let protocols = sample::select(vec![json!("ICMP"), json!("ICMPv6"), json!(1), json!(58)]);
    let message = || {
        let kinds = sample::select(&[8, 128, 3, 0][..]);
        (kinds, option::weighted(0.3, 0..=1)).prop_map(|(kind, code)| {
            let mut message = json!({"type": kind});
            set(&mut message, "code", code.map(Value::from));
            message
        })
    };
    let messages = option::weighted(0.7, prop_oneof![6 => message(), 1 => Just(json!({}))]);
    option::weighted(0.2, (protocols, messages, option::weighted(0.3, message())))
}

type Protocol = (&'static str, Option<Value>, Option<Value>, Option<Value>);

/// Field, protocol, ports and ports that do not match.
fn protocol() -> impl Strategy<Value = Protocol> {
    let known = || sample::select(vec![json!("TCP"), json!("UDP"), json!("SCTP"), json!(6), json!(17)]);
    let port = || {
        prop_oneof![
            4 => sample::select(PORT_NUMBERS).prop_map(Value::from),
            2 => (sample::select(PORT_NUMBERS), sample::select(PORT_NUMBERS))
                .prop_map(|(one, other)| format!("{}:{}", one.min(other), one.max(other)).into()),
            1 => sample::select(PORT_NAMES).prop_map(Value::from),
        ]
    };
    let ports = || option::of(vec(port(), 1..=3).prop_map(Value::from));
    let other = || sample::select(vec![json!("ICMP"), json!("ICMPv6"), json!(47), json!("UDPLite")]);
    prop_oneof![
        5 => Just(("protocol", None, None, None)),
        8 => (known(), ports(), ports()).prop_map(|(which, ports, not)| ("protocol", Some(which), ports, not)),
        1 => other().prop_map(|protocol| ("protocol", Some(protocol), None, None)),
        1 => known().prop_map(|protocol| ("notProtocol", Some(protocol), None, None)),
        1 => other().prop_map(|protocol| ("notProtocol", Some(protocol), None, None)),
    ]
}

fn entity() -> impl Strategy<Value = Value> {
    let names = vec(sample::select(ACCOUNTS), 0..=2);
    let accounts = (names, option::of(accounts_selector())).prop_map(|(names, selector)| {
        let mut accounts = json!({});
        set(&mut accounts, "names", (!names.is_empty()).then(|| names.into()));
        set(&mut accounts, "selector", selector.map(Value::from));
        accounts
    });
    let fields = (
        option::weighted(0.5, selector()),
        option::weighted(0.15, selector()),
        option::weighted(0.25, namespaces()),
        option::weighted(0.1, accounts),
        option::weighted(0.25, vec(net(), 1..=2)),
        option::weighted(0.15, vec(net(), 1..=2)),
    );
    let described = fields
        .prop_map(|(selector, not_selector, spaces, accounts, nets, not_nets)| {
            let mut entity = json!({});
            set(&mut entity, "selector", selector.map(Value::from));
            set(&mut entity, "notSelector", not_selector.map(Value::from));
            set(&mut entity, "namespaceSelector", spaces.map(Value::from));
            set(&mut entity, "serviceAccounts", accounts);
            set(&mut entity, "nets", nets.map(Value::from));
            set(&mut entity, "notNets", not_nets.map(Value::from));
            entity
        })
        .boxed();
    let of_service = service().prop_map(|service| json!({"services": service}));
    // Beside anything else a service is not valid.
    let beside = (described.clone(), service()).prop_map(|(mut entity, service)| {
        entity["services"] = service;
        entity
    });
    prop_oneof![24 => described, 8 => of_service, 1 => beside]
}

/// A Service: where it is, [`lead`] says.
fn service() -> impl Strategy<Value = Value> {
    let namespace = option::weighted(0.9, sample::select(NAMESPACES));
    (namespace, 0..=SERVICES).prop_map(|(namespace, slot)| {
        let mut service = json!({"name": format!("svc{slot}")});
        set(&mut service, "namespace", namespace.map(Value::from));
        service
    })
}

/// Leads rules that name a service to one that is there, but for those that name no namespace, or the last.
fn lead(policy: &mut Value, services: &[(Value, Value)]) {
    for list in ["ingress", "egress"] {
        let rules = policy["spec"].get_mut(list).and_then(Value::as_array_mut);
        let ends = rules.into_iter().flatten().filter_map(Value::as_object_mut);
        let ends = ends.flat_map(|rule| rule.iter_mut()).map(|(_, end)| end);
        for named in ends.filter_map(|end| end.get_mut("services")) {
            let slot = named["name"].as_str().and_then(|name| name[3..].parse::<usize>().ok());
            let slot = slot.filter(|slot| *slot < SERVICES && !services.is_empty());
            if let (Some(slot), true) = (slot, named["namespace"].is_string()) {
                let (namespace, name) = services[slot % services.len()].clone();
                *named = json!({"namespace": namespace, "name": name});
            }
        }
    }
}

fn selector() -> BoxedStrategy<String> {
    expression(KEYS)
}

fn namespaces() -> BoxedStrategy<String> {
    let by_label = expression(&["team", "env", "kubernetes.io/metadata.name"]);
    prop_oneof![4 => by_label, 1 => Just("global()".into())].boxed()
}

fn accounts_selector() -> BoxedStrategy<String> {
    expression(&["team", "projectcalico.org/name"])
}

fn expression(keys: &'static [&'static str]) -> BoxedStrategy<String> {
    let value = || {
        let values: Vec<&str> = LABEL_VALUES.iter().chain(ACCOUNTS).chain(NAMESPACES).copied().collect();
        prop_oneof![6 => sample::select(LABEL_VALUES), 1 => sample::select(values)]
    };
    let text = move || {
        (value(), any::<bool>()).prop_map(|(value, quote)| match quote {
            true => format!("'{value}'"),
            false => format!("\"{value}\""),
        })
    };
    let list = move || vec(text(), 0..=3).prop_map(|values| format!("{{{}}}", values.join(", ")));
    let operator = sample::select(&["==", "==", "==", "!=", "contains", "starts with", "ends with"][..]);
    let leaf = prop_oneof![
        1 => Just("all()".to_owned()),
        2 => sample::select(keys).prop_map(|key| format!("has({key})")),
        6 => (sample::select(keys), operator, text()).prop_map(|(key, is, to)| format!("{key} {is} {to}")),
        2 => (sample::select(keys), any::<bool>(), list()).prop_map(|(key, is_in, list)| {
            format!("{key} {} {list}", if is_in { "in" } else { "not in" })
        }),
    ];
    let nested = leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 2..=3).prop_map(|parts| parts.join(" && ")),
            vec(inner.clone(), 2..=3).prop_map(|parts| format!("({})", parts.join(" || "))),
            inner.prop_map(|part| format!("!({part})")),
        ]
    });
    nested.boxed()
}
