//! What the agent's control plane costs: synthetic clusters, the real reconciler, the real kernel maps and
//! hooks.
//!
//! `cargo bench -p podgate --bench control [-- --quick]`. Each cluster is measured in a process of its own,
//! in network namespaces of its own with a veth for each local pod. Out: one figure a line on stdout, as
//! JSON; progress on stderr. Left out: what an API server and the decoding of its objects cost.

mod calico;
mod cluster;
mod figures;
mod kernel_memory;
mod measure;
mod sandbox;

use std::{env, process::Command};

use anyhow::{Context as _, Result, ensure};

use self::cluster::{Engine, Scale};

/// Each cluster.
const SCALES: [Scale; 4] = [
    Scale { pods: 1_000, policies: 100, of: Engine::Kubernetes },
    Scale { pods: 20_000, policies: 2_000, of: Engine::Kubernetes },
    Scale { pods: 150_000, policies: 10_000, of: Engine::Kubernetes },
    Scale { pods: 20_000, policies: 10_000, of: Engine::Calico },
];

/// Names the cluster that a child measures: its place in [`SCALES`].
const CHILD: &str = "PODGATE_BENCH_SCALE";

fn main() -> Result<()> {
    let quick = env::args().any(|argument| argument == "--quick");
    if let Ok(place) = env::var(CHILD) {
        let place: usize = place.parse().context("the place of a scale")?;
        return measure::measure(*SCALES.get(place).context("no such scale")?, quick);
    }
    let this = env::current_exe().context("the path of this program")?;
    for (place, scale) in SCALES.iter().enumerate() {
        let mut child = Command::new(&this);
        child.env(CHILD, place.to_string());
        if quick {
            child.arg("--quick");
        }
        let status = child.status().context("cannot start a process for a cluster")?;
        ensure!(status.success(), "the measurement of {scale:?} ended with {status}");
    }
    Ok(())
}
