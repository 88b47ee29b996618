//! Random clusters and random packets: kernel and user space agree on each, and nothing passes without a
//! reason that holds by the naive reading of the policies.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
};

use podgate_common::{FlowKey, Headers, Outcome, parse};
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestRunner},
};

use crate::{
    generate::{At, steps, worlds},
    node::Node,
    world::World,
};

mod witness;

pub(crate) use witness::Witness;

const CLUSTERS: u32 = 200;
const PACKETS: usize = 700;

#[test]
fn kernel_and_user_space_agree_and_each_outcome_has_its_reason() {
    agree(Node::new(&World::new()));
}

/// What is handed over would have passed at its receiver, too.
#[test]
fn the_same_with_the_short_cut() {
    agree(Node::with_shortcut(&World::new()));
}

/// Programs that trace say the same, and show each packet.
#[test]
fn the_same_while_traced() {
    agree(Node::traced(&World::new()));
}

fn agree(node: Node) {
    let node = RefCell::new(node);
    let outcomes = RefCell::new(BTreeMap::<Outcome, u32>::new());
    let opened_by_names = Cell::new(0);
    // PROPTEST_RNG_SEED repeats a run.
    let rng_seed = match Config::default().rng_seed {
        RngSeed::Random => RngSeed::Fixed(RandomState::new().build_hasher().finish()),
        given @ RngSeed::Fixed(_) => given,
    };
    let config = Config {
        cases: CLUSTERS,
        failure_persistence: None,
        max_shrink_iters: 300,
        rng_seed,
        ..Config::default()
    };
    let cases = (worlds(), prop::collection::vec(steps(), PACKETS));
    let result = TestRunner::new(config).run(&cases, |(world, steps)| {
        let mut node = node.borrow_mut();
        node.forget();
        node.teach(&world);
        let tables = world.compile(Vec::new());
        let mut witness = Witness::new(&world, &tables);
        let (mut frames, mut history) = (Vec::new(), Vec::new());
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
            let key = connection(&bytes);
            let seen = format!("{outcome:?} {at:?} {bytes:02x?}");
            if let Err(why) = reason {
                let before: Vec<_> = history
                    .iter()
                    .filter(|(other, _): &&(FlowKey, String)| other.addresses() == key.addresses())
                    .collect();
                return Err(TestCaseError::fail(format!(
                    "with seed {rng_seed}, {why}: {seen}; of the same addresses before: {before:#?}"
                )));
            }
            history.push((key, seen));
            if let Some(outcome) = outcome {
                *outcomes.borrow_mut().entry(outcome).or_default() += 1;
            }
            frames.extend(frame);
        }
        node.assert_same_state();
        opened_by_names.set(opened_by_names.get() + witness.opened_by_names.get());
        Ok(())
    });
    let outcomes = outcomes.into_inner();
    let opened_by_names = opened_by_names.get();
    println!("{} packets, {opened_by_names} by names: {outcomes:?}", outcomes.values().sum::<u32>());
    if let Err(error) = result {
        panic!("{error}");
    }
    // The generator must reach all of them; the table of connections is never full here, no packet is
    // tracked, and ports of the node itself are none of a pod's.
    let out_of_reach = [Outcome::FlowTable, Outcome::Masqueraded, Outcome::Failsafe];
    for outcome in Outcome::ALL.into_iter().filter(|outcome| !out_of_reach.contains(outcome)) {
        let seen = outcomes.get(&outcome).copied().unwrap_or(0);
        assert!(seen >= 20, "only {seen} packets were {outcome}");
    }
    assert!(outcomes.values().sum::<u32>() >= 100_000);
    assert!(opened_by_names >= 30, "names have opened {opened_by_names} connections");
}

/// The connection that a frame is read to belong to.
fn connection(frame: &[u8]) -> FlowKey {
    let mut headers = Headers::EMPTY;
    parse(&frame, &mut headers);
    FlowKey::of(&headers.tuple).0
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
