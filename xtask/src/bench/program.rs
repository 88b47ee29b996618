//! `cargo xtask bench decision` and `control`: benchmarks that are programs of the agent's package, because
//! they measure what only it has at hand.
//!
//! In: one figure a line, as JSON, on the program's standard output; its progress goes to the terminal. Out:
//! the figures next to their goals, as for every other benchmark.

use std::{
    io::{BufRead, BufReader},
    process::{ExitCode, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{
    command,
    figure::{Figure, Goal, readable},
    iptables,
    machine::Machine,
    names,
    report::{Findings, Plot, Report},
    statistics::Quartiles,
};
use crate::{
    cargo,
    flags::ProgramFlags,
    peers, root,
    sandbox::{self, Sandbox},
    screen::{Cell, Tone, mark, table},
    setup, shell,
};

/// A benchmark of the agent's package.
pub(super) struct Program {
    name: &'static str,
    title: &'static str,
    lead: &'static str,
    notes: &'static [&'static str],
    limits: &'static [&'static str],
    /// Measures more in a sandbox, with these programs and their packages.
    ///
    /// As another system does it, or with sockets.
    peer: Option<(&'static [(&'static str, &'static str)], Peer)>,
    /// What the page shows as plots.
    plots: fn(&[Figure]) -> Vec<Plot>,
}

/// From podgate's figures to those of another system; the flag is for a quick run.
type Peer = fn(Sandbox, &[Figure], bool) -> Result<Vec<Figure>>;

pub(super) const DECISION: Program = Program {
    name: "decision",
    title: "What podgate's programs cost a packet",
    lead: "The programs as the agent loads them, run by the kernel on packets that take turns among 1, 1,024 and 65,536 connections.",
    notes: &[
        "A figure is the median of differences to an empty program, called by the same driver in the same round.",
        "The table of connections has room for 262,144 and is otherwise empty; policies select the pod that is asked.",
    ],
    limits: &[
        "The price of the hook itself, of the device and of what else is on the path: see `bench path`.",
        "Caches that other programs use meanwhile.",
    ],
    peer: None,
    plots: |_| Vec::new(),
};

pub(super) const CONTROL: Program = Program {
    name: "control",
    title: "What podgate's agent costs",
    lead: "The agent's compiler and publisher over the kernel's tables, in clusters of up to 150,000 pods and 10,000 policies with 110 \
           pods on the node.",
    notes: &[
        "Clusters are made in memory; events go from the snapshot of the cluster to the kernel's tables.",
        "iptables: rules and sets in the shape of Azure NPM's, a call of iptables-nft-restore or ipset for each event, without \
         NPM's own program, which waits up to half a second before it calls; up to 20,000 pods, which is what it supports.",
    ],
    limits: &["Reading objects from an API server: see `cargo xtask scale`."],
    peer: Some((&peers::PROGRAMS, iptables::measure)),
    plots: |_| Vec::new(),
};

pub(super) const NAMES: Program = Program {
    name: "names",
    title: "What names of domains cost",
    lead: "The programs on replies of a resolver, beside a pod whose rules have no names; then pods that ask a resolver on another \
           node, with podgate and behind a DNS proxy in user space.",
    notes: &[
        "A reply and a connection are run as by `bench decision`; \"added by names\" is the difference to the same reply to a pod \
         whose rules have no names, in the same round.",
        "New addresses come into a table that is full: each takes the place of another one.",
        "The proxy is dnsmasq without a cache: it forwards each question, as the DNS proxies of other engines do, and filters \
         nothing. Client, resolver and proxy share the processors.",
    ],
    limits: &["What a resolver takes that looks names up: the one here answers from memory."],
    peer: Some((&[names::PROXY], names::measure)),
    plots: names::plots,
};

/// A line of the program's output.
#[derive(Debug, Deserialize)]
struct Printed {
    name: String,
    variant: String,
    unit: String,
    median: f64,
    quartiles: [f64; 2],
    /// At most.
    goal: Option<f64>,
}

pub(super) fn run(program: &Program, flags: &ProgramFlags) -> Result<ExitCode> {
    if let Some(file) = &flags.report.from {
        report(program, flags, Findings::read(file)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    root::require("loading programs into the kernel")?;
    setup::run()?;
    let machine = Machine::probe()?;
    let mut figures = measure(program.name, flags.quick)?;
    let Some((needs, peer)) = program.peer else {
        report(program, flags, program.findings(machine, figures))?;
        return Ok(ExitCode::SUCCESS);
    };
    setup::install(needs)?;
    let code = sandbox::enter(|sandbox| {
        shell::report(peer(sandbox, &figures, flags.quick).and_then(|found| {
            figures.extend(found);
            report(program, flags, program.findings(machine, figures))
        }))
    })?;
    Ok(code.into())
}

impl Program {
    fn findings(&self, machine: Machine, figures: Vec<Figure>) -> Findings {
        let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        Findings {
            command: command(),
            machine,
            variants: Vec::new(),
            figures,
            refused: Vec::new(),
            notes: owned(self.notes),
            limits: owned(self.limits),
        }
    }
}

fn report(program: &Program, flags: &ProgramFlags, findings: Findings) -> Result<()> {
    show(&findings.figures);
    let plots = (program.plots)(&findings.figures);
    Report { findings, title: program.title, lead: program.lead, plots }.write(&flags.report)
}

/// Builds and runs the program.
fn measure(name: &str, quick: bool) -> Result<Vec<Figure>> {
    let mut command = cargo::command();
    command.args(["bench", "--quiet", "--package", "podgate", "--bench", name, "--"]);
    let mut program =
        command.args(quick.then_some("--quick")).stdout(Stdio::piped()).spawn().context("starting cargo")?;
    let output = program.stdout.take().context("its output is piped")?;
    let figures = BufReader::new(output).lines().map(|line| figure(&line.context("reading the figures")?));
    let figures = figures.collect::<Result<Vec<_>>>();
    let status = program.wait().context("waiting for cargo")?;
    ensure!(status.success(), "the benchmark {name} has failed: {status}");
    figures
}

fn figure(line: &str) -> Result<Figure> {
    let Printed { name, variant, unit, median, quartiles: [q1, q3], goal } =
        serde_json::from_str(line).with_context(|| format!("{line:?} is no figure"))?;
    let figure = Figure::new(&name, variant, &unit, Quartiles { q1, median, q3 });
    Ok(match goal {
        Some(goal) => figure.with_goal(Goal::AtMost(goal)),
        None => figure,
    })
}

fn show(figures: &[Figure]) {
    let mut rows = vec![["FIGURE", "VARIANT", "MEASURED", "QUARTILES", "GOAL", ""].map(Cell::from).to_vec()];
    for figure in figures {
        rows.push(vec![
            figure.name.as_str().into(),
            figure.variant.as_str().into(),
            format!("{} {}", readable(figure.median), figure.unit).into(),
            Cell::new(figure.between(), Tone::Quiet),
            figure.goal.map(|goal| goal.to_string()).unwrap_or_default().into(),
            figure.met.map_or_else(|| "".into(), mark),
        ]);
    }
    print!("{}", table(&rows));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_line_is_a_figure_that_knows_whether_its_goal_is_met() {
        let line = |median: f64, goal: &str| {
            format!(
                r#"{{"name":"n","variant":"v","unit":"ns","median":{median},"quartiles":[1.0,3.0],"control":null,"goal":{goal},"met":null}}"#
            )
        };
        for (median, goal, met) in [(2.0, "2.0", Some(true)), (2.1, "2.0", Some(false)), (2.0, "null", None)]
        {
            let figure = figure(&line(median, goal)).unwrap();
            assert_eq!((figure.name.as_str(), figure.median, figure.met), ("n", median, met));
            assert_eq!(figure.quartiles, [1.0, 3.0]);
        }
        assert!(figure("").unwrap_err().to_string().contains("is no figure"));
        assert!(figure("{}").is_err());
    }
}
