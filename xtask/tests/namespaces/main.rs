//! Tests between network namespaces: the lab itself, and the real agent in it with real sockets.
//!
//! They need root. All of them run in one sandbox, each in a lab of its own, several at a time. Without root they are
//! shown as ignored, and fail where `CI=true` says that nothing may be skipped.

mod arrival;
mod input;
mod isolation;
mod kernel;
mod lifecycle;
mod live;
mod scene;
mod topology;
mod walkthrough;

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
        return Ok(run(&arguments, all().map(|(name, _)| Trial::test(name, || Ok(()))).collect()).exit_code());
    }
    if !geteuid().is_root() {
        eprintln!("the tests between namespaces need root: sudo -E env \"PATH=$PATH\" cargo xtask test");
        let strict = env::var_os("CI").is_some_and(|ci| ci == "true");
        let trials =
            all().map(|(name, _)| Trial::test(name, || Err("needs root".into())).with_ignored_flag(!strict));
        return Ok(run(&arguments, trials.collect()).exit_code());
    }
    let code = sandbox::enter(|sandbox| {
        let trials = all().map(|(name, test)| Trial::test(name, move || in_lab(sandbox, name, test)));
        u8::from(run(&arguments, trials.collect()).has_failed())
    })?;
    Ok(code.into())
}

fn all() -> impl Iterator<Item = (&'static str, Test)> {
    // The longest test starts first.
    [
        isolation::TESTS,
        live::TESTS,
        arrival::TESTS,
        lifecycle::TESTS,
        input::TESTS,
        walkthrough::TESTS,
        topology::TESTS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

fn in_lab(sandbox: Sandbox, name: &str, test: Test) -> Result<(), Failed> {
    let mut lab = Lab::new(sandbox, name)?;
    test(&mut lab).map_err(|error| format!("{error:#}\n{}", lab.logs()).into())
}
