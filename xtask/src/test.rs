//! `cargo xtask test`: every check and every test, each step with its time.
//!
//! In: the workspace. Out: the output of each step, the outcome of each test for `cargo xtask checklist` and,
//! last, one line `N passed, N failed`. All steps run, whatever the ones before them found.

pub(crate) mod programs;

use std::{
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use crate::{
    cargo, checklist,
    flags::TestFlags,
    kubernetes::{self, Programs},
    peers,
    results::Results,
    root,
    screen::{Cell, Tone, mark},
    setup, tidy,
};
use programs::{Count, Selection, TestProgram};

pub(crate) fn run(flags: &TestFlags) -> Result<ExitCode> {
    root::require("the test run (network namespaces, BPF)")?;
    let everything = flags.only.is_none() && flags.shard.is_none();
    // Of a part of the tests, the outcomes take the places of earlier ones.
    let results = if everything { Results::default() } else { Results::load()? };
    let mut run = Run { results, ..Run::default() };
    run.check("set-up", setup::run);
    if flags.only.is_none() && flags.shard.is_none_or(|shard| shard.takes(0)) {
        run.checks();
    }
    run.tests(&Selection { only: flags.only.clone(), shard: flags.shard });

    run.results.save()?;
    if everything {
        println!("\n{}", checklist::summary(&run.results)?);
        println!("\n{OF_E2E}");
    }
    println!("\n{} passed, {} failed", run.passed, run.failed);
    Ok(if run.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The counts so far.
#[derive(Debug, Default)]
struct Run {
    /// Tests that passed.
    passed: usize,
    /// Tests and other steps that failed.
    failed: usize,
    results: Results,
}

impl Run {
    /// What is checked without running podgate.
    fn checks(&mut self) {
        self.check("format", || run_cargo(&["fmt", "--all", "--check"]));
        self.check("rules of the repository", tidy::check);
        // The BPF programs are linted for the host: their own target has no clippy of the same version.
        let lints = ["clippy", "--quiet", "--package", EBPF, "--release", "--", "-D", "warnings"];
        self.check("lints of the BPF programs", || {
            let mut cargo = cargo::command();
            // Without `std` nothing can unwind; atomic operations of BPF are not stable.
            cargo.envs([("CARGO_PROFILE_RELEASE_PANIC", "abort"), ("RUSTC_BOOTSTRAP", "podgate_ebpf")]);
            succeed(cargo.args(lints))
        });
    }

    fn tests(&mut self, selection: &Selection) {
        let mut programs = Vec::new();
        self.check("build and lints", || {
            programs = programs::build(EBPF, selection)?;
            ensure!(!programs.is_empty(), "no test has such a name");
            Ok(())
        });
        if programs.iter().any(|program| program.target == API_SERVER_TESTS) {
            self.check("API server and Helm to test with", || {
                Programs::small()?;
                kubernetes::helm().map(|_| ())
            });
        }
        if programs.iter().any(|program| program.target == MONITORING_TESTS) {
            self.check("collector and Prometheus to test with", || {
                kubernetes::collector()?;
                kubernetes::prometheus().map(|_| ())
            });
        }
        if programs.iter().any(|program| PEERS_TESTS.contains(&program.target.as_str())) {
            self.check("iptables and ipset to compare with", || setup::install(&peers::PROGRAMS));
        }
        if programs.iter().any(|program| BROWSER_TESTS.contains(&program.target.as_str())) {
            self.check("Node, for a browser", || setup::install(&[("node", "nodejs"), ("npm", "npm")]));
        }
        for program in &programs {
            self.test(program);
        }
    }

    /// One step that passes or fails as a whole. A failure is printed and counted.
    fn check(&mut self, title: &str, step: impl FnOnce() -> Result<()>) {
        let started = announce(title);
        let outcome = step();
        if let Err(error) = &outcome {
            println!("{error:#}");
            self.failed += 1;
        }
        conclude(title, started, outcome.is_ok());
    }

    fn test(&mut self, program: &TestProgram) {
        let title = program.title();
        let started = announce(&title);
        let count = program.run(&mut self.results).unwrap_or_else(|error| {
            println!("{error:#}");
            Count { passed: 0, failed: 1, ignored: 0 }
        });
        self.passed += count.passed;
        self.failed += count.failed;
        conclude(&title, started, count.failed == 0);
    }
}

/// Which part of the check on a whole cluster is among the tests.
const OF_E2E: &str = "\
of `cargo xtask e2e` this runs what needs no kubelet (tests `apiserver`): the agent with the rights of deploy/base beside a
real API server that is killed, frozen and started again, and deploy/ with both overlays as that server takes them. The rest
needs two images and a cluster of two nodes, some 20 minutes on two cores: run it by itself";

/// They would build the API server themselves, in silence.
const API_SERVER_TESTS: &str = "apiserver";

/// These tests would build the collector themselves, too.
const MONITORING_TESTS: &str = "monitoring";

/// They load rules of other engines.
const PEERS_TESTS: [&str; 2] = ["namespaces", "played"];

/// They look at pages in a browser, which npm brings.
const BROWSER_TESTS: [&str; 2] = ["verbs", "fleet"];

/// Built for another target, inside the agent's build.
const EBPF: &str = "podgate-ebpf";

fn run_cargo(arguments: &[&str]) -> Result<()> {
    succeed(cargo::command().args(arguments))
}

fn succeed(cargo: &mut Command) -> Result<()> {
    let status = cargo.status().context("starting cargo")?;
    // `cargo fmt` and `cargo clippy` are components that rustup may have left out; cargo says which.
    ensure!(status.success(), "{cargo:?}: {status}");
    Ok(())
}

fn announce(title: &str) -> Instant {
    println!("\n{}", Cell::new(format!("── {title}"), Tone::Title));
    Instant::now()
}

fn conclude(title: &str, started: Instant, good: bool) {
    let time = format!("{title}, {:.1} s", started.elapsed().as_secs_f64());
    println!("{} {}", mark(good), Cell::new(time, Tone::Quiet));
}
