//! Policies: everything that networking.k8s.io/v1 can say, and, where asked for, entries that it refuses.

use proptest::{collection::vec, option, prelude::*, sample};
use serde_json::{Map, Value, json};

use super::{
    Entries, NAMESPACE_KEYS, NAMESPACES, PODS, PORT_NAMES, PORT_NUMBERS, PROTOCOLS, optional,
    pods::{self, ipv4, ipv6, label_value, set_namespace},
    set,
    spoil::{INVALID_EXPRESSIONS, INVALID_PEERS, INVALID_PORTS},
};

/// A policy that has no name and no namespace yet.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    namespace: usize,
    spec: Value,
}

impl Policy {
    pub(super) fn object(self, slot: usize, namespaces: usize) -> Value {
        let mut metadata = json!({"name": format!("np{slot}")});
        set_namespace(&mut metadata, self.namespace % namespaces, slot);
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": self.spec,
        })
    }
}

pub(super) fn policy(entries: Entries) -> impl Strategy<Value = Policy> {
    (
        0..NAMESPACES.len(),
        optional(selector(pods::KEYS, Entries::Valid)),
        optional(policy_types(entries)),
        optional(rules("from", entries)),
        optional(rules("to", entries)),
    )
        .prop_map(|(namespace, subjects, types, ingress, egress)| {
            let mut spec = json!({});
            set(&mut spec, "podSelector", subjects);
            set(&mut spec, "policyTypes", types);
            set(&mut spec, "ingress", ingress);
            set(&mut spec, "egress", egress);
            Policy { namespace, spec }
        })
}

fn policy_types(entries: Entries) -> BoxedStrategy<Value> {
    let valid = prop_oneof![
        3 => Just(json!(["Ingress"])),
        3 => Just(json!(["Egress"])),
        3 => Just(json!(["Ingress", "Egress"])),
        1 => Just(json!(["Egress", "Ingress"])),
        1 => Just(json!(["Ingress", "Ingress"])),
        1 => Just(json!([])),
    ];
    let invalid = sample::select(vec![
        json!(["Ingress", "Sideways"]),
        json!(["egress", "Egress"]),
        json!(["Ingress", "Egress", "Ingress"]),
    ]);
    or_invalid(entries, valid, invalid)
}

fn rules(peers: &'static str, entries: Entries) -> impl Strategy<Value = Value> {
    let rule = (optional(vec(peer(entries), 0..=3).prop_map(Value::from)), optional(port_list(entries)));
    vec(rule, 0..=3).prop_map(move |rules| {
        let objects = rules.into_iter().map(|(who, ports)| {
            let mut rule = json!({});
            set(&mut rule, peers, who);
            set(&mut rule, "ports", ports);
            rule
        });
        objects.collect::<Vec<_>>().into()
    })
}

fn peer(entries: Entries) -> BoxedStrategy<Value> {
    let of_pods = || selector(pods::KEYS, entries);
    let of_namespaces = || namespace_selector(entries);
    let valid = prop_oneof![
        3 => of_pods().prop_map(|pods| json!({"podSelector": pods})),
        1 => of_pods().prop_map(|pods| json!({"podSelector": pods, "namespaceSelector": null, "ipBlock": null})),
        3 => of_namespaces().prop_map(|spaces| json!({"namespaceSelector": spaces})),
        3 => (of_pods(), of_namespaces())
            .prop_map(|(pods, spaces)| json!({"podSelector": pods, "namespaceSelector": spaces})),
        4 => ip_block().prop_map(|block| json!({"ipBlock": block})),
        1 => service_block().prop_map(|block| json!({"ipBlock": block})),
    ];
    or_invalid(entries, valid, sample::select(INVALID_PEERS).prop_map(parsed))
}

fn port_list(entries: Entries) -> impl Strategy<Value = Value> {
    vec(port(entries), 0..=4).prop_map(Value::from)
}

fn port(entries: Entries) -> BoxedStrategy<Value> {
    let number = || sample::select(PORT_NUMBERS);
    let what = prop_oneof![
        1 => Just(json!({})),
        5 => number().prop_map(|port| json!({"port": port})),
        4 => (number(), number())
            .prop_map(|(one, other)| json!({"port": one.min(other), "endPort": one.max(other)})),
        4 => sample::select(PORT_NAMES).prop_map(|name| json!({"port": name})),
    ];
    let valid = (what, option::of(sample::select(PROTOCOLS))).prop_map(|(mut port, protocol)| {
        set(&mut port, "protocol", protocol.map(Value::from));
        port
    });
    or_invalid(entries, valid, sample::select(INVALID_PORTS).prop_map(parsed))
}

pub(super) fn namespace_selector(entries: Entries) -> BoxedStrategy<Value> {
    let by_name = (sample::select(&["In", "NotIn"][..]), sample::subsequence(NAMESPACES, 1..=2)).prop_map(
        |(operator, names)| {
            let key = "kubernetes.io/metadata.name";
            json!({"matchExpressions": [{"key": key, "operator": operator, "values": names}]})
        },
    );
    let one_name = sample::select(NAMESPACES)
        .prop_map(|name| json!({"matchLabels": {"kubernetes.io/metadata.name": name}}));
    prop_oneof![4 => selector(NAMESPACE_KEYS, entries), 1 => by_name, 1 => one_name].boxed()
}

/// A label selector; `{}` is the simplest.
pub(super) fn selector(keys: &'static [&'static str], entries: Entries) -> BoxedStrategy<Value> {
    let pairs = vec((sample::select(keys), label_value()), 0..=2).prop_map(|pairs| {
        pairs
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect::<Map<String, Value>>()
            .into()
    });
    let expressions = vec(expression(keys, entries), 0..=2).prop_map(Value::from);
    let written = (option::of(pairs), option::of(expressions)).prop_map(|(labels, expressions)| {
        let mut selector = json!({});
        set(&mut selector, "matchLabels", labels);
        set(&mut selector, "matchExpressions", expressions);
        selector
    });
    prop_oneof![1 => Just(json!({})), 3 => written].boxed()
}

fn expression(keys: &'static [&'static str], entries: Entries) -> BoxedStrategy<Value> {
    let listed = (sample::select(keys), sample::select(&["In", "NotIn"][..]), vec(label_value(), 1..=2))
        .prop_map(|(key, operator, values)| json!({"key": key, "operator": operator, "values": values}));
    let present = (sample::select(keys), sample::select(&["Exists", "DoesNotExist"][..]), any::<bool>())
        .prop_map(|(key, operator, with_empty_list)| {
            let values = with_empty_list.then(|| json!([]));
            let mut expression = json!({"key": key, "operator": operator});
            set(&mut expression, "values", values);
            expression
        });
    let valid = prop_oneof![3 => listed, 2 => present];
    or_invalid(entries, valid, sample::select(INVALID_EXPRESSIONS).prop_map(parsed))
}

/// A block around the address of some pod, or elsewhere; with excepts around other pods that lie in it.
pub(super) fn ip_block() -> impl Strategy<Value = Value> {
    let lengths = prop_oneof![
        4 => sample::select(&[8_u32, 15, 16, 23, 24, 28, 30, 31, 32][..]),
        1 => sample::select(&[0_u32, 1][..]),
    ];
    let excepts = option::of(vec((0..PODS, 1..=32_u32), 0..=3));
    (
        0..=PODS,
        lengths,
        any::<bool>(),
        prop_oneof![6 => Just(Style::Plain), 1 => Just(Style::LeadingZeros), 1 => Just(Style::Mapped)],
        excepts,
    )
        .prop_map(|(slot, length, is_v6, style, excepts)| {
            let block = Block { slot, length, is_v6 };
            let mut object = json!({"cidr": block.text(style)});
            let excepts = excepts.map(|excepts| {
                let inside = excepts.into_iter().filter_map(|(slot, length)| block.except(slot, length));
                inside.map(|except| except.text(Style::Plain).into()).collect::<Vec<Value>>().into()
            });
            set(&mut object, "except", excepts);
            object
        })
}

/// A block of service addresses, which no packet has that is evaluated.
fn service_block() -> impl Strategy<Value = Value> {
    const BLOCKS: &[&str] =
        &["10.96.0.0/24", "10.96.0.1/32", "10.96.0.2/31", "fd96::/64", "fd96::1/128", "198.51.100.0/24"];
    sample::select(BLOCKS).prop_map(|block| json!({"cidr": block}))
}

/// How an IPv4 block is written. The old forms are refused for new objects, and kept in stored ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    LeadingZeros,
    Mapped,
}

/// The first bits of the address of the pod at `slot`. Lengths are those of IPv4; an IPv6 block has the
/// length that covers the same pods.
#[derive(Clone, Copy, Debug)]
struct Block {
    slot: usize,
    length: u32,
    is_v6: bool,
}

impl Block {
    fn text(self, style: Style) -> String {
        let Self { slot, length, is_v6 } = self;
        if is_v6 {
            return format!("{}/{}", ipv6(slot), self.ipv6_length());
        }
        match style {
            Style::Plain => format!("{}/{length}", ipv4(slot)),
            Style::LeadingZeros => format!("0{}/{length}", ipv4(slot)),
            Style::Mapped => format!("::ffff:{}/{}", ipv4(slot), 96 + length),
        }
    }

    /// IPv4 bits 8 to 16 stand in the fifth group of IPv6, 16 to 24 in the sixth, the last ones in the
    /// eighth.
    fn ipv6_length(self) -> u32 {
        match self.length {
            0..=8 => self.length * 2,
            9..=16 => 64 + (self.length - 8) * 2,
            17..=24 => 80 + (self.length - 16) * 2,
            _ => 96 + self.length,
        }
    }

    /// A smaller block in this one: around another pod if that lies inside, else around the same.
    fn except(self, slot: usize, length: u32) -> Option<Self> {
        let length = length.max(self.length + 1);
        let slot = if self.covers(slot) { slot } else { self.slot };
        (length <= 32).then_some(Self { slot, length, is_v6: self.is_v6 })
    }

    fn covers(self, slot: usize) -> bool {
        let number =
            |slot| u64::from(ipv4(slot).parse::<std::net::Ipv4Addr>().expect("a pod's address").to_bits());
        (number(slot) ^ number(self.slot)) >> (32 - self.length) == 0
    }
}

pub(super) fn or_invalid(
    entries: Entries,
    valid: impl Strategy<Value = Value> + 'static,
    invalid: impl Strategy<Value = Value> + 'static,
) -> BoxedStrategy<Value> {
    match entries {
        Entries::Valid => valid.boxed(),
        Entries::SomeInvalid => prop_oneof![12 => valid, 1 => invalid].boxed(),
    }
}

pub(super) fn parsed(json: &str) -> Value {
    serde_json::from_str(json).expect("the tables of invalid entries hold JSON")
}
