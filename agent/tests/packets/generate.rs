//! Random clusters and packets. Few hosts, ports and blocks, so that packets meet rules and each other.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use podgate::model::{
    IpBlock, NetworkPolicy, ObjectName, Peer, Peers, PortRule, Ports, Requirement, Rule, Selector,
};
use podgate_common::{
    Direction, EndpointState, Hook, NODE, Protocol,
    frames::{Extension, Fragment, Frame, flag},
};
use proptest::{prelude::*, sample::Index};

use crate::world::{BRIDGE, Family, Host, UPLINK, World, app, arrives, ip, labels, leaves};

const BLOCKS: [&str; 18] = [
    "0.0.0.0/0",
    "0.0.0.0/1",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.0.0/30",
    "10.1.0.2/32",
    "10.2.0.0/16",
    "172.16.0.0/12",
    "192.0.2.0/24",
    "192.0.2.1/32",
    "::/0",
    "::/1",
    "fd00::/8",
    "fd00:1::/32",
    "fd00:1::2/128",
    "fd00:2::/32",
    "2001:db8::/32",
    "2001:db8::1/128",
];

/// Ports that rules name, and their neighbours. 8080 and 8081 are named ports.
pub(crate) const PORTS: [u16; 12] = [0, 22, 53, 79, 80, 81, 100, 8080, 8081, 9000, 40_000, 65_535];

/// Addresses in and around the blocks, of nobody that the world knows.
pub(crate) const STRANGERS: [&str; 10] = [
    "10.1.0.3",
    "10.1.0.4",
    "10.255.0.1",
    "192.0.2.2",
    "203.0.113.9",
    "fd00:1::3",
    "fd00:3::1",
    "2001:db8::2",
    "2001:dead::1",
    "e000::1",
];

/// A world with up to six policies; nearly all veths are known.
pub(crate) fn worlds() -> impl Strategy<Value = World> {
    let state = prop_oneof![
        12 => Just(EndpointState::Known),
        1 => Just(EndpointState::Held),
        1 => Just(EndpointState::Open),
    ];
    let veths = prop::collection::vec((state, prop::bool::weighted(0.2)), Host::LOCAL.len());
    (clusters(), veths).prop_map(|(mut world, veths)| {
        for (veth, (state, bridged)) in world.veths.values_mut().zip(veths) {
            veth.state = state;
            veth.master = if bridged { BRIDGE } else { 0 };
        }
        world
    })
}

/// The same with veths that are all known.
pub(crate) fn clusters() -> impl Strategy<Value = World> {
    let tiers = prop::collection::vec(prop::sample::select(vec!["", "web", "db"]), Host::PODS.len());
    (prop::collection::vec(policies(), 0..6), tiers).prop_map(|(policies, tiers)| {
        let mut world = World::new();
        for (number, mut policy) in policies.into_iter().enumerate() {
            policy.name = ObjectName::new("x", format!("p{number}"));
            world.cluster.policies.insert(policy.name.clone(), policy);
        }
        for (pod, tier) in world.cluster.pods.values_mut().zip(tiers) {
            let app = pod.labels["app"].clone();
            pod.labels = labels(&[("app", &*app), ("tier", tier)]);
        }
        world
    })
}

fn policies() -> impl Strategy<Value = NetworkPolicy> {
    let direction = || prop::option::of(prop::collection::vec(rules(), 0..4));
    (selectors(), direction(), direction()).prop_map(|(subject, ingress, egress)| NetworkPolicy {
        name: ObjectName::new("x", ""),
        subject,
        ingress,
        egress,
    })
}

fn selectors() -> impl Strategy<Value = Selector> {
    let app = prop::sample::select(vec!["a", "b", "z"]).prop_map(app);
    let tier = |tier: &str| Selector::All(vec![Requirement::In("tier".into(), [tier.into()].into())]);
    let not = Selector::All(vec![Requirement::NotIn("app".into(), ["a".into()].into())]);
    prop_oneof![
        4 => app,
        2 => Just(Selector::EVERYTHING),
        1 => Just(tier("web")),
        1 => Just(tier("db")),
        1 => Just(not),
        1 => Just(Selector::Nothing),
    ]
}

fn rules() -> impl Strategy<Value = Rule> {
    let peers = prop_oneof![
        1 => Just(Peers::Any),
        5 => prop::collection::vec(peers(), 1..4).prop_map(Peers::Listed),
    ];
    let ports = prop_oneof![
        1 => Just(Ports::Any),
        3 => prop::collection::vec(ports(), 1..4).prop_map(Ports::Listed),
    ];
    (peers, ports).prop_map(|(peers, ports)| Rule { peers, ports })
}

fn peers() -> impl Strategy<Value = Peer> {
    let own = selectors().prop_map(|pods| Peer::Pods { namespaces: None, pods });
    let all = selectors().prop_map(|pods| Peer::Pods { namespaces: Some(Selector::EVERYTHING), pods });
    prop_oneof![3 => own, 2 => all, 5 => blocks().prop_map(Peer::Block), 1 => Just(Peer::Nothing)]
}

fn blocks() -> impl Strategy<Value = IpBlock> {
    let net = |text: &str| -> IpNet { text.parse().expect("a literal of the test") };
    let all: Vec<IpNet> = BLOCKS.map(net).to_vec();
    (prop::sample::select(all.clone()), prop::collection::vec(any::<Index>(), 0..3)).prop_map(
        move |(cidr, excepts)| {
            let inside: Vec<&IpNet> =
                all.iter().filter(|other| cidr != **other && cidr.contains(*other)).collect();
            let except: BTreeSet<IpNet> = if inside.is_empty() {
                BTreeSet::new()
            } else {
                excepts.iter().map(|at| **at.get(&inside)).collect()
            };
            IpBlock { cidr, except }
        },
    )
}

fn protocols() -> impl Strategy<Value = Protocol> {
    prop::sample::select(Protocol::ALL.to_vec())
}

fn ports() -> impl Strategy<Value = PortRule> {
    let number = || prop::sample::select(PORTS[1..].to_vec());
    let range = (protocols(), number(), number()).prop_map(|(protocol, one, other)| PortRule::Range {
        protocol,
        first: one.min(other),
        last: one.max(other),
    });
    let single = (protocols(), number()).prop_map(|(protocol, number)| PortRule::Range {
        protocol,
        first: number,
        last: number,
    });
    prop_oneof![
        3 => single,
        2 => range,
        1 => protocols().prop_map(PortRule::Protocol),
        1 => protocols().prop_map(|protocol| PortRule::Named(protocol, "web".into())),
        1 => Just(PortRule::Nothing),
    ]
}

/// One packet at one hook.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    what: What,
    place: Place,
    noise: Noise,
}

/// A packet; `Index` picks one of those before it.
#[derive(Clone, Debug)]
enum What {
    New(New),
    Again(Index),
    Answer(Index),
    Error(Index, IpAddr),
    /// One of three parts.
    Part(Index, u32, usize),
    Arp,
}

#[derive(Clone, Debug)]
struct New {
    family: Family,
    from: Host,
    to: Host,
    /// In place of the host's: a stranger's, a special one.
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    ports: (u16, u16),
    kind: Kind,
    flags: u8,
    options: u8,
    chain: Vec<Extension>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp,
    Udp,
    Sctp,
    EchoRequest,
    EchoReply,
    Icmp,
    Other,
}

#[derive(Clone, Debug)]
enum Place {
    /// Where the packet leaves its pod, if that is a local one.
    Sender,
    /// Where it arrives.
    Receiver,
    Anywhere(Direction, Host, u32),
}

#[derive(Clone, Debug)]
enum Noise {
    None,
    Bytes(Vec<(Index, u8)>),
    /// In the headers, one bit each.
    Bits(Vec<(usize, u32)>),
    Cut(Index),
    Longer(usize),
    Length(u16),
}

pub(crate) fn steps() -> impl Strategy<Value = Step> {
    let earlier = || any::<Index>();
    let routers = prop::sample::select(STRANGERS.map(ip).to_vec());
    let what = prop_oneof![
        8 => new_packets().prop_map(What::New),
        3 => earlier().prop_map(What::Again),
        6 => earlier().prop_map(What::Answer),
        2 => (earlier(), routers).prop_map(|(at, router)| What::Error(at, router)),
        3 => (earlier(), 0..3_u32, 0..3_usize).prop_map(|(at, id, part)| What::Part(at, id, part)),
        1 => Just(What::Arp),
    ];
    let vias = vec![NODE, UPLINK, BRIDGE, Host::A.veth(), Host::B.veth(), Host::Z.veth()];
    let direction = prop::sample::select(Direction::ALL.to_vec());
    let anywhere = (direction, prop::sample::select(Host::LOCAL.to_vec()), prop::sample::select(vias));
    let place = prop_oneof![
        4 => Just(Place::Sender),
        4 => Just(Place::Receiver),
        2 => anywhere.prop_map(|(direction, pod, via)| Place::Anywhere(direction, pod, via)),
    ];
    let noise = prop_oneof![
        12 => Just(Noise::None),
        1 => prop::collection::vec((earlier(), any::<u8>()), 1..4).prop_map(Noise::Bytes),
        3 => prop::collection::vec((12..70_usize, 0..8_u32), 1..3).prop_map(Noise::Bits),
        1 => earlier().prop_map(Noise::Cut),
        1 => (1..80_usize).prop_map(Noise::Longer),
        1 => prop_oneof![0..70_u16, Just(0)].prop_map(Noise::Length),
    ];
    (what, place, noise).prop_map(|(what, place, noise)| Step { what, place, noise })
}

fn new_packets() -> impl Strategy<Value = New> {
    let hosts = || prop::sample::select(Host::ALL.to_vec());
    let special = [
        "0.0.0.0",
        "::",
        "fe80::1",
        "fe80::b",
        "255.255.255.255",
        "224.0.0.251",
        "ff02::1:2",
        "::ffff:10.1.0.1",
    ];
    let addresses: Vec<IpAddr> = special.into_iter().chain(STRANGERS).map(ip).collect();
    let address = move || prop::option::weighted(0.2, prop::sample::select(addresses.clone()));
    let number = || prop_oneof![6 => prop::sample::select(PORTS.to_vec()), 1 => prop::sample::select(vec![67, 68, 546, 547])];
    let kinds = prop_oneof![
        6 => Just(Kind::Tcp), 4 => Just(Kind::Udp), 2 => Just(Kind::Sctp), 1 => Just(Kind::EchoRequest),
        1 => Just(Kind::EchoReply), 1 => Just(Kind::Icmp), 1 => Just(Kind::Other),
    ];
    let flags = prop_oneof![
        4 => Just(flag::SYN), 4 => Just(flag::ACK), 2 => Just(flag::SYN | flag::ACK), 1 => any::<u8>(),
    ];
    let atomic = Extension::Fragment(Fragment { id: 1, offset: 0, more: false });
    let extension = prop_oneof![
        (0..3_u8).prop_map(Extension::HopByHop),
        (0..3_u8).prop_map(Extension::Routing),
        (0..3_u8).prop_map(Extension::Destination),
        (1..6_u8).prop_map(Extension::Authentication),
        Just(atomic),
    ];
    let chain = prop_oneof![4 => Just(vec![]), 1 => prop::collection::vec(extension, 0..8)];
    let options = prop_oneof![4 => Just(0), 1 => 0..=10_u8];
    let family = prop::sample::select(Family::ALL.to_vec());
    let ends = (family, hosts(), hosts(), address(), address(), (number(), number()));
    (ends, kinds, flags, options, chain).prop_map(
        |((family, from, to, source, destination, ports), kind, flags, options, chain)| New {
            family,
            from,
            to,
            source,
            destination,
            ports,
            kind,
            flags,
            options,
            chain,
        },
    )
}

impl Step {
    /// The packet, the hook that it comes to, and its bytes with all that happened to them.
    pub(crate) fn resolve(&self, world: &World, earlier: &[Frame]) -> (Option<Frame>, Hook, Vec<u8>) {
        let Some(frame) = self.what.resolve(earlier) else {
            return (None, self.place.hook(world, None), Frame::arp());
        };
        let hook = self.place.hook(world, Some(&frame));
        let bytes = self.noise.over(&frame);
        (Some(frame), hook, bytes)
    }
}

impl What {
    fn resolve(&self, earlier: &[Frame]) -> Option<Frame> {
        let pick = |at: &Index| (!earlier.is_empty()).then(|| at.get(earlier).clone());
        match self {
            Self::New(new) => Some(new.frame()),
            Self::Again(at) => pick(at),
            Self::Answer(at) => Some(pick(at)?.reversed()),
            Self::Error(at, router) => {
                let quoted = pick(at)?;
                let by =
                    if quoted.source.is_ipv4() == router.is_ipv4() { *router } else { quoted.destination };
                Some(Frame::unreachable(by, &quoted))
            }
            Self::Part(at, id, part) => {
                let mut whole = pick(at)?;
                whole.payload.resize(120, 0x5a);
                Some(whole.fragments(*id, 5).remove(*part))
            }
            Self::Arp => None,
        }
    }
}

impl New {
    fn frame(&self) -> Frame {
        let fits = |address: &IpAddr| address.is_ipv4() == (self.family == Family::V4);
        let source = self.source.filter(fits).unwrap_or(self.from.at(self.family));
        let destination = self.destination.filter(fits).unwrap_or(self.to.at(self.family));
        let (from, to) = ((source, self.ports.0), (destination, self.ports.1));
        let frame = match self.kind {
            Kind::Tcp => Frame::tcp(from, to, self.flags),
            Kind::Udp => Frame::udp(from, to, 20),
            Kind::Sctp => Frame::sctp(from, to, self.flags),
            Kind::EchoRequest => Frame::echo_request(source, destination, self.ports.0),
            Kind::EchoReply => Frame::echo_reply(source, destination, self.ports.0),
            Kind::Icmp => Frame::icmp(source, destination, self.flags, self.ports.0),
            Kind::Other => Frame::ip(
                source,
                destination,
                [1, 47, 50, 58, 59][usize::from(self.flags) % 5],
                vec![0x5a; 24],
            ),
        };
        match self.family {
            Family::V4 => frame.with_options(self.options),
            Family::V6 => frame.with_extensions(&self.chain),
        }
    }
}

impl Place {
    fn hook(&self, world: &World, frame: Option<&Frame>) -> Hook {
        let local = |address: IpAddr| {
            Host::LOCAL.into_iter().find(|host| Family::ALL.iter().any(|family| host.at(*family) == address))
        };
        let sender = frame.and_then(|frame| local(frame.source));
        let receiver = frame.and_then(|frame| local(frame.destination));
        let from_node = frame.is_some_and(|frame| world.node.contains(&frame.source));
        // Routed by a bridge when the sender is at one.
        let via = match sender {
            Some(pod) if world.veths[&pod.veth()].master != 0 => world.veths[&pod.veth()].master,
            Some(pod) => pod.veth(),
            None if from_node => NODE,
            None => UPLINK,
        };
        match (self, sender, receiver) {
            (Self::Sender, Some(sender), _) | (Self::Receiver, Some(sender), None) => leaves(sender),
            (Self::Receiver | Self::Sender, _, Some(receiver)) => arrives(receiver, via),
            (Self::Sender | Self::Receiver, None, None) => arrives(Host::B, via),
            (Self::Anywhere(Direction::Egress, pod, _), ..) => leaves(*pod),
            (Self::Anywhere(Direction::Ingress, pod, via), ..) => arrives(*pod, *via),
        }
    }
}

impl Noise {
    fn over(&self, frame: &Frame) -> Vec<u8> {
        let mut bytes = frame.bytes();
        match self {
            Self::None => {}
            Self::Bytes(changes) => {
                for (at, byte) in changes {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
            }
            Self::Bits(changes) => {
                for (at, bit) in changes {
                    let at = at % bytes.len();
                    bytes[at] ^= 1 << bit;
                }
            }
            // The kernel wants an Ethernet header and something after it.
            Self::Cut(at) => bytes.truncate(15 + at.index(bytes.len() - 14)),
            Self::Longer(by) => bytes.resize(bytes.len() + by, 0x11),
            Self::Length(length) => bytes = frame.clone().with_claimed_length(*length).bytes(),
        }
        bytes
    }
}
