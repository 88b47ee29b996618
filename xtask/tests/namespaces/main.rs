//! Tests between network namespaces: the lab itself, and the real agent in it with real sockets.
//!
//! They need root. Each runs in a lab of its own. What becomes of packets is tried twice: with the hooks that
//! this kernel does best, and with those of older ones.

mod arrival;
mod churn;
mod cluster_policies;
mod cni;
mod fixture;
mod floods;
mod frames;
mod harness;
mod hooks;
mod hosts;
mod input;
mod isolation;
mod kernel;
mod layouts;
mod lifecycle;
mod live;
mod mounts;
mod names;
mod netkit;
mod nowhere;
mod paths;
mod peers;
mod policies;
mod prepared;
mod privileges;
mod reported;
mod scene;
mod services;
mod shortcut;
mod smuggling;
mod topology;
mod traces;
mod translation;
mod unenforced;
mod veths;
mod walkthrough;
mod windows;

use std::{env, process::ExitCode};

use anyhow::Result;
use libtest_mimic::{Failed, Trial};
use xtask::{
    lab::Lab,
    sandbox::{self, Sandbox},
};

/// A test gets an empty lab; what its agents logged is printed when it fails.
type Test = fn(&mut Lab) -> Result<()>;

/// They wait more than they compute.
const AT_ONCE: usize = 6;

fn main() -> Result<ExitCode> {
    if env::var_os(topology::PANICS).is_some() {
        return Ok(sandbox::enter(|sandbox| topology::panic_in_lab(sandbox))?.into());
    }
    harness::run_in_sandbox(AT_ONCE, || Ok(()), |inside| trials(inside.map(|(sandbox, ())| sandbox)))
}

fn trials(sandbox: Option<Sandbox>) -> Vec<Trial> {
    let has_netkit = sandbox.is_none_or(netkit::is_known);
    if !has_netkit {
        eprintln!("this kernel has no netkit (Linux 6.7, CONFIG_NETKIT): its tests are ignored");
    }
    let trial = |(number, case): (usize, Case)| {
        let (name, is_ignored) = (case.name.clone(), !has_netkit && netkit::has(&case));
        let test = move || in_lab(sandbox.ok_or("needs root")?, &format!("test-{number}"), &case);
        Trial::test(name, test).with_ignored_flag(is_ignored)
    };
    all().enumerate().map(trial).collect()
}

/// One test, with options for the agents of its lab.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    test: Test,
    agent_options: &'static [&'static str],
}

fn all() -> impl Iterator<Item = Case> {
    // The longest test starts first.
    let with_either_hook = [
        isolation::TESTS,
        services::TESTS,
        translation::TESTS,
        live::TESTS,
        cluster_policies::TESTS,
        arrival::TESTS,
        prepared::TESTS,
        frames::TESTS,
        smuggling::TESTS,
        paths::TESTS,
        layouts::TESTS,
        lifecycle::TESTS,
        veths::TESTS,
        nowhere::TESTS,
        cni::TESTS,
        netkit::TESTS,
        traces::TESTS,
        hosts::TESTS,
    ];
    let others = [
        unenforced::TESTS,
        reported::TESTS,
        hooks::TESTS,
        input::TESTS,
        peers::TESTS,
        walkthrough::TESTS,
        topology::TESTS,
        mounts::TESTS,
        names::TESTS,
        privileges::TESTS,
        churn::TESTS,
        shortcut::TESTS,
        windows::TESTS,
        floods::TESTS,
    ];
    let by_default = |&(name, test): &(&str, Test)| Case { name: name.to_owned(), test, agent_options: &[] };
    let by_clsact = |&(name, test): &(&str, Test)| Case {
        name: format!("{name}_by_clsact"),
        test,
        agent_options: &["--hook", "clsact"],
    };
    with_either_hook
        .into_iter()
        .flat_map(move |tests| tests.iter().map(by_default).chain(tests.iter().map(by_clsact)))
        .chain(others.into_iter().flatten().map(by_default))
}

/// `name` is short: paths of unix sockets lie below it, and these have 107 bytes at most.
fn in_lab(sandbox: Sandbox, name: &str, case: &Case) -> Result<(), Failed> {
    let mut lab = Lab::new(sandbox, name)?.with_agent_options(case.agent_options);
    (case.test)(&mut lab).map_err(|error| format!("{error:#}\n{}", lab.logs()).into())
}
