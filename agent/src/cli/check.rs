//! `podgate check`: can this node run podgate?

mod calico;
mod names;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::ensure;
use clap::Args;
use podgate_datapath::engines;

use super::{output::Format, table::TextTable};
use crate::check::{CheckPaths, Finding, FindingState, check};
use crate::fleet::TargetOptions;
use crate::options::{BPFFS, CNI_RESULTS, Resolver};

/// Check whether this node can run podgate, and say what to do if not
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 1 if something is missing that podgate needs. Run it the way the agent runs: it reports the capabilities of \
its own process.

With --calico no node is looked at: it names the fields of Calico's objects that podgate does not carry, and what \
becomes of them. Exit code 3 if there are any. Without a file it asks the API server, installs nothing, and lists \
Calico's custom resources, and EndpointSlices if a rule names a Service.

With --names no node is looked at either: it names pods whose rules have names of domains and that ask a resolver that \
is not believed, by their dnsPolicy or dnsConfig, or whose policies let them reach public resolvers over TLS, QUIC or \
HTTPS, which are not read. Exit code 3 if there are any. Libraries with a resolver of their own are not seen.

Example:
  podgate check
  podgate check --calico
  podgate check --names
  kubectl get globalnetworkpolicies.crd.projectcalico.org -o yaml | podgate check --calico -")]
pub(super) struct CheckOptions {
    /// BPF file system for the pins
    #[arg(long, value_name = "DIR", default_value = BPFFS)]
    bpffs: PathBuf,
    /// Result cache of libcni
    #[arg(long, value_name = "DIR", default_value = CNI_RESULTS)]
    cni_results: PathBuf,
    /// Check Calico's objects in place of this node: those of these files, `-` for standard input, or,
    /// without any, those of the cluster
    #[arg(long, value_name = "FILE", num_args = 0..)]
    calico: Option<Vec<PathBuf>>,
    /// Check the resolvers of pods with rules for names in place of this node: those of these files, `-` for
    /// standard input, or, without any, those of the cluster
    #[arg(long, value_name = "FILE", num_args = 0.., conflicts_with = "calico")]
    names: Option<Vec<PathBuf>>,
    /// With --names: servers that are believed, each ADDRESS[:PORT], as the agents have them
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "names")]
    resolvers: Vec<Resolver>,
    /// Kubeconfig file of that cluster [default: $KUBECONFIG, then ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl CheckOptions {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Self { bpffs, cni_results, calico, names, resolvers, kubeconfig, context } = self;
        let target = TargetOptions { kubeconfig: kubeconfig.as_deref(), context: context.as_deref() };
        let names_a_cluster = kubeconfig.is_some() || context.is_some();
        let resolvers: Vec<_> = resolvers.into_iter().map(|resolver| resolver.0).collect();
        match (&calico, &names) {
            (Some(files), _) | (None, Some(files)) => {
                ensure!(files.is_empty() || !names_a_cluster, "files are given, so no cluster is asked");
            }
            (None, None) => ensure!(!names_a_cluster, "a cluster is asked with --calico or --names alone"),
        }
        match (calico, names) {
            (Some(files), _) if files.is_empty() => return calico::run_live(target, format),
            (Some(files), _) => return calico::run(&files, format),
            (None, Some(files)) if files.is_empty() => return names::run_live(target, &resolvers, format),
            (None, Some(files)) => return names::run(&files, &resolvers, format),
            (None, None) => {}
        }
        let findings =
            check(&CheckPaths { root: Path::new("/").into(), bpffs, cni_results }, engines::look());
        format.print(&findings, |findings| text(findings))?;
        let missing = findings.iter().any(|finding| finding.state == FindingState::Missing);
        Ok(if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn text(findings: &[Finding]) -> String {
    let mut table = TextTable::default();
    for Finding { item, state, found, advice } in findings {
        let advice = advice.iter().map(|advice| format!("; {advice}")).collect::<String>();
        table.row([(*item).into(), format!("{state}: {found}{advice}")]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_a_line_with_what_to_do_unless_all_is_well() {
        let finding = |item, state, advice: Option<&str>| Finding {
            item,
            state,
            found: "found".into(),
            advice: advice.map(str::to_owned),
        };
        let findings = [
            finding("kernel", FindingState::Ok, None),
            finding("BTF", FindingState::Missing, Some("build it in")),
            finding("hooks", FindingState::FallBack("clsact"), Some("upgrade")),
        ];
        assert_eq!(
            text(&findings),
            "kernel  ok: found\nBTF     missing: found; build it in\n\
             hooks   will fall back to clsact: found; upgrade\n"
        );
    }
}
