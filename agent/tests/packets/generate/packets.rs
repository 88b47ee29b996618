//! Packets of every kind, answers to and errors about earlier ones, at the hook where they belong or at
//! another, and what noise makes of them.

use std::net::IpAddr;

use podgate_common::{
    Direction, Hook, NODE,
    frames::{Extension, Fragment, Frame, flag},
};
use proptest::{prelude::*, sample::Index};

use super::{
    PORTS, STRANGERS,
    neighbours::{Neighbours, neighbours},
};
use crate::world::{BRIDGE, Family, Host, NODE_PORT, UPLINK, World, arrives, ip, leaves, service_at};

/// Where a packet is evaluated.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    Pod(Hook),
    /// Where it leaves the node, by where it entered it.
    Wire(u32),
    /// The same on a device without link headers.
    Tunnel(u32),
}

/// One packet at one place.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    what: What,
    place: DeviceRole,
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
    Dhcp(usize),
    Arp(Neighbours, usize),
    Neighbours(Neighbours),
}

#[derive(Clone, Debug)]
struct New {
    family: Family,
    from: Host,
    to: Host,
    /// In place of the host's: a stranger's, a special one.
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    /// To a service in place of the destination: at its own address, or at the node's.
    service: Option<Service>,
    ports: (u16, u16),
    kind: PacketKind,
    flags: u8,
    options: u8,
    chain: Vec<Extension>,
}

#[derive(Clone, Copy, Debug)]
enum Service {
    Own,
    NodePort,
}

#[derive(Clone, Copy, Debug)]
enum PacketKind {
    Tcp,
    Udp,
    Sctp,
    EchoRequest,
    EchoReply,
    Icmp,
    Other,
}

#[derive(Clone, Debug)]
enum DeviceRole {
    /// Where the packet leaves its pod, if that is a local one.
    Sender,
    /// Where it arrives.
    Receiver,
    Anywhere(Direction, Host, u32),
    /// Where it leaves the node.
    Wire,
    Tunnel,
    /// Without an ingress interface: where it arrives, or where it leaves the node.
    Nowhere {
        leaves_node: bool,
    },
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
    /// From another link-layer address than all the others.
    LinkAddress,
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
        1 => any::<usize>().prop_map(What::Dhcp),
        1 => (neighbours(), 0..80_usize).prop_map(|(what, longer)| What::Arp(what, longer)),
        4 => neighbours().prop_map(What::Neighbours),
    ];
    let vias = vec![NODE, UPLINK, BRIDGE, Host::A.veth(), Host::B.veth(), Host::Z.veth()];
    let direction = prop::sample::select(Direction::ALL.to_vec());
    let anywhere = (direction, prop::sample::select(Host::LOCAL.to_vec()), prop::sample::select(vias));
    let place = prop_oneof![
        4 => Just(DeviceRole::Sender),
        4 => Just(DeviceRole::Receiver),
        2 => anywhere.prop_map(|(direction, pod, ingress_ifindex)| DeviceRole::Anywhere(direction, pod, ingress_ifindex)),
        2 => Just(DeviceRole::Wire),
        1 => Just(DeviceRole::Tunnel),
        2 => any::<bool>().prop_map(|leaves_node| DeviceRole::Nowhere { leaves_node }),
    ];
    let noise = prop_oneof![
        12 => Just(Noise::None),
        1 => prop::collection::vec((earlier(), any::<u8>()), 1..4).prop_map(Noise::Bytes),
        3 => prop::collection::vec((12..70_usize, 0..8_u32), 1..3).prop_map(Noise::Bits),
        1 => earlier().prop_map(Noise::Cut),
        1 => (1..80_usize).prop_map(Noise::Longer),
        1 => prop_oneof![0..70_u16, Just(0)].prop_map(Noise::Length),
        1 => Just(Noise::LinkAddress),
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
    let source = prop::option::weighted(0.2, prop::sample::select(addresses.clone()));
    let destination = prop::option::weighted(0.2, prop::sample::select(addresses));
    let service =
        prop_oneof![3 => Just(None), 1 => Just(Some(Service::Own)), 1 => Just(Some(Service::NodePort))];
    let number = || {
        prop_oneof![
            6 => prop::sample::select(PORTS.to_vec()),
            1 => prop::sample::select(vec![67, 68, 546, 547, 4_789]),
        ]
    };
    let kinds = prop_oneof![
        6 => Just(PacketKind::Tcp), 4 => Just(PacketKind::Udp), 2 => Just(PacketKind::Sctp), 1 => Just(PacketKind::EchoRequest),
        1 => Just(PacketKind::EchoReply), 1 => Just(PacketKind::Icmp), 3 => Just(PacketKind::Other),
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
    let ends = (family, hosts(), hosts(), source, destination, service, (number(), number()));
    (ends, kinds, flags, options, chain).prop_map(
        |((family, from, to, source, destination, service, ports), kind, flags, options, chain)| New {
            family,
            from,
            to,
            source,
            destination,
            service,
            ports,
            kind,
            flags,
            options,
            chain,
        },
    )
}

impl Step {
    /// The packet, the place that it comes to, and its bytes with all that happened to them.
    pub(crate) fn resolve(&self, world: &World, earlier: &[Frame]) -> (Option<Frame>, At, Vec<u8>) {
        let Some(frame) = self.what.resolve(earlier) else {
            let What::Arp(what, longer) = &self.what else { unreachable!("all others are IP packets") };
            return (None, self.place.at(world, None), what.arp(*longer));
        };
        let at = self.place.at(world, Some(&frame));
        let mut bytes = self.noise.over(&frame);
        if let At::Tunnel(_) = at {
            // What it takes for a frame.
            let least = 14 + least_length(&bytes[14..]);
            bytes.resize(bytes.len().max(least), 0);
        }
        (Some(frame), at, bytes)
    }
}

impl What {
    fn resolve(&self, earlier: &[Frame]) -> Option<Frame> {
        let pick = |at: &Index| {
            Some(if earlier.is_empty() {
                Frame::echo_request(ip("10.1.0.1"), ip("10.1.0.2"), 1)
            } else {
                at.get(earlier).clone()
            })
        };
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
            Self::Dhcp(at) => {
                let pairs = [
                    (("0.0.0.0", 68), ("255.255.255.255", 67)),
                    (("172.16.0.9", 67), ("255.255.255.255", 68)),
                    (("172.16.0.9", 67), ("10.1.0.99", 68)),
                    (("172.16.0.9", 67), ("10.1.0.2", 68)),
                    (("10.1.0.2", 68), ("255.255.255.255", 67)),
                    (("10.1.0.1", 67), ("255.255.255.255", 68)),
                    (("fe80::b", 546), ("ff02::1:2", 547)),
                    (("fe80::9", 547), ("fe80::b", 546)),
                ];
                let (from, to) = pairs[at % pairs.len()];
                Some(Frame::udp((ip(from.0), from.1), (ip(to.0), to.1), 100))
            }
            Self::Arp(..) => None,
            Self::Neighbours(what) => Some(what.frame()),
        }
    }
}

impl New {
    fn frame(&self) -> Frame {
        let fits = |address: &IpAddr| address.is_ipv4() == (self.family == Family::V4);
        let source = self.source.filter(fits).unwrap_or(self.from.at(self.family));
        let destination = self.destination.filter(fits).unwrap_or(self.to.at(self.family));
        let from = (source, self.ports.0);
        let to = match self.service {
            None => (destination, self.ports.1),
            Some(Service::Own) => (service_at(self.family), 80),
            Some(Service::NodePort) => (Host::Node.at(self.family), NODE_PORT),
        };
        let frame = match self.kind {
            PacketKind::Tcp => Frame::tcp(from, to, self.flags),
            PacketKind::Udp => Frame::udp(from, to, 20),
            // DATA, INIT, INIT ACK, ABORT, SHUTDOWN COMPLETE.
            PacketKind::Sctp => Frame::sctp(from, to, [0, 1, 1, 2, 6, 14][usize::from(self.flags) % 6]),
            PacketKind::EchoRequest => Frame::echo_request(source, destination, self.ports.0),
            PacketKind::EchoReply => Frame::echo_reply(source, destination, self.ports.0),
            PacketKind::Icmp => Frame::icmp(source, destination, self.flags, self.ports.0),
            PacketKind::Other => Frame::ip(
                source,
                destination,
                [1, 4, 41, 47, 50, 58, 59][usize::from(self.flags) % 7],
                vec![0x5a; 24],
            ),
        };
        match self.family {
            Family::V4 => frame.with_options(self.options),
            Family::V6 => frame.with_extensions(&self.chain),
        }
    }
}

impl DeviceRole {
    fn at(&self, world: &World, frame: Option<&Frame>) -> At {
        let local = |address: IpAddr| {
            Host::LOCAL.into_iter().find(|host| Family::ALL.iter().any(|family| host.at(*family) == address))
        };
        let sender = frame.and_then(|frame| local(frame.source));
        let receiver = frame.and_then(|frame| local(frame.destination));
        let from_node = frame.is_some_and(|frame| world.node.contains(&frame.source));
        // Routed by a bridge when the sender is at one.
        let ingress_ifindex = match sender {
            Some(pod) if world.veths[&pod.veth()].master != 0 => world.veths[&pod.veth()].master,
            Some(pod) => pod.veth(),
            None if from_node => NODE,
            None => UPLINK,
        };
        At::Pod(match (self, sender, receiver) {
            (Self::Wire, ..) => return At::Wire(ingress_ifindex),
            (Self::Tunnel, ..) => return At::Tunnel(ingress_ifindex),
            (Self::Nowhere { leaves_node: true }, ..) => return At::Wire(NODE),
            (Self::Nowhere { .. }, _, receiver) => arrives(receiver.unwrap_or(Host::B), NODE),
            (Self::Sender, Some(sender), _) | (Self::Receiver, Some(sender), None) => leaves(sender),
            (Self::Receiver | Self::Sender, _, Some(receiver)) => arrives(receiver, ingress_ifindex),
            (Self::Sender | Self::Receiver, None, None) => arrives(Host::B, ingress_ifindex),
            (Self::Anywhere(Direction::Egress, pod, _), ..) => leaves(*pod),
            (Self::Anywhere(Direction::Ingress, pod, ingress_ifindex), ..) => arrives(*pod, *ingress_ifindex),
        })
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
            Self::LinkAddress => bytes[11] ^= 1,
            Self::Cut(at) => bytes.truncate(14 + at.index(bytes.len() - 13)),
            Self::Longer(by) => bytes.resize(bytes.len() + by, 0x11),
            Self::Length(length) => bytes = frame.clone().with_claimed_length(*length).bytes(),
        }
        let least = least_length(&bytes);
        bytes.resize(bytes.len().max(least), 0);
        bytes
    }
}

/// The kernel runs no program on less than an Ethernet header and the fixed part of the IP header that it
/// announces (`bpf_prog_test_run_skb`).
pub(crate) fn least_length(frame: &[u8]) -> usize {
    14 + match frame.get(12..14) {
        Some([0x08, 0x00]) => 20,
        Some([0x86, 0xdd]) => 40,
        _ => 0,
    }
}
