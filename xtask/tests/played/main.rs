//! Generated clusters, played: the naive evaluator, podgate and iptables must agree about every pair and
//! port.
//!
//! In: clusters of the oracle's generator, with services. Each is set up twice, between the same namespaces:
//! once with podgate on the nodes, and once with iptables rules that are written straight from the policies.
//! Real sockets then ask every pair and port, over both families, and every endpoint of every service. Out:
//! the first difference, with the manifests. `PODGATE_CLUSTERS=2000 PODGATE_SEED=random` goes hunting; a
//! failure prints its seed.

mod asking;
mod cluster;
#[path = "../namespaces/harness.rs"]
mod harness;
mod places;
mod proxy;
mod scene;

use std::{
    env,
    hash::{BuildHasher, RandomState},
    process::ExitCode,
};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::{Failed, Trial};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngSeed, TestRunner},
};
use xtask::sandbox::Sandbox;

use cluster::{ClientPorts, Cluster, Expected};
use scene::Scene;

const CLUSTERS: u32 = 200;
const SEED: u64 = 1;
/// Sequences of clusters, each with scenes of its own. Fixed, so that a seed means the same clusters on every
/// machine.
const STREAMS: u32 = 4;
/// They wait more than they compute.
const AT_ONCE: usize = 4;

fn main() -> Result<ExitCode> {
    let (clusters, seed) = (clusters()?, seed()?);
    harness::run_in_sandbox(
        AT_ONCE,
        || Ok(()),
        |inside| {
            let trial = |stream| {
                let sandbox = inside.map(|(sandbox, ())| sandbox);
                let test = move || {
                    play(sandbox.ok_or("needs root")?, stream, clusters, seed)
                        .map_err(|error| Failed::from(format!("PODGATE_SEED={seed}: {error:#}")))
                };
                let name =
                    format!("policies_packets_and_iptables_agree_on_generated_clusters_{}", stream + 1);
                Trial::test(name, test)
            };
            (0..STREAMS).map(trial).collect()
        },
    )
}

fn clusters() -> Result<u32> {
    variable("PODGATE_CLUSTERS").map_or(Ok(CLUSTERS), |text| text.parse().context("PODGATE_CLUSTERS"))
}

fn seed() -> Result<u64> {
    match variable("PODGATE_SEED").as_deref() {
        None => Ok(SEED),
        Some("random") => Ok(RandomState::new().hash_one(0)),
        Some(text) => text.parse().context("PODGATE_SEED is a number or `random`"),
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|text| !text.is_empty())
}

/// Plays the share of one stream.
fn play(sandbox: Sandbox, stream: u32, clusters: u32, seed: u64) -> Result<()> {
    let scenes = [
        Scene::with_podgate(sandbox, &format!("podgate-{stream}"))?,
        Scene::with_iptables(sandbox, &format!("iptables-{stream}"))?,
    ];
    let config = Config { rng_seed: RngSeed::Fixed(seed.wrapping_add(stream.into())), ..Config::default() };
    let mut runner = TestRunner::new(config);
    let strategy = podgate_testkit::generate::placed_cluster();
    let (mut asked, mut reached) = (0, 0);
    let mut client_ports = ClientPorts::default();
    for number in 0..clusters / STREAMS + u32::from(stream < clusters % STREAMS) {
        let tree =
            strategy.new_tree(&mut runner).map_err(|reason| anyhow::anyhow!("no cluster: {reason}"))?;
        let cluster = Cluster::new(tree.current(), number);
        let questions = cluster.questions(&mut client_ports);
        asked += questions.len();
        reached +=
            questions.iter().filter(|question| matches!(question.expected, Expected::Answer(_))).count();
        for scene in &scenes {
            if let Err(error) = scene.play(&cluster, &questions) {
                bail!("cluster {number} of stream {stream}: {error:#}\n{}", cluster.text());
            }
        }
    }
    println!("stream {}: {asked} connections asked for, {reached} allowed", stream + 1);
    ensure!(clusters < STREAMS || (reached > 0 && reached < asked), "the clusters try nothing");
    Ok(())
}
