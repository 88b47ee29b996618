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
use text::text;

/// Say why a connection is allowed or denied, rule by rule
#[derive(Debug, Args)]
#[command(after_help = "\
X and Y: NAMESPACE/POD, NAMESPACE/svc:SERVICE, node/NAME or an address; the address of a pod is that pod. Without \
--manifests the agent of this node answers, from what it knows.

Several addresses: all pairs of one family must be allowed. A port name that has several numbers on the destination \
stands for all of them. Of a service PORT is the service's own, and all backends must be allowed that it may lead to.

Example:
  podgate explain --from production/frontend --to development/backend --port TCP/80 --manifests cluster.yaml")]
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
    /// Socket of the running agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

impl Options {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Self { from, to, port, manifests, socket } = self;
        let answer = if manifests.is_empty() {
            api::ask(&socket, &Ask::Explain { from, to, port })?
        } else {
            explain(&offline::read(&manifests)?, &Question { from, to, port })?
        };
        format.print(&answer, text)?;
        Ok(ExitCode::SUCCESS)
    }
}
