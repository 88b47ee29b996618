//! Processes of the cluster as the machine outside sees them.
//!
//! In: `/proc`. Out: who runs, whose child, and commands that enter a process's namespaces. A process is
//! known by its id and its start, so that a reused id is never taken for it.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};
use nix::unistd::Pid;

/// A process that was seen running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    id: i32,
    /// Clock ticks from the boot of the machine to the start of the process.
    start: u64,
}

/// What `/proc/PID/stat` says (proc_pid_stat(5)).
struct Stat {
    parent: i32,
    zombie: bool,
    start: u64,
}

impl Process {
    pub(super) fn of(id: u32) -> Result<Self> {
        let id = i32::try_from(id).context("process id")?;
        let stat = Stat::read(id).with_context(|| format!("process {id} does not run"))?;
        Ok(Self { id, start: stat.start })
    }

    /// The process that is written in a file, if there is such a file and it still runs.
    pub(super) fn recorded(file: &Path) -> Result<Option<Self>> {
        let Ok(text) = fs::read_to_string(file) else { return Ok(None) };
        let numbers =
            text.trim().split_once(' ').and_then(|(id, start)| Some((id.parse().ok()?, start.parse().ok()?)));
        let (id, start) = numbers.with_context(|| format!("{} holds no process", file.display()))?;
        Ok(Some(Self { id, start }).filter(Self::is_running))
    }

    pub(super) fn record(&self, file: &Path) -> Result<()> {
        fs::write(file, format!("{} {}\n", self.id, self.start))
            .with_context(|| format!("writing {}", file.display()))
    }

    pub(super) fn id(&self) -> Pid {
        Pid::from_raw(self.id)
    }

    pub(super) fn is_running(&self) -> bool {
        Stat::read(self.id).is_some_and(|stat| stat.start == self.start && !stat.zombie)
    }

    pub(super) fn children(&self) -> Result<Vec<Self>> {
        let entries = fs::read_dir("/proc").context("reading /proc")?;
        let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let child = |id: i32| {
            let stat = Stat::read(id)?;
            (stat.parent == self.id && !stat.zombie).then_some(Self { id, start: stat.start })
        };
        Ok(ids.filter_map(child).collect())
    }

    /// The child that was started as `program`.
    pub(super) fn child(&self, program: &str) -> Result<Self> {
        let named =
            |child: &Self| child.arguments().first().is_some_and(|file| Path::new(file).ends_with(program));
        self.children()?.into_iter().find(named).with_context(|| format!("{program} is not running"))
    }

    pub(super) fn network(&self) -> Result<File> {
        File::open(format!("/proc/{}/ns/net", self.id)).context("opening a network namespace")
    }

    /// Its command line; empty when it is gone.
    pub(super) fn arguments(&self) -> Vec<String> {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.id)).unwrap_or_default();
        bytes.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
    }

    /// A command in its namespaces of processes, mounts, network and host name.
    pub(super) fn enter(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.id))
            .args(["--pid", "--mount", "--net", "--uts", "--wd=/", "--"]);
        command.arg(program);
        command
    }
}

impl Stat {
    fn read(id: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name stands in brackets and may hold anything, brackets too.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<_> = rest.split_whitespace().collect();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            zombie: *fields.first()? == "Z",
            start: fields.get(19)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_whatever_the_name_holds() {
        let line = "42 (a) b) S 7 42 42 0 -1 4194560 1 0 0 0 1 2 3 4 20 0 1 0 987654 1 2";
        let stat = Stat::parse(line).expect("well-formed");
        assert_eq!((stat.parent, stat.zombie, stat.start), (7, false, 987_654));
    }

    #[test]
    fn a_process_is_found_by_its_record_until_it_ends() {
        let mut sleeper = Command::new("sleep").arg("60").spawn().expect("there is `sleep`");
        let process = Process::of(sleeper.id()).expect("it runs");
        let file = std::env::temp_dir().join(format!("podgate-record-{}", sleeper.id()));
        process.record(&file).expect("temporary files can be written");
        assert_eq!(Process::recorded(&file).expect("well-formed"), Some(process));
        let myself = Process::of(std::process::id()).expect("it runs");
        assert!(myself.children().expect("/proc is there").contains(&process));
        sleeper.kill().expect("it runs");
        sleeper.wait().expect("it ends");
        assert_eq!(Process::recorded(&file).expect("well-formed"), None);
        fs::remove_file(&file).expect("it was just written");
    }
}
