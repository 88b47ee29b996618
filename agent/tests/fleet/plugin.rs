//! Runs the program as kubectl runs its plugins.

use std::{
    fs,
    io::Read as _,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::server::Server;

/// What it printed, how it ended, and what it took.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
    pub(crate) took: Duration,
    /// The most memory that was in use at once, in bytes.
    pub(crate) memory: u64,
}

/// Starts `kubectl podgate` with these arguments.
pub(crate) fn start(server: &Server, line: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podgate"));
    command.arg0("/usr/local/bin/kubectl-podgate").args(line.split_whitespace());
    command.env_clear().env("KUBECONFIG", server.kubeconfig.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program that cargo has built")
}

/// Runs it to its end.
pub(crate) fn run(server: &Server, line: &str) -> Finished {
    let started = Instant::now();
    finish(start(server, line), started)
}

pub(crate) fn finish(mut child: Child, started: Instant) -> Finished {
    let (mut stdout, mut stderr) = (
        child.stdout.take().expect("the program and its output"),
        child.stderr.take().expect("the program and its output"),
    );
    let stdout = thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let stderr = thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    let mut memory = 0;
    let status = loop {
        memory = memory.max(peak_memory(child.id()));
        if let Some(status) = child.try_wait().expect("the program and its output") {
            break status;
        }
        thread::sleep(Duration::from_millis(2));
    };
    let took = started.elapsed();
    let [stdout, stderr] = [stdout, stderr]
        .map(|text| text.join().expect("the program and its output").expect("the program and its output"));
    Finished { stdout, stderr, code: status.code(), took, memory }
}

/// 0: it has ended.
pub(crate) fn peak_memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}
