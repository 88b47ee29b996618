//! Clients and resolvers: those that are built here, and those of Debian.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{kubernetes, setup, workspace};

/// Where each program lies.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) unbound: PathBuf,
    pub(super) core_dns: PathBuf,
    pub(super) glibc: PathBuf,
    pub(super) musl: PathBuf,
    pub(super) c_ares: PathBuf,
    pub(super) go: PathBuf,
}

impl Programs {
    /// Finds, builds or installs them.
    pub(super) fn find() -> Result<Self> {
        setup::install(&[("gcc", "gcc"), ("musl-gcc", "musl-tools"), ("iptables", "iptables")])?;
        setup::install_files(&[("/usr/include/ares.h", "libc-ares-dev")])?;
        let directory = workspace::target()?.join("dns");
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let compiled = |name: &str, compiler: &str, options: &[&str]| -> Result<PathBuf> {
            let program = directory.join(name);
            let mut compile = Command::new(compiler);
            compile.arg(workspace::root().join("xtask/dns/client.c")).args(["-O1", "-Wall", "-Werror", "-o"]);
            succeed(compile.arg(&program).args(options))?;
            Ok(program)
        };
        Ok(Self {
            unbound: unbound(&directory)?,
            core_dns: kubernetes::core_dns()?,
            glibc: compiled("glibc", "gcc", &[])?,
            musl: compiled("musl", "musl-gcc", &["-static"])?,
            c_ares: compiled("c-ares", "gcc", &["-DWITH_ARES", "-lcares"])?,
            go: kubernetes::dns_client()?,
        })
    }
}

/// The program of Debian's package. The package itself is not installed, as it starts a resolver of the
/// machine: what it depends on is.
fn unbound(directory: &Path) -> Result<PathBuf> {
    let program = directory.join("unbound/usr/sbin/unbound");
    if !program.is_file() {
        succeed(Command::new("apt-get").args(["download", "unbound"]).current_dir(directory))?;
        let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
        let packages = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let package = packages.filter(|path| path.extension().is_some_and(|extension| extension == "deb"));
        let package = package.last().context("apt-get has downloaded no package")?;
        succeed(Command::new("dpkg-deb").arg("--extract").arg(package).arg(directory.join("unbound")))?;
    }
    if !succeed(Command::new("ldd").arg(&program))?.contains("not found") {
        return Ok(program);
    }
    let depends = succeed(Command::new("apt-cache").args(["depends", "unbound"]))?;
    let libraries = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    // A handful of names, once: steps of the set-up have names that live as long as the program.
    let libraries = libraries.filter(|name| name.starts_with("lib")).map(|name| &*name.to_owned().leak());
    setup::install_packages(libraries.collect())?;
    Ok(program)
}

fn succeed(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{}", output.status, complaint.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
