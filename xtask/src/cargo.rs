//! Running cargo: the one that runs this program, in the workspace.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead, BufReader, IsTerminal, Write, stdout},
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    screen::{Cell, Tone},
    workspace,
};

pub(crate) fn command() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace::root());
    cargo
}

/// The release build of podgate, which demo, lab and tests run.
pub(crate) fn build_podgate() -> Result<()> {
    build("podgate", &["build", "--release", "--package", "podgate"]).map(|_| ())
}

/// [`build`] that has clippy compile the workspace, as `cargo clippy` does for a check. What it finds is
/// printed, and an error; nothing is compiled a second time to be linted.
pub(crate) fn build_and_lint(what: &str, arguments: &[&str]) -> Result<Vec<Value>> {
    let cargo = env::var_os("CARGO").map(PathBuf::from).unwrap_or_default();
    let beside = cargo.with_file_name(CLIPPY);
    let clippy = if beside.is_file() { beside } else { CLIPPY.into() };
    let messages = build_with(what, arguments, &[("RUSTC_WORKSPACE_WRAPPER", clippy.as_ref())])?;
    let found = messages.iter().filter(|message| message["message"]["level"] == "warning").count();
    ensure!(found == 0, "rustc and clippy have warned {found} times");
    Ok(messages)
}

const CLIPPY: &str = "clippy-driver";

/// Runs a build and hands back cargo's JSON messages. `what` is shown with the progress.
///
/// Cargo itself is kept quiet: it would repeat the whole log of the BPF build, which the agent's build script
/// passes on as warnings, at each call.
pub(crate) fn build(what: &str, arguments: &[&str]) -> Result<Vec<Value>> {
    build_with(what, arguments, &[])
}

/// [`build`] with more variables in its environment.
pub(crate) fn build_with(what: &str, arguments: &[&str], variables: &[(&str, &OsStr)]) -> Result<Vec<Value>> {
    let started = Instant::now();
    let mut build = command()
        .args(arguments)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .args(["--quiet", "--message-format=json-diagnostic-rendered-ansi"])
        .stdout(Stdio::piped())
        .spawn()
        .context("starting cargo")?;
    let output = build.stdout.take().context("stdout is piped")?;
    let mut messages: Vec<Value> = Vec::new();
    let progress = Progress::new(what);
    for line in BufReader::new(output).lines() {
        let message: Value = serde_json::from_str(&line?).context("reading cargo's messages")?;
        if let Some(text) = message["message"]["rendered"].as_str() {
            eprint!("{text}");
        }
        messages.push(message);
        progress.show(messages.iter().filter(|message| message["reason"] == "compiler-artifact").count());
    }
    let status = build.wait().context("waiting for cargo")?;
    progress.clear();
    ensure!(status.success(), "building {what}: {status}");
    let line = format!("built {what} in {:.1} s", started.elapsed().as_secs_f64());
    println!("{}", Cell::new(line, Tone::Quiet));
    Ok(messages)
}

/// One line that is written again and again on a terminal, and once elsewhere.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    terminal: bool,
}

impl Progress {
    pub(crate) fn new(what: &str) -> Self {
        let progress = Self { what: what.to_owned(), terminal: stdout().is_terminal() };
        if progress.terminal {
            progress.show(0);
        } else {
            println!("building {what} …");
        }
        progress
    }

    pub(crate) fn show(&self, done: usize) {
        if self.terminal {
            print!("\r\x1b[Kbuilding {}: {done} parts done …", self.what);
            flush();
        }
    }

    pub(crate) fn clear(&self) {
        if self.terminal {
            print!("\r\x1b[K");
            flush();
        }
    }
}

/// A terminal that does not take output has no one to tell.
fn flush() {
    let _ = stdout().flush();
}
