//! What a decision costs: the loaded programs over an empty one, in nanoseconds a packet.
//!
//! `BPF_PROG_TEST_RUN` runs a small driver program many times; it changes the packet's source port and
//! tail-calls the program under test, so that each run can be of another connection. Each figure is the
//! median of paired differences to the same driver with an empty program, in rounds over all cases. One JSON
//! object a line on standard output: `{name, variant, unit, median, quartiles, control, goal, met}`; progress
//! on standard error. Run as root: `cargo bench -p podgate --bench decision [-- --quick]`.

mod calico;
mod driver;
mod figure;
#[path = "../../tests/packets"]
mod packets {
    pub(crate) mod sandbox;
    pub(crate) mod translated;
    #[expect(dead_code, reason = "the packet tests use all of it")]
    pub(crate) mod world;
}

use std::{collections::BTreeSet, fmt, net::IpAddr, os::fd::AsFd as _, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use podgate_common::{
    Address, Direction, Protocol,
    frames::{Frame, flag},
};
use podgate_core::model::{IpBlock, Peer, Peers};
use podgate_datapath::{Datapath, DatapathOptions, Program, publisher::Publisher};

use driver::{Driver, Ports};
use figure::Figure;
use packets::{
    sandbox, translated,
    world::{self, Family, Host, UPLINK, World, allow, arrives, leaves, port},
};

/// More than twice as many as all cases open: when sets are full, which connections stay in them differs from
/// build to build, and so would the figures.
const FLOWS: u32 = 1_048_576;
/// Policies that select the server, of which the last one allows the client.
const POLICIES: [Policies; 5] = [
    Policies::Kubernetes(0),
    Policies::Kubernetes(100),
    Policies::Kubernetes(10_000),
    Policies::Calico(1),
    Policies::Calico(10_000),
];
/// The port that the policies allow.
const OPEN: u16 = 80;
const CLOSED: u16 = 81;

/// What kind of packet it is for the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packet {
    Established,
    New,
    Denied,
}

/// How many connections take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spread(u32);

/// Whose policies, and how many.
#[derive(Clone, Copy, Debug)]
enum Policies {
    Kubernetes(usize),
    /// In [`calico::TIERS`] tiers.
    Calico(usize),
}

#[derive(Clone, Copy, Debug)]
struct Case {
    packet: Packet,
    direction: Direction,
    family: Family,
    spread: Spread,
    /// Index into [`POLICIES`].
    policies: usize,
    /// Both ends are pods of the node: the connection is new at two hooks.
    is_local: bool,
}

fn main() -> Result<ExitCode> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (rounds, runs) = if quick { (9, 20_000) } else { (41, 65_536) };
    sandbox::enter();
    let mut nodes = Vec::new();
    for policies in POLICIES {
        eprintln!("loading, with {policies}");
        nodes.push(Node::new(policies, nodes.is_empty())?);
    }
    for node in &mut nodes {
        for figure in node.sizes()? {
            println!("{figure}");
        }
    }
    let cases = cases(quick);
    for case in &cases {
        nodes[case.policies].prepare(case)?;
    }
    let mut samples = vec![Vec::new(); cases.len()];
    let mut control = Vec::new();
    for round in 0..rounds {
        eprint!("\rround {} of {rounds}", round + 1);
        for (case, samples) in cases.iter().zip(&mut samples) {
            let node = &nodes[case.policies];
            node.forget(case)?;
            let empty = node.run(case, Driver::EMPTY, runs)?;
            samples.push(node.run(case, case.program(), runs)? - empty);
            control.push(node.run(case, Driver::EMPTY, runs)? - empty);
        }
    }
    eprintln!();
    let control = figure::median(&mut control);
    ensure!(
        control.abs() <= 1.0,
        "an empty program differs from itself by {control:.1} ns: the machine is too busy"
    );
    for (case, samples) in cases.iter().zip(samples) {
        println!("{}", case.figure(samples, control));
    }
    Ok(ExitCode::SUCCESS)
}

fn cases(quick: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for (policies, of) in POLICIES.iter().enumerate() {
        // The rest is the same whoever wrote the policies.
        let is_whole = matches!(of, Policies::Kubernetes(_));
        for family in Family::ALL {
            for spread in [1, 1 << 10, 1 << 16].map(Spread) {
                for packet in [Packet::Established, Packet::New, Packet::Denied] {
                    let direction = Direction::Ingress;
                    let case = Case { packet, direction, family, spread, policies, is_local: false };
                    // A pod that no policy selects is denied nothing.
                    let exists = packet != Packet::Denied || of.count() > 0;
                    let wanted = policies == 1 || packet == Packet::New || is_whole && !quick;
                    if exists && wanted {
                        cases.push(case);
                    }
                    if exists && packet == Packet::Established && policies == 1 {
                        cases.push(Case { direction: Direction::Egress, ..case });
                    }
                    if packet == Packet::New && policies == 1 {
                        for direction in Direction::ALL {
                            cases.push(Case { direction, is_local: true, ..case });
                        }
                    }
                }
            }
        }
    }
    cases
}

impl Case {
    fn program(&self) -> u32 {
        match self.direction {
            Direction::Egress => Driver::FROM_POD,
            Direction::Ingress => Driver::TO_POD,
        }
    }

    fn ports(&self) -> Ports {
        // Connections of their own for each kind of packet, so that they do not meet in the table.
        Ports { first: if self.spread.0 == 1 { 40_000 } else { 0 }, count: self.spread.0 }
    }

    /// The server's port is the only end that differs between kinds of packets.
    fn frame(&self) -> Vec<u8> {
        let (client, server) = match self.direction {
            _ if self.is_local => (Host::A, Host::B),
            Direction::Ingress => (Host::Remote, Host::B),
            Direction::Egress => (Host::A, Host::Outside),
        };
        let to = if self.packet == Packet::Denied { CLOSED } else { OPEN };
        let flags = if self.packet == Packet::Established { flag::ACK } else { flag::SYN };
        Frame::tcp((client.at(self.family), 0), (server.at(self.family), to), flags).bytes()
    }

    fn figure(&self, samples: Vec<f64>, control: f64) -> Figure {
        let goal = match (self.packet, self.spread.0, self.family) {
            (Packet::Established, 1, _) => Some(15.0),
            (Packet::Established, 65_536, Family::V4) => Some(40.0),
            (Packet::New, 1, _) => Some(350.0),
            (Packet::Denied, 1, _) => Some(300.0),
            _ => None,
        };
        Figure::of(format!("decision, {}", self.packet), self.to_string(), "ns", samples, Some(control), goal)
    }
}

impl Policies {
    fn count(self) -> usize {
        match self {
            Self::Kubernetes(count) | Self::Calico(count) => count,
        }
    }

    fn world(self) -> World {
        match self {
            Self::Kubernetes(count) => world(count),
            Self::Calico(count) => calico::world(count),
        }
    }
}

impl fmt::Display for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kubernetes(count) => write!(f, "{count} policies"),
            Self::Calico(count) => {
                write!(f, "{count} Calico policies in {} tiers", (*count).min(calico::TIERS))
            }
        }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Established => "established",
            Self::New => "new",
            Self::Denied => "denied",
        })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { direction, family, spread: Spread(flows), policies, is_local, .. } = self;
        let family = if *family == Family::V4 { "IPv4" } else { "IPv6" };
        let between = if *is_local { " between pods" } else { "" };
        write!(f, "{direction}{between}, {family}, {flows} flows, {}", POLICIES[*policies])
    }
}

/// Programs over tables of their own.
struct Node {
    datapath: Datapath,
    v4: Driver,
    v6: Driver,
    /// The first one says how large the programs are.
    is_first: bool,
}

impl Node {
    fn new(policies: Policies, is_first: bool) -> Result<Self> {
        let (mut datapath, _) = Datapath::load(None, DatapathOptions::with_room(FLOWS))?;
        let world = policies.world();
        let tables = world.compile(Vec::new());
        let wanted = world.wanted(&tables);
        Publisher::default().publish(&mut datapath.maps, &tables, &wanted).context("publishing")?;
        let v4 = Driver::new(&mut datapath, Family::V4)?;
        let v6 = Driver::new(&mut datapath, Family::V6)?;
        Ok(Self { datapath, v4, v6, is_first })
    }

    fn driver(&self, case: &Case) -> &Driver {
        if case.family == Family::V4 { &self.v4 } else { &self.v6 }
    }

    /// Opens the connections whose later packets the case is of, or that come from another pod of the node.
    fn prepare(&self, case: &Case) -> Result<()> {
        if case.is_local && case.direction == Direction::Ingress {
            let leaves = Case { direction: Direction::Egress, ..*case };
            self.run(&leaves, leaves.program(), case.spread.0)?;
        }
        if case.packet == Packet::Established {
            let opens = Case { packet: Packet::New, ..*case };
            self.run(&opens, case.program(), case.spread.0)?;
        }
        let passed = self.driver(case).passes(case.program(), &case.frame(), case.hook(), case.ports())?;
        ensure!(passed == (case.packet != Packet::Denied), "{}, {case}: passed is {passed}", case.packet);
        Ok(())
    }

    /// Makes connections between pods new again to the veth that they leave by.
    fn forget(&self, case: &Case) -> Result<()> {
        if case.is_local && case.direction == Direction::Egress {
            let ends: BTreeSet<Address> = [Host::A, Host::B].map(|pod| pod.at(case.family).into()).into();
            self.datapath.maps.flows.open()?.remove(|key, _| ends == BTreeSet::from(key.addresses()));
        }
        Ok(())
    }

    /// Nanoseconds a run.
    fn run(&self, case: &Case, program: u32, runs: u32) -> Result<f64> {
        self.driver(case).run(program, &case.frame(), case.hook(), case.ports(), runs)
    }

    fn sizes(&mut self) -> Result<Vec<Figure>> {
        let mut figures = Vec::new();
        if !self.is_first {
            return Ok(figures);
        }
        for program in Program::ALL {
            let calls = translated::helper_calls(self.datapath.program(program)?.fd()?.as_fd())?;
            let calls = f64::from(u32::try_from(calls)?);
            if program != Program::ToWire {
                let name = "helper calls for an established packet".to_owned();
                figures.push(Figure::of(
                    name,
                    program.name().to_owned(),
                    "calls",
                    vec![calls],
                    None,
                    Some(1.0),
                ));
            }
            let info = self.datapath.program(program)?.info()?;
            let verified = info.verified_instruction_count().context("Linux 5.16 counts them")?;
            let (name, goal) = (program.name().to_owned(), Some(10_000.0));
            figures.push(Figure::of(
                "verified instructions".into(),
                name,
                "instructions",
                vec![verified.into()],
                None,
                goal,
            ));
        }
        Ok(figures)
    }
}

impl Case {
    fn hook(&self) -> podgate_common::Hook {
        match self.direction {
            Direction::Egress => leaves(Host::A),
            Direction::Ingress if self.is_local => arrives(Host::B, Host::A.veth()),
            Direction::Ingress => arrives(Host::B, UPLINK),
        }
    }
}

/// The server and the client are isolated by as many policies each; none is like another.
fn world(policies: usize) -> World {
    let mut world = World::new();
    for number in 1..policies {
        let [_, a, b, c] = u32::try_from(number).expect("few policies").to_be_bytes();
        let address = IpAddr::from([100, a, b, c]);
        let block = IpBlock { cidr: address.into(), except: BTreeSet::new() };
        let open = port(Protocol::Tcp, 1_000 + u16::try_from(number % 300).expect("less than 300"));
        world = world.ingress(Host::B, [allow(Peers::Listed(vec![Peer::Block(block)]), open)]);
    }
    if policies > 0 {
        let everyone = world::all_pods();
        world = world.ingress(Host::B, [allow(everyone, port(Protocol::Tcp, OPEN))]);
        world = world.egress(
            Host::A,
            [
                allow(world::block("192.0.2.0/24", &[]), port(Protocol::Tcp, OPEN)),
                allow(world::block("2001:db8::/32", &[]), port(Protocol::Tcp, OPEN)),
                allow(world::pods_like(Host::B), port(Protocol::Tcp, OPEN)),
            ],
        );
    }
    world
}
