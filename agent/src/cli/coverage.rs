//! `podgate coverage`: which pods policies isolate, and which no policy says anything about.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use podgate_core::coverage::{Coverage, CoverageCounts, NamespaceCoverage, coverage};

use super::{
    offline::{self, ReadingOptions},
    output::{FOUND, OF_COVERAGE, Offered, Output, print, print_json},
    table::TextTable,
};

/// Show which pods policies isolate, and which no policy covers
#[derive(Debug, Args)]
#[command(after_help = "\
For each namespace and direction, how many pods are isolated by a NetworkPolicy, how many only cluster-wide policies \
have a say in, for how many policies in audit mode only report, and how many no policy covers. Pods on the host \
network are left out: no policy can select them.

-o wide shows the pods, too. -n shows that namespace alone, with its pods; it is also the namespace of objects that do \
not name one.

--fail-under ends with exit code 3 if fewer than that percentage of the pods shown are isolated, in either direction \
or in that of --direction. If a policy in the manifests cannot be read, the answer says that it is uncertain, and the \
exit code is 1.

Example:
  podgate coverage cluster.yaml
  podgate coverage cluster.yaml --direction ingress --fail-under 90
  kubectl podgate dump | podgate coverage - -n production")]
pub(super) struct CoverageOptions {
    /// Files or directories of objects, `-` for standard input
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Fail if less than this percentage of the pods is isolated
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    fail_under: Option<u8>,
    /// The direction that counts for --fail-under [default: both]
    #[arg(long, value_enum)]
    direction: Option<CountedDirection>,
    #[command(flatten)]
    reading: ReadingOptions,
    // In the place of the one that every verb has.
    /// Output format
    #[arg(short, long, value_parser = Offered(&OF_COVERAGE), value_name = "FORMAT", default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CountedDirection {
    Ingress,
    Egress,
}

impl CoverageOptions {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Self { paths, fail_under, direction, reading, output } = self;
        let read = offline::read(&paths, &reading)?;
        let mut coverage = coverage(&read.cluster);
        if let Some(namespace) = &reading.namespace {
            coverage = coverage.of_namespace(namespace);
        }
        let names = coverage.names();
        let answer = read.answer(coverage, &names);
        match output {
            Output::Json => print_json(&answer)?,
            Output::Table | Output::Wide => {
                let shows_pods = output == Output::Wide || reading.namespace.is_some();
                let text = answer.caution() + &text(&answer.answer, shows_pods);
                print(|out| out.write_all(text.as_bytes()))?;
            }
            Output::Csv | Output::Html | Output::Yaml => {
                unreachable!("a command line with an output that its verb lacks is refused")
            }
        }
        read.verdict(&answer, 0, reading.strict)?;
        let Coverage { ingress, egress, .. } = &answer.answer;
        let counted = [(CountedDirection::Ingress, ingress), (CountedDirection::Egress, egress)];
        let mut counted = counted.into_iter().filter(|(one, _)| direction.is_none_or(|only| only == *one));
        let fails =
            fail_under.is_some_and(|percent| counted.any(|(_, counts)| !counts.has_isolated(percent)));
        Ok(if fails { FOUND.into() } else { ExitCode::SUCCESS })
    }
}

fn text(coverage: &Coverage, shows_pods: bool) -> String {
    let Coverage { namespaces, ingress, egress } = coverage;
    let header = ["NAMESPACE", "DIRECTION", "PODS", "ISOLATED", "CLUSTER-WIDE", "AUDIT-ONLY", "NONE"];
    let mut table = TextTable::with_header(&header);
    let mut row = |namespace: &str, direction: &str, counts: &CoverageCounts| {
        let CoverageCounts { isolated, cluster_wide, audit_only, none } = counts;
        let mut cells = vec![namespace.to_owned(), direction.to_owned()];
        cells.extend([&counts.all(), isolated, cluster_wide, audit_only, none].map(ToString::to_string));
        table.row(cells);
    };
    for NamespaceCoverage { name, ingress, egress, pods: _ } in namespaces {
        row(name, "ingress", ingress);
        row(name, "egress", egress);
    }
    row("(all)", "ingress", ingress);
    row("(all)", "egress", egress);
    if !shows_pods {
        return table.to_string();
    }
    let mut pods = TextTable::with_header(&["POD", "INGRESS", "EGRESS"]);
    for namespace in namespaces {
        for pod in &namespace.pods {
            let name = format!("{}/{}", namespace.name, pod.name);
            pods.row([name, pod.ingress.word().to_owned(), pod.egress.word().to_owned()]);
        }
    }
    format!("{table}\n{pods}")
}
