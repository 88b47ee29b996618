//! The deny log: JSON lines, one for the first packet of its kind, then one with a count for each interval in
//! which there were more. A scan of ports fills neither memory nor disk: beyond a number of kinds they are
//! distinguished by their ends alone, then not at all, and the file is rotated by size.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use podgate_common::Outcome;
use podgate_datapath::may_change;

use crate::api::{FlowEnd, FlowRecord};

/// Between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(60);
/// Kinds that are distinguished at a time.
const KINDS: usize = 4_096;
/// Lines that wait for a pipe which is not read. More are counted and lost: no one here waits for a reader.
const WAITING: usize = 1_024;

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// `-`
    Stdout,
    File(PathBuf),
}

/// What is one kind of denial.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct DenialKey {
    source: String,
    destination: String,
    protocol: String,
    port: Option<u16>,
    reason: Outcome,
}

#[derive(Debug)]
struct LoggedDenial {
    /// The last of them; its packets are those that no line has reported.
    flow: FlowRecord,
    packets: u64,
    reported: Instant,
}

#[derive(Debug)]
pub struct DenyLog {
    output: LogOutput,
    kinds: HashMap<DenialKey, LoggedDenial>,
    /// When the kinds were looked through last.
    looked: Option<Instant>,
    unwritten: u64,
}

#[derive(Debug)]
enum LogOutput {
    /// Standard output, mostly a pipe, has a thread of its own.
    Pipe(Pipe),
    File {
        path: PathBuf,
        file: File,
        size: u64,
        limit: u64,
    },
}

/// Lines on their way to an output that may block.
#[derive(Debug)]
struct Pipe {
    lines: SyncSender<Vec<u8>>,
    /// Lines that the output did not take.
    failed: Arc<AtomicU64>,
}

impl DenyLog {
    /// `limit`: bytes after which a regular file is rotated to `PATH.1`.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, or not be rotated because its directory cannot be written to.
    pub fn open(target: &LogTarget, limit: u64) -> io::Result<Self> {
        let output = match target {
            LogTarget::Stdout => LogOutput::Pipe(Pipe::to(io::stdout())?),
            LogTarget::File(path) => {
                let file = append(path)?;
                let metadata = file.metadata()?;
                if metadata.is_file() {
                    check_directory(path)?;
                    LogOutput::File { path: path.clone(), file, size: metadata.len(), limit }
                } else {
                    // A FIFO may block, and a device must keep its name.
                    LogOutput::Pipe(Pipe::to(file)?)
                }
            }
        };
        Ok(Self { output, kinds: HashMap::new(), looked: None, unwritten: 0 })
    }

    /// Notes a denial: the first of its kind is written at once.
    pub(super) fn add(&mut self, flow: &FlowRecord, now: Instant) {
        let mut kind = DenialKey::of(flow);
        if !self.kinds.contains_key(&kind) && self.kinds.len() >= KINDS / 2 {
            // Ports of a scan are one kind, and so are its many sources when there are more.
            kind.port = None;
            if !self.kinds.contains_key(&kind) && self.kinds.len() >= KINDS {
                kind.source = String::new();
                kind.destination = flow.destination.pod.clone().unwrap_or_default();
            }
        }
        if let Some(seen) = self.kinds.get_mut(&kind) {
            seen.packets += flow.packets;
            seen.flow = flow.clone();
            return;
        }
        self.write(flow);
        if self.kinds.len() < KINDS + KINDS / 4 {
            self.kinds.insert(kind, LoggedDenial { flow: flow.clone(), packets: 0, reported: now });
        }
    }

    /// Writes a line for each kind that went on for an interval, and forgets those that did not.
    pub(super) fn summarise(&mut self, now: Instant) {
        let is_early = |then: Instant, by| now.checked_duration_since(then).is_none_or(|passed| passed < by);
        if self.looked.is_some_and(|looked| is_early(looked, INTERVAL / 60)) {
            return;
        }
        self.looked = Some(now);
        let due: Vec<DenialKey> = self
            .kinds
            .iter()
            .filter(|(_, seen)| !is_early(seen.reported, INTERVAL))
            .map(|(kind, _)| kind.clone())
            .collect();
        for kind in due {
            let Some(mut seen) = self.kinds.remove(&kind) else { continue };
            if seen.packets > 0 {
                seen.flow.packets = std::mem::take(&mut seen.packets);
                self.write(&seen.flow);
                seen.reported = now;
                self.kinds.insert(kind, seen);
            }
        }
    }

    /// Lines that could not be written.
    pub(super) fn unwritten(&self) -> u64 {
        self.unwritten
            + match &self.output {
                LogOutput::Pipe(pipe) => pipe.failed.load(Ordering::Relaxed),
                LogOutput::File { .. } => 0,
            }
    }

    fn write(&mut self, flow: &FlowRecord) {
        let mut line = serde_json::to_vec(flow).expect("a flow has string keys and no failing parts");
        line.push(b'\n');
        if let Err(error) = self.output.write(&line) {
            if self.unwritten == 0 {
                tracing::error!(
                    %error,
                    "the deny log cannot be written; logged once, counted in podgate_deny_log_errors_total"
                );
            }
            self.unwritten += 1;
        }
    }
}

impl DenialKey {
    fn of(flow: &FlowRecord) -> Self {
        let name = |end: &FlowEnd| match (&end.pod, end.address) {
            (Some(pod), _) => pod.clone(),
            (None, Some(address)) => address.to_string(),
            (None, None) => String::new(),
        };
        Self {
            source: name(&flow.source),
            destination: name(&flow.destination),
            protocol: flow.protocol.clone(),
            port: flow.destination.port,
            reason: flow.reason,
        }
    }
}

impl Pipe {
    fn to(mut output: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, written) = sync_channel::<Vec<u8>>(WAITING);
        let failed = Arc::new(AtomicU64::new(0));
        let failures = failed.clone();
        let write = move || {
            for line in written {
                if output.write_all(&line).and_then(|()| output.flush()).is_err() {
                    failures.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        thread::Builder::new().name("deny-log".into()).spawn(write)?;
        Ok(Self { lines, failed })
    }
}

impl LogOutput {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => {
                pipe.lines.try_send(line.to_vec()).map_err(|_| io::Error::other("nobody reads it in time"))
            }
            Self::File { path, file, size, limit } => {
                let length = line.len() as u64;
                if *size > 0 && *size + length > *limit {
                    let mut rotated = path.clone().into_os_string();
                    rotated.push(".1");
                    fs::rename(&*path, rotated)?;
                    *file = append(path)?;
                    *size = 0;
                }
                file.write_all(line)?;
                *size += length;
                Ok(())
            }
        }
    }
}

/// Rotation would fail when the file is full, perhaps months later.
fn check_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or_else(|| Path::new("."));
    may_change(directory).map_err(|error| {
        let message = format!("it could not be rotated in {}: {error}", directory.display());
        io::Error::new(error.kind(), message)
    })
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("-"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for LogTarget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Err("a path, or `-` for standard output"),
            "-" => Ok(Self::Stdout),
            path => Ok(Self::File(path.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_makes_nobody_wait() {
        let (mut reader, writer) = io::pipe().unwrap();
        let output = LogOutput::Pipe(Pipe::to(writer).unwrap());
        let mut log = DenyLog { output, kinds: HashMap::new(), looked: None, unwritten: 0 };
        // More than a pipe of 64 KiB and the queue take.
        let lines = 2 * WAITING as u64;
        for _ in 0..lines {
            log.write(&FlowRecord::example());
        }
        let lost = log.unwritten();
        assert!(lost > 0 && lost < lines, "{lost}");
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count() as u64, lines - lost, "all others are written when somebody reads");
    }

    #[test]
    fn only_a_regular_file_is_rotated() {
        let directory = tempfile::tempdir().unwrap();
        let is_rotated = |target: &Path| {
            let mut log = DenyLog::open(&LogTarget::File(target.to_owned()), 1).unwrap();
            for _ in 0..3 {
                log.write(&FlowRecord::example());
            }
            assert_eq!(log.unwritten(), 0, "{}", target.display());
            let mut rotated = target.as_os_str().to_owned();
            rotated.push(".1");
            Path::new(&rotated).exists()
        };
        assert!(is_rotated(&directory.path().join("log")));
        // As `/dev/stderr` is.
        let device = directory.path().join("device");
        std::os::unix::fs::symlink("/dev/null", &device).unwrap();
        assert!(!is_rotated(&device), "a device keeps its name");
    }
}
