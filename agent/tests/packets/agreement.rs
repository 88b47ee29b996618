//! Random clusters and random packets: kernel and user space agree on each, and nothing passes without a reason that
//! holds by the naive reading of the policies.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use podgate_common::{
    Direction, EndpointState, FlowKey, FragmentKey, Headers, Hook, Kind, Outcome, Protocol, Tuple, parse,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    generate::{steps, worlds},
    naive::{self, Asked},
    node::Node,
    world::World,
};

const CLUSTERS: u32 = 100;
const PACKETS: usize = 220;

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
        let mut witness = Witness::new(&world);
        let mut frames = Vec::new();
        for step in steps {
            let (frame, hook, bytes) = step.resolve(&world, &frames);
            let outcome = node.judge(hook, &bytes);
            if let Err(why) = witness.check(hook, &bytes, outcome) {
                return Err(TestCaseError::fail(format!("{outcome}, but {why}: {hook:?} {bytes:02x?}")));
            }
            *outcomes.borrow_mut().entry(outcome).or_default() += 1;
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
    // The generator must reach all of them; the table of connections is never full here.
    for outcome in Outcome::ALL {
        let seen = outcomes.get(&outcome).copied().unwrap_or(0);
        assert!(seen >= 20 || outcome == Outcome::FlowTable, "only {seen} packets were {outcome}");
    }
    assert!(outcomes.values().sum::<u32>() >= 20_000);
}

/// Remembers what has passed, and checks every outcome against it and against the policies.
struct Witness<'a> {
    world: &'a World,
    /// Connections, by veth, of which a packet has passed as new.
    opened: BTreeSet<(u32, FlowKey)>,
    /// Ports of first fragments that have passed.
    fragments: BTreeMap<FragmentKey, (u16, u16)>,
}

impl<'a> Witness<'a> {
    fn new(world: &'a World) -> Self {
        Self { world, opened: BTreeSet::new(), fragments: BTreeMap::new() }
    }

    fn check(&mut self, hook: Hook, frame: &[u8], outcome: Outcome) -> Result<(), &'static str> {
        let mut headers = Headers::EMPTY;
        let kind = parse(&frame, &mut headers);
        let mut tuple = headers.tuple;
        let datagram = FragmentKey {
            source: tuple.source,
            destination: tuple.destination,
            id: headers.datagram,
            protocol: tuple.protocol,
        };
        let first = self.fragments.get(&datagram);
        if let (Kind::LaterFragment, Some(ports)) = (kind, first) {
            (tuple.source_port, tuple.destination_port) = *ports;
        }
        let is_connection = match kind {
            Kind::Flow | Kind::FirstFragment => true,
            Kind::LaterFragment => first.is_some(),
            _ => false,
        };
        self.reason(hook, kind, is_connection, &tuple, outcome)?;
        if outcome.passes() && kind == Kind::FirstFragment {
            self.fragments.insert(datagram, (tuple.source_port, tuple.destination_port));
        }
        if matches!(outcome, Outcome::Allowed | Outcome::Free | Outcome::OwnNode | Outcome::Itself) {
            self.opened.insert((hook.ifindex, FlowKey::of(&tuple).0));
        }
        Ok(())
    }

    fn reason(
        &self,
        hook: Hook,
        kind: Kind,
        is_connection: bool,
        tuple: &Tuple,
        outcome: Outcome,
    ) -> Result<(), &'static str> {
        let veth = &self.world.veths[&hook.ifindex];
        let pod = &self.world.cluster.pods[&veth.pod];
        let is_known = veth.state == EndpointState::Known;
        let isolated = is_known && naive::isolates(&self.world.cluster, pod, hook.direction);
        let opened = self.opened.contains(&(hook.ifindex, FlowKey::of(tuple).0));
        let egress = hook.direction == Direction::Egress;
        let (source, destination) = (tuple.source.into(), tuple.destination.into());
        let own = |address| pod.addresses.contains(address);
        let allowed = || {
            let protocol = Protocol::try_from(tuple.protocol).ok();
            let peer = if egress { destination } else { source };
            let asked = Asked {
                subject: pod,
                direction: hook.direction,
                peer,
                protocol,
                port: tuple.destination_port,
            };
            naive::allows(&self.world.cluster, asked)
        };
        let must = |holds: bool, why| if holds { Ok(()) } else { Err(why) };
        match outcome {
            Outcome::Established => must(is_connection && opened, "nothing opened the connection here"),
            Outcome::Allowed => must(is_connection && isolated && allowed(), "no rule allows it"),
            Outcome::Free => must(is_connection && !isolated, "the pod is isolated"),
            Outcome::OwnNode if egress => {
                must(is_connection && self.world.node.contains(&destination), "it does not go to the node")
            }
            Outcome::OwnNode => must(hook.via == 0, "it does not come from the node's own stack"),
            Outcome::Itself if egress => must(is_connection && own(&destination), "it goes elsewhere"),
            Outcome::Itself => must(is_connection && hook.via == hook.ifindex, "it comes from elsewhere"),
            Outcome::Neighbour => must(kind == Kind::Neighbour, "it is no neighbour's message"),
            Outcome::Dhcp => must(
                matches!(
                    (tuple.source_port, tuple.destination_port),
                    (67, 68) | (68, 67) | (546, 547) | (547, 546)
                ),
                "its ports are not those of DHCP",
            ),
            Outcome::Related => must(kind == Kind::Related && opened, "its connection was not opened here"),
            Outcome::UnreadFree => must(!is_connection && !isolated, "it was read, or the pod is isolated"),
            Outcome::Denied if kind == Kind::Related => must(isolated, "the pod is not isolated"),
            Outcome::Denied => must(is_connection && isolated && !allowed(), "a rule allows it"),
            Outcome::Spoofed if egress => must(is_known, "nobody knows whose addresses these are"),
            Outcome::Spoofed => must(
                self.world.subjects().any(|other| other.addresses.contains(&source)),
                "the source is no local pod's",
            ),
            Outcome::Held => must(veth.state == EndpointState::Held, "the veth is not held"),
            Outcome::Unreadable => {
                must(kind == Kind::Unreadable && isolated, "it was read, or the pod is free")
            }
            Outcome::Fragment => must(
                kind == Kind::LaterFragment && !is_connection && isolated,
                "its first fragment is known, or the pod is free",
            ),
            Outcome::FlowTable => Err("the table of connections has room"),
        }
    }
}
