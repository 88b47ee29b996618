//! `podgate matrix`: who reaches whom, computed from manifests, and what a change to them would open and
//! close.

mod csv;
mod page;
mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::ensure;
use clap::{Args, ValueEnum};

use super::{
    colour::ColourOptions,
    endpoints::pod_name,
    offline::{self, Manifests, ReadingOptions},
    output::{FOUND, OF_MATRIX, Offered, Output, print, print_json},
};
use podgate_core::{
    matrix::{
        Difference, MatrixScope, PodGroup, matrix_within, name_matrix, workload_difference, workload_matrix,
    },
    model::{Cluster, Name, Pod},
    port_spec::PortSpec,
};
use text::Paint;

/// Pods beyond which a table or a page has a row for each workload: more do not fit a screen.
const MOST_PODS: usize = 50;

/// Show which pods can reach which, computed offline from manifests
#[derive(Debug, Args)]
#[command(after_help = "\
For each port there is a row per source, with one character per destination: `.` allowed, `X` denied, `-` the \
destination has no port of this name. A pod always reaches itself. Pods without an address, finished pods and pods on \
the host network are left out.

If pods have several addresses, all pairs of the same family must be allowed; pods without a common family cannot \
connect. A port name with several numbers on one pod means all of them: all must be allowed.

-n, -l, --from and --to choose the pods: of one namespace (which is also that of objects that do not name one), with \
labels, or on one side alone. Of more than 50 pods a table or a page has a row for each workload: the pods of a \
namespace with the same labels, but for those that differ between replicas and releases. Where policies treat some of \
them differently, a workload has several rows, so that a verdict holds for each pair of pods. JSON and CSV have pods \
unless --by says otherwise.

--diff shows what a change to the manifests opens and closes: its objects are added, or replace those of the same kind \
and name. An object with the annotation `podgate.io/what-if: remove`, or with kustomize's `$patch: delete`, is removed. \
Exit code 3: the change opens or closes something. Exit code 1, after the answer: an object was not fully understood.

If a policy in the manifests cannot be read, the answer says that it is uncertain, and the exit code is 1.

--names shows which pods reach the names of domains that rules speak of, at addresses that nothing else opens: one \
column for each name. Whether a pod may ask a resolver is not part of it.

-o html writes a self-contained page in which each cell explains its verdict.

Example:
  kubectl podgate dump | podgate matrix --manifests - --ports TCP/80,UDP/53,TCP/http
  podgate matrix --manifests cluster.yaml --ports TCP/80 -o html > matrix.html
  podgate matrix --manifests cluster.yaml --ports 5432 --from shop --to data/postgres-0
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
    #[arg(long, conflicts_with_all = ["diff", "to", "by"])]
    names: bool,
    /// Only these sources: NAMESPACE or NAMESPACE/POD, separated by commas
    #[arg(long, value_name = "PODS", value_delimiter = ',', value_parser = pod_group)]
    from: Vec<PodGroup>,
    /// Only these destinations, likewise
    #[arg(long, value_name = "PODS", value_delimiter = ',', value_parser = pod_group)]
    to: Vec<PodGroup>,
    /// Only pods with these labels: KEY=VALUE or KEY, separated by commas
    #[arg(short = 'l', long, value_name = "LABELS", value_delimiter = ',', value_parser = label)]
    selector: Vec<(Name, Option<Name>)>,
    /// What a row is [default: workloads in a table or page of more than 50 pods, else pods]
    #[arg(long, value_enum, value_name = "KIND")]
    by: Option<RowKind>,
    #[command(flatten)]
    colours: ColourOptions,
    #[command(flatten)]
    reading: ReadingOptions,
    // In the place of the one that every verb has.
    /// Output format
    #[arg(short, long, value_parser = Offered(&OF_MATRIX), value_name = "FORMAT", default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RowKind {
    Pods,
    Workloads,
}

/// What is asked of the cluster, and how the answer is shown.
struct MatrixQuery {
    ports: BTreeSet<PortSpec>,
    scope: MatrixScope,
    /// `None`: as many rows as a screen has.
    by: Option<RowKind>,
    output: Output,
    paint: Paint,
}

fn pod_group(text: &str) -> Result<PodGroup, &'static str> {
    match text.contains('/') {
        true => pod_name(text).map(PodGroup::Pod),
        false if text.is_empty() => Err("pods are NAMESPACE or NAMESPACE/POD"),
        false => Ok(PodGroup::Namespace(text.into())),
    }
}

fn label(text: &str) -> Result<(Name, Option<Name>), &'static str> {
    let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value)));
    // `==` is another way to write it.
    let value = value.map(|value| value.strip_prefix('=').unwrap_or(value));
    match key.is_empty() || key.contains([' ', '!', '(']) {
        true => Err("labels are KEY=VALUE or KEY, separated by commas"),
        false => Ok((key.into(), value.map(Name::from))),
    }
}

impl MatrixOptions {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Self {
            mut manifests,
            paths,
            ports,
            diff,
            names,
            from,
            to,
            selector,
            by,
            colours,
            reading,
            output,
        } = self;
        manifests.extend(paths);
        ensure!(
            output != Output::Html || (from.is_empty() && to.is_empty()),
            "a page has filters for each side: -o html takes -n and -l, not --from and --to"
        );
        let (change, changed) = offline::read_change(&diff, &manifests, &reading)?;
        let read = offline::read(&manifests, &reading)?;
        let scope = MatrixScope {
            namespace: reading.namespace.clone().map(Name::from),
            labels: selector,
            from: from.into_iter().collect(),
            to: to.into_iter().collect(),
        };
        let query = MatrixQuery {
            ports: ports.into_iter().collect(),
            scope,
            by,
            output,
            paint: Paint::of_stdout(colours),
        };
        if names {
            return query.show_names(&read, reading.strict);
        }
        if diff.is_empty() {
            return query.show(&read, reading.strict);
        }
        let mut after = read.cluster.clone();
        change.apply(&mut after)?;
        query.show_difference(&read, &after, changed)
    }
}

impl MatrixQuery {
    fn show(&self, read: &Manifests, is_strict: bool) -> anyhow::Result<ExitCode> {
        let Self { ports, scope, output, paint, .. } = self;
        let (matrix, pods) = if self.is_by_workload(&read.cluster) {
            let of_workloads = workload_matrix(&read.cluster, ports, scope);
            (of_workloads.matrix, of_workloads.pods)
        } else {
            (matrix_within(&read.cluster, ports, scope), self.pods(&read.cluster))
        };
        let answer = read.answer(matrix, &offline::namespaces(&read.cluster));
        let matrix = &answer.answer;
        match output {
            Output::Table => {
                let text = answer.caution() + &text::of_matrix(matrix, *paint);
                print(|out| out.write_all(text.as_bytes()))?;
            }
            Output::Json => print_json(&answer)?,
            Output::Csv => print(|out| csv::write_matrix(matrix, out))?,
            Output::Html => {
                print(|out| out.write_all(page::page(&read.cluster, &pods, matrix, None).as_bytes()))?;
            }
            Output::Wide | Output::Yaml => {
                unreachable!("a command line with an output that its verb lacks is refused")
            }
        }
        read.verdict(&answer, 0, is_strict)?;
        Ok(ExitCode::SUCCESS)
    }

    fn show_names(&self, read: &Manifests, is_strict: bool) -> anyhow::Result<ExitCode> {
        ensure!(self.output != Output::Html, "--names has no page: use table, json or csv");
        let matrix = name_matrix(&read.cluster, &self.ports, &self.scope);
        let answer = read.answer(matrix, &offline::namespaces(&read.cluster));
        let matrix = &answer.answer;
        match self.output {
            Output::Table => {
                let text = answer.caution() + &text::of_names(matrix, self.paint);
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
        &self,
        before: &Manifests,
        after: &Cluster,
        changed: usize,
    ) -> anyhow::Result<ExitCode> {
        let Self { ports, scope, output, paint, .. } = self;
        let (page, difference) = if self.is_by_workload(after) {
            let (of_workloads, difference) = workload_difference(&before.cluster, after, ports, scope);
            (Some((of_workloads.matrix, of_workloads.pods)), difference)
        } else {
            // Of many pods that is a matter of seconds.
            let page = || (matrix_within(after, ports, scope), self.pods(after));
            let page = (*output == Output::Html).then(page);
            (page, Difference::of(&before.cluster, after, ports, scope))
        };
        let answer = before.answer(difference, &offline::namespaces(after));
        let difference = &answer.answer;
        match (output, &page) {
            (Output::Json, _) => print_json(&answer)?,
            (Output::Csv, _) => print(|out| csv::write_difference(difference, out))?,
            (Output::Html, Some((matrix, pods))) => {
                let page = page::page(after, pods, matrix, Some(difference));
                print(|out| out.write_all(page.as_bytes()))?;
            }
            (Output::Table | Output::Html | Output::Wide | Output::Yaml, _) => {
                let text = answer.caution() + &text::of_difference(difference, *paint);
                print(|out| out.write_all(text.as_bytes()))?;
            }
        }
        before.verdict(&answer, changed, true)?;
        Ok(if difference.is_empty() { ExitCode::SUCCESS } else { FOUND.into() })
    }

    fn is_by_workload(&self, cluster: &Cluster) -> bool {
        match (self.by, self.output) {
            (Some(by), _) => by == RowKind::Workloads,
            (None, Output::Table | Output::Html) => self.pods(cluster).len() > MOST_PODS,
            (None, Output::Json | Output::Csv | Output::Wide | Output::Yaml) => false,
        }
    }

    /// Rows of one pod each.
    fn pods<'a>(&self, cluster: &'a Cluster) -> BTreeMap<Name, Vec<&'a Pod>> {
        let pods = cluster.pods.values().filter(|pod| self.scope.has(pod));
        pods.map(|pod| (pod.name.to_string().into(), vec![&**pod])).collect()
    }
}
