//! `podgate dump`: the objects that the offline verbs read, of a whole cluster.

use std::{
    collections::BTreeMap,
    io::{self, BufWriter, ErrorKind, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, anyhow, ensure};
use clap::Args;
use kube::Client;
use podgate_core::printable::printable;

use super::output::{Format, say};
use crate::{
    fleet::{self, TargetOptions, api_failure},
    source::kube::{DumpError, DumpPart, dump},
};

pub(super) const EXAMPLES: &str = "\
The stream holds the policies of all kinds that the server has, namespaces, nodes, pods, services and endpoint slices. \
Comments at its head say which kinds it has. Of pods it holds what verdicts depend on: no environment variables, \
arguments or images. If it cannot be complete, nothing is written, or it ends with a line that no reader of YAML \
accepts.

Example:
  podgate dump > cluster.yaml
  kubectl podgate dump --context staging | podgate matrix --manifests - --ports TCP/80";

/// Why another format is refused.
pub(super) const ONLY_YAML: &str = "a dump is a stream of YAML; it has no other format";

/// Write the objects of a cluster that the offline verbs read, as one YAML stream
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DumpOptions {
    /// Kubeconfig file [default: $KUBECONFIG, then ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl DumpOptions {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Self { kubeconfig, context } = self;
        ensure!(format == Format::Table, ONLY_YAML);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("cannot start")?.block_on(async {
            let target = TargetOptions { kubeconfig: kubeconfig.as_deref(), context: context.as_deref() };
            write(&fleet::connect(target).await?.client).await
        })
    }
}

/// Writes the objects to stdout, and their numbers to stderr.
pub(super) async fn write(client: &Client) -> anyhow::Result<ExitCode> {
    let mut stdout = BufWriter::new(io::stdout());
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut has_begun = false;
    let done = dump(client, |part| {
        has_begun = true;
        match part {
            DumpPart::Kind { kind, api_version } => {
                counts.insert(kind.clone(), 0);
                writeln!(stdout, "# {kind}: {api_version}")
            }
            DumpPart::Absent { kind } => writeln!(stdout, "# {kind}: the API server does not have this kind"),
            DumpPart::Object { kind, object } => {
                let yaml = serde_saphyr::to_string(&object).map_err(io::Error::other)?;
                *counts.entry(kind).or_default() += 1;
                write!(stdout, "---\n{yaml}")
            }
        }
    })
    .await;
    let error = match done {
        Ok(()) => match stdout.flush() {
            Ok(()) => {
                let counts = counts.iter().map(|(kind, count)| format!("{count} {kind}"));
                say(format_args!("written: {}\n", counts.collect::<Vec<_>>().join(", ")));
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) => DumpError::Receiver(error),
        },
        Err(error) => error,
    };
    let error = match error {
        // The reader has seen enough.
        DumpError::Receiver(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        DumpError::Receiver(error) => anyhow!(error).context("cannot write to standard output"),
        error => failure(error),
    };
    if has_begun {
        // A part of a cluster must not be taken for the whole.
        let _ = writeln!(stdout, "---\n{{ this dump is incomplete").and_then(|()| stdout.flush());
    }
    Err(error)
}

/// Why the objects of a cluster could not be read.
pub(super) fn failure<E: Into<anyhow::Error>>(error: DumpError<E>) -> anyhow::Error {
    match error {
        DumpError::Receiver(error) => error.into(),
        DumpError::Server(error, resources) => api_failure(&error, &format!("list {resources}")),
        DumpError::Unknown { kind, versions } => anyhow!(
            "the API server has {kind} only at versions that this program does not know: {}",
            printable(&versions.join(", "))
        ),
    }
}
