//! Tests against a real kube-apiserver with a real etcd.
//!
//! They need root, for the network namespaces that both run in, and the programs, which are found or built
//! first: see `xtask::kubernetes`. Nothing is passed over where they are missing. One control plane serves
//! all tests that leave it running; it starts with the first of them.

mod agent;
mod chart;
mod defaults;
mod deploy;
#[path = "../namespaces/fixture.rs"]
mod fixture;
#[path = "../namespaces/harness.rs"]
mod harness;
mod outage;
#[path = "../namespaces/scene.rs"]
mod scene;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use libtest_mimic::{Failed, Trial};
use xtask::{
    kubernetes::{self, ControlPlane, Programs},
    lab::Lab,
    sandbox::Sandbox,
};

/// A test gets a lab of its own with a control plane.
type Test = fn(&mut Lab, &mut ControlPlane) -> Result<()>;

/// Each API server keeps a processor busy while it starts.
const AT_ONCE: usize = 2;

fn main() -> Result<ExitCode> {
    // The sandbox has no way out to where Go's modules come from.
    let prepare = || Ok((Programs::small()?, kubernetes::helm()?));
    harness::run_in_sandbox(AT_ONCE, prepare, |inside| {
        let bench = |(sandbox, (programs, helm))| {
            Arc::new(Bench { sandbox, programs, helm, shared: Mutex::default() })
        };
        trials(inside.map(bench).as_ref())
    })
}

/// Where tests are made.
#[derive(Debug)]
struct Bench {
    sandbox: Sandbox,
    programs: Programs,
    helm: PathBuf,
    /// The lab holds the wire.
    shared: Mutex<Option<(Lab, Arc<ControlPlane>)>>,
}

impl Bench {
    /// The control plane that tests share.
    fn shared(&self) -> Result<Arc<ControlPlane>> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, running)) = &*shared {
            return Ok(running.clone());
        }
        let mut lab = Lab::new(self.sandbox, "shared")?;
        let started = Arc::new(lab.control_plane(&self.programs).context("starting a control plane")?);
        *shared = Some((lab, started.clone()));
        Ok(started)
    }
}

/// Without a bench, which takes root, all of them fail.
fn trials(bench: Option<&Arc<Bench>>) -> Vec<Trial> {
    let alone = outage::TESTS.iter().chain(agent::TESTS).enumerate().map(|(number, &(name, test))| {
        trial(name.to_owned(), bench, move |bench| in_lab(bench, &format!("lab-{number}"), test))
    });
    let shared = defaults::rows().map(|row| {
        let name = format!("defaults::{}", row.name);
        trial(name, bench, move |bench| {
            let control_plane = bench.shared().map_err(failed)?;
            row.check(&control_plane).map_err(failed)
        })
    });
    let deployed = deploy::PARTS.into_iter().map(|part| {
        trial(format!("deploy::{part}_is_accepted"), bench, move |bench| {
            let control_plane = bench.shared().map_err(failed)?;
            deploy::is_accepted(&control_plane, part).map_err(failed)
        })
    });
    let single_file = trial("deploy::the_single_file_is_up_to_date".to_owned(), bench, |_| {
        deploy::single_file_is_up_to_date().map_err(failed)
    });
    let charts = chart::PARTS.iter().map(|(part, values)| {
        trial(format!("chart::it_makes_the_objects_of_{part}"), bench, move |bench| {
            chart::makes(&bench.helm, part, values).map_err(failed)
        })
    });
    let chart = trial("chart::it_is_accepted_with_every_value".to_owned(), bench, |bench| {
        let control_plane = bench.shared().map_err(failed)?;
        chart::is_accepted(&bench.helm, &control_plane).map_err(failed)
    });
    let schema = trial("chart::a_value_that_it_does_not_know_is_an_error".to_owned(), bench, |bench| {
        chart::refuses(&bench.helm).map_err(failed)
    });
    let deployed = deployed.chain(charts).chain([single_file, chart, schema]);
    alone.chain(shared).chain(deployed).collect()
}

fn trial(
    name: String,
    bench: Option<&Arc<Bench>>,
    test: impl FnOnce(&Bench) -> Result<(), Failed> + Send + 'static,
) -> Trial {
    let bench = bench.cloned();
    Trial::test(name, move || test(&*bench.ok_or("needs root")?))
}

fn in_lab(bench: &Bench, name: &str, test: Test) -> Result<(), Failed> {
    let mut lab = Lab::new(bench.sandbox, name).map_err(failed)?;
    let mut control_plane = lab.control_plane(&bench.programs).map_err(failed)?;
    test(&mut lab, &mut control_plane)
        .map_err(|error| format!("{error:#}\n{}\n{}", lab.logs(), control_plane.logs()).into())
}

fn failed(error: anyhow::Error) -> Failed {
    format!("{error:#}").into()
}
