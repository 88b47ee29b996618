//! `podgate explain`: why a connection is allowed or denied, rule by rule.

mod text;

use std::{path::PathBuf, process::ExitCode};

use anyhow::ensure;
use clap::Args;

use super::{
    offline::{self, ReadingOptions},
    output::{FOUND, Format},
};
use crate::options::SOCKET;
use crate::{api, server::Ask};
use podgate_core::{
    explain::{EndpointRef, Explanation, Question, Verdict, explain},
    model::{Cluster, Name},
    port_spec::PortSpec,
};
use text::text;
pub(super) use text::{circumstances, loud, side_lines};

/// Explain why a connection is allowed or denied, rule by rule
#[derive(Debug, Args)]
#[command(after_help = "\
X and Y are NAMESPACE/POD, NAMESPACE/svc:SERVICE, node/NAME or an address; the address of a pod means that pod. Y may \
also be name:DOMAIN, a name of the DNS: which rules allow it, for an address that no other rule has. \
Without --manifests, the agent of this node answers from what it knows.

If the ends have several addresses, all pairs of the same family must be allowed. A port name with several numbers on \
the destination means all of them. For a service, PORT is the port of the service, and all its backends must be \
allowed.

--what-if answers for a changed cluster: its objects are added, or replace those of the same kind and name. An object \
with the annotation `podgate.io/what-if: remove`, or with kustomize's `$patch: delete`, is removed.

If a policy in the manifests cannot be read and could change the answer, or if the objects do not say what decides it, \
the answer says that it is uncertain, and the exit code is 1.

Example:
  podgate explain --from production/frontend --to development/backend --port TCP/80 --manifests cluster.yaml
  podgate explain --from production/frontend --to development/backend --port TCP/80 --what-if new-policy.yaml")]
pub(super) struct ExplainOptions {
    /// Source of the connection
    #[arg(long, value_name = "X")]
    from: EndpointRef,
    /// Destination of the connection
    #[arg(long, value_name = "Y")]
    to: EndpointRef,
    /// Port of the destination: [PROTOCOL/]NUMBER or [PROTOCOL/]NAME, of TCP unless it says otherwise; or
    /// ICMP/TYPE, ICMPv6/TYPE/CODE, IP/PROTOCOL
    #[arg(long, value_name = "PORT")]
    port: PortSpec,
    /// File or directory of objects, `-` for standard input, instead of a running agent (repeatable)
    #[arg(long, value_name = "PATH", conflicts_with = "socket")]
    manifests: Vec<PathBuf>,
    /// The same as --manifests
    #[arg(value_name = "PATH", conflicts_with = "socket")]
    paths: Vec<PathBuf>,
    /// File or directory of objects to add, change or remove before answering (repeatable)
    #[arg(long, value_name = "PATH")]
    what_if: Vec<PathBuf>,
    /// How many bytes of standard input the change has: who asks through an API server cannot end it
    #[arg(long, value_name = "BYTES", hide = true, conflicts_with_all = ["what_if", "manifests", "paths"])]
    what_if_stdin: Option<u64>,
    /// Exit with code 3, after the answer, if the connection is denied
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    reading: ReadingOptions,
    /// Socket of the running agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

impl ExplainOptions {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Self { from, to, port, mut manifests, paths, what_if, what_if_stdin, exit_code, reading, socket } =
            self;
        manifests.extend(paths);
        let (what_if, changed) = match what_if_stdin {
            Some(length) => offline::read_sent_change(length)?,
            None => offline::read_change(&what_if, &manifests, &reading)?,
        };
        if manifests.is_empty() {
            let answer: Explanation = api::ask(&socket, &Ask::Explain { from, to, port, what_if })?;
            format.print(&answer, text)?;
            certain(&answer)?;
            if reading.strict && changed > 0 {
                return Err(offline::faulty(changed));
            }
            return Ok(code(&answer, exit_code));
        }
        let mut read = offline::read(&manifests, &reading)?;
        what_if.apply(&mut read.cluster)?;
        let namespaces = [&from, &to].into_iter().filter_map(|end| namespace(&read.cluster, end)).collect();
        let answer = explain(&read.cluster, &Question { from, to, port })?;
        let answer = read.answer(answer, &namespaces);
        format.print(&answer, |answer| answer.caution() + &text(&answer.answer))?;
        read.verdict(&answer, changed, reading.strict)?;
        certain(&answer.answer)?;
        Ok(code(&answer.answer, exit_code))
    }
}

/// `is_asked_for`: scripts want to know the verdict, too.
fn code(answer: &Explanation, is_asked_for: bool) -> ExitCode {
    if is_asked_for && answer.verdict == Verdict::Deny { FOUND.into() } else { ExitCode::SUCCESS }
}

/// To be asked after the answer was printed.
fn certain(answer: &Explanation) -> anyhow::Result<()> {
    let reasons = answer.uncertain_because.len();
    ensure!(reasons == 0, "the answer is uncertain: what decides it is not in the objects");
    Ok(())
}

/// The namespace of the pod, or of the service, that an end is.
fn namespace(cluster: &Cluster, end: &EndpointRef) -> Option<Name> {
    match end {
        EndpointRef::Pod(name) | EndpointRef::Service(name) => Some(name.namespace.clone()),
        EndpointRef::Address(address) => {
            let pod = cluster.pods.values().find(|pod| pod.addresses.contains(address));
            pod.map(|pod| pod.name.namespace.clone())
        }
        EndpointRef::Node(_) | EndpointRef::Name(_) => None,
    }
}
