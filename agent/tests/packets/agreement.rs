//! Random clusters and random packets: kernel and user space agree on each, and nothing passes without a
//! reason that holds by the naive reading of the policies.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use podgate_common::{
    Direction, EndpointState, Flow, FlowKey, FragmentKey, Headers, Hook, NODE, Outcome, PacketKind, Protocol,
    Tuple, parse,
};
use podgate_core::{
    compiler::CompiledTables,
    model::{Cluster, Pod, Service, ServicePort},
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    generate::{At, steps, worlds},
    naive::{self, Asked},
    neighbours::{self, Outer},
    node::Node,
    world::World,
};

const CLUSTERS: u32 = 200;
const PACKETS: usize = 700;

#[test]
fn kernel_and_user_space_agree_and_each_outcome_has_its_reason() {
    let node = RefCell::new(Node::new(&World::new()));
    let outcomes = RefCell::new(BTreeMap::<Outcome, u32>::new());
    let config =
        Config { cases: CLUSTERS, failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
    let cases = (worlds(), prop::collection::vec(steps(), PACKETS));
    let result = TestRunner::new(config).run(&cases, |(world, steps)| {
        let mut node = node.borrow_mut();
        node.forget();
        node.publish(&world);
        let tables = world.compile(Vec::new());
        let mut witness = Witness::new(&world, &tables);
        let mut frames = Vec::new();
        for step in steps {
            let (frame, at, bytes) = step.resolve(&world, &frames);
            let (outcome, reason) = match at {
                At::Pod(hook) => {
                    let outcome = node.evaluate(hook, &bytes);
                    (Some(outcome), witness.check(hook, &bytes, outcome))
                }
                At::Wire(ingress_ifindex) => {
                    let outcome = node.verdict_on_wire(ingress_ifindex, &bytes);
                    (outcome, witness.check_on_wire(ingress_ifindex, &bytes, outcome))
                }
                At::Tunnel(ingress_ifindex) => {
                    let outcome = node.verdict_on_tunnel(ingress_ifindex, &bytes[14..]);
                    (outcome, witness.check_on_wire(ingress_ifindex, &framed(&bytes[14..]), outcome))
                }
            };
            if let Err(why) = reason {
                return Err(TestCaseError::fail(format!("{outcome:?}, but {why}: {at:?} {bytes:02x?}")));
            }
            if let Some(outcome) = outcome {
                *outcomes.borrow_mut().entry(outcome).or_default() += 1;
            }
            frames.extend(frame);
        }
        node.assert_same_state();
        Ok(())
    });
    let outcomes = outcomes.into_inner();
    println!("{} packets: {outcomes:?}", outcomes.values().sum::<u32>());
    if let Err(error) = result {
        panic!("{error}");
    }
    // The generator must reach all of them; the table of connections is never full here, and no packet is
    // tracked.
    let out_of_reach = [Outcome::FlowTable, Outcome::Masqueraded];
    for outcome in Outcome::ALL.into_iter().filter(|outcome| !out_of_reach.contains(outcome)) {
        let seen = outcomes.get(&outcome).copied().unwrap_or(0);
        assert!(seen >= 20, "only {seen} packets were {outcome}");
    }
    assert!(outcomes.values().sum::<u32>() >= 100_000);
}

/// A host without an address asks everyone for one, or to keep the one that it has.
fn is_dhcp_question(pod: &Pod, tuple: &Tuple) -> bool {
    let (source, destination): (IpAddr, IpAddr) = (tuple.source.into(), tuple.destination.into());
    let is_udp = tuple.protocol == Protocol::Udp as u32;
    is_udp
        && match (tuple.source_port, tuple.destination_port) {
            (68, 67) => {
                destination == IpAddr::from([255; 4])
                    && (source.is_unspecified() || pod.addresses.contains(&source))
            }
            (546, 547) => destination == crate::world::ip("ff02::1:2") && tuple.source.is_link_local_v6(),
            _ => false,
        }
}

/// A packet behind the Ethernet header that its version of IP has.
fn framed(packet: &[u8]) -> Vec<u8> {
    let kind = match packet[0] >> 4 {
        4 => [0x08, 0x00],
        6 => [0x86, 0xdd],
        _ => [0, 0],
    };
    [&[0; 12], &kind[..], packet].concat()
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

/// What policies say of one side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KernelVerdict {
    /// None has a say.
    Nothing,
    Allowed,
    /// Some of the service's backends are allowed.
    Deferred,
    Denied,
}

/// Remembers what has passed, and checks every outcome against it and against the policies.
pub(crate) struct Witness<'a> {
    world: &'a World,
    /// As if nothing were in audit mode.
    audited: Cluster,
    tables: &'a CompiledTables,
    /// Connections, by veth, of which a packet has passed as new.
    opened: BTreeSet<(u32, FlowKey)>,
    /// Those of them that somebody else than the node has opened.
    opened_by_others: BTreeSet<(u32, FlowKey)>,
    /// Pods' veths and families of which DHCP's questions have passed.
    asked: BTreeSet<(u32, bool)>,
    /// Those that the node has rewritten on their way from a pod: known by other addresses than the pod's.
    rewritten: BTreeSet<(u32, FlowKey)>,
    /// Those that a pod's veth has deferred since they were evaluated last, and that veth.
    deferred: BTreeMap<FlowKey, u32>,
    /// Ports of first fragments that have passed.
    fragments: BTreeMap<FragmentKey, (u16, u16)>,
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
            rewritten: BTreeSet::new(),
            deferred: BTreeMap::new(),
            fragments: BTreeMap::new(),
        }
    }

    pub(crate) fn check(&mut self, hook: Hook, frame: &[u8], outcome: Outcome) -> Result<(), &'static str> {
        let read = self.read(frame);
        self.sound(self.entered(hook, &read), read.kind, &read.tuple, frame, outcome)?;
        self.reason(hook, &read, frame, outcome)?;
        let is_own = self.is_nodes_own(hook.ingress_ifindex, &read);
        let Read { kind, tuple, datagram, .. } = read;
        if outcome.passes() && kind == PacketKind::FirstFragment {
            self.fragments.insert(datagram, (tuple.source_port, tuple.destination_port));
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
            self.opened.insert((hook.ifindex, key));
            if !(is_own && hook.direction == Direction::Ingress) {
                self.opened_by_others.insert((hook.ifindex, key));
            }
            let misdelivered = self.world.subjects().any(|pod| {
                pod.addresses.contains(&tuple.destination.into())
                    && pod.name != self.world.veths[&hook.ifindex].pod
            });
            if outcome == Outcome::Deferred {
                self.deferred.insert(key, hook.ifindex);
            } else if hook.direction == Direction::Egress || !misdelivered {
                self.deferred.remove(&key);
            }
            // The sender's side was evaluated, too.
            let sender =
                self.sender(hook.ingress_ifindex, &tuple).filter(|_| hook.direction == Direction::Ingress);
            let sender = sender.map(|(veth, _)| (veth, key));
            self.opened.extend(sender);
            self.opened_by_others.extend(sender);
            self.rewritten.extend(sender);
        }
        if outcome == Outcome::Dhcp && hook.direction == Direction::Egress {
            self.asked.insert((hook.ifindex, tuple.source.is_v4()));
        }
        Ok(())
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

    /// What leaves the node is evaluated when a pod has sent it that policies are asked about, and not
    /// evaluated before.
    pub(crate) fn check_on_wire(
        &mut self,
        ingress_ifindex: u32,
        frame: &[u8],
        outcome: Option<Outcome>,
    ) -> Result<(), &'static str> {
        let Read { kind, tuple, opens, source, is_part, datagram, is_connection } = self.read(frame);
        let (key, _) = FlowKey::of(&tuple);
        let is_enforced = |pod: &Pod| naive::isolates(&self.world.cluster, pod, Direction::Egress);
        let must = |holds: bool, why| if holds { Ok(()) } else { Err(why) };
        // Of what has entered nowhere, whole packets are the kernel's making, and parts are their senders'.
        let is_foreign = ingress_ifindex != NODE || is_part;
        match kind {
            PacketKind::Unreadable => {
                let is_closed = self.known(ingress_ifindex).is_some_and(is_enforced);
                let expected = (is_closed && is_foreign).then_some(Outcome::Unreadable);
                return must(outcome == expected, "what cannot be read leaves from a free pod alone");
            }
            PacketKind::Related => {
                let error = Tuple { source: source.into(), ..tuple };
                let veth =
                    self.sender(ingress_ifindex, &error).filter(|(_, pod)| is_foreign && is_enforced(pod));
                let was_opened = veth.is_some_and(|(veth, _)| self.opened.contains(&(veth, key)));
                return match outcome {
                    None => must(veth.is_none() || was_opened, "its connection was not evaluated"),
                    Some(outcome) => {
                        must(veth.is_some() && outcome == Outcome::Denied, "no isolated pod has sent it")
                    }
                };
            }
            _ => {}
        }
        let asked = self
            .sender(ingress_ifindex, &tuple)
            .filter(|(_, pod)| is_foreign && naive::isolates(&self.audited, pod, Direction::Egress));
        let is_candidate =
            matches!(kind, PacketKind::Flow | PacketKind::FirstFragment | PacketKind::LaterFragment)
                && !neighbours::has_type(frame);
        let Some((veth, pod)) = asked.filter(|_| is_candidate) else {
            return outcome.map_or(Ok(()), |_| Err("no isolated pod has sent it"));
        };
        let isolated = is_enforced(pod);
        if !is_connection {
            return if outcome == isolated.then_some(Outcome::Fragment) {
                Ok(())
            } else {
                Err("its first fragment is not known")
            };
        }
        let passes = outcome.is_none_or(Outcome::passes);
        let holds = match outcome {
            None => self.opened.contains(&(veth, key)) && self.deferred.get(&key) != Some(&veth),
            Some(Outcome::Allowed | Outcome::NotIsolated)
                if isolated != (outcome == Some(Outcome::Allowed)) =>
            {
                false
            }
            Some(Outcome::Allowed | Outcome::NotIsolated) => {
                let may_be_a_reply = !pod.addresses.contains(&tuple.source.into())
                    && !tuple.source.is_link_local_v6()
                    && tuple.protocol == Protocol::Tcp as u32
                    && !opens;
                let allowed = self.sends(pod, &tuple) && self.would_send(pod, &tuple);
                allowed || may_be_a_reply || is_dhcp_question(pod, &tuple)
            }
            Some(Outcome::DeniedBackend) => !self.sends(pod, &tuple),
            Some(Outcome::WouldDeny) => self.sends(pod, &tuple) && !self.would_send(pod, &tuple),
            Some(_) => false,
        };
        if passes {
            self.opened.insert((veth, key));
            self.opened_by_others.insert((veth, key));
            self.rewritten.insert((veth, key));
            self.deferred.remove(&key);
            if kind == PacketKind::FirstFragment {
                self.fragments.insert(datagram, (tuple.source_port, tuple.destination_port));
            }
        }
        if holds { Ok(()) } else { Err("the sender's policies say otherwise") }
    }

    /// Whether a packet that has entered at no interface is the node's: not a part of an IPv6 datagram, which
    /// without a socket is another's, and from an address of the node's or of a link.
    fn is_nodes_own(&self, ingress_ifindex: u32, read: &Read) -> bool {
        let is_link_local = matches!(read.source, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let is_named =
            self.world.node.contains(&read.source) || is_link_local || read.source.is_unspecified();
        ingress_ifindex == NODE && !read.is_part && is_named
    }

    /// A hook with where a packet has entered: what has no ingress interface and is not the node's own is
    /// from nowhere known.
    fn entered(&self, hook: Hook, read: &Read) -> Hook {
        let is_own = hook.direction == Direction::Egress || self.is_nodes_own(hook.ingress_ifindex, read);
        let ingress_ifindex = if hook.ingress_ifindex == NODE && !is_own {
            Flow::UNKNOWN_INGRESS
        } else {
            hook.ingress_ifindex
        };
        Hook { ingress_ifindex, ..hook }
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

    /// Whether a pod's egress allows this.
    fn sends(&self, pod: &Pod, tuple: &Tuple) -> bool {
        Self::sends_in(&self.world.cluster, pod, tuple)
    }

    /// Whether it would, were nothing in audit mode.
    fn would_send(&self, pod: &Pod, tuple: &Tuple) -> bool {
        Self::sends_in(&self.audited, pod, tuple)
    }

    fn sends_in(cluster: &Cluster, pod: &Pod, tuple: &Tuple) -> bool {
        let protocol = Protocol::try_from(tuple.protocol).ok();
        let (peer, port) = (tuple.destination.into(), tuple.destination_port);
        naive::allows(
            cluster,
            Asked {
                subject: pod,
                direction: Direction::Egress,
                peer,
                protocol,
                port,
                // What the node keeps for itself is evaluated where it leaves the pod.
                own_node: false,
            },
        )
    }

    /// Where a packet to a service may end, if it goes to one: addresses and ports; and whether it goes to a
    /// node port.
    fn ends(&self, tuple: &Tuple) -> Option<(BTreeSet<(IpAddr, u16)>, bool)> {
        let protocol = Protocol::try_from(tuple.protocol).ok()?;
        let (destination, port): (IpAddr, _) = (tuple.destination.into(), tuple.destination_port);
        let to_node = self.world.node.contains(&destination);
        let at = |is_there: &dyn Fn(&Service) -> bool, number: &dyn Fn(&ServicePort) -> Option<u16>| {
            let services = self.world.cluster.services.values().filter(|service| is_there(service));
            let services = services.filter(|service| {
                let [first] = &service.ports[..] else { panic!("every service of the test has one port") };
                first.protocol == protocol && number(first) == Some(port)
            });
            services.map(|service| self.endpoints(service, destination.is_ipv4())).collect::<Vec<_>>()
        };
        let number = |port: &ServicePort| Some(port.number);
        let owners = at(&|service| service.cluster_addresses.contains(&destination), &number);
        let others = at(&|service| service.external_addresses.contains(&destination), &number);
        let node_ports = match to_node && owners.is_empty() && others.is_empty() {
            true => at(&|_| true, &|port| port.node_port),
            false => Vec::new(),
        };
        // Without endpoints it is a port of the node's like any other.
        let node_ports: Vec<_> = node_ports.into_iter().filter(|behind| !behind.is_empty()).collect();
        if owners.is_empty() && others.is_empty() && node_ports.is_empty() {
            return None;
        }
        // Who claims another's cluster address does not close it by a backend that is the node.
        let counts = |(address, _): &&(IpAddr, u16)| owners.is_empty() || !self.world.node.contains(address);
        let untranslated =
            !others.is_empty() || to_node && !owners.is_empty() || owners.iter().any(BTreeSet::is_empty);
        let own = owners.iter().chain(&node_ports).flatten();
        let mut ends: BTreeSet<_> = own.chain(others.iter().flatten().filter(counts)).copied().collect();
        ends.extend(untranslated.then_some((destination, port)));
        Some((ends, !node_ports.is_empty()))
    }

    fn endpoints(&self, service: &Service, v4: bool) -> BTreeSet<(IpAddr, u16)> {
        let slices = self.world.cluster.slices.values().filter(|slice| slice.service == service.name);
        let endpoints = slices.flat_map(|slice| {
            let port = slice.ports[0].number.expect("every slice of the test has one");
            slice.endpoints.iter().map(move |endpoint| (endpoint.address, port))
        });
        endpoints.filter(|(address, _)| address.is_ipv4() == v4).collect()
    }

    /// Whether a backend is a pod of this node under the same rules: then the compiled tables cannot tell it
    /// from the sender, which always reaches itself.
    fn may_be_itself(&self, rule_set: usize, backend: &IpAddr) -> bool {
        let (tables, known) =
            (self.tables, self.world.subjects().find(|pod| pod.addresses.contains(backend)));
        known.is_some_and(|pod| tables.subjects[&pod.name].of_egress().contains(&rule_set))
    }

    /// What the policies of a cluster say of a pod's side. `rule_set` is what its egress was compiled to.
    fn said(
        &self,
        cluster: &Cluster,
        rule_set: usize,
        pod: &Pod,
        hook: Hook,
        tuple: &Tuple,
    ) -> KernelVerdict {
        let egress = hook.direction == Direction::Egress;
        let allows = |peer: IpAddr, port| {
            let protocol = Protocol::try_from(tuple.protocol).ok();
            let own_node = egress && self.world.node.contains(&peer);
            let direction = hook.direction;
            naive::allows(cluster, Asked { subject: pod, direction, peer, protocol, port, own_node })
        };
        if !naive::isolates(cluster, pod, hook.direction) {
            return KernelVerdict::Nothing;
        }
        if egress && pod.addresses.contains(&tuple.destination.into()) {
            return KernelVerdict::Allowed;
        }
        let to_node = egress && self.world.node.contains(&tuple.destination.into());
        let ends = self.ends(tuple).filter(|_| egress);
        let is_node_port = ends.as_ref().is_some_and(|(_, is_node_port)| *is_node_port);
        // Nothing sees what is delivered to the node, translated or not.
        if to_node && !is_node_port && !allows(tuple.destination.into(), tuple.destination_port) {
            return KernelVerdict::Denied;
        }
        let Some((backends, _)) = ends else {
            let peer =
                if egress { tuple.destination.into() } else { self.source(hook.ingress_ifindex, tuple) };
            return if allows(peer, tuple.destination_port) {
                KernelVerdict::Allowed
            } else {
                KernelVerdict::Denied
            };
        };
        // Each backend of the service: allowed, or the pod itself, which is met only by who is.
        let behind: Vec<(bool, bool)> = backends
            .iter()
            .map(|(address, port)| (allows(*address, *port), self.may_be_itself(rule_set, address)))
            .collect();
        // What is delivered to the node is evaluated nowhere else: one that is denied there denies all.
        let node_is_denied = backends
            .iter()
            .zip(&behind)
            .any(|((address, _), (allowed, _))| self.world.node.contains(address) && !allowed);
        if !behind.is_empty() && behind.iter().all(|(allowed, _)| *allowed) {
            KernelVerdict::Allowed
        } else if !node_is_denied && behind.iter().any(|(allowed, itself)| *allowed || *itself) {
            KernelVerdict::Deferred
        } else {
            KernelVerdict::Denied
        }
    }

    /// What no policy has a say in: nothing passes from an address that is not its sender's or in another's
    /// name, no tunnel's packet goes to a node, and only messages between neighbours pass as such.
    fn sound(
        &self,
        hook: Hook,
        kind: PacketKind,
        tuple: &Tuple,
        frame: &[u8],
        outcome: Outcome,
    ) -> Result<(), &'static str> {
        let egress = hook.direction == Direction::Egress;
        let in_anothers_name = neighbours::is_in_anothers_name(self.world, hook, frame);
        let must = |holds: bool, why| if holds { Ok(()) } else { Err(why) };
        must(!(outcome.passes() && in_anothers_name), "it speaks in another's name")?;
        let from_another = neighbours::is_from_another_link_address(self.world, hook, frame);
        must(!(outcome.passes() && from_another), "it is from another link-layer address than its pod's")?;
        if outcome == Outcome::Neighbour || !outcome.passes() || !egress {
            return Ok(());
        }
        let key = (hook.ifindex, FlowKey::of(tuple).0);
        let is_rewritten = outcome == Outcome::Established && self.rewritten.contains(&key);
        if let Outer::Ip { source, .. } = neighbours::outer(frame, hook.direction) {
            let is_own = neighbours::may_speak_for(self.world, hook.ifindex, source);
            // Of an IPv6 packet that cannot be read `::` says nothing.
            let is_none = outcome == Outcome::Unparsed && source.is_unspecified();
            must(
                is_own || is_none || is_rewritten || outcome == Outcome::Dhcp,
                "its source is not the pod's",
            )?;
        }
        let is_packet =
            matches!(kind, PacketKind::Flow | PacketKind::FirstFragment | PacketKind::LaterFragment);
        must(
            is_rewritten || !is_packet || outcome == Outcome::Unparsed || !self.is_tunnelled(tuple),
            "a node may take another packet out of it",
        )
    }

    fn is_tunnelled(&self, tuple: &Tuple) -> bool {
        let destination = tuple.destination.into();
        neighbours::is_tunnelled(self.world, tuple.protocol, tuple.destination_port, destination)
    }

    fn reason(&self, hook: Hook, read: &Read, frame: &[u8], outcome: Outcome) -> Result<(), &'static str> {
        let Read { kind, is_connection, ref tuple, opens, .. } = *read;
        let veth = &self.world.veths[&hook.ifindex];
        let pod = &self.world.cluster.pods[&veth.pod];
        let is_known = veth.state == EndpointState::Identified;
        let isolated = is_known && naive::isolates(&self.world.cluster, pod, hook.direction);
        let opened = self.opened.contains(&(hook.ifindex, FlowKey::of(tuple).0));
        let egress = hook.direction == Direction::Egress;
        let (source, destination): (IpAddr, IpAddr) = (tuple.source.into(), tuple.destination.into());
        let source_of_frame = || match neighbours::outer(frame, hook.direction) {
            Outer::Ip { source, .. } => Some(source),
            Outer::Arp { .. } | Outer::Other => None,
        };
        let suspicious = || neighbours::is_suspicious(self.world, frame);
        let entered = self.entered(hook, read);
        let own = |address| pod.addresses.contains(address);
        let subject = self.tables.subjects[&pod.name];
        let said = || match is_known {
            true => self.said(&self.world.cluster, subject.egress, pod, hook, tuple),
            false => KernelVerdict::Nothing,
        };
        let would_say = || match (is_known, subject.audit_egress) {
            (false, _) => KernelVerdict::Nothing,
            (true, 0) => self.said(&self.audited, subject.egress, pod, hook, tuple),
            (true, rule_set) => self.said(&self.audited, rule_set, pod, hook, tuple),
        };
        let allowed = || {
            said() == KernelVerdict::Allowed
                && !matches!(would_say(), KernelVerdict::Denied | KernelVerdict::Deferred)
        };
        let sender = || self.sender(hook.ingress_ifindex, tuple).map(|(_, pod)| pod);
        let sender_allows = || sender().is_none_or(|pod| self.sends(pod, tuple));
        let sender_would_allow = || sender().is_none_or(|pod| self.would_send(pod, tuple));
        let must = |holds: bool, why| if holds { Ok(()) } else { Err(why) };
        let is_own = self.is_nodes_own(hook.ingress_ifindex, read);
        let is_made_again = !egress && hook.ingress_ifindex == NODE && !is_own;
        let opens_again = [Outcome::Allowed, Outcome::NotIsolated, Outcome::WouldDeny, Outcome::OwnAddress];
        if is_made_again && opens_again.contains(&outcome) {
            let veth = self.sender(hook.ingress_ifindex, tuple).map(|(veth, _)| veth);
            let was_seen = |veth| self.opened.contains(&(veth, FlowKey::of(tuple).0));
            must(veth.is_none_or(was_seen), "the pod in whose name it comes has not sent it")?;
        }
        match outcome {
            Outcome::Established => {
                let (key, _) = FlowKey::of(tuple);
                let opened =
                    if is_made_again { self.opened_by_others.contains(&(hook.ifindex, key)) } else { opened };
                must(is_connection && opened && !opens, "nothing opened the connection here")
            }
            Outcome::Allowed => must(is_connection && isolated && allowed(), "no rule allows it"),
            Outcome::NotIsolated => must(
                is_connection
                    && !isolated
                    && !matches!(would_say(), KernelVerdict::Denied | KernelVerdict::Deferred),
                "the pod is isolated, or something in audit mode has a word to say",
            ),
            Outcome::WouldDeny => must(
                is_connection
                    && matches!(said(), KernelVerdict::Nothing | KernelVerdict::Allowed)
                    && (would_say() == KernelVerdict::Denied || !egress && !sender_would_allow()),
                "nothing in audit mode denies it",
            ),
            Outcome::OwnNode if egress => {
                let to_node = self.world.node.contains(&destination);
                must(is_connection && to_node && allowed(), "it does not go to the node, or is denied there")
            }
            Outcome::OwnNode => must(is_own, "it does not come from the node's own stack"),
            Outcome::OwnAddress if egress => must(is_connection && own(&destination), "it goes elsewhere"),
            Outcome::OwnAddress => {
                let sender = self.sender(hook.ingress_ifindex, tuple).map(|(veth, _)| veth);
                must(
                    is_connection && (hook.ingress_ifindex == hook.ifindex || sender == Some(hook.ifindex)),
                    "it comes from elsewhere",
                )
            }
            Outcome::Neighbour => must(
                neighbours::is_message(self.world, entered, frame),
                "it is no message between neighbours",
            ),
            Outcome::Dhcp => {
                let v4 = tuple.source.is_v4();
                let mut known = self.world.veths.keys().filter_map(|veth| self.known(*veth));
                let nobody_else = !self.world.node.contains(&destination)
                    && known.all(|pod| !pod.addresses.contains(&destination));
                let from_pod = self
                    .world
                    .veths
                    .get(&hook.ingress_ifindex)
                    .is_some_and(|veth| veth.state != EndpointState::Pending);
                must(
                    match (egress, tuple.source_port, tuple.destination_port) {
                        (true, ..) => is_dhcp_question(pod, tuple),
                        (false, 67, 68) | (false, 547, 546) => {
                            let asked = self.asked.contains(&(hook.ifindex, v4));
                            asked
                                && hook.ingress_ifindex != NODE
                                && !from_pod
                                && (nobody_else || own(&destination))
                        }
                        _ => false,
                    },
                    "it is no question of DHCP, and no answer to one",
                )
            }
            Outcome::Related => {
                must(kind == PacketKind::Related && opened, "its connection was not opened here")
            }
            Outcome::Unparsed => must(
                !(is_connection || isolated || egress && kind == PacketKind::Unreadable && suspicious()),
                "it was read, or the pod is isolated, or it may be what no pod may send",
            ),
            Outcome::Denied if kind == PacketKind::Related => must(isolated, "the pod is not isolated"),
            Outcome::Denied => {
                must(is_connection && isolated && said() == KernelVerdict::Denied, "a rule allows it")
            }
            Outcome::DeniedBackend => {
                must(is_connection && !sender_allows(), "the sender's egress allows it")
            }
            Outcome::Deferred => must(
                is_connection
                    && is_known
                    && egress
                    && (said() == KernelVerdict::Deferred
                        || said() != KernelVerdict::Denied && would_say() == KernelVerdict::Deferred),
                "all backends are allowed, or none is, or there are none",
            ),
            Outcome::Masqueraded => Err("no packet is tracked"),
            Outcome::Spoofed if neighbours::is_in_anothers_name(self.world, entered, frame) => Ok(()),
            Outcome::Spoofed if neighbours::is_from_another_link_address(self.world, hook, frame) => Ok(()),
            Outcome::Spoofed if egress => must(
                !source_of_frame()
                    .is_some_and(|source| neighbours::may_speak_for(self.world, hook.ifindex, source)),
                "the source is the pod's own",
            ),
            Outcome::Encapsulated => {
                must(is_connection && egress && self.is_tunnelled(tuple), "no node takes anything out of it")
            }
            Outcome::Spoofed => must(
                [Some(source), Some(read.source), source_of_frame()]
                    .into_iter()
                    .flatten()
                    .any(|source| self.world.subjects().any(|other| other.addresses.contains(&source))),
                "the source is no local pod's",
            ),
            Outcome::Pending => must(veth.state == EndpointState::Pending, "the veth is not held"),
            Outcome::Unreadable => {
                let unread = matches!(kind, PacketKind::Unreadable | PacketKind::Arp);
                must(unread && (isolated || egress && suspicious()), "it was read, or the pod is free")
            }
            Outcome::Fragment => must(
                kind == PacketKind::LaterFragment && !is_connection && isolated,
                "its first fragment is known, or the pod is free",
            ),
            Outcome::FlowTable => Err("the table of connections has room"),
        }
    }
}
