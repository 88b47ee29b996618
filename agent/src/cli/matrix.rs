//! `podgate matrix`: who reaches whom, computed from manifests, and what a change to them would open and close.

mod csv;
mod page;
mod text;

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use clap::Args;

use super::{
    offline::{self, Manifests, Reading},
    output::{Output, print, print_json},
};
use crate::{
    matrix::{Difference, matrix},
    model::{Cluster, Name},
    port_spec::PortSpec,
};
use text::Paint;

/// A change opens or closes something: a pipeline stops here and lets somebody look.
const DIFFERS: u8 = 3;

/// Show which pod reaches which, computed offline from manifests
#[derive(Debug, Args)]
#[command(after_help = "\
For each port a row for each source, with one character for each destination: `.` allowed, `X` denied, `-` the \
destination has no port of this name. A pod always reaches itself. Pods without an address, finished pods and pods on \
the host network are left out.

Several addresses: all pairs of one family must be allowed; pods that share no family cannot talk. A port name that \
has several numbers on one pod stands for all of them: all must be allowed.

--diff shows what a change to the manifests opens and closes; its objects are added to the cluster, or take the place of \
those of their kind and name. One with the annotation `podgate.io/what-if: remove`, or with `$patch: delete` as \
kustomize has it, takes that object away. Exit code 3: the change opens or closes something; 1, after the answer: an object was not fully understood.

A policy in the manifests that cannot be read makes the answer uncertain: the answer says so, and the exit code is 1.

-o html writes a page that stands alone: each of its cells tells why.

Example:
  kubectl get ns,nodes,pods,netpol -A -o yaml | podgate matrix --manifests - --ports TCP/80,UDP/53,TCP/http
  podgate matrix --manifests cluster.yaml --ports TCP/80 -o html > matrix.html
  podgate matrix --manifests cluster.yaml --ports TCP/80 --diff new-policy.yaml")]
pub(super) struct Options {
    /// File or directory of objects, `-` for standard input (repeatable)
    #[arg(long, value_name = "PATH", required = true)]
    manifests: Vec<PathBuf>,
    /// PROTOCOL/NUMBER or PROTOCOL/NAME, separated by commas
    #[arg(long, value_name = "PORT,...", required = true, value_delimiter = ',')]
    ports: Vec<PortSpec>,
    /// File or directory of a change to the manifests: show what it opens and closes (repeatable)
    #[arg(long, value_name = "PATH")]
    diff: Vec<PathBuf>,
    #[command(flatten)]
    reading: Reading,
}

impl Options {
    pub(super) fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let Self { manifests, ports, diff, reading } = self;
        let (change, changed) = offline::read_change(&diff, &manifests, &reading)?;
        let read = offline::read(&manifests, &reading)?;
        let ports: BTreeSet<PortSpec> = ports.into_iter().collect();
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
    let answer = read.answer(matrix(&read.cluster, ports)?, &namespaces(&read.cluster));
    let matrix = &answer.answer;
    match output {
        Output::Table => {
            let text = answer.caution() + &text::of_matrix(matrix, Paint::of_stdout());
            print(|out| out.write_all(text.as_bytes()))?;
        }
        Output::Json => print_json(&answer)?,
        Output::Csv => print(|out| csv::write_matrix(matrix, out))?,
        Output::Html => print(|out| out.write_all(page::page(&read.cluster, matrix, None).as_bytes()))?,
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
    let (was, is) = (matrix(&before.cluster, ports)?, matrix(after, ports)?);
    let answer = before.answer(Difference::between(&was, &is), &namespaces(after));
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
    }
    before.verdict(&answer, changed, true)?;
    Ok(if difference.is_empty() { ExitCode::SUCCESS } else { DIFFERS.into() })
}

/// Those that have pods.
fn namespaces(cluster: &Cluster) -> BTreeSet<Name> {
    cluster.pods.keys().map(|pod| pod.namespace.clone()).collect()
}
