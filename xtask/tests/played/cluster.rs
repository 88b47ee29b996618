//! One generated cluster: its objects as the scenes have them, and everything that is asked about it.
//!
//! In: objects of the generator, whose nodes have the scenes' addresses from here on, and a marker that shows
//! when exactly this cluster is enforced. Out: questions with the one right answer of the naive evaluator:
//! which place answers, or none. Left out: SCTP, which needs a kernel module, and endpoints at addresses of
//! no live pod.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use podgate_testkit::{
    generate::places,
    manifest::{Form, write},
    naive::{ResolvedEndpoint, allowed, backends},
};
use serde_json::{Value, json};
use xtask::{
    lab::{Addresses, Masquerade},
    peers::objects::{addresses, is_placed},
};

use crate::proxy::{self, Way};

/// The ports of the generator's pods and services.
pub(crate) const PORTS: [u16; 7] = [80, 53, 81, 443, 8080, 1, 65535];

/// Who asks and who answers: the pods' places first, then the nodes, then the host outside.
pub(crate) type PlaceNumber = u8;

pub(crate) const NODES: [&str; 2] = ["n1", "n2"];
/// Of the host outside, besides its own: those that the generator gives to endpoints outside.
pub(crate) const FURTHER_OUTSIDE: Addresses =
    Addresses { v4: Ipv4Addr::new(203, 0, 113, 9), v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9) };
/// Of the nodes in the generator.
const GENERATED_NODES: [&str; 2] = ["10.10.0.1", "10.10.0.2"];
const CLIENT_PORTS: std::ops::Range<u16> = 10_000..60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    /// An echo; of the family's own version.
    Icmp,
}

/// What must come of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Answer(PlaceNumber),
    Silence,
}

#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) from: PlaceNumber,
    pub(crate) source: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) protocol: Protocol,
    /// The place that has the address.
    pub(crate) holder: Option<PlaceNumber>,
    pub(crate) expected: Expected,
    /// Where it ends, if a service leads there.
    pub(crate) backend: Option<SocketAddr>,
    /// A pod that is led to itself.
    pub(crate) is_to_itself: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) objects: Vec<Value>,
    /// Tells it from the others of its scene.
    pub(crate) number: u32,
    /// Who has which address: live pods, nodes, the host outside.
    holders: BTreeMap<IpAddr, PlaceNumber>,
    /// The live pods, by place.
    pods: BTreeMap<PlaceNumber, ResolvedEndpoint>,
}

/// The last port that each place has asked from.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientPorts(BTreeMap<(PlaceNumber, Protocol), u16>);

impl Cluster {
    pub(crate) fn new(generated: Vec<Value>, number: u32) -> Self {
        let mut objects: Vec<Value> =
            generated.into_iter().filter(|object| object["kind"] != "Node").map(moved).collect();
        objects.extend((0..NODES.len()).map(node));
        objects.push(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": marker(number), "namespace": "marker"}, "spec": {"podSelector": {}},
        }));
        let mut new = Self { objects, number, holders: BTreeMap::new(), pods: BTreeMap::new() };
        new.find_holders();
        new
    }

    pub(crate) fn text(&self) -> String {
        write(&self.objects, Form::YamlDocuments)
    }

    /// The place of a pod's object. `None` for one that is not alive or has no place.
    pub(crate) fn place_of(&self, pod: &Value) -> Option<PlaceNumber> {
        if !is_placed(pod) {
            return None;
        }
        addresses(pod).iter().find_map(|address| self.holders.get(address)).copied()
    }

    fn find_holders(&mut self) {
        let mut places: BTreeMap<IpAddr, PlaceNumber> = BTreeMap::new();
        for (number, addresses) in (0..).zip(places_of_pods()) {
            places.extend(addresses.map(|address| (address, number)));
        }
        for pod in self.objects.iter().filter(|object| is_placed(object)) {
            for address in addresses(pod) {
                let Some(place) = places.get(&address) else { continue };
                self.holders.insert(address, *place);
                self.pods.insert(*place, party(pod));
            }
        }
        for number in 0..NODES.len() {
            self.holders.extend(node_addresses(number).map(|address| (address, node_place(number))));
        }
        for addresses in [Addresses::of_outside(0), FURTHER_OUTSIDE] {
            self.holders.extend(addresses.both().map(|address| (address, outside())));
        }
    }

    /// Every client with every address that somebody has, and with every way through a service.
    pub(crate) fn questions(&self, client_ports: &mut ClientPorts) -> Vec<Question> {
        let mut questions = Vec::new();
        for (source, from) in &self.holders {
            let client = self.client(*from, *source);
            for (to, holder) in self.holders.iter().filter(|(to, _)| to.is_ipv4() == source.is_ipv4()) {
                // A pod reaches itself on its loopback; between nodes and hosts no policy is asked.
                if from == holder || !(is_pod(*from) || is_pod(*holder)) {
                    continue;
                }
                for protocol in Protocol::ALL {
                    let ports = if protocol == Protocol::Icmp { &[0][..] } else { &PORTS };
                    for port in ports {
                        let destination = SocketAddr::new(*to, *port);
                        let (name, number) = protocol.asked(destination);
                        let to = ResolvedEndpoint::Address(*to);
                        let allowed = allowed(&self.objects, &client, &to, name, number);
                        questions.push(Question {
                            from: *from,
                            source: SocketAddr::new(*source, client_ports.next(*from, protocol)),
                            to: destination,
                            protocol,
                            holder: Some(*holder),
                            expected: if allowed { Expected::Answer(*holder) } else { Expected::Silence },
                            backend: None,
                            is_to_itself: false,
                        });
                    }
                }
            }
            for (node, way) in self.ways_of(*from) {
                if way.at.address.is_ipv4() == source.is_ipv4() {
                    self.ask_service(*from, *source, node, &way, client_ports, &mut questions);
                }
            }
        }
        questions
    }

    /// What a place can use of services, and the node that leads it: its own one, or each of them from
    /// outside. There, all node ports but those of `externalTrafficPolicy: Local`.
    fn ways_of(&self, from: PlaceNumber) -> Vec<(usize, Way)> {
        let of_node =
            |node: usize| proxy::ways(&self.objects, NODES[node]).into_iter().map(move |way| (node, way));
        let is_for_all = |node: usize, way: &Way| {
            way.frontend.masquerade == Masquerade::All && node_addresses(node).contains(&way.at.address)
        };
        match node_of(from) {
            Some(node) => of_node(node).collect(),
            None => (0..NODES.len()).flat_map(of_node).filter(|(node, way)| is_for_all(*node, way)).collect(),
        }
    }

    /// One question for each endpoint: the client's port decides who answers.
    fn ask_service(
        &self,
        from: PlaceNumber,
        source: IpAddr,
        node: usize,
        way: &Way,
        client_ports: &mut ClientPorts,
        questions: &mut Vec<Question>,
    ) {
        let Some(protocol) = Protocol::named(&way.at.protocol) else { return };
        let backends = &way.frontend.backends;
        if !backends.iter().all(|at| self.holders.contains_key(&at.ip()) && PORTS.contains(&at.port())) {
            return;
        }
        let mut left: Vec<usize> = (0..backends.len().max(1)).collect();
        while !left.is_empty() {
            let port = client_ports.next(from, protocol);
            let turn = way.frontend.turn(port);
            let Some(place) = left.iter().position(|it| *it == turn) else { continue };
            left.swap_remove(place);
            let answerer = backends.get(turn).and_then(|backend| {
                let is_allowed = self.is_led(&self.client(from, source), node, way, *backend);
                is_allowed.then(|| self.holders[&backend.ip()])
            });
            questions.push(Question {
                from,
                source: SocketAddr::new(source, port),
                to: SocketAddr::new(way.at.address, way.at.port),
                protocol,
                holder: None,
                expected: answerer.map_or(Expected::Silence, Expected::Answer),
                backend: backends.get(turn).copied(),
                is_to_itself: backends.get(turn).is_some_and(|backend| backend.ip() == source),
            });
        }
    }

    /// Whether the client may use this endpoint.
    fn is_led(&self, client: &ResolvedEndpoint, node: usize, way: &Way, endpoint: SocketAddr) -> bool {
        let (address, port) = (endpoint.ip(), endpoint.port());
        let through = |party: &ResolvedEndpoint| {
            allowed(&self.objects, party, &ResolvedEndpoint::Address(address), &way.at.protocol, port)
        };
        let node_client = ResolvedEndpoint::Node(NODES[node].to_owned());
        // Another node sees a masqueraded client as this node.
        let is_hidden =
            way.frontend.masquerade == Masquerade::All && node_of(self.holders[&address]) != Some(node);
        // No service answers a client outside there, and it has no egress policy either.
        let Some(found) = backends(&self.objects, client, &way.at) else {
            return through(if is_hidden { &node_client } else { client });
        };
        let here: Vec<_> = found.iter().filter(|it| (it.address, it.port) == (address, port)).collect();
        let is_allowed = match is_hidden {
            true => here.iter().all(|it| it.egress) && through(&node_client),
            false => through(client),
        };
        // Several services may claim one address; some of what the evaluator says of them is what `way` does.
        assert!(here.iter().any(|it| (it.egress && it.ingress) == is_allowed), "{way:?}: {here:?}");
        is_allowed
    }

    fn client(&self, place: PlaceNumber, address: IpAddr) -> ResolvedEndpoint {
        match self.pods.get(&place) {
            Some(pod) => pod.clone(),
            None => match node_of(place) {
                Some(node) => ResolvedEndpoint::Node(NODES[node].to_owned()),
                None => ResolvedEndpoint::Address(address),
            },
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, to, protocol, .. } = self;
        write!(f, "{source} to {to} {}", protocol.asked(*to).0)?;
        self.backend.map_or(Ok(()), |backend| write!(f, ", which is {backend}"))
    }
}

impl ClientPorts {
    /// A new one for each question: nothing that was let through before says anything about it.
    fn next(&mut self, place: PlaceNumber, protocol: Protocol) -> u16 {
        let last = self.0.entry((place, protocol)).or_insert(CLIENT_PORTS.start);
        *last = if *last + 1 < CLIENT_PORTS.end { *last + 1 } else { CLIENT_PORTS.start };
        *last
    }
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    /// As the API and the evaluator name what is sent to an address: an echo by its type times 256.
    pub(crate) fn asked(self, to: SocketAddr) -> (&'static str, u16) {
        match self {
            Self::Tcp => ("TCP", to.port()),
            Self::Udp => ("UDP", to.port()),
            Self::Icmp if to.is_ipv4() => ("ICMP", 8 << 8),
            Self::Icmp => ("ICMPv6", 128 << 8),
        }
    }

    fn named(name: &str) -> Option<Self> {
        match name {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            _ => None,
        }
    }
}

/// The name of the policy that only this cluster has.
pub(crate) fn marker(number: u32) -> String {
    format!("cluster-{number}")
}

pub(crate) fn places_of_pods() -> impl Iterator<Item = [IpAddr; 2]> {
    places()
}

pub(crate) fn node_place(node: usize) -> PlaceNumber {
    count_of_pods() + PlaceNumber::try_from(node).expect("two nodes")
}

pub(crate) fn outside() -> PlaceNumber {
    node_place(NODES.len())
}

/// Of a node in the scenes.
pub(crate) fn node_addresses(node: usize) -> [IpAddr; 2] {
    Addresses::of_node(u8::try_from(node + 1).expect("two nodes")).both()
}

fn count_of_pods() -> PlaceNumber {
    PlaceNumber::try_from(places_of_pods().count()).expect("few places")
}

fn is_pod(place: PlaceNumber) -> bool {
    place < count_of_pods()
}

/// The node that a place belongs to. The pods' places take turns.
fn node_of(place: PlaceNumber) -> Option<usize> {
    match place {
        pod if is_pod(pod) => Some(usize::from(pod) % NODES.len()),
        place => (0..NODES.len()).find(|node| node_place(*node) == place),
    }
}

/// The object with the scenes' addresses of nodes.
fn moved(object: Value) -> Value {
    match object {
        Value::String(text) => {
            let node = GENERATED_NODES.iter().position(|address| *address == text);
            Value::String(node.map_or(text, |node| node_addresses(node)[0].to_string()))
        }
        Value::Array(items) => items.into_iter().map(moved).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, moved(value))).collect(),
        other => other,
    }
}

fn node(number: usize) -> Value {
    let addresses = node_addresses(number).map(|address| json!({"type": "InternalIP", "address": address}));
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODES[number]}, "status": {"addresses": addresses}})
}

fn party(pod: &Value) -> ResolvedEndpoint {
    let text = |field: &str| pod["metadata"][field].as_str();
    ResolvedEndpoint::Pod {
        namespace: text("namespace").unwrap_or("default").to_owned(),
        name: text("name").expect("pods have names").to_owned(),
    }
}
