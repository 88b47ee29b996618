//! What runs tests that need root: all in one sandbox, several at a time.
//!
//! In: a way to make the trials. Out: the exit code. Without root they are shown as ignored, and fail where
//! `CI=true` says that nothing may be skipped.

use std::{env, process::ExitCode};

use anyhow::Result;
use libtest_mimic::{Arguments, Trial, run};
use nix::unistd::geteuid;
use xtask::sandbox::{self, Sandbox};

/// `prepare` runs outside of the sandbox. `trials` that get nothing fail, for they need root.
pub(crate) fn run_in_sandbox<P>(
    at_once: usize,
    prepare: impl FnOnce() -> Result<P>,
    trials: impl Fn(Option<(Sandbox, P)>) -> Vec<Trial>,
) -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(at_once);
    if arguments.list {
        return Ok(run(&arguments, trials(None)).exit_code());
    }
    if !geteuid().is_root() {
        eprintln!("tests between namespaces need root: sudo -E env \"PATH=$PATH\" cargo xtask test");
        let strict = env::var_os("CI").is_some_and(|ci| ci == "true");
        let trials = trials(None).into_iter().map(|trial| trial.with_ignored_flag(!strict)).collect();
        return Ok(run(&arguments, trials).exit_code());
    }
    let prepared = prepare()?;
    let code =
        sandbox::enter(|sandbox| u8::from(run(&arguments, trials(Some((sandbox, prepared)))).has_failed()))?;
    Ok(code.into())
}
