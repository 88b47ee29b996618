//! `podgate cni`: the CNI plugin, and its way into the container runtime's configuration.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::Format;
use crate::{
    cni_plugin::{self, Installation, Installed, TIMEOUT, WhenUnknown},
    options::{BPFFS, SOCKET},
};

/// Chained CNI plugin: no pod starts before its policies are enforced
#[derive(Debug, Args)]
#[command(after_help = "\
Without a command this is the plugin itself (CNI 0.3 to 1.1), which the container runtime calls. It runs after the \
plugins that make a pod's interface, and waits until the agent enforces the pod's policies. While no agent runs, it \
holds pods of namespaces that had policies, and lets the others start.

Example:
  podgate cni install --watch")]
pub(super) struct CniOptions {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Install(InstallOptions),
    Uninstall(UninstallOptions),
}

/// Add the plugin to the runtime's configuration, and its binary to the other plugins'
#[derive(Debug, Args)]
struct InstallOptions {
    /// Directory of the runtime's CNI configuration
    #[arg(long, value_name = "DIR", default_value = CONFIGURATIONS)]
    conf_dir: PathBuf,
    /// Directory of the plugins' binaries
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
    /// Socket of the agent, by its path on the host
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
    /// BPF file system with the pins, by its path on the host
    #[arg(long, value_name = "DIR", default_value = BPFFS)]
    bpffs: PathBuf,
    /// How long a pod waits for its policies before the kubelet tries again
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT.as_secs(), value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
    /// What a pod may do without an agent while the policies of its namespace are not known, as after a
    /// reboot
    #[arg(long, value_enum, default_value_t)]
    when_unknown: WhenUnknown,
    /// Run until SIGTERM or SIGINT, and put the plugin back whenever the configuration is rewritten
    #[arg(long)]
    watch: bool,
}

/// Remove the plugin from the runtime's configuration; running pods are not affected
#[derive(Debug, Args)]
#[command(after_help = "\
The binary stays: the runtime calls it once more for each pod that was started with it.")]
struct UninstallOptions {
    /// Directory of the runtime's CNI configuration
    #[arg(long, value_name = "DIR", default_value = CONFIGURATIONS)]
    conf_dir: PathBuf,
}

const CONFIGURATIONS: &str = "/etc/cni/net.d";

#[derive(Debug, Serialize)]
struct Changed {
    /// Files that were written.
    changed: Vec<PathBuf>,
}

impl CniOptions {
    pub(super) fn run(self, format: impl FnOnce() -> Format) -> anyhow::Result<ExitCode> {
        match self.command {
            None => return Ok(cni_plugin::run(&|variable| std::env::var_os(variable))),
            Some(Command::Install(options)) if options.watch => {
                super::agent::start_plain_log();
                crate::run::keep_cni_plugin(&options.installation())?;
            }
            Some(Command::Install(options)) => {
                let Installed { configuration, written } = options.installation().install()?;
                if configuration.is_none() {
                    bail!("{}: there is no CNI configuration yet", options.conf_dir.display());
                }
                print(format(), written, "installed already")?;
            }
            Some(Command::Uninstall(UninstallOptions { conf_dir })) => {
                let changed = Installation::uninstall(Path::new(&conf_dir)).context("cannot uninstall")?;
                print(format(), changed, "not installed")?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl InstallOptions {
    fn installation(&self) -> Installation {
        let Self { conf_dir, bin_dir, socket, bpffs, timeout, when_unknown, watch: _ } = self;
        Installation {
            configurations: conf_dir.clone(),
            binaries: bin_dir.clone(),
            socket: socket.clone(),
            bpffs: bpffs.clone(),
            timeout: Duration::from_secs(*timeout),
            when_unknown: *when_unknown,
        }
    }
}

fn print(format: Format, changed: Vec<PathBuf>, nothing: &str) -> anyhow::Result<()> {
    format.print(&Changed { changed }, |Changed { changed }| {
        let mut text = String::new();
        for file in changed {
            writeln!(text, "changed {}", file.display()).expect("a string takes all");
        }
        if text.is_empty() { format!("{nothing}\n") } else { text }
    })
}
