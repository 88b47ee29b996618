//! `podgate doctor`: what a report of a bug needs, in one archive.
//!
//! What is read is listed in `facts` and nowhere else: no environment, no configuration, no credentials, no
//! payload.

mod addresses;
mod archive;
mod facts;

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::{
    output::{Format, say},
    table::TextTable,
};
use crate::options::{BPFFS, CNI_RESULTS, SOCKET};
use addresses::AddressMap;
use facts::{DoctorPaths, Fact, facts};

/// Collect what a bug report needs into one archive
#[derive(Debug, Args)]
#[command(after_help = "\
The archive holds versions, the answers of `check`, `status` and `endpoints` with recent errors and table sizes, facts \
about the kernel, and the names of the pins; the command lists what it wrote. The archive holds no credentials, no \
environment and no traffic. Each address is replaced by the same word everywhere; names of pods, policies and nodes \
are kept. The command works without a running agent.

Example:
  podgate doctor
  kubectl --namespace kube-system exec ds/podgate -- /podgate doctor --file - > doctor.tar.gz")]
pub(super) struct DoctorOptions {
    /// Where the archive goes, `-` for standard output [default: podgate-doctor-TIME.tar.gz]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Keep addresses as they are
    #[arg(long)]
    addresses: bool,
    /// BPF file system with the pins
    #[arg(long, value_name = "DIR", default_value = BPFFS)]
    bpffs: PathBuf,
    /// Result cache of libcni
    #[arg(long, value_name = "DIR", default_value = CNI_RESULTS)]
    cni_results: PathBuf,
    /// Socket of the running agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

/// What was put in.
#[derive(Debug, Serialize)]
struct ArchiveListing {
    archive: PathBuf,
    addresses: &'static str,
    files: Vec<Listed>,
}

#[derive(Debug, Serialize)]
struct Listed {
    name: &'static str,
    bytes: usize,
    what: &'static str,
}

impl DoctorOptions {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Self { file, addresses: keeps_addresses, bpffs, cni_results, socket } = self;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        let mut facts = facts(&DoctorPaths { root: Path::new("/").into(), bpffs, cni_results, socket });
        if !keeps_addresses {
            let mut addresses = AddressMap::default();
            facts.iter_mut().for_each(|fact| fact.text = addresses.replace(&fact.text));
        }
        let archive = archive::archive(&facts, since_1970.as_secs()).context("cannot make the archive")?;
        let path = file.unwrap_or_else(|| format!("podgate-doctor-{}.tar.gz", since_1970.as_secs()).into());
        let listing = listing(&path, keeps_addresses, &facts);
        if path == Path::new("-") {
            io::stdout().write_all(&archive).context("cannot write to standard output")?;
            say(text(&listing));
            return Ok(ExitCode::SUCCESS);
        }
        write(&path, &archive).with_context(|| format!("cannot write {}", path.display()))?;
        format.print(&listing, text)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// For its owner alone, and never in the place of something else.
fn write(path: &Path, archive: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(archive)
}

fn listing(path: &Path, keeps_addresses: bool, facts: &[Fact]) -> ArchiveListing {
    let files = facts.iter().map(|Fact { name, what, text }| Listed { name, bytes: text.len(), what });
    ArchiveListing {
        archive: path.to_owned(),
        addresses: if keeps_addresses { "kept" } else { "replaced" },
        files: files.collect(),
    }
}

fn text(ArchiveListing { archive, addresses, files }: &ArchiveListing) -> String {
    let mut table = TextTable::with_header(&["FILE", "BYTES", "WHAT"]);
    for Listed { name, bytes, what } in files {
        table.row([(*name).into(), bytes.to_string(), (*what).into()]);
    }
    format!("{table}\nwritten to {}, addresses {addresses}\n", archive.display())
}

#[cfg(test)]
mod tests;
