//! The deny log: JSON lines, one for the first packet of its kind, then one with a count for each interval in
//! which there were more. A scan of ports fills neither memory nor disk: beyond a number of kinds they are
//! distinguished by their ends alone, then not at all, and the file is rotated by size.
//!
//! Lines are written by a thread of their own. Between it and the reader of events there is a queue with an
//! end: what a slow disk, or a pipe that is not read, leaves no room for is lost and counted.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use podgate_common::Outcome;
use podgate_core::model::ObjectName;
use podgate_datapath::may_change;

use super::{DecisionEvent, EventEnd};
use crate::api::FlowRecord;

/// Between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(60);
/// Kinds that are distinguished at a time.
const KINDS: usize = 4_096;
/// Lines that wait to be written: what two seconds of the most events that are attributed make.
const WAITING: usize = 2 * super::PER_SECOND as usize;

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
    source: KeyEnd,
    destination: KeyEnd,
    protocol: u16,
    port: Option<u16>,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum KeyEnd {
    Pod(ObjectName),
    Address(IpAddr),
    Unknown,
}

#[derive(Debug)]
struct LoggedDenial {
    /// The last of them; its packets are those that no line has reported.
    event: DecisionEvent,
    packets: u64,
    reported: Instant,
}

/// Chooses what is written.
#[derive(Debug)]
pub struct DenyLog {
    lines: SyncSender<Vec<u8>>,
    lost: LostLines,
    kinds: HashMap<DenialKey, LoggedDenial>,
    /// When the kinds were looked through last.
    looked: Option<Instant>,
}

/// Writes it.
#[expect(missing_debug_implementations, reason = "outputs of any kind have none")]
pub struct DenyLogWriter {
    lines: Receiver<Vec<u8>>,
    lost: LostLines,
    output: Box<dyn Write + Send>,
}

/// How many lines could not be written. Copies count together.
#[derive(Clone, Debug, Default)]
pub struct LostLines(Arc<AtomicU64>);

/// A regular file, line by line.
#[derive(Debug)]
struct RotatedFile {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

impl LostLines {
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, error: &dyn fmt::Display) {
        if self.0.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!(
                %error,
                "the deny log cannot be written; logged once, counted in podgate_deny_log_errors_total"
            );
        }
    }
}

impl DenyLog {
    /// `limit`: bytes after which a regular file is rotated to `PATH.1`. `lost`: counts what is not written.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, or not be rotated because its directory cannot be written to.
    pub fn open(target: &LogTarget, limit: u64, lost: LostLines) -> io::Result<(Self, DenyLogWriter)> {
        let output: Box<dyn Write + Send> = match target {
            LogTarget::Stdout => Box::new(io::stdout()),
            LogTarget::File(path) => {
                let file = append(path)?;
                let metadata = file.metadata()?;
                if metadata.is_file() {
                    check_directory(path)?;
                    Box::new(RotatedFile { path: path.clone(), file, size: metadata.len(), limit })
                } else {
                    // A device must keep its name.
                    Box::new(file)
                }
            }
        };
        Ok(Self::to(output, lost))
    }

    pub(crate) fn to(output: Box<dyn Write + Send>, lost: LostLines) -> (Self, DenyLogWriter) {
        let (lines, written) = sync_channel(WAITING);
        let log = Self { lines, lost: lost.clone(), kinds: HashMap::new(), looked: None };
        (log, DenyLogWriter { lines: written, lost, output })
    }

    /// Notes a denial: the first of its kind is written at once.
    pub(super) fn add(&mut self, event: &DecisionEvent, now: Instant) {
        let mut kind = DenialKey::of(event);
        if !self.kinds.contains_key(&kind) && self.kinds.len() >= KINDS / 2 {
            // Ports of a scan are one kind, and so are its many sources when there are more.
            kind.port = None;
            if !self.kinds.contains_key(&kind) && self.kinds.len() >= KINDS {
                kind.source = KeyEnd::Unknown;
                kind.destination = KeyEnd::of_pod(&event.destination).unwrap_or(KeyEnd::Unknown);
            }
        }
        if let Some(seen) = self.kinds.get_mut(&kind) {
            seen.packets += event.packets;
            seen.event = event.clone();
            return;
        }
        self.write(event);
        if self.kinds.len() < KINDS + KINDS / 4 {
            self.kinds.insert(kind, LoggedDenial { event: event.clone(), packets: 0, reported: now });
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
                seen.event.packets = std::mem::take(&mut seen.packets);
                self.write(&seen.event);
                seen.reported = now;
                self.kinds.insert(kind, seen);
            }
        }
    }

    fn write(&self, event: &DecisionEvent) {
        let mut line = serde_json::to_vec(&FlowRecord::from(event))
            .expect("a flow has string keys and no failing parts");
        line.push(b'\n');
        if self.lines.try_send(line).is_err() {
            self.lost.add(&"no one reads it in time");
        }
    }
}

impl DenyLogWriter {
    /// Writes until the log is dropped and nothing waits.
    pub fn run(mut self) {
        for line in self.lines {
            if let Err(error) = self.output.write_all(&line).and_then(|()| self.output.flush()) {
                self.lost.add(&error);
            }
        }
    }
}

impl DenialKey {
    fn of(event: &DecisionEvent) -> Self {
        Self {
            source: KeyEnd::of(&event.source),
            destination: KeyEnd::of(&event.destination),
            protocol: event.protocol,
            port: event.destination.port.or(event.message),
            outcome: event.outcome,
        }
    }
}

impl KeyEnd {
    fn of(end: &EventEnd) -> Self {
        Self::of_pod(end).or(end.address.map(Self::Address)).unwrap_or(Self::Unknown)
    }

    fn of_pod(end: &EventEnd) -> Option<Self> {
        end.pod().map(|pod| Self::Pod(pod.name.clone()))
    }
}

impl Write for RotatedFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let length = line.len() as u64;
        if self.size > 0 && self.size + length > self.limit {
            let mut rotated = self.path.clone().into_os_string();
            rotated.push(".1");
            fs::rename(&self.path, rotated)?;
            self.file = append(&self.path)?;
            self.size = 0;
        }
        self.file.write_all(line)?;
        self.size += length;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
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
    use std::{io::Read as _, thread};

    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_makes_nobody_wait() {
        let (mut reader, writer) = io::pipe().unwrap();
        let lost = LostLines::default();
        let (log, log_writer) = DenyLog::to(Box::new(writer), lost.clone());
        let writing = thread::spawn(|| log_writer.run());
        // More than a pipe of 64 KiB and the queue take.
        let lines = 2 * WAITING as u64;
        for _ in 0..lines {
            log.write(&DecisionEvent::example());
        }
        let lost = lost.count();
        assert!(lost > 0 && lost < lines, "{lost}");
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        writing.join().unwrap();
        assert_eq!(text.lines().count() as u64, lines - lost, "all others are written when somebody reads");
    }

    #[test]
    fn only_a_regular_file_is_rotated() {
        let directory = tempfile::tempdir().unwrap();
        let is_rotated = |target: &Path| {
            let lost = LostLines::default();
            let (log, log_writer) =
                DenyLog::open(&LogTarget::File(target.to_owned()), 1, lost.clone()).unwrap();
            for _ in 0..3 {
                log.write(&DecisionEvent::example());
            }
            drop(log);
            log_writer.run();
            assert_eq!(lost.count(), 0, "{}", target.display());
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
