//! The deny log: denials as lines of JSON. The file is rotated by size.
//!
//! Lines are written by a thread of their own. Between it and the reader of events there is a queue with an
//! end: what a slow disk, or a pipe that is not read, leaves no room for is lost and counted.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use podgate_datapath::may_change;

use super::DecisionEvent;
use crate::api::FlowRecord;

/// Lines that wait to be written: what two seconds of the most events that are attributed make.
const WAITING: usize = 2 * super::PER_SECOND as usize;

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// `-`
    Stdout,
    File(PathBuf),
}

/// Takes what is to be written.
#[derive(Debug)]
pub struct DenyLog {
    lines: SyncSender<Vec<u8>>,
    lost: LostLines,
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
        let log = Self { lines, lost: lost.clone() };
        (log, DenyLogWriter { lines: written, lost, output })
    }

    pub(super) fn write(&self, event: &DecisionEvent) {
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
    fn a_pipe_without_a_reader_makes_no_thread_wait() {
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
