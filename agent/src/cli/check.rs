//! `podgate check`: can this node run podgate?

mod calico;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use podgate_datapath::engines;

use super::{output::Format, table::TextTable};
use crate::check::{CheckPaths, Finding, FindingState, check};
use crate::options::{BPFFS, CNI_RESULTS};

/// Check whether this node can run podgate, and say what to do if not
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 1 if something is missing that podgate needs. Run it the way the agent runs: it reports the capabilities of \
its own process.

With --calico no node is looked at: it names the fields of Calico's objects that podgate does not carry, and what \
becomes of them. Exit code 3 if there are any.

Example:
  podgate check
  kubectl get globalnetworkpolicies.crd.projectcalico.org -o yaml | podgate check --calico -")]
pub(super) struct CheckOptions {
    /// BPF file system for the pins
    #[arg(long, value_name = "DIR", default_value = BPFFS)]
    bpffs: PathBuf,
    /// Result cache of libcni
    #[arg(long, value_name = "DIR", default_value = CNI_RESULTS)]
    cni_results: PathBuf,
    /// Check files with Calico's objects in place of this node, `-` for standard input
    #[arg(long, value_name = "FILE", num_args = 1..)]
    calico: Vec<PathBuf>,
}

impl CheckOptions {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Self { bpffs, cni_results, calico } = self;
        if !calico.is_empty() {
            return calico::run(&calico, format);
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
