//! The first process of the machine: mounts what programs expect, loads the modules, runs the parts, switches
//! off. Without a machine the parts run as they are.
//!
//! In: the plan. Out: the output of the tests, and lines between it that say which part ran and how each of
//! its programs ended ([`ConsoleLine`]).
use std::{
    fmt, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
};
use serde::{Deserialize, Serialize};

use crate::lab::PATIENCE;

/// Where the machine finds its plan.
pub(super) const PLAN: &str = "plan.json";

/// The parts to run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Plan {
    pub(super) modules: Vec<PathBuf>,
    pub(super) parts: Vec<Part>,
}

/// One part, with its programs.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) runs: Vec<Run>,
}

/// One program with its arguments.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Run {
    pub(super) program: PathBuf,
    pub(super) directory: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) wanted: ExpectedExit,
}

/// How a program must end.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) enum ExpectedExit {
    Success,
    /// It must fail, with this message.
    Refusal(String),
}

/// A line between those of the tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ConsoleLine {
    Begin(String),
    /// Of one program: whether it ended as it must.
    Ran(bool),
    End(String),
}

const MARK: &str = "## kernels:";

impl fmt::Display for ConsoleLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(name) => write!(f, "{MARK} begin {name}"),
            Self::Ran(well) => write!(f, "{MARK} ran {}", if *well { "well" } else { "badly" }),
            Self::End(name) => write!(f, "{MARK} end {name}"),
        }
    }
}

impl ConsoleLine {
    pub(super) fn of_line(line: &str) -> Option<Self> {
        let (kind, rest) = line.strip_prefix(MARK)?.trim_start().split_once(' ')?;
        match (kind, rest) {
            ("begin", name) => Some(Self::Begin(name.to_owned())),
            ("ran", how) => Some(Self::Ran(how == "well")),
            ("end", name) => Some(Self::End(name.to_owned())),
            _ => None,
        }
    }
}

/// Never comes back on the machine.
pub(crate) fn run() -> Result<()> {
    ensure!(std::process::id() == 1, "`inside` is for the machines of `cargo xtask kernels`");
    // Firmware and kernel leave a line without its end.
    println!();
    if let Err(error) = work() {
        println!("{error:#}");
    }
    // The emulator ends instead of starting again.
    match reboot(RebootMode::RB_AUTOBOOT).context("switching off")? {}
}

fn work() -> Result<()> {
    for (kind, place) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run"), ("tmpfs", "/tmp")]
    {
        fs::create_dir_all(place).with_context(|| format!("creating {place}"))?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mounting {place}"))?;
    }
    let plan = fs::read(Path::new("/").join(PLAN)).context("reading the plan")?;
    let plan: Plan = serde_json::from_slice(&plan).context("understanding the plan")?;
    for module in &plan.modules {
        let path = Path::new("/").join(module);
        let file = fs::File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        finit_module(&file, c"", ModuleInitFlags::empty())
            .with_context(|| format!("loading {}", path.display()))?;
    }
    perform(&plan.parts, EMULATED, &mut |line| println!("{line}"))
}

/// How many times as long as elsewhere tests wait for a condition on an emulated processor.
const EMULATED: u32 = 10;

/// Runs the parts one after the other, and hands on each line. `patience`: see [`PATIENCE`].
pub(super) fn perform(parts: &[Part], patience: u32, hear: &mut dyn FnMut(&str)) -> Result<()> {
    for part in parts {
        hear(&ConsoleLine::Begin(part.name.clone()).to_string());
        for run in &part.runs {
            let well = run.perform(patience, hear)?;
            hear(&ConsoleLine::Ran(well).to_string());
        }
        hear(&ConsoleLine::End(part.name.clone()).to_string());
    }
    Ok(())
}

impl Run {
    /// Whether it ends as it must.
    fn perform(&self, patience: u32, hear: &mut dyn FnMut(&str)) -> Result<bool> {
        let Self { program, directory, arguments, wanted } = self;
        hear(&format!("{} {}", program.display(), arguments.join(" ")));
        let (lines, writer) = std::io::pipe().context("a pipe")?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(directory).env("CARGO_MANIFEST_DIR", directory);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("CI", "true");
        command.env(PATIENCE, patience.to_string());
        command.stdin(Stdio::null()).stderr(writer.try_clone().context("a pipe")?).stdout(writer);
        let mut running = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        // Its ends of the pipe are the last.
        drop(command);
        let mut said = false;
        for line in BufReader::new(lines).split(b'\n') {
            let line = line.context("reading what it prints")?;
            let line = String::from_utf8_lossy(&line);
            if let ExpectedExit::Refusal(text) = wanted {
                said |= line.contains(text);
            }
            hear(line.trim_end());
        }
        let status = running.wait().with_context(|| format!("waiting for {}", program.display()))?;
        hear(&status.to_string());
        Ok(match wanted {
            ExpectedExit::Success => status.success(),
            ExpectedExit::Refusal(_) => status.code().is_some_and(|code| code != 0) && said,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(wanted: ExpectedExit, script: &str) -> Vec<String> {
        let run = Run {
            program: "/bin/sh".into(),
            directory: "/".into(),
            arguments: vec!["-c".into(), script.into()],
            wanted,
        };
        let mut lines = Vec::new();
        let part = Part { name: "a part".into(), runs: vec![run] };
        perform(&[part], 1, &mut |line| lines.push(line.to_owned())).expect("sh is everywhere");
        lines
    }

    #[test]
    fn a_program_must_end_as_it_is_wanted_to() {
        let refusal = || ExpectedExit::Refusal("needs 5.15".into());
        for (wanted, script, well) in [
            (ExpectedExit::Success, "echo one; echo two >&2", true),
            (ExpectedExit::Success, "exit 3", false),
            (refusal(), "echo it needs 5.15 >&2; exit 1", true),
            (refusal(), "echo it needs 5.15", false),
            (refusal(), "echo another reason; exit 1", false),
            // A program that crashes refuses nothing.
            (refusal(), "echo it needs 5.15; kill -SEGV $$", false),
        ] {
            let marks: Vec<_> =
                heard(wanted, script).iter().filter_map(|line| ConsoleLine::of_line(line)).collect();
            let name = || "a part".to_owned();
            assert_eq!(
                marks,
                [ConsoleLine::Begin(name()), ConsoleLine::Ran(well), ConsoleLine::End(name())],
                "{script}"
            );
        }
    }
}
