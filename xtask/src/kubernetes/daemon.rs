//! A program that runs until it is told to end, and whose output is kept in a file.
//!
//! In: a command. Out: a process that can be frozen, ended kindly and killed, and the end of its log for
//! messages.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Error, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::lab::until;

/// A running program. It is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    process: Child,
    log: Log,
}

/// Where a program's output goes; a program that is started again goes on in the same file.
#[derive(Clone, Debug)]
pub(crate) struct Log(PathBuf);

/// How long a program may take to end after SIGTERM.
const END: Duration = Duration::from_secs(30);
/// Lines of a log that a message quotes.
const TAIL: usize = 30;

impl Daemon {
    pub(crate) fn start(name: &str, command: &mut Command, log: &Log) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(log.path());
        let out = file.with_context(|| format!("opening {}", log.path().display()))?;
        let err = out.try_clone().context("sharing the log")?;
        let process = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), process, log: log.clone() })
    }

    pub(crate) fn process_id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).expect("the kernel's process ids are 22 bits wide"))
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

    /// Asks it to end, and waits until it has.
    pub(crate) fn terminate(mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let what = format!("{} ends", self.name);
        let ended = until(&what, END, || self.process.try_wait().context("waitpid"));
        ended.map_err(|error| self.with_log(&error))
    }

    /// Ends it without a warning.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.process.kill().with_context(|| format!("killing {}", self.name))?;
        self.process.wait().with_context(|| format!("waiting for {}", self.name))?;
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.process_id(), signal).with_context(|| format!("{signal} to {}", self.name))
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    fn with_log(&self, error: &Error) -> Error {
        anyhow!("{error:#}\n{}", self.log.tail())
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
