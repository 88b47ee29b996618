//! What neighbours may say to each other, by a naive reading of the bytes: the standards' rules, written down
//! without the code under test.

use std::net::{IpAddr, Ipv6Addr};

use podgate_common::{Direction, EndpointState, Hook, NODE};
use podgate_core::model::Pod;

use crate::world::World;

/// The outermost IP header of a frame, or what ARP says in its place.
#[derive(Clone, Debug)]
pub(crate) enum Outer {
    /// Ethernet and ARP, with what the frame says about its sender.
    Arp {
        sender: Option<IpAddr>,
        is_message: bool,
    },
    Ip {
        source: IpAddr,
        destination: IpAddr,
    },
    Other,
}

/// An ICMPv6 packet of one of the types of neighbour or listener discovery.
struct Message<'a> {
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    /// From the Ethernet header on.
    frame: &'a [u8],
    /// Next headers on the way to the message, each with its bytes.
    extensions: Vec<(u8, &'a [u8])>,
    is_first_fragment: bool,
    body: &'a [u8],
    /// Bytes in the frame behind the packet.
    trailing: usize,
}

pub(crate) fn outer(frame: &[u8], direction: Direction) -> Outer {
    match (&frame[12..14], &frame[14..]) {
        ([0x08, 0x06], arp) => {
            let speaks = arp.len() >= 18 && arp[4..6] == [6, 4];
            let sender = speaks.then(|| v4(&arp[14..18])).filter(|sender| !sender.is_unspecified());
            let most = if direction == Direction::Egress { 28 } else { 46 };
            let is_message = (28..=most).contains(&arp.len())
                && arp[..6] == [0, 1, 8, 0, 6, 4]
                && (arp[6..8] == [0, 1] || arp[6..8] == [0, 2] && sender.is_some())
                && (direction == Direction::Ingress || arp[8..14] == frame[6..12]);
            Outer::Arp { sender, is_message }
        }
        ([0x08, 0x00], ip) => {
            let header = usize::from(ip[0] & 15) * 4;
            let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
            if ip[0] >> 4 != 4 || header < 20 || total != 0 && total < header {
                return Outer::Other;
            }
            Outer::Ip { source: v4(&ip[12..16]), destination: v4(&ip[16..20]) }
        }
        // Whatever version it says to be.
        ([0x86, 0xdd], ip) => {
            let address = |at: usize| IpAddr::V6(v6(&ip[at..at + 16])).to_canonical();
            Outer::Ip { source: address(8), destination: address(24) }
        }
        _ => Outer::Other,
    }
}

/// Whether it has one of the types, whatever its form.
pub(crate) fn has_type(frame: &[u8]) -> bool {
    message(frame).is_some()
}

/// Whether a packet is the first of several fragments.
pub(crate) fn is_first_fragment(frame: &[u8]) -> bool {
    message(frame).is_some_and(|message| message.is_first_fragment)
}

/// Whether the pod behind a veth may speak for an address: a known one for its own and those of the link that
/// are not the node's, another one for all that no one else is known to have.
pub(crate) fn may_speak_for(world: &World, ifindex: u32, address: IpAddr) -> bool {
    let veth = &world.veths[&ifindex];
    let has = |pod: &Pod| pod.addresses.contains(&address);
    if veth.state == EndpointState::Identified && has(&world.cluster.pods[&veth.pod]) {
        return true;
    }
    let is_anothers =
        world.node.contains(&address) || known(world).any(|(other, pod)| other != ifindex && has(pod));
    !is_anothers && (veth.state != EndpointState::Identified || is_link_local(address))
}

/// Whether what comes to a pod from elsewhere carries the address of the node or of a pod that has not sent
/// it.
fn is_forged(world: &World, ingress_ifindex: u32, address: IpAddr) -> bool {
    if is_link_local(address) {
        return false;
    }
    let owner = known(world).find(|(_, pod)| pod.addresses.contains(&address));
    world.node.contains(&address)
        || owner.is_some_and(|(owner, _)| {
            owner != ingress_ifindex && world.veths[&owner].master != ingress_ifindex
        })
}

/// Whether a frame speaks in another's name.
pub(crate) fn is_in_anothers_name(world: &World, hook: Hook, frame: &[u8]) -> bool {
    let speaks_for_another = |address| match hook.direction {
        Direction::Egress => !may_speak_for(world, hook.ifindex, address),
        Direction::Ingress => hook.ingress_ifindex != NODE && is_forged(world, hook.ingress_ifindex, address),
    };
    if let Outer::Arp { sender, .. } = outer(frame, hook.direction) {
        return sender.is_some_and(speaks_for_another);
    }
    let Some(message) = message(frame) else { return false };
    match message.body[0] {
        134 | 137 => hook.direction == Direction::Egress,
        136 => speaks_for_another(message.target().map_or(Ipv6Addr::UNSPECIFIED, |target| target).into()),
        _ => false,
    }
}

/// Whether a frame comes from another link-layer address than the one that its pod was given, on a bridge,
/// which learns it.
pub(crate) fn is_from_another_link_address(world: &World, hook: Hook, frame: &[u8]) -> bool {
    let veth = &world.veths[&hook.ifindex];
    hook.direction == Direction::Egress
        && veth.master != 0
        && veth.link_address.is_some_and(|address| frame[6..12] != address)
}

/// Whether a frame is what a neighbour may say at this hook.
pub(crate) fn is_message(world: &World, hook: Hook, frame: &[u8]) -> bool {
    if let Outer::Arp { is_message, .. } = outer(frame, hook.direction) {
        return is_message;
    }
    let Some(message) = message(frame) else { return false };
    message.is_well_formed(hook.direction)
        && match hook.direction {
            Direction::Egress => message.may_leave(world, hook.ifindex),
            Direction::Ingress => {
                hook.ingress_ifindex == NODE || message.may_arrive(world, hook.ingress_ifindex)
            }
        }
}

/// Whether what cannot be read to its end may be something that no pod may send at all.
pub(crate) fn is_suspicious(world: &World, frame: &[u8]) -> bool {
    if frame[12..14] == [0x86, 0xdd] {
        // Whatever version it says to be.
        let (source, destination) = (v6(&frame[22..38]), v6(&frame[38..54]));
        let has_source = !source.is_unspecified();
        let may_be_neighbours = frame[21] == 255 && source.to_ipv4_mapped().is_none();
        return has_source
            && (may_be_neighbours || reaches_node(world, IpAddr::V6(destination).to_canonical()));
    }
    match outer(frame, Direction::Egress) {
        Outer::Ip { destination, .. } => reaches_node(world, destination),
        _ => false,
    }
}

pub(crate) fn reaches_node(world: &World, destination: IpAddr) -> bool {
    let nodes = world.cluster.nodes.values().flat_map(|node| &node.addresses);
    let broadcast = IpAddr::from([255; 4]);
    destination.is_multicast()
        || destination == broadcast
        || nodes.chain(&world.node).any(|node| *node == destination)
}

fn known(world: &World) -> impl Iterator<Item = (u32, &Pod)> {
    let known = world.veths.iter().filter(|(_, veth)| veth.state == EndpointState::Identified);
    known.map(|(ifindex, veth)| (*ifindex, &*world.cluster.pods[&veth.pod]))
}

impl Message<'_> {
    fn target(&self) -> Option<Ipv6Addr> {
        (matches!(self.body[0], 135 | 136) && self.frame.len() >= self.at() + 24)
            .then(|| v6(&self.frame[self.at() + 8..self.at() + 24]))
    }

    /// Where it begins in the frame.
    fn at(&self) -> usize {
        54 + self.extensions.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
    }

    fn is_well_formed(&self, direction: Direction) -> bool {
        if self.trailing != 0 || self.body[1] != 0 || self.is_first_fragment {
            return false;
        }
        let length = self.body.len();
        if matches!(self.body[0], 130 | 131 | 132 | 143) {
            let [(0, alert)] = *self.extensions else { return false };
            let groups = usize::from(u16::from_be_bytes([self.body[6], self.body[7]]));
            return self.hop_limit == 1
                && (alert == [58, 0, 5, 2, 0, 0, 1, 0] || alert == [58, 0, 5, 2, 0, 0, 0, 0])
                && match self.body[0] {
                    130 => length == 24 || length == 28,
                    143 => groups <= 8 && length == 8 + 20 * groups,
                    _ => length == 24,
                };
        }
        let fixed = match self.body[0] {
            133 => 8,
            134 => 16,
            137 => 40,
            _ => 24,
        };
        if self.hop_limit != 255 || !self.extensions.is_empty() || length < fixed {
            return false;
        }
        let is_hosts = !matches!(self.body[0], 134 | 137);
        let mut options = &self.body[fixed..];
        for number in 0.. {
            let [option, units, ..] = *options else { return options.is_empty() };
            let size = usize::from(units) * 8;
            if size == 0 || options.len() < size || number == if is_hosts { 2 } else { 10 } {
                return false;
            }
            if is_hosts {
                let is_own = direction == Direction::Ingress || options[2..8] == self.frame[6..12];
                if size != 8 || !(matches!(option, 1 | 2) && is_own || option == 14) {
                    return false;
                }
            }
            options = &options[size..];
        }
        true
    }

    fn may_leave(&self, world: &World, ifindex: u32) -> bool {
        let from_own = may_speak_for(world, ifindex, self.source.into());
        let (from_nowhere, from_link) = (self.source.is_unspecified(), is_link_local(self.source.into()));
        let has_source = from_own || from_nowhere;
        let routers: Ipv6Addr = "ff02::2".parse().expect("an address");
        match self.body[0] {
            133 => has_source && self.destination == routers,
            135 => {
                has_source && self.is_solicited()
                    || from_own
                        && !from_nowhere
                        && self.target() == Some(self.destination)
                        && self.is_to_link(world, ifindex)
            }
            136 => {
                let all: Ipv6Addr = "ff02::1".parse().expect("an address");
                from_own && !from_nowhere && (self.destination == all || self.is_to_link(world, ifindex))
            }
            131 => has_source && (from_link || from_nowhere) && self.destination.is_multicast(),
            132 => has_source && (from_link || from_nowhere) && self.destination == routers,
            143 => {
                let listeners: Ipv6Addr = "ff02::16".parse().expect("an address");
                has_source && (from_link || from_nowhere) && self.destination == listeners
            }
            _ => false,
        }
    }

    fn may_arrive(&self, world: &World, ingress_ifindex: u32) -> bool {
        let from_link = is_link_local(self.source.into());
        match self.body[0] {
            130 | 134 | 137 => from_link,
            133 | 135 | 136 if self.source.is_unspecified() => self.body[0] == 135 && self.is_solicited(),
            133 | 135 | 136 => from_link || !is_forged(world, ingress_ifindex, self.source.into()),
            _ => false,
        }
    }

    fn is_solicited(&self) -> bool {
        self.body[0] == 135
            && self.target().is_some_and(|target| {
                let [.., a, b, c] = target.octets();
                self.destination.octets() == [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]
            })
    }

    /// To an address of the link, for all that is known.
    fn is_to_link(&self, world: &World, ifindex: u32) -> bool {
        let is_bridged = world.veths[&ifindex].master != 0;
        let destination = self.destination.into();
        let is_pods = known(world).any(|(_, pod)| pod.addresses.contains(&destination));
        is_link_local(destination)
            || world.node.contains(&destination)
            || is_bridged && (is_pods || self.source.segments()[..4] == self.destination.segments()[..4])
    }
}

/// Walks over at most six extension headers to an ICMPv6 message of one of the types.
///
/// A packet to or from an IPv4 address in the mapped form holds none, as one with more headers does: no host
/// takes it for one, and what may be taken for one all the same, [`is_suspicious`] says.
fn message(frame: &[u8]) -> Option<Message<'_>> {
    let ip = frame.get(14..)?;
    if frame[12..14] != [0x86, 0xdd] || ip[0] >> 4 != 6 {
        return None;
    }
    let mut addresses = ip.get(8..40)?.chunks(16).map(v6);
    if addresses.any(|address| address.to_ipv4_mapped().is_some()) {
        return None;
    }
    let announced = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    let end = if announced == 0 { usize::MAX } else { 40 + announced };
    let (mut next, mut at) = (ip[6], 40);
    let (mut extensions, mut is_first_fragment) = (Vec::new(), false);
    while matches!(next, 0 | 43 | 44 | 51 | 60) {
        let header = ip.get(at..)?;
        let [following, length, high, low, ..] = *header else { return None };
        let size = match next {
            44 => 8,
            51 => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        if next == 44 {
            if u16::from_be_bytes([high, low]) >> 3 != 0 {
                return None;
            }
            // A second one takes nothing back of what the first one says.
            is_first_fragment |= low & 1 != 0;
        }
        extensions.push((next, header.get(..size)?));
        (next, at) = (following, at + size);
    }
    let body = ip.get(at..ip.len().min(end)).filter(|body| body.len() >= 2 && next == 58)?;
    let is_one = matches!(body[0], 130..=137 | 143) && extensions.len() <= 6 && at + 8 <= end;
    is_one.then(|| Message {
        source: v6(&ip[8..24]),
        destination: v6(&ip[24..40]),
        hop_limit: ip[7],
        frame,
        extensions,
        is_first_fragment,
        body,
        // One that does not say how long it is has no end.
        trailing: if announced == 0 || at + body.len() != end { 1 } else { ip.len().saturating_sub(end) },
    })
}

pub(crate) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn v4(bytes: &[u8]) -> IpAddr {
    <[u8; 4]>::try_from(bytes).expect("four bytes").into()
}

fn v6(bytes: &[u8]) -> Ipv6Addr {
    <[u8; 16]>::try_from(bytes).expect("sixteen bytes").into()
}
