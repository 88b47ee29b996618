//! What a command prints beside an agent, line by line as it comes.
//!
//! Out: lines of bounded length, and why there are no more. What a node sends faster than it is taken waits
//! in the network: nothing is buffered here but one line.

use std::{io, pin::pin};

use podgate_core::printable::printable;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{
    Agent, Executor, Failure,
    exec::{Stdin, ended, finish},
};

/// Of one line, in bytes. A flow with many labels and policies has some thousands.
const LONGEST_LINE: usize = 64 << 10;

/// Bytes that are read at once.
const PART: usize = 16 << 10;

/// One line of the command.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Of stdout, without its end.
    Printed(&'a [u8]),
    /// Of stderr, as one line of text.
    Said(&'a str),
    /// Of stdout, longer than any that is taken.
    TooLong,
}

impl Executor {
    /// Runs the command to its end; it ends too when this is dropped.
    ///
    /// # Errors
    ///
    /// Why it ended before its time.
    pub async fn lines(
        &self,
        agent: &Agent,
        arguments: &[String],
        mut take: impl FnMut(Line<'_>),
    ) -> Result<(), Failure> {
        let mut process = self.start(agent, arguments, Stdin::Open).await?;
        // Its end is what tells a command that no one reads any more.
        let _stdin = process.stdin();
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let mut ended = pin!(ended(process.take_status()));
        let (Some(mut stdout), Some(mut stderr)) = (stdout, stderr) else {
            return Err(Failure::Connection("it has no output".into()));
        };
        let mut status = None;
        let (mut printed, mut said) = (LineBuffer::default(), LineBuffer::default());
        let (mut out, mut err) = (vec![0; PART], vec![0; PART]);
        let (mut is_out_open, mut is_err_open) = (true, true);
        let mut complaint = Vec::new();
        while is_out_open || is_err_open {
            tokio::select! {
                // What was printed before the end counts. There is little on stderr.
                biased;
                read = read(&mut stderr, &mut err), if is_err_open => match read? {
                    0 => is_err_open = false,
                    count => said.push(&err[..count], |line| if let Line::Printed(bytes) = line {
                        let text = String::from_utf8_lossy(bytes);
                        complaint = bytes.to_vec();
                        take(Line::Said(&printable(text.trim())));
                    }),
                },
                read = read(&mut stdout, &mut out), if is_out_open => match read? {
                    0 => is_out_open = false,
                    count => printed.push(&out[..count], &mut take),
                },
                end = &mut ended, if status.is_none() => status = Some(end?),
            }
        }
        let status = match status {
            Some(status) => status,
            None => ended.await?,
        };
        finish(&status, &complaint)
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin), into: &mut [u8]) -> Result<usize, Failure> {
    let read: io::Result<usize> = stream.read(into).await;
    read.map_err(|error| Failure::Connection(printable(&error.to_string()).into_owned()))
}

/// The line that is not complete yet.
#[derive(Debug, Default)]
struct LineBuffer {
    line: Vec<u8>,
    /// The line is too long; its rest is skipped.
    is_skipping: bool,
}

impl LineBuffer {
    fn push(&mut self, bytes: &[u8], mut take: impl FnMut(Line<'_>)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (part, is_complete) = part.strip_suffix(b"\n").map_or((part, false), |part| (part, true));
            if !self.is_skipping && self.line.len() + part.len() > LONGEST_LINE {
                self.is_skipping = true;
                take(Line::TooLong);
            }
            if !self.is_skipping {
                self.line.extend_from_slice(part);
            }
            if is_complete {
                if !self.is_skipping && !self.line.is_empty() {
                    take(Line::Printed(&self.line));
                }
                self.line.clear();
                self.is_skipping = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_those_that_are_too_long_are_left_out() {
        let mut buffer = LineBuffer::default();
        let mut lines = Vec::new();
        let long = "x".repeat(LONGEST_LINE);
        for part in ["a", "b\nc\n\n", &long, "yz", "\nd", "\n", "incomplete"] {
            buffer.push(part.as_bytes(), |line| {
                lines.push(match line {
                    Line::Printed(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
                    Line::Said(_) => unreachable!(),
                    Line::TooLong => "(long)".to_owned(),
                });
            });
        }
        assert_eq!(lines, ["ab", "c", "(long)", "d"]);
        assert!(buffer.line.len() <= LONGEST_LINE);
    }
}
