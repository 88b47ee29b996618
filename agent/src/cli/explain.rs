//! `podgate explain`: why a connection is allowed or denied, rule by rule.

mod text;

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::Args;

use super::{
    offline::{self, Reading},
    output::Format,
};
use crate::options::SOCKET;
use crate::{
    api::{self, Ask},
    explain::{End, Question, explain},
    model::{Cluster, Name},
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

A policy in the manifests that cannot be read makes the answer uncertain when it could change it: the answer says so, and the exit code is 1.

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
    #[command(flatten)]
    reading: Reading,
    /// Socket of the running agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

impl Options {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Self { from, to, port, manifests, what_if, reading, socket } = self;
        let (what_if, changed) = offline::read_change(&what_if, &manifests, &reading)?;
        if manifests.is_empty() {
            let answer = api::ask(&socket, &Ask::Explain { from, to, port, what_if })?;
            format.print(&answer, text)?;
            if reading.strict && changed > 0 {
                bail!("{changed} with problems");
            }
            return Ok(ExitCode::SUCCESS);
        }
        let mut read = offline::read(&manifests, &reading)?;
        what_if.apply(&mut read.cluster)?;
        let namespaces = [&from, &to].into_iter().filter_map(|end| namespace(&read.cluster, end)).collect();
        let answer = explain(&read.cluster, &Question { from, to, port })?;
        let answer = read.answer(answer, &namespaces);
        format.print(&answer, |answer| answer.caution() + &text(&answer.answer))?;
        read.verdict(&answer, changed, reading.strict)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The namespace of the pod, or of the service, that an end is.
fn namespace(cluster: &Cluster, end: &End) -> Option<Name> {
    match end {
        End::Pod(name) | End::Service(name) => Some(name.namespace.clone()),
        End::Address(address) => {
            let pod = cluster.pods.values().find(|pod| pod.addresses.contains(address));
            pod.map(|pod| pod.name.namespace.clone())
        }
        End::Node(_) => None,
    }
}
