//! The node that is measured: one pod whose rules have names, one whose rules have none, and a resolver.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use anyhow::{Context as _, Result, ensure};
use podgate_common::{
    Protocol, Resolver, ServiceKey,
    frames::{Frame, dns::datagram, flag},
};
use podgate_core::{
    fixtures::admin_policy,
    model::{
        Action, ClusterNetworkPolicy, ClusterRule, ClusterSubject, DomainPattern, IpBlock, Peer, Peers,
        Ports, Rule, Selector,
    },
};
use podgate_datapath::{Datapath, DatapathOptions, publisher::Publisher};

use crate::{
    driver::{Driver, Ports as DriverPorts},
    messages::{Message, PATTERN},
    packets::world::{self, Family, Host, UPLINK, World, arrives, block, leaves},
};

const RESOLVER: ([u8; 4], u16) = ([198, 18, 0, 53], 53);
/// The port from which pods ask.
const ASKS: u16 = 40_000;
const FLOWS: u32 = 1_048_576;
/// Where a rule with a network leads, and where none does.
const BY_ADDRESS: [u8; 4] = [192, 0, 2, 10];
const CLOSED: [u8; 4] = [100, 64, 0, 1];
/// A new connection of the driver has one of so many ports.
const CONNECTIONS: u32 = 1_024;

/// What opens a new connection, or that nothing does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    ByName,
    ByAddress,
    Denied,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::ByName, Self::ByAddress, Self::Denied];

    fn destination(self) -> IpAddr {
        match self {
            Self::ByName => Message::answer(PATTERN, 0, 1).first.expect("an address"),
            Self::ByAddress => BY_ADDRESS.into(),
            Self::Denied => CLOSED.into(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ByName => "by name",
            Self::ByAddress => "by address",
            Self::Denied => "denied, of a pod with names",
        })
    }
}

pub(crate) struct Node {
    datapath: Datapath,
    driver: Driver,
    tables: BTreeSet<u32>,
}

impl Node {
    pub(crate) fn new() -> Result<Self> {
        let (mut datapath, _) = Datapath::load(None, DatapathOptions::with_room(FLOWS))?;
        let world = world();
        let tables = world.compile(Vec::new());
        Publisher::default()
            .publish(&mut datapath.maps, &tables, &world.wanted(&tables))
            .context("publishing")?;
        let driver = Driver::new(&mut datapath, Family::V4)?;
        let tables = (1..=u32::try_from(Host::LOCAL.len())?).collect();
        Ok(Self { datapath, driver, tables })
    }

    /// Has both pods ask, and hands them the answer.
    pub(crate) fn learn(&self, message: &Message) -> Result<()> {
        for pod in [Host::A, Host::B] {
            let asks = datagram((pod.at(Family::V4), ASKS), resolver(), b"a question of a pod").bytes();
            let passed = self.driver.passes(Driver::FROM_POD, &asks, leaves(pod), one_port(ASKS))?;
            ensure!(passed, "{pod:?} may not ask");
            self.read(pod, message, 1)?;
        }
        Ok(())
    }

    /// Whether the pod with names has learnt what it should have, and the other one nothing.
    pub(crate) fn check(&self, replies: &[Message]) -> Result<()> {
        for message in replies {
            let Some(first) = message.first else { continue };
            let is_rules = !message.name.contains("no rule's");
            for (pod, expected) in [(Host::A, is_rules), (Host::B, false)] {
                let frame = connection(pod, first);
                let passes = self.driver.passes(Driver::FROM_POD, &frame, leaves(pod), one_port(ASKS))?;
                ensure!(passes == expected, "{}: {pod:?} to {first}: {passes}", message.name);
            }
        }
        for (kind, expected) in Kind::ALL.into_iter().zip([true, true, false]) {
            let frame = connection(Host::A, kind.destination());
            let passes = self.driver.passes(Driver::FROM_POD, &frame, leaves(Host::A), one_port(ASKS))?;
            ensure!(passes == expected, "{kind}: {passes}");
        }
        Ok(())
    }

    /// Nanoseconds that a pod's programs take for a reply.
    pub(crate) fn read(&self, pod: Host, message: &Message, runs: u32) -> Result<f64> {
        let frame = datagram(resolver(), (pod.at(Family::V4), ASKS), &message.bytes).bytes();
        self.driver.run(Driver::TO_POD, &frame, arrives(pod, UPLINK), one_port(RESOLVER.1), runs)
    }

    /// The same for several, once each: nanoseconds for one.
    pub(crate) fn read_each(&self, pod: Host, messages: &[Message]) -> Result<f64> {
        let took = messages.iter().map(|message| self.read(pod, message, 1)).sum::<Result<f64>>()?;
        Ok(took / f64::from(u32::try_from(messages.len())?))
    }

    /// Nanoseconds of an attempt to connect; `None`: of an empty program.
    pub(crate) fn connect(&self, kind: Option<Kind>, runs: u32) -> Result<f64> {
        let frame = connection(Host::A, kind.unwrap_or(Kind::Denied).destination());
        let program = kind.map_or(Driver::EMPTY, |_| Driver::FROM_POD);
        let ports = DriverPorts { first: 0, count: CONNECTIONS };
        self.driver.run(program, &frame, leaves(Host::A), ports, runs)
    }

    pub(crate) fn tables_in_use(&self) -> BTreeSet<u32> {
        self.tables.clone()
    }

    pub(crate) fn make_table(&mut self, in_use: &BTreeSet<u32>) -> Result<u32> {
        self.datapath.maps.names.make_table(in_use)
    }

    pub(crate) fn remove_table(&mut self, number: u32) -> Result<()> {
        self.datapath.maps.names.remove_table(number)
    }
}

fn resolver() -> (IpAddr, u16) {
    (RESOLVER.0.into(), RESOLVER.1)
}

const fn one_port(port: u16) -> DriverPorts {
    DriverPorts { first: port, count: 1 }
}

fn connection(from: Host, to: IpAddr) -> Vec<u8> {
    Frame::tcp((from.at(Family::V4), 0), (to, 443), flag::SYN).bytes()
}

/// Both pods may reach the resolver and one network; A also servers by their names.
fn world() -> World {
    let mut world = World::new();
    for (pod, app) in [(Host::A, "a"), (Host::B, "b")] {
        let networks = [RESOLVER.0, BY_ADDRESS]
            .map(|at| Peer::Block(IpBlock { cidr: IpAddr::from(at).into(), except: BTreeSet::new() }));
        let name = (pod == Host::A).then(|| DomainPattern::parse(PATTERN).expect("a name"));
        let open = networks.into_iter().chain(name.map(Peer::Name)).collect();
        let rule = |action, peers| ClusterRule { action, matches: Rule { peers, ports: Ports::Any } };
        let rules =
            vec![rule(Action::Accept, Peers::Listed(open)), rule(Action::Deny, block("0.0.0.0/0", &[]))];
        let subject = ClusterSubject { namespaces: Selector::EVERYTHING, pods: world::app(app) };
        let policy = ClusterNetworkPolicy { subject, ..admin_policy(app, rules) };
        world.cluster.cluster_policies.insert(policy.name.clone(), policy.into());
    }
    let (address, port) = resolver();
    world.resolvers.insert(ServiceKey::new(address.into(), Protocol::Udp, port), Resolver::BELIEVED);
    world
}
