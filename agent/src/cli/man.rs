//! `podgate man`: the manual pages, made from the definition of the command line.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, anyhow};
use clap::{Args, CommandFactory};
use clap_mangen::Man;

use super::{Cli, output::print};

/// Print a manual page, or write all manual pages
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  podgate man explain | man -l -
  podgate man --directory /usr/local/share/man/man1")]
pub(super) struct ManOptions {
    /// Command to print the page of; without one, the page of podgate
    #[arg(conflicts_with = "directory")]
    verb: Option<String>,
    /// Write the pages of podgate and of each command into DIR
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl ManOptions {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Self { verb, directory } = self;
        let mut podgate = Cli::command();
        // Verbs then have the options of all verbs, and their full names.
        podgate.build();
        if let Some(directory) = directory {
            let at = || directory.display().to_string();
            fs::create_dir_all(&directory).with_context(at)?;
            clap_mangen::generate_to(podgate, &directory).with_context(at)?;
            return Ok(ExitCode::SUCCESS);
        }
        let command = match &verb {
            None => podgate,
            Some(verb) => {
                let found = podgate.find_subcommand(verb).cloned();
                found.with_context(|| anyhow!("{verb:?} is not a command; see `podgate --help`"))?
            }
        };
        let mut page = Vec::new();
        Man::new(command).render(&mut page).context("cannot make the page")?;
        print(|out| out.write_all(&page))?;
        Ok(ExitCode::SUCCESS)
    }
}
