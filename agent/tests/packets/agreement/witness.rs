//! Remembers what has passed, and checks every outcome against it and against the policies.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use podgate_common::{
    Direction, EndpointState, Flow, FlowKey, FragmentKey, Headers, Hook, NODE, Outcome, PacketKind, Tuple,
    parse,
};
use podgate_core::{
    compiler::CompiledTables,
    model::{Cluster, Pod},
};

use crate::{naive, neighbours, world::World};

mod policies;
mod reasons;
mod wire;

/// Why an outcome is wrong, if it is.
type Reason = Result<(), &'static str>;

fn must(holds: bool, why: &'static str) -> Reason {
    if holds { Ok(()) } else { Err(why) }
}

/// Remembers what has passed, and checks every outcome against it and against the policies.
pub(crate) struct Witness<'a> {
    world: &'a World,
    /// As if nothing were in audit mode.
    audited: Cluster,
    tables: &'a CompiledTables,
    /// Connections, by veth, of which a packet has passed as new.
    opened: BTreeSet<(u32, FlowKey)>,
    /// Those of them that another than the node has opened.
    opened_by_others: BTreeSet<(u32, FlowKey)>,
    /// Pods' veths and families of which DHCP's questions have passed.
    asked: BTreeSet<(u32, bool)>,
    /// Those that a pod's veth has deferred since they were evaluated last, and that veth.
    deferred: BTreeMap<FlowKey, u32>,
    /// Ports of first fragments that have passed.
    fragments: BTreeMap<FragmentKey, (u16, u16)>,
    /// How often a name has allowed what the policies deny by the address.
    pub(crate) opened_by_names: Cell<u32>,
}

/// What the witness reads of a packet.
struct Read {
    kind: PacketKind,
    tuple: Tuple,
    /// SYN without ACK, or INIT.
    opens: bool,
    /// Where it says that it comes from, also an ICMP error.
    source: IpAddr,
    /// It is a part of an IPv6 datagram.
    is_part: bool,
    datagram: FragmentKey,
    /// It is known which connection it belongs to.
    is_connection: bool,
}

impl Read {
    /// It has addresses that say whose it is.
    fn is_packet(&self) -> bool {
        matches!(self.kind, PacketKind::Flow | PacketKind::FirstFragment | PacketKind::LaterFragment)
    }
}

impl<'a> Witness<'a> {
    pub(crate) fn new(world: &'a World, tables: &'a CompiledTables) -> Self {
        let audited = naive::without_audit(&world.cluster);
        Self {
            world,
            audited,
            tables,
            opened: BTreeSet::new(),
            opened_by_others: BTreeSet::new(),
            asked: BTreeSet::new(),
            deferred: BTreeMap::new(),
            fragments: BTreeMap::new(),
            opened_by_names: Cell::new(0),
        }
    }

    pub(crate) fn check(&mut self, hook: Hook, frame: &[u8], outcome: Outcome) -> Reason {
        let read = self.read(frame);
        self.sound(self.entered(hook, &read), &read, frame, outcome)?;
        self.reason(hook, &read, frame, outcome)?;
        self.remember(hook, &read, outcome);
        Ok(())
    }

    fn remember(&mut self, hook: Hook, read: &Read, outcome: Outcome) {
        let Read { tuple, .. } = *read;
        let ingress = hook.direction == Direction::Ingress;
        if outcome.passes() {
            self.remember_ports(read);
        }
        let opens = [
            Outcome::Allowed,
            Outcome::NotIsolated,
            Outcome::OwnNode,
            Outcome::OwnAddress,
            Outcome::Deferred,
            Outcome::WouldDeny,
        ];
        if opens.contains(&outcome) {
            let (key, _) = FlowKey::of(&tuple);
            if ingress && self.is_nodes_own(hook.ingress_ifindex, read) {
                self.opened.insert((hook.ifindex, key));
            } else {
                self.open(hook.ifindex, key);
            }
            let receiver = &self.world.veths[&hook.ifindex].pod;
            let is_anothers =
                |pod: &Pod| pod.addresses.contains(&tuple.destination.into()) && pod.name != *receiver;
            if outcome == Outcome::Deferred {
                self.deferred.insert(key, hook.ifindex);
            } else if !ingress || !self.world.subjects().any(is_anothers) {
                self.deferred.remove(&key);
            }
            // The sender's side was evaluated, too.
            if let Some((veth, _)) = self.sender(hook.ingress_ifindex, &tuple).filter(|_| ingress) {
                self.open(veth, key);
            }
        }
        if outcome == Outcome::Dhcp && !ingress {
            self.asked.insert((hook.ifindex, tuple.source.is_v4()));
        }
    }

    /// Another than the node has opened a connection.
    fn open(&mut self, veth: u32, key: FlowKey) {
        self.opened.insert((veth, key));
        self.opened_by_others.insert((veth, key));
    }

    fn remember_ports(&mut self, read: &Read) {
        if read.kind == PacketKind::FirstFragment {
            self.fragments.insert(read.datagram, (read.tuple.source_port, read.tuple.destination_port));
        }
    }

    /// Parses a packet; a later fragment has the ports of its first one, when that has passed.
    fn read(&self, frame: &[u8]) -> Read {
        let mut headers = Headers::EMPTY;
        let kind = match parse(&frame, &mut headers) {
            // What the neighbour's part of the decision leaves to the policies.
            PacketKind::Neighbour if neighbours::is_first_fragment(frame) => PacketKind::FirstFragment,
            PacketKind::Neighbour => PacketKind::Flow,
            kind => kind,
        };
        let mut tuple = headers.tuple;
        let datagram = FragmentKey {
            source: tuple.source,
            destination: tuple.destination,
            id: headers.datagram,
            protocol: tuple.protocol,
        };
        let first = self.fragments.get(&datagram);
        if let (PacketKind::LaterFragment, Some(ports)) = (kind, first) {
            (tuple.source_port, tuple.destination_port) = *ports;
        }
        let is_connection = match kind {
            PacketKind::Flow | PacketKind::FirstFragment => true,
            PacketKind::LaterFragment => first.is_some(),
            _ => false,
        };
        let (source, is_part) = source_and_part(frame).unwrap_or((IpAddr::from([0; 4]), false));
        Read { kind, tuple, opens: headers.segment.opens(), source, is_part, datagram, is_connection }
    }

    /// Whether a packet that has entered at no interface is the node's: not a part of an IPv6 datagram, which
    /// without a socket is another's, and from an address of the node's or of a link.
    fn is_nodes_own(&self, ingress_ifindex: u32, read: &Read) -> bool {
        let from_link = matches!(read.source, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let from_node = self.world.node.contains(&read.source) || from_link || read.source.is_unspecified();
        ingress_ifindex == NODE && !read.is_part && from_node
    }

    /// A hook with where a packet has entered: what has no ingress interface and is not the node's own is
    /// from nowhere known.
    fn entered(&self, hook: Hook, read: &Read) -> Hook {
        let is_own = hook.direction == Direction::Egress || self.is_nodes_own(hook.ingress_ifindex, read);
        if hook.ingress_ifindex != NODE || is_own {
            return hook;
        }
        Hook { ingress_ifindex: Flow::UNKNOWN_INGRESS, ..hook }
    }

    /// The pod behind a veth, if that is known.
    fn known(&self, veth: u32) -> Option<&'a Pod> {
        let veth = self.world.veths.get(&veth).filter(|veth| veth.state == EndpointState::Identified)?;
        Some(&self.world.cluster.pods[&veth.pod])
    }

    /// The local pod that has sent a packet, and its veth: by its address, else by where the packet came
    /// from. Where that is unknown the address is all that there is.
    fn sender(&self, ingress_ifindex: u32, tuple: &Tuple) -> Option<(u32, &'a Pod)> {
        let known = self.world.veths.iter().filter(|(_, veth)| veth.state == EndpointState::Identified);
        let mut known = known.map(|(ifindex, veth)| (*ifindex, veth, &*self.world.cluster.pods[&veth.pod]));
        let source: IpAddr = tuple.source.into();
        if let Some((ifindex, veth, pod)) = known.clone().find(|(.., pod)| pod.addresses.contains(&source)) {
            return (ingress_ifindex == NODE || ifindex == ingress_ifindex || veth.master == ingress_ifindex)
                .then_some((ifindex, pod));
        }
        known.find(|(ifindex, ..)| *ifindex == ingress_ifindex).map(|(ifindex, _, pod)| (ifindex, pod))
    }

    /// The address that a packet comes from, before the node has rewritten it.
    fn source(&self, ingress_ifindex: u32, tuple: &Tuple) -> IpAddr {
        let source: IpAddr = tuple.source.into();
        let own = |pod: &Pod| pod.addresses.iter().copied().find(|own| own.is_ipv4() == source.is_ipv4());
        match self.sender(ingress_ifindex, tuple) {
            Some((_, pod)) if !pod.addresses.contains(&source) && !tuple.source.is_link_local_v6() => {
                own(pod).unwrap_or(source)
            }
            _ => source,
        }
    }
}

/// Where an IP packet says that it comes from, and whether it is a part of an IPv6 datagram.
fn source_and_part(frame: &[u8]) -> Option<(IpAddr, bool)> {
    let bytes = |at: usize, length: usize| frame.get(at..at + length);
    match frame.get(12..14)? {
        [0x08, 0x00] => Some((<[u8; 4]>::try_from(bytes(26, 4)?).ok()?.into(), false)),
        [0x86, 0xdd] => {
            let source: IpAddr = <[u8; 16]>::try_from(bytes(22, 16)?).ok()?.into();
            let (mut kind, mut at, mut is_part) = (frame[20], 54, false);
            while let (0 | 43 | 44 | 51 | 60, Some(&[next, length, high, low])) = (kind, bytes(at, 4)) {
                is_part |= kind == 44 && (high != 0 || low & 0xf9 != 0);
                at += match kind {
                    44 => 8,
                    51 => 4 * (usize::from(length) + 2),
                    _ => 8 * (usize::from(length) + 1),
                };
                kind = next;
            }
            Some((source, is_part))
        }
        _ => None,
    }
}
