//! A node under test: programs and maps in the kernel, and the same tables, endpoints and connections in user
//! space.

use std::{collections::BTreeMap, path::Path};

use aya::{TestRun as _, TestRunOptions, programs::SchedClassifier};
use podgate_common::{
    Address, Direction, Endpoint, Flow, FlowCounter, FlowEvent, FlowKey, FragmentKey, Hook, JIFFIES_PER_TICK,
    Outcome, Packet, PortPair, Scratch, Start, TableSetIndex, Tracked, Unreported, decide, decide_on_wire,
    frames::Frame,
};
use podgate_core::{
    compiler::{CompiledTables, Incremental},
    memory::{self, Memory},
};
use podgate_datapath::{
    Datapath, DatapathOptions, EventRing, Pins, Program,
    publisher::{Published, Publisher, Wanted},
    sockets::{Socket, sides},
};

use crate::{
    sandbox,
    snapshot::{Pinned, entries},
    world::{Family, Host, UPLINK, World},
};

/// `TC_ACT_UNSPEC` and `TC_ACT_SHOT` as the kernel hands them back.
const PASSED: u32 = u32::MAX;
const DROPPED: u32 = 2;

/// Small, but more than any test needs: user space forgets no connection.
pub(crate) const FLOWS: u32 = 7 * 8_192;

pub(crate) struct Node {
    pub(crate) datapath: Datapath,
    pub(crate) publisher: Publisher,
    pub(crate) pinned: Pinned,
    pub(crate) programs: Programs,
    /// Goes from world to world in steps, as the agent does.
    compiler: Incremental,
    tables: CompiledTables,
    wanted: Wanted,
    recheck: bool,
    encapsulation: bool,
    /// The user space side of what the kernel has in maps.
    flows: BTreeMap<FlowKey, Flow>,
    fragments: BTreeMap<FragmentKey, PortPair>,
    now: u32,
    revision: u32,
    counters: Vec<(Direction, Outcome, u64)>,
    events: EventRing,
    /// What the programs have reported about.
    pub(crate) reported: Vec<FlowEvent>,
}

impl Node {
    /// Programs are loaded in a sandbox of their own; the world is published.
    pub(crate) fn new(world: &World) -> Self {
        Self::start(world, Options::default())
    }

    /// The same with `--established recheck`.
    pub(crate) fn that_rechecks(world: &World) -> Self {
        Self::start(world, Options { recheck: true, ..Options::default() })
    }

    /// The same with `--allow-encapsulation`.
    pub(crate) fn that_allows_encapsulation(world: &World) -> Self {
        Self::start(world, Options { encapsulation: true, ..Options::default() })
    }

    /// The same with so much room for connections. User space has no such limit: ask `programs` alone.
    pub(crate) fn with_room(world: &World, flows: u32) -> Self {
        Self::start(world, Options { flows, ..Options::default() })
    }

    fn start(world: &World, options: Options) -> Self {
        let bpffs = sandbox::enter();
        let pins = Pins::create(&bpffs).expect("a bpffs of our own");
        let mut datapath = load_with(&pins, options);
        let programs = Programs::of(&mut datapath, &bpffs);
        let tables = World::new().compile(Vec::new());
        let events = datapath.events.take().expect("it can be taken once");
        let mut node = Self {
            events,
            reported: Vec::new(),
            counters: datapath.counters.read().expect("counters"),
            datapath,
            publisher: Publisher::default(),
            pinned: Pinned::new(&pins),
            programs,
            compiler: Incremental::default(),
            tables,
            wanted: Wanted::default(),
            recheck: options.recheck,
            encapsulation: options.encapsulation,
            flows: BTreeMap::new(),
            fragments: BTreeMap::new(),
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
        let before = std::mem::replace(&mut self.wanted, wanted);
        for (address, owner) in before.owners {
            if owner != 0 && self.wanted.owners.get(&address) != Some(&owner) {
                let end = Address::from(address);
                self.flows.retain(|key, flow| {
                    let ends_there = key.addresses().contains(&end);
                    !(ends_there && (flow.client_if == owner || flow.server_if == owner))
                });
            }
        }
        self.tables = tables;
        self.revision = published.revision;
        published
    }

    /// Lets time pass for all connections.
    pub(crate) fn idle(&mut self, seconds: u32) {
        self.now += seconds * Memory::TICKS_PER_SECOND;
        let flows = self.datapath.maps.flows.open().expect("the kernel maps it");
        for (key, flow) in flows.entries() {
            let last = flow.last.wrapping_sub(seconds * jiffies_per_second() / JIFFIES_PER_TICK);
            flows.enter(key, |_| Flow { last, ..flow }).expect("an entry that is there");
        }
        let ticks = seconds * jiffies_per_second() / JIFFIES_PER_TICK;
        let mut fragments = self.pinned.fragments();
        for (key, at) in entries(&fragments) {
            if key.protocol & FragmentKey::MARK != 0 {
                let [a, b, c, d] = ticks_of(at).wrapping_sub(ticks).to_be_bytes();
                let earlier =
                    PortPair { source: u16::from_be_bytes([a, b]), destination: u16::from_be_bytes([c, d]) };
                fragments.insert(key, earlier, 0).expect("an entry that is there");
            }
        }
    }

    /// Forgets all connections and fragments.
    pub(crate) fn forget(&mut self) {
        self.flows.clear();
        self.fragments.clear();
        self.counters = self.datapath.counters.read().expect("counters");
        let mut fragments = self.pinned.fragments();
        let flows = self.datapath.maps.flows.open().expect("the kernel maps it");
        flows.remove(|_, _| true);
        for key in entries(&fragments).into_keys() {
            fragments.remove(&key).expect("an entry that is there");
        }
    }

    /// Enters the connections that a pod's sockets report.
    pub(crate) fn enter_older(&mut self, pod: Host, sockets: &[Socket]) {
        let own = Family::ALL.map(|family| pod.at(family)).into();
        let now = self.datapath.ticks().expect("the kernel's clock");
        for (key, side) in sides(sockets, &own) {
            let entry = |known| side.entry(known, pod.veth(), now);
            let flows = self.datapath.maps.flows.open().expect("the kernel maps it");
            flows.enter(key, entry).expect("nobody else writes");
            let known = self.flows.get(&key).copied();
            self.flows.insert(key, side.entry(known, pod.veth(), self.now));
        }
        self.assert_same_state();
    }

    pub(crate) const fn flows(&self) -> &BTreeMap<FlowKey, Flow> {
        &self.flows
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
        let mut scratch = Scratch::EMPTY;
        let expected = self.with_memory(|memory| decide(&frame, &mut scratch, &hook, memory));
        let passed = self.programs.run(hook, frame);
        let moved = self.moved_counters();
        assert_eq!(moved, [(hook.direction, expected, 1)], "counters, {hook:?}: {frame:02x?}");
        assert_eq!(passed, expected.passes(), "the program's answer, {hook:?}: {frame:02x?}");
        self.assert_reported(&scratch, Some(expected));
        expected
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
        let mut scratch = Scratch::EMPTY;
        let expected =
            self.with_memory(|memory| decide_on_wire(&frame, &mut scratch, ingress_ifindex, memory));
        let passed = self.programs.run_on_wire(ingress_ifindex, frame);
        self.assert_on_wire(ingress_ifindex, frame, &scratch, expected, passed)
    }

    /// The same on a device without link headers: a packet from its IP header on.
    #[track_caller]
    pub(crate) fn verdict_on_tunnel(&mut self, ingress_ifindex: u32, packet: &[u8]) -> Option<Outcome> {
        let mut scratch = Scratch::EMPTY;
        let expected =
            self.with_memory(|memory| decide_on_wire(&BareIp(packet), &mut scratch, ingress_ifindex, memory));
        let passed = self.programs.run_on_tunnel(ingress_ifindex, packet);
        self.assert_on_wire(ingress_ifindex, packet, &scratch, expected, passed)
    }

    #[track_caller]
    fn assert_on_wire(
        &mut self,
        ingress_ifindex: u32,
        frame: &[u8],
        scratch: &Scratch,
        expected: Option<Outcome>,
        passed: bool,
    ) -> Option<Outcome> {
        let moved = self.moved_counters();
        let counted: Vec<_> = expected.iter().map(|outcome| (Direction::Egress, *outcome, 1)).collect();
        assert_eq!(moved, counted, "counters, on the wire, via {ingress_ifindex}: {frame:02x?}");
        assert_eq!(
            passed,
            expected.is_none_or(Outcome::passes),
            "on the wire, via {ingress_ifindex}: {frame:02x?}"
        );
        self.assert_reported(scratch, expected);
        expected
    }

    /// What the programs reported a packet is what user space says of it; of one that is like many others
    /// they may be silent.
    #[track_caller]
    fn assert_reported(&mut self, scratch: &Scratch, outcome: Option<Outcome>) {
        let Some(event) = self.events.take() else { return };
        assert_eq!(self.events.take(), None, "one packet, one event");
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

    /// What the programs have reported about packets that user space was not asked about.
    pub(crate) fn take_events(&mut self) -> Vec<FlowEvent> {
        self.counters = self.datapath.counters.read().expect("counters");
        std::iter::from_fn(|| self.events.take()).collect()
    }

    /// How often the programs could not tell or remember something.
    pub(crate) fn lost(&self, cause: Unreported) -> u64 {
        let counts = self.datapath.counters.unreported().expect("counters");
        counts.iter().find(|(of, _)| *of == cause).map_or(0, |(_, count)| *count)
    }

    /// Counters that have moved since the last call, and by how much.
    fn moved_counters(&mut self) -> Vec<(Direction, Outcome, u64)> {
        let counters = self.datapath.counters.read().expect("counters");
        let moved = counters
            .iter()
            .zip(&self.counters)
            .filter(|(now, before)| now.2 != before.2)
            .map(|((direction, outcome, now), (_, _, before))| (*direction, *outcome, now - before))
            .collect();
        self.counters = counters;
        moved
    }

    fn with_memory<T>(&mut self, decide: impl FnOnce(&Memory<'_>) -> T) -> T {
        let mut memory = Memory::new(&self.tables);
        memory.endpoints = self
            .wanted
            .endpoints
            .iter()
            .map(|(ifindex, policy_lookup)| {
                let endpoint = Endpoint {
                    state: policy_lookup.state as u32,
                    table_set: TableSetIndex(0),
                    ingress: memory::policy_id(policy_lookup.subject.ingress),
                    egress: memory::policy_id(policy_lookup.subject.egress),
                    audit_ingress: memory::policy_id(policy_lookup.subject.audit_ingress),
                    audit_egress: memory::policy_id(policy_lookup.subject.audit_egress),
                    master: policy_lookup.master,
                    v4: self.own_address(*ifindex, true),
                    v6: self.own_address(*ifindex, false),
                };
                (*ifindex, endpoint)
            })
            .collect();
        memory.owners = self.wanted.owners.iter().map(|(at, owner)| ((*at).into(), *owner)).collect();
        memory.link_addresses = self.wanted.link_addresses.clone();
        memory.tunnel_ports = self.wanted.tunnel_ports.clone();
        memory.flows = std::mem::take(&mut self.flows).into();
        memory.fragments = std::mem::take(&mut self.fragments).into();
        memory.now.set(self.now);
        memory.revision.set(self.revision);
        memory.recheck.set(self.recheck);
        memory.passes_encapsulation.set(self.encapsulation);
        let answer = decide(&memory);
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

    /// Asserts that the kernel knows the same connections and fragments as user space.
    #[track_caller]
    pub(crate) fn assert_same_state(&self) {
        let flows = self.datapath.maps.flows.open().expect("the kernel maps it").entries().collect();
        // The two clocks have nothing in common.
        let timeless = |flows: BTreeMap<FlowKey, Flow>| -> BTreeMap<FlowKey, Flow> {
            flows.into_iter().map(|(key, flow)| (key, Flow { last: 0, ..flow })).collect()
        };
        assert_eq!(timeless(flows), timeless(self.flows.clone()), "connections");
        let timeless =
            |fragments: BTreeMap<FragmentKey, PortPair>| -> BTreeMap<FragmentKey, Option<PortPair>> {
                let is_mark = |key: &FragmentKey| key.protocol & FragmentKey::MARK != 0;
                fragments.into_iter().map(|(key, ports)| (key, (!is_mark(&key)).then_some(ports))).collect()
            };
        let fragments = timeless(entries(&self.pinned.fragments()));
        assert_eq!(fragments, timeless(self.fragments.clone()), "fragments");
    }

    pub(crate) const fn tables(&self) -> &CompiledTables {
        &self.tables
    }

    pub(crate) const fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    pub(crate) fn flow_count(&self) -> usize {
        let [(_, flows, _), ..] = self.datapath.tables.fill().expect("the kernel counts")[..] else {
            panic!("the flow table is the first");
        };
        assert_eq!(flows, self.flows.len());
        self.flows.len()
    }
}

pub(crate) fn load(pins: &Pins, recheck: bool) -> Datapath {
    load_with(pins, Options { recheck, ..Options::default() })
}

/// What a node of a test is started with.
#[derive(Clone, Copy, Debug)]
struct Options {
    recheck: bool,
    encapsulation: bool,
    flows: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { recheck: false, encapsulation: false, flows: FLOWS }
    }
}

fn load_with(pins: &Pins, Options { recheck, encapsulation, flows }: Options) -> Datapath {
    let options = DatapathOptions { flows, recheck, masqueraded: false, encapsulation, share: false };
    Datapath::load(Some(pins), options).unwrap_or_else(|error| panic!("{error:#}"))
}

/// A packet on a device without link headers.
struct BareIp<'a>(&'a [u8]);

impl Packet for BareIp<'_> {
    const LINK_HEADER: usize = 0;

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.read(offset)
    }

    fn start<const LENGTH: usize>(&self) -> Option<impl Start> {
        self.0.start::<LENGTH>()
    }

    fn pull(&self) {}

    fn tracked(&self, _: &mut Tracked) -> bool {
        false
    }

    fn has_local_socket(&self) -> bool {
        false
    }
}

/// Handles on the programs that need nothing of the kernel's module.
pub(crate) struct Programs {
    from_pod: SchedClassifier,
    to_pod: SchedClassifier,
    to_wire: SchedClassifier,
    to_tunnel: SchedClassifier,
}

impl Programs {
    /// Opens the programs by pins that are removed at once.
    pub(crate) fn of(datapath: &mut Datapath, bpffs: &Path) -> Self {
        let mut open = |program| {
            let pin = bpffs.join("program");
            datapath.program(program).expect("all programs").pin(&pin).expect("a bpffs of our own");
            let program = SchedClassifier::from_pin(&pin).expect("just pinned");
            std::fs::remove_file(&pin).expect("just pinned");
            program
        };
        Self {
            from_pod: open(Program::FromPod),
            to_pod: open(Program::ToPod),
            to_wire: open(Program::ToWire),
            to_tunnel: open(Program::ToTunnel),
        }
    }

    /// Runs a program on a packet, which it must leave as it is; whether it lets the packet pass.
    #[track_caller]
    pub(crate) fn run(&self, hook: Hook, frame: &[u8]) -> bool {
        let program = match hook.direction {
            Direction::Egress => &self.from_pod,
            Direction::Ingress => &self.to_pod,
        };
        run(program, hook.ifindex, hook.ingress_ifindex, frame)
    }

    /// Runs the program of the ways out of the node on a packet.
    #[track_caller]
    pub(crate) fn run_on_wire(&self, ingress_ifindex: u32, frame: &[u8]) -> bool {
        run(&self.to_wire, UPLINK, ingress_ifindex, frame)
    }

    /// The same of a device without link headers.
    #[track_caller]
    pub(crate) fn run_on_tunnel(&self, ingress_ifindex: u32, packet: &[u8]) -> bool {
        run(&self.to_tunnel, UPLINK, ingress_ifindex, packet)
    }
}

#[track_caller]
fn run(program: &SchedClassifier, ifindex: u32, ingress_ifindex: u32, frame: &[u8]) -> bool {
    // `struct __sk_buff` of `linux/bpf.h` up to `ifindex`.
    let mut context = [0; 44];
    context[36..40].copy_from_slice(&ingress_ifindex.to_ne_bytes());
    context[40..44].copy_from_slice(&ifindex.to_ne_bytes());
    let mut after = vec![0; frame.len()];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut after),
        ctx_in: Some(&context),
        ..TestRunOptions::default()
    };
    let run = program.test_run(options).unwrap_or_else(|error| panic!("{error:?}: {frame:02x?}"));
    assert_eq!(after, frame, "the program changed the packet");
    match run.return_value {
        PASSED => true,
        DROPPED => false,
        other => panic!("the program returned {other}"),
    }
}

/// When a mark was made.
const fn ticks_of(PortPair { source, destination }: PortPair) -> u32 {
    (source as u32) << 16 | destination as u32
}

/// Of the kernel's clock, which stands in the entries of connections.
fn jiffies_per_second() -> u32 {
    let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for the answer.
    let result = unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut resolution) };
    assert_eq!(result, 0);
    u32::try_from(1_000_000_000 / resolution.tv_nsec).expect("at most 1,000")
}
