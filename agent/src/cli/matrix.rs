//! `podgate matrix`: who reaches whom, computed from manifests.

use std::{collections::BTreeSet, fmt::Write, path::PathBuf, process::ExitCode};

use clap::Args;

use super::{offline, output::Format};
use crate::{
    matrix::{Matrix, matrix},
    port_spec::PortSpec,
};

/// Show which pod reaches which, computed offline from manifests
#[derive(Debug, Args)]
#[command(after_help = "\
For each port a row for each source, with one character for each destination: `.` allowed, `X` denied, `-` the \
destination has no port of this name. A pod always reaches itself. Pods without an address, finished pods and pods on \
the host network are left out.

Several addresses: all pairs of one family must be allowed; pods that share no family cannot talk. A port name that \
has several numbers on one pod stands for all of them: all must be allowed.

Example:
  kubectl get ns,nodes,pods,netpol -A -o yaml | podgate matrix --manifests - --ports TCP/80,UDP/53,TCP/http")]
pub(super) struct Options {
    /// File or directory of objects, `-` for standard input (repeatable)
    #[arg(long, value_name = "PATH", required = true)]
    manifests: Vec<PathBuf>,
    /// PROTOCOL/NUMBER or PROTOCOL/NAME, separated by commas
    #[arg(long, value_name = "PORT,...", required = true, value_delimiter = ',')]
    ports: Vec<PortSpec>,
}

impl Options {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let cluster = offline::read(&self.manifests)?;
        let ports: BTreeSet<PortSpec> = self.ports.into_iter().collect();
        format.print(&matrix(&cluster, &ports)?, text)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Destinations stand in the columns by the number of their row.
fn text(matrix: &Matrix) -> String {
    let number = matrix.pods.len().to_string().len();
    let name = matrix.pods.iter().map(|pod| pod.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (port, rows) in &matrix.ports {
        let columns: Vec<String> = (1..=matrix.pods.len()).map(|at| format!(" {at:>number$}")).collect();
        let corner = port.to_string();
        writeln!(text, "{corner:<width$} {}", columns.concat(), width = number + 2 + name)
            .expect("a string takes all that is written");
        for (at, (pod, row)) in rows.iter().enumerate() {
            let cells: Vec<String> = row.chars().map(|verdict| format!(" {verdict:>number$}")).collect();
            writeln!(text, "{:>number$}  {pod:<name$} {}", at + 1, cells.concat())
                .expect("a string takes all that is written");
        }
        text.push('\n');
    }
    text.push_str(
        "Rows: sources. Columns: destinations, by row number. . allowed, X denied, - no port of this name.\n",
    );
    text
}
