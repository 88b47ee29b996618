//! Compares Calico itself with podgate's reading of its policies, on generated clusters: `cargo xtask
//! calico`.
//!
//! In: clusters of the oracle's generator, with Calico's objects and services. Each is written into a real
//! API server, Calico's objects through Calico's own client library. Calico's agent, Felix, enforces it on
//! two nodes; real sockets then try every pair and port. Out: the differences between Felix and the naive
//! evaluator, which another test compares with the compiler. Documented differences are counted separately.

#[path = "../../tests/played/asking.rs"]
mod asking;
#[path = "../../tests/played/cluster.rs"]
mod cluster;
mod datastore;
mod felix;
#[path = "../../tests/played/places.rs"]
mod places;
mod prepare;
#[path = "../../tests/played/proxy.rs"]
mod proxy;
mod report;
mod stated;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use podgate_testkit::generate::{placed_cluster, with_calico};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngSeed, TestRunner},
};
use xtask::{
    kubernetes::{CalicoPrograms, Programs},
    sandbox::{self, Sandbox},
};

use cluster::{ClientPorts, Cluster};
use datastore::Datastore;
use felix::{Dataplane, Felix};
use places::Places;
use prepare::{prepared, ties};
use report::Report;

#[derive(Debug, Parser)]
struct Flags {
    #[arg(long, value_name = "N", default_value_t = 100)]
    clusters: u32,
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Ask about the N-th cluster alone
    #[arg(long, value_name = "N")]
    only: Option<u32>,
}

fn main() -> Result<ExitCode> {
    let flags = Flags::parse();
    // The sandbox has no way out to where Go's modules come from.
    let programs = Programs::small()?;
    let calico = CalicoPrograms::built()?;
    let code = sandbox::enter(|sandbox| match run(sandbox, &flags, &programs, &calico) {
        Ok(report) => u8::from(report.has_differences()),
        Err(error) => {
            eprintln!("error: {error:#}");
            1
        }
    })?;
    Ok(code.into())
}

fn run(sandbox: Sandbox, flags: &Flags, programs: &Programs, calico: &CalicoPrograms) -> Result<Report> {
    let mut places = Places::new(sandbox, "calico")?;
    let control_plane = places.lab.control_plane(programs).context("starting a control plane")?;
    let mut datastore = Datastore::new(control_plane, calico)?;
    let mut felix = Felix::new(&places, calico, datastore.kubeconfig());
    let config = Config { rng_seed: RngSeed::Fixed(flags.seed), ..Config::default() };
    let mut runner = TestRunner::new(config);
    let strategy = with_calico(placed_cluster());
    let mut client_ports = ClientPorts::default();
    let mut report = Report::new(flags.clusters)?;
    for number in 0..flags.clusters {
        let tree =
            strategy.new_tree(&mut runner).map_err(|reason| anyhow::anyhow!("no cluster: {reason}"))?;
        let mut objects: Vec<_> = tree.current().into_iter().map(prepared).collect();
        objects.extend(ties(&objects, number));
        let mut cluster = Cluster::new(objects, number);
        if flags.only.is_some_and(|only| only != number) {
            continue;
        }
        let refused = datastore.replace(&cluster.objects).with_context(|| format!("cluster {number}"))?;
        report.refused(&refused);
        cluster.objects.retain(|object| refused.iter().all(|(other, _)| other != object));
        places.lead_services(&cluster)?;
        // Calico keeps its rules in iptables or in nftables.
        let dataplane = if number % 2 == 0 { Dataplane::Iptables } else { Dataplane::Nftables };
        let running =
            felix.start(&places, &cluster, dataplane).with_context(|| format!("cluster {number}"))?;
        let questions = cluster.questions(&mut client_ports);
        // Calico's rules evaluate what a pod sends to itself; podgate always lets it pass.
        let asked: Vec<_> = questions.iter().filter(|question| !question.is_to_itself).collect();
        let differences = places.differences(&cluster, &asked)?;
        report.cluster(&cluster, &asked, &differences, || felix.rules(&places, dataplane))?;
        felix.stop(running)?;
    }
    report.conclude();
    Ok(report)
}
