//! Tests between network namespaces: the lab itself, and the real agent in it with real sockets.
//!
//! They need root. All of them run in one sandbox, each in a lab of its own, several at a time. Without root
//! they are shown as ignored, and fail where `CI=true` says that nothing may be skipped. What becomes of
//! packets is tried twice: with the hooks that this kernel does best, and with those of older ones.

mod arrival;
mod churn;
mod cluster_policies;
mod cni;
mod floods;
mod frames;
mod hooks;
mod input;
mod isolation;
mod kernel;
mod lifecycle;
mod live;
mod mounts;
mod nowhere;
mod paths;
mod peers;
mod prepared;
mod privileges;
mod reported;
mod scene;
mod services;
mod smuggling;
mod topology;
mod translation;
mod unenforced;
mod veths;
mod walkthrough;
mod windows;

use std::{env, process::ExitCode};

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial, run};
use nix::unistd::geteuid;
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
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    if arguments.list {
        return Ok(run(&arguments, all().map(|case| Trial::test(case.name, || Ok(()))).collect()).exit_code());
    }
    if !geteuid().is_root() {
        eprintln!("the tests between namespaces need root: sudo -E env \"PATH=$PATH\" cargo xtask test");
        let strict = env::var_os("CI").is_some_and(|ci| ci == "true");
        let trials =
            all().map(|case| Trial::test(case.name, || Err("needs root".into())).with_ignored_flag(!strict));
        return Ok(run(&arguments, trials.collect()).exit_code());
    }
    let code = sandbox::enter(|sandbox| {
        let trials = all().enumerate().map(|(number, case)| {
            Trial::test(case.name.clone(), move || in_lab(sandbox, &format!("test-{number}"), &case))
        });
        u8::from(run(&arguments, trials.collect()).has_failed())
    })?;
    Ok(code.into())
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
        lifecycle::TESTS,
        veths::TESTS,
        nowhere::TESTS,
        cni::TESTS,
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
        privileges::TESTS,
        churn::TESTS,
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
