//! A node under test: programs and maps in the kernel, and the same tables, endpoints and connections in user
//! space.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use podgate_common::{
    Address, Direction, Endpoint, Flow, FlowCounter, FlowEvent, FlowKey, FragmentKey, Hook, NODE, Outcome,
    Packet, PartialMessage, PortPair, Scratch, Seen, Stream, decide, decide_on_wire,
    frames::{BareIp, Frame},
    is_nodes,
};
use podgate_core::{
    compiler::{CompiledTables, Incremental},
    memory::Memory,
};
use podgate_datapath::{
    Datapath, DatapathOptions, DatapathReaders, Pins, TraceReader,
    publisher::{Published, Publisher, Wanted},
};

use crate::{neighbours::may_speak_for, sandbox, snapshot::Pinned, tunnels::is_tunnelled, world::World};

mod counters;
mod names;
mod programs;
mod state;
mod traced;

pub(crate) use programs::{Answer, Programs};
pub(crate) use state::in_memory;

/// With this in the environment, all nodes of the tests have the short cut, but those that re-evaluate
/// established connections, which excludes it.
pub(crate) const SHORTCUT: &str = "PODGATE_SHORTCUT";

/// With this in the environment, all pods of all nodes of the tests are traced.
pub(crate) const TRACED: &str = "PODGATE_TRACED";

/// What a node of a test is started with. The table is small, but larger than any test needs: user space
/// forgets no connection.
pub(crate) const OPTIONS: DatapathOptions = DatapathOptions::with_room(7 * 8_192);

pub(crate) struct Node {
    pub(crate) datapath: Datapath,
    pub(crate) readers: DatapathReaders,
    pub(crate) publisher: Publisher,
    pub(crate) pinned: Pinned,
    pub(crate) programs: Programs,
    /// What programs report that trace.
    pub(crate) trace: Option<TraceReader>,
    /// Goes from world to world in steps, as the agent does.
    compiler: Incremental,
    tables: CompiledTables,
    wanted: Wanted,
    recheck: bool,
    encapsulation: bool,
    shortcut: bool,
    /// The user space side of what the kernel has in maps.
    flows: BTreeMap<FlowKey, Flow>,
    fragments: BTreeMap<FragmentKey, PortPair>,
    learnt: names::LearntPlaces,
    streams: BTreeMap<(u32, u32), Stream>,
    partials: BTreeMap<u32, Box<[PartialMessage; 2]>>,
    now: u32,
    revision: u32,
    counters: Vec<(Direction, Outcome, u64)>,
    /// What the programs have reported about.
    pub(crate) reported: Vec<FlowEvent>,
}

impl Node {
    /// Programs are loaded in a sandbox of their own; the world is published.
    pub(crate) fn new(world: &World) -> Self {
        Self::start(world, OPTIONS)
    }

    /// The same with `--established recheck`.
    pub(crate) fn that_rechecks(world: &World) -> Self {
        Self::start(world, DatapathOptions { recheck: true, ..OPTIONS })
    }

    /// The same with `--allow-encapsulation`.
    pub(crate) fn that_allows_encapsulation(world: &World) -> Self {
        Self::start(world, DatapathOptions { encapsulation: true, ..OPTIONS })
    }

    /// The same with `--shortcut local`.
    pub(crate) fn with_shortcut(world: &World) -> Self {
        Self::start(world, DatapathOptions { shortcut: true, ..OPTIONS })
    }

    /// The same while all pods are traced.
    pub(crate) fn traced(world: &World) -> Self {
        Self::start_with(world, OPTIONS, true)
    }

    /// The same with so much room for connections. User space has no such limit: ask `programs` alone.
    pub(crate) fn with_room(world: &World, flows: u32) -> Self {
        Self::start(world, DatapathOptions { flows, ..OPTIONS })
    }

    fn start(world: &World, options: DatapathOptions) -> Self {
        Self::start_with(world, options, std::env::var_os(TRACED).is_some())
    }

    fn start_with(world: &World, options: DatapathOptions, is_traced: bool) -> Self {
        let shortcut = options.shortcut || !options.recheck && std::env::var_os(SHORTCUT).is_some();
        let options = DatapathOptions { shortcut, ..options };
        let bpffs = sandbox::enter();
        let pins = Pins::create(&bpffs).expect("a bpffs of our own");
        let (mut datapath, readers) = load(&pins, options);
        let trace = is_traced.then(|| traced::take_tracing(&mut datapath, &pins, options));
        let (mut tracing, trace) = trace.unzip();
        let programs = Programs::of_trace(&mut datapath, tracing.as_mut(), &bpffs);
        let tables = World::new().compile(Vec::new());
        let mut node = Self {
            reported: Vec::new(),
            counters: readers.counters.read().expect("counters"),
            datapath,
            readers,
            publisher: Publisher::default(),
            pinned: Pinned::new(&pins),
            programs,
            trace,
            compiler: Incremental::default(),
            tables,
            wanted: Wanted::default(),
            recheck: options.recheck,
            encapsulation: options.encapsulation,
            shortcut: options.shortcut,
            flows: BTreeMap::new(),
            fragments: BTreeMap::new(),
            learnt: BTreeMap::new(),
            streams: BTreeMap::new(),
            partials: BTreeMap::new(),
            now: 0,
            revision: 0,
        };
        node.publish(world);
        node
    }

    /// Brings kernel and user space to a new state of the world.
    pub(crate) fn publish(&mut self, world: &World) -> Published {
        let tables = world.step(&mut self.compiler, &self.publisher.in_force());
        let wanted = world.wanted(&tables);
        let published =
            self.publisher.publish(&mut self.datapath.maps, &tables, &wanted).expect("the kernel takes it");
        // Connections of an address that has another owner now are forgotten.
        let asked_before = (self.with_names(), self.wanted.resolvers.clone());
        let before = std::mem::replace(&mut self.wanted, wanted);
        let has_changed_hands =
            before.owners.iter().any(|(address, owner)| self.wanted.owners.get(address) != Some(owner));
        let is_own = |address: Address, veth| {
            veth == NODE || world.veths.contains_key(&veth) && may_speak_for(world, veth, address.into())
        };
        self.flows.retain(|key, flow| {
            let [low, high] = key.addresses();
            let is_low = flow.seen.has(Seen::CLIENT_IS_LOW);
            let (client, server) = if is_low { (low, high) } else { (high, low) };
            // Under another address by right, but not another pod's, nor its own one that it has lost.
            let is_by_right = || {
                let now = self.wanted.owners.get(&client.into());
                let is_lost = before.owners.get(&client.into()) == Some(&flow.client_if);
                let is_pods = now.is_some_and(|owner| !is_nodes(*owner));
                flow.client_if == NODE
                    || now == Some(&flow.client_if)
                    || world.veths.contains_key(&flow.client_if) && !is_lost && !is_pods
            };
            let is_clients = match flow.seen.has(Seen::REWRITTEN) {
                true => is_by_right(),
                false => is_own(client, flow.client_if),
            };
            is_clients && is_own(server, flow.server_if) || !has_changed_hands
        });
        // And those that lead to a tunnel, where they are not allowed to.
        let (encapsulation, owners) = (self.encapsulation, &self.wanted.owners);
        self.flows.retain(|key, flow| {
            let mut ends = key.addresses().into_iter().zip(key.ports());
            // A pod that has the packets is none, but for a client that sends there itself.
            let is_clients_way = flow.client_if != NODE && !flow.seen.has(Seen::REWRITTEN);
            let has_arrived = |at: &IpAddr| {
                !is_clients_way && flow.server_if != NODE && owners.get(at) == Some(&flow.server_if)
            };
            encapsulation
                || !ends.any(|(at, port)| {
                    !has_arrived(&at.into()) && is_tunnelled(world, key.protocol(), port, at.into())
                })
        });
        self.tables = tables;
        self.mark_connections(&asked_before);
        self.revision = published.revision;
        published
    }

    /// The kernel breaks a publication off. What is expected of it stays as it was: ask `programs` alone,
    /// until one succeeds.
    pub(crate) fn fail_to_publish(&mut self, world: &World, spoil: impl Fn(&mut Wanted)) {
        let tables = world.step(&mut self.compiler, &self.publisher.in_force());
        let mut wanted = world.wanted(&tables);
        spoil(&mut wanted);
        self.publisher
            .publish(&mut self.datapath.maps, &tables, &wanted)
            .expect_err("too much for the kernel");
    }

    /// Asserts what becomes of a packet.
    #[track_caller]
    pub(crate) fn expect(&mut self, hook: Hook, frame: &Frame, expected: Outcome) {
        self.expect_bytes(hook, &frame.bytes(), expected);
        self.assert_same_state();
    }

    #[track_caller]
    pub(crate) fn expect_bytes(&mut self, hook: Hook, frame: &[u8], expected: Outcome) {
        assert_eq!(self.evaluate(hook, frame), expected, "{hook:?}: {frame:02x?}");
    }

    /// Evaluates a packet in the kernel and in user space: both must agree, and exactly one counter moves, by
    /// one.
    #[track_caller]
    pub(crate) fn evaluate(&mut self, hook: Hook, frame: &[u8]) -> Outcome {
        if self.shortcut {
            self.open_all();
        }
        let mut scratch = Scratch::EMPTY;
        let expected = self.with_memory(|memory| decide(&frame, &mut scratch, &hook, memory));
        let answer = self.programs.answer(hook, frame);
        let mut counted = vec![(hook.direction, expected, 1)];
        if answer == Answer::HandedOver {
            let arrived = self.arrives(&scratch, hook, frame);
            counted.push((Direction::Ingress, arrived, 1));
        }
        assert_eq!(self.moved_counters(), counted, "counters, {hook:?}: {frame:02x?}");
        let passed = answer != Answer::Dropped;
        assert_eq!(passed, expected.passes(), "the program's answer, {hook:?}: {frame:02x?}");
        self.assert_reported(&scratch, Some(expected));
        self.assert_traced(hook, expected);
        if scratch.learns {
            self.learn(&scratch, hook, frame);
        }
        expected
    }

    /// Asserts that a packet that is handed over would have passed at its receiver's veth; the outcome there.
    #[track_caller]
    fn arrives(&mut self, scratch: &Scratch, hook: Hook, frame: &[u8]) -> Outcome {
        // Of an ICMP error it is known; else whose address the packet goes to.
        let owner = self.wanted.owners.get(&scratch.headers.tuple.destination.into()).copied();
        let receiver = Some(scratch.receiver).filter(|veth| *veth != NODE).or(owner);
        let receiver = receiver.expect("a pod of this node");
        let there = Hook { direction: Direction::Ingress, ifindex: receiver, ingress_ifindex: hook.ifindex };
        let before = (self.flows.clone(), self.fragments.clone());
        let arrived = self.with_memory(|memory| decide(&frame, &mut { Scratch::EMPTY }, &there, memory));
        (self.flows, self.fragments) = before;
        assert!(arrived.passes(), "{arrived:?} at {there:?}, but handed over: {frame:02x?}");
        arrived
    }

    /// All veths, of which each is open where there is a short cut.
    fn veths(&self) -> BTreeSet<u32> {
        self.wanted.endpoints.keys().copied().collect()
    }

    fn open_all(&mut self) {
        let now = self.datapath.clock.now().expect("the kernel's clock");
        let veths = self.veths();
        self.datapath.maps.open_veths.set_all(veths, now);
    }

    /// Asserts what becomes of a packet that leaves the node; `None`: no one counts it.
    #[track_caller]
    pub(crate) fn expect_on_wire(&mut self, ingress_ifindex: u32, frame: &Frame, expected: Option<Outcome>) {
        assert_eq!(
            self.verdict_on_wire(ingress_ifindex, &frame.bytes()),
            expected,
            "via {ingress_ifindex}: {frame:?}"
        );
        self.assert_same_state();
    }

    /// As [`Self::evaluate`], where packets leave the node.
    #[track_caller]
    pub(crate) fn verdict_on_wire(&mut self, ingress_ifindex: u32, frame: &[u8]) -> Option<Outcome> {
        let passed = self.programs.run_on_wire(ingress_ifindex, frame);
        self.assert_on_wire(ingress_ifindex, &frame, passed)
    }

    /// The same on a device without link headers: a packet from its IP header on.
    #[track_caller]
    pub(crate) fn verdict_on_tunnel(&mut self, ingress_ifindex: u32, packet: &[u8]) -> Option<Outcome> {
        let passed = self.programs.run_on_tunnel(ingress_ifindex, packet);
        self.assert_on_wire(ingress_ifindex, &BareIp(packet), passed)
    }

    #[track_caller]
    fn assert_on_wire(
        &mut self,
        ingress_ifindex: u32,
        packet: &(impl Packet + fmt::Debug),
        passed: bool,
    ) -> Option<Outcome> {
        let mut scratch = Scratch::EMPTY;
        let expected =
            self.with_memory(|memory| decide_on_wire(packet, &mut scratch, ingress_ifindex, memory));
        let counted: Vec<_> = expected.iter().map(|outcome| (Direction::Egress, *outcome, 1)).collect();
        let what = || format!("on the wire, via {ingress_ifindex}: {packet:02x?}");
        assert_eq!(self.moved_counters(), counted, "counters, {}", what());
        assert_eq!(passed, expected.is_none_or(Outcome::passes), "{}", what());
        self.assert_reported(&scratch, expected);
        expected
    }

    /// What the programs reported a packet is what user space says of it; of one that is like many others
    /// they may be silent.
    #[track_caller]
    fn assert_reported(&mut self, scratch: &Scratch, outcome: Option<Outcome>) {
        let Some(event) = self.readers.events.take() else { return };
        assert_eq!(self.readers.events.take(), None, "one packet, one event");
        let outcome = outcome.filter(|outcome| outcome.is_reported()).expect("nothing is to be reported");
        let (flow_counter, time) =
            (FlowCounter { revision: event.revision, ..FlowCounter::EMPTY }, event.time);
        let expected =
            FlowEvent::new(&scratch.client_tuple(), &scratch.policy_lookup, outcome, &flow_counter, time);
        // Ids are the kernel's own.
        let (packets, policy) = (event.packets, event.policy);
        assert_eq!(event, FlowEvent { packets, policy, ..expected });
        assert_eq!(policy.isolates(), expected.policy.isolates(), "{event:?}");
        self.reported.push(event);
    }

    fn with_memory<T>(&mut self, decide: impl FnOnce(&Memory<'_>) -> T) -> T {
        let with_names = self.with_names();
        let mut memory = Memory::new(&self.tables);
        memory.endpoints = self
            .wanted
            .endpoints
            .iter()
            .map(|(ifindex, entry)| {
                let endpoint = Endpoint {
                    names: if with_names.contains(ifindex) { *ifindex } else { 0 },
                    v4: self.own_address(*ifindex, true),
                    v6: self.own_address(*ifindex, false),
                    ..in_memory(&self.tables, entry)
                };
                (*ifindex, endpoint)
            })
            .collect();
        memory.owners = self.wanted.owners.iter().map(|(at, owner)| ((*at).into(), *owner)).collect();
        memory.link_addresses = self.wanted.link_addresses.clone();
        memory.tunnel_ports = self.wanted.tunnel_ports.clone();
        memory.tunnel_services = self.wanted.tunnel_services.clone();
        memory.tunnel_filter = self.wanted.tunnel_filter.clone();
        memory.flows = std::mem::take(&mut self.flows).into();
        memory.fragments = std::mem::take(&mut self.fragments).into();
        memory.resolvers = self.wanted.resolvers.clone();
        let learnt = names::ids(&self.learnt, &memory);
        memory.learnt = learnt.clone().into();
        memory.now.set(self.now);
        memory.revision.set(self.revision);
        memory.recheck.set(self.recheck);
        memory.passes_encapsulation.set(self.encapsulation);
        memory.has_shortcut.set(self.shortcut);
        memory.open_veths = self.veths().into();
        let answer = decide(&memory);
        names::note_new(&mut self.learnt, &learnt, &memory);
        self.flows = memory.flows.into_inner();
        self.fragments = memory.fragments.into_inner();
        answer
    }

    /// The lowest address of a family that a veth has.
    fn own_address(&self, veth: u32, v4: bool) -> Address {
        let mut owners = self.wanted.owners.iter();
        let own = owners.find(|(address, owner)| **owner == veth && address.is_ipv4() == v4);
        own.map_or(Address::UNSPECIFIED, |(address, _)| (*address).into())
    }

    pub(crate) const fn tables(&self) -> &CompiledTables {
        &self.tables
    }

    pub(crate) const fn wanted(&self) -> &Wanted {
        &self.wanted
    }
}

pub(crate) fn load(pins: &Pins, options: DatapathOptions) -> (Datapath, DatapathReaders) {
    Datapath::load(Some(pins), options).unwrap_or_else(|error| panic!("{error:#}"))
}
