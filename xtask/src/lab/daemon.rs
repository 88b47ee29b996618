//! A program that runs until it is ended: an agent, a control plane's server, a process in a pod.
//!
//! In: a command. Out: a process that can be waited for, frozen, ended kindly and killed, and the end of its
//! log, if it has one, for messages.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Error, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::until;

/// A running program. It is killed when it is dropped.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    process: Child,
    log: Option<Log>,
}

/// Where a program's output goes; a program that is started again goes on in the same file.
#[derive(Clone, Debug)]
pub(crate) struct Log(PathBuf);

/// Lines of a log that a message quotes.
const TAIL: usize = 30;

impl Daemon {
    /// Starts a program that writes where the command says.
    pub fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        let process = command.stdin(Stdio::null()).spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), process, log: None })
    }

    /// Starts a program that writes into a log.
    pub(crate) fn start(name: &str, command: &mut Command, log: &Log) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(log.path());
        let out = file.with_context(|| format!("opening {}", log.path().display()))?;
        let err = out.try_clone().context("sharing the log")?;
        let mut daemon = Self::spawn(name, command.stdout(out).stderr(err))?;
        daemon.log = Some(log.clone());
        Ok(daemon)
    }

    pub fn process_id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).expect("the kernel's process ids are 22 bits wide"))
    }

    /// What it writes, for a command that pipes it.
    pub(super) fn stdout(&mut self) -> Option<ChildStdout> {
        self.process.stdout.take()
    }

    /// Waits until `look` is true. Fails when the program ends before, or with what it logged last.
    pub(crate) fn ready(&mut self, limit: Duration, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
        let what = format!("{} is ready", self.name);
        let outcome = until(&what, limit, || {
            if let Some(status) = self.process.try_wait().context("waitpid")? {
                bail!("{} ended before it was ready: {status}", self.name);
            }
            Ok(look()?.then_some(()))
        });
        outcome.map_err(|error| self.with_log(&error))
    }

    /// Waits until it has ended by itself.
    pub(crate) fn ended(mut self, limit: Duration) -> Result<ExitStatus> {
        let ended =
            until(&format!("{} ends", self.name), limit, || self.process.try_wait().context("waitpid"));
        ended.map_err(|error| self.with_log(&error))
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.ended(limit)
    }

    /// Ends it without a warning.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.process.kill().with_context(|| format!("killing {}", self.name))?;
        self.process.wait().with_context(|| format!("waiting for {}", self.name))?;
        Ok(())
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.process_id(), signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// The end of its log.
    pub(crate) fn tail(&self) -> String {
        self.log.as_ref().map(Log::tail).unwrap_or_default()
    }

    fn with_log(&self, error: &Error) -> Error {
        anyhow!("{error:#}\n{}", self.tail())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Ended already when `kill` or `terminate` came first.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Log {
    pub(crate) fn new(file: impl Into<PathBuf>) -> Self {
        Self(file.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The last lines, for messages.
    pub(crate) fn tail(&self) -> String {
        let text = fs::read(&self.0).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(TAIL)..];
        format!("--- end of {} ---\n{}\n---", self.0.display(), last.join("\n"))
    }
}
