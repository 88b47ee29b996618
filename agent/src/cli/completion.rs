//! `podgate completion`: what a shell needs to complete command lines, made from their definition.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, output::print};

/// Print a shell completion script
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  source <(podgate completion bash)
  podgate completion zsh > ~/.zfunc/_podgate
  podgate completion fish > ~/.config/fish/completions/podgate.fish")]
pub(super) struct CompletionOptions {
    /// Shell to complete in
    #[arg(value_name = "SHELL", value_parser = clap::value_parser!(Shell))]
    shell: Shell,
}

impl CompletionOptions {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "podgate", &mut script);
        print(|out| out.write_all(&script))?;
        Ok(ExitCode::SUCCESS)
    }
}
