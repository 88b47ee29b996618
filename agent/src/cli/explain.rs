//! `podgate explain`: why a connection is allowed or denied, rule by rule.

mod text;

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{offline, output::Format};
use crate::options::SOCKET;
use crate::{
    api::{self, Ask},
    explain::{End, Question, explain},
    port_spec::PortSpec,
};
pub(super) use text::side_lines;
use text::text;

/// Say why a connection is allowed or denied, rule by rule
#[derive(Debug, Args)]
#[command(after_help = "\
X and Y: NAMESPACE/POD, NAMESPACE/svc:SERVICE, node/NAME or an address; the address of a pod is that pod. Without \
--manifests the agent of this node answers, from what it knows.

Several addresses: all pairs of one family must be allowed. A port name that has several numbers on the destination \
stands for all of them. Of a service PORT is the service's own, and all backends must be allowed that it may lead to.

--what-if tells what would be: its objects are added to the cluster, or take the place of those of their kind and \
name. One with the annotation `podgate.io/what-if: remove`, or with `$patch: delete` as kustomize has it, takes that \
object away.

Example:
  podgate explain --from production/frontend --to development/backend --port TCP/80 --manifests cluster.yaml
  podgate explain --from production/frontend --to development/backend --port TCP/80 --what-if new-policy.yaml")]
pub(super) struct Options {
    /// Who connects
    #[arg(long, value_name = "X")]
    from: End,
    /// To whom
    #[arg(long, value_name = "Y")]
    to: End,
    /// PROTOCOL/NUMBER or PROTOCOL/NAME of the destination
    #[arg(long, value_name = "PORT")]
    port: PortSpec,
    /// File or directory of objects, `-` for standard input, instead of a running agent (repeatable)
    #[arg(long, value_name = "PATH", conflicts_with = "socket")]
    manifests: Vec<PathBuf>,
    /// File or directory of objects that are added, changed or removed before the answer (repeatable)
    #[arg(long, value_name = "PATH")]
    what_if: Vec<PathBuf>,
    /// Socket of the running agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

impl Options {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Self { from, to, port, manifests, what_if, socket } = self;
        let what_if = offline::read_change(&what_if, &manifests)?;
        let answer = if manifests.is_empty() {
            api::ask(&socket, &Ask::Explain { from, to, port, what_if })?
        } else {
            let mut cluster = offline::read(&manifests)?;
            what_if.apply(&mut cluster)?;
            explain(&cluster, &Question { from, to, port })?
        };
        format.print(&answer, text)?;
        Ok(ExitCode::SUCCESS)
    }
}
