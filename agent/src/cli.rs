//! The command line: verbs, options, exit codes.
//!
//! Data goes to stdout, everything else to stderr. Exit code 0: done; 1: it failed, one line `error: ...`; 2:
//! wrong usage; 3: what was looked for was found (a difference by `matrix --diff`, findings by `lint`, too
//! few isolated pods by `coverage --fail-under`, a denied connection by `explain --exit-code`); 4: some nodes
//! did not answer (`cluster`). What users and scripts rely on stays: verbs, options and JSON forms are only
//! added.

mod advise;
mod agent;
mod check;
mod cluster;
mod cni;
mod colour;
mod completion;
mod convert;
mod coverage;
mod detach;
mod doctor;
mod dump;
mod endpoints;
mod explain;
mod flows;
mod layers;
mod lint;
mod man;
mod matrix;
mod mount;
mod names;
mod offline;
mod output;
mod page;
mod policies;
mod rollout;
mod status;
mod table;
mod trace;
mod version;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};
use layers::CliError;
use output::{OF_EVERY_VERB, Offered, Output};
use podgate_datapath::RejectedProgram;

use crate::options::AgentOptions;

pub use layers::Environment;

/// NetworkPolicy enforcement for Kubernetes nodes, in eBPF
#[derive(Debug, Parser)]
#[command(name = "podgate", version, arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    /// Output format
    #[arg(short, long, global = true, value_parser = Offered(&OF_EVERY_VERB), value_name = "FORMAT", default_value = "table")]
    output: Output,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Agent(AgentOptions),
    Check(check::CheckOptions),
    Detach(detach::DetachOptions),
    Mount(mount::MountOptions),
    Cni(cni::CniOptions),
    Status(status::StatusOptions),
    Endpoints(endpoints::EndpointsOptions),
    Names(names::NamesOptions),
    Policies(policies::PoliciesOptions),
    Rollout(rollout::RolloutOptions),
    Flows(flows::FlowsOptions),
    Trace(trace::TraceOptions),
    Explain(explain::ExplainOptions),
    Matrix(matrix::MatrixOptions),
    Lint(lint::LintOptions),
    Coverage(coverage::CoverageOptions),
    Advise(advise::AdviseOptions),
    Convert(convert::ConvertOptions),
    Dump(dump::DumpOptions),
    Doctor(doctor::DoctorOptions),
    Completion(completion::CompletionOptions),
    Man(man::ManOptions),
    Version(version::VersionOptions),
    Cluster(cluster::ClusterOptions),
}

/// Runs one command line to its end.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: &Environment<'_>) -> ExitCode {
    let arguments = cluster::as_plugin(arguments.into_iter().collect());
    // A container runtime calls its plugins without arguments.
    if arguments.len() <= 1 && environment("CNI_COMMAND").is_some() {
        return crate::cni_plugin::run(environment);
    }
    let done = match layers::parse(arguments, environment) {
        Ok(cli) => cli.verb.run(cli.output),
        // Help and version count as usage too, but go to stdout and are what was asked for.
        Err(CliError::Usage(usage)) => usage.exit(),
        Err(CliError::Failed(error)) => Err(error),
    };
    done.unwrap_or_else(|error| {
        output::say(complaint(&error));
        ExitCode::FAILURE
    })
}

/// One line that begins with `error:`; before it, when there is one, the whole log of the kernel's verifier.
fn complaint(error: &anyhow::Error) -> String {
    let refused = error.chain().find_map(|cause| cause.downcast_ref::<RejectedProgram>());
    let log = refused.map_or("", |refused| refused.verifier_log.trim_end());
    let gap = if log.is_empty() { "" } else { "\n" };
    let line = format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{log}{gap}error: {line}\n")
}

impl Verb {
    /// What it can print.
    const fn outputs(&self) -> &'static [Output] {
        match self {
            Self::Matrix(_) => &output::OF_MATRIX,
            Self::Coverage(_) => &output::OF_COVERAGE,
            Self::Cluster(options) => options.outputs(),
            Self::Agent(_)
            | Self::Check(_)
            | Self::Detach(_)
            | Self::Mount(_)
            | Self::Cni(_)
            | Self::Status(_)
            | Self::Endpoints(_)
            | Self::Names(_)
            | Self::Policies(_)
            | Self::Rollout(_)
            | Self::Flows(_)
            | Self::Trace(_)
            | Self::Explain(_)
            | Self::Lint(_)
            | Self::Advise(_)
            | Self::Convert(_)
            | Self::Dump(_)
            | Self::Doctor(_)
            | Self::Completion(_)
            | Self::Man(_)
            | Self::Version(_) => &OF_EVERY_VERB,
        }
    }

    fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let format =
            || output.format().expect("a command line with an output that its verb lacks is refused");
        match self {
            Self::Agent(options) => agent::run(&options),
            Self::Check(options) => options.run(format()),
            Self::Detach(options) => options.run(format()),
            Self::Mount(options) => options.run(format()),
            Self::Cni(options) => options.run(format),
            Self::Status(options) => options.run(format()),
            Self::Endpoints(options) => options.run(format()),
            Self::Names(options) => options.run(format()),
            Self::Policies(options) => options.run(format()),
            Self::Rollout(options) => options.run(format()),
            Self::Flows(options) => options.run(format()),
            Self::Trace(options) => options.run(format()),
            Self::Explain(options) => options.run(format()),
            Self::Matrix(options) => options.run(),
            Self::Lint(options) => options.run(format()),
            Self::Coverage(options) => options.run(),
            Self::Advise(options) => options.run(format()),
            Self::Convert(options) => options.run(format()),
            Self::Dump(options) => options.run(format()),
            Self::Doctor(options) => options.run(format()),
            Self::Completion(options) => options.run(),
            Self::Man(options) => options.run(),
            Self::Version(options) => options.run(format()),
            Self::Cluster(options) => options.run(),
        }
    }
}

#[cfg(test)]
mod tests;
