//! `podgate matrix`: who reaches whom, computed from manifests, and what a change to them would open and
//! close.

mod csv;
mod page;
mod text;

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use anyhow::ensure;
use clap::Args;

use super::{
    offline::{self, Manifests, ReadingOptions},
    output::{FOUND, OF_MATRIX, Offered, Output, print, print_json},
};
use podgate_core::{
    matrix::{Difference, matrix, name_matrix},
    model::Cluster,
    port_spec::PortSpec,
};
use text::Paint;

/// Show which pods can reach which, computed offline from manifests
#[derive(Debug, Args)]
#[command(after_help = "\
For each port there is a row per source, with one character per destination: `.` allowed, `X` denied, `-` the \
destination has no port of this name. A pod always reaches itself. Pods without an address, finished pods and pods on \
the host network are left out.

If pods have several addresses, all pairs of the same family must be allowed; pods without a common family cannot \
connect. A port name with several numbers on one pod means all of them: all must be allowed.

--diff shows what a change to the manifests opens and closes: its objects are added, or replace those of the same kind \
and name. An object with the annotation `podgate.io/what-if: remove`, or with kustomize's `$patch: delete`, is removed. \
Exit code 3: the change opens or closes something. Exit code 1, after the answer: an object was not fully understood.

If a policy in the manifests cannot be read, the answer says that it is uncertain, and the exit code is 1.

--names shows which pods reach the names of domains that rules speak of, at addresses that nothing else opens: one \
column for each name. Whether a pod may ask a resolver is not part of it.

-o html writes a self-contained page in which each cell explains its verdict.

Example:
  kubectl get ns,nodes,pods,netpol -A -o yaml | podgate matrix --manifests - --ports TCP/80,UDP/53,TCP/http
  podgate matrix --manifests cluster.yaml --ports TCP/80 -o html > matrix.html
  podgate matrix --manifests cluster.yaml --ports TCP/80 --diff new-policy.yaml
  podgate matrix --manifests cluster.yaml --ports TCP/443 --names")]
pub(super) struct MatrixOptions {
    /// File or directory of objects, `-` for standard input (repeatable)
    #[arg(long, value_name = "PATH", required_unless_present = "paths")]
    manifests: Vec<PathBuf>,
    /// The same as --manifests
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Ports, as [PROTOCOL/]NUMBER or [PROTOCOL/]NAME, separated by commas; of TCP unless they say otherwise;
    /// or ICMP/TYPE, ICMPv6/TYPE/CODE, IP/PROTOCOL
    #[arg(long, value_name = "PORT,...", required = true, value_delimiter = ',')]
    ports: Vec<PortSpec>,
    /// File or directory with a change to the manifests: show what it opens and closes (repeatable)
    #[arg(long, value_name = "PATH")]
    diff: Vec<PathBuf>,
    /// Show which pods reach the names of domains that rules speak of, in place of other pods
    #[arg(long, conflicts_with = "diff")]
    names: bool,
    #[command(flatten)]
    reading: ReadingOptions,
    // In the place of the one that every verb has.
    /// Output format
    #[arg(short, long, value_parser = Offered(&OF_MATRIX), value_name = "FORMAT", default_value = "table")]
    output: Output,
}

impl MatrixOptions {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Self { mut manifests, paths, ports, diff, names, reading, output } = self;
        manifests.extend(paths);
        let (change, changed) = offline::read_change(&diff, &manifests, &reading)?;
        let read = offline::read(&manifests, &reading)?;
        let ports: BTreeSet<PortSpec> = ports.into_iter().collect();
        if names {
            return show_names(&read, &ports, output, reading.strict);
        }
        if diff.is_empty() {
            return show(&read, &ports, output, reading.strict);
        }
        let mut after = read.cluster.clone();
        change.apply(&mut after)?;
        show_difference(&read, &after, &ports, output, changed)
    }
}

fn show(
    read: &Manifests,
    ports: &BTreeSet<PortSpec>,
    output: Output,
    is_strict: bool,
) -> anyhow::Result<ExitCode> {
    let answer = read.answer(matrix(&read.cluster, ports), &offline::namespaces(&read.cluster));
    let matrix = &answer.answer;
    match output {
        Output::Table => {
            let text = answer.caution() + &text::of_matrix(matrix, Paint::of_stdout());
            print(|out| out.write_all(text.as_bytes()))?;
        }
        Output::Json => print_json(&answer)?,
        Output::Csv => print(|out| csv::write_matrix(matrix, out))?,
        Output::Html => print(|out| out.write_all(page::page(&read.cluster, matrix, None).as_bytes()))?,
        Output::Wide | Output::Yaml => {
            unreachable!("a command line with an output that its verb lacks is refused")
        }
    }
    read.verdict(&answer, 0, is_strict)?;
    Ok(ExitCode::SUCCESS)
}

fn show_names(
    read: &Manifests,
    ports: &BTreeSet<PortSpec>,
    output: Output,
    is_strict: bool,
) -> anyhow::Result<ExitCode> {
    ensure!(output != Output::Html, "--names has no page: use table, json or csv");
    let answer = read.answer(name_matrix(&read.cluster, ports), &offline::namespaces(&read.cluster));
    let matrix = &answer.answer;
    match output {
        Output::Table => {
            let text = answer.caution() + &text::of_names(matrix, Paint::of_stdout());
            print(|out| out.write_all(text.as_bytes()))?;
        }
        Output::Json => print_json(&answer)?,
        Output::Csv => print(|out| csv::write_names(matrix, out))?,
        Output::Html | Output::Wide | Output::Yaml => {
            unreachable!("a command line with an output that its verb lacks is refused")
        }
    }
    read.verdict(&answer, 0, is_strict)?;
    Ok(ExitCode::SUCCESS)
}

/// A gate: `changed` objects of the change were not fully understood, and none of the cluster may be.
fn show_difference(
    before: &Manifests,
    after: &Cluster,
    ports: &BTreeSet<PortSpec>,
    output: Output,
    changed: usize,
) -> anyhow::Result<ExitCode> {
    let (was, is) = (matrix(&before.cluster, ports), matrix(after, ports));
    let answer = before.answer(Difference::between(&was, &is), &offline::namespaces(after));
    let difference = &answer.answer;
    match output {
        Output::Table => {
            let text = answer.caution() + &text::of_difference(difference, Paint::of_stdout());
            print(|out| out.write_all(text.as_bytes()))?;
        }
        Output::Json => print_json(&answer)?,
        Output::Csv => print(|out| csv::write_difference(difference, out))?,
        Output::Html => {
            print(|out| out.write_all(page::page(after, &is, Some(difference)).as_bytes()))?;
        }
        Output::Wide | Output::Yaml => {
            unreachable!("a command line with an output that its verb lacks is refused")
        }
    }
    before.verdict(&answer, changed, true)?;
    Ok(if difference.is_empty() { ExitCode::SUCCESS } else { FOUND.into() })
}
