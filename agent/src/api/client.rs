//! Asks a running agent, and waits for its answer.

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Write},
    ops::ControlFlow,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use podgate_core::printable::make_printable;
use serde::de::DeserializeOwned;

use super::{Ask, PROTOCOL, PeerVersion, RELEASE, Reply, Request, Response};

/// An agent that is busy compiling answers late, but not this late.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the agent behind this socket.
///
/// # Errors
///
/// When no agent answers, when it speaks another protocol, or with what the agent says went wrong.
pub fn ask<T: DeserializeOwned>(socket: &Path, ask: &Ask) -> anyhow::Result<T> {
    let mut lines = BufReader::new(connect(socket)?);
    let line = exchange(&mut lines, ask, PATIENCE).with_context(|| at(socket))?;
    read(&line, socket)
}

/// Asks the agent behind this socket, if there is one and it lives until it has answered.
///
/// # Errors
///
/// When it does not answer in time, or speaks another protocol, or with what the agent says went wrong.
pub fn try_ask<T: DeserializeOwned>(
    socket: &Path,
    ask: &Ask,
    patience: Duration,
) -> anyhow::Result<Option<T>> {
    let stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error) if is_without_agent(&error) => return Ok(None),
        Err(error) => return Err(error).with_context(|| at(socket)),
    };
    match exchange(&mut BufReader::new(stream), ask, patience) {
        Ok(line) => read(&line, socket).map(Some),
        Err(error) if error.downcast_ref().is_some_and(is_without_agent) => Ok(None),
        Err(error) => Err(error).with_context(|| at(socket)),
    }
}

/// Nobody listens, or who has listened is gone.
fn is_without_agent(error: &io::Error) -> bool {
    let kinds = [
        ErrorKind::NotFound,
        ErrorKind::ConnectionRefused,
        ErrorKind::ConnectionReset,
        ErrorKind::BrokenPipe,
        ErrorKind::UnexpectedEof,
    ];
    kinds.contains(&error.kind())
}

fn at(socket: &Path) -> String {
    format!("the agent on {}", socket.display())
}

/// Asks for lines, and hands each one on until `take` has enough or the agent ends.
///
/// # Errors
///
/// As [`ask`], and what `take` gives.
pub fn follow<T: DeserializeOwned>(
    socket: &Path,
    ask: &Ask,
    mut take: impl FnMut(T) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<()> {
    let at = socket.display();
    let mut lines = BufReader::new(connect(socket)?);
    let line = exchange(&mut lines, ask, PATIENCE).with_context(|| format!("the agent on {at}"))?;
    read::<()>(&line, socket)?;
    // The next one may be long in coming.
    lines.get_ref().set_read_timeout(None)?;
    for line in lines.lines() {
        let line = line.with_context(|| format!("the agent on {at}"))?;
        let item = parsed(&line).with_context(|| format!("a line of the agent on {at}"))?;
        if take(item)?.is_break() {
            break;
        }
    }
    Ok(())
}

fn connect(socket: &Path) -> anyhow::Result<UnixStream> {
    let at = socket.display();
    UnixStream::connect(socket)
        .map_err(|error| anyhow!("no agent answers on {at}: {error} (is `podgate agent` running?)"))
}

/// What is printed of it must not speak to a terminal.
fn parsed<T: DeserializeOwned>(line: &str) -> serde_json::Result<T> {
    let mut value = serde_json::from_str(line)?;
    make_printable(&mut value);
    serde_json::from_value(value)
}

fn read<T: DeserializeOwned>(line: &str, socket: &Path) -> anyhow::Result<T> {
    let at = socket.display();
    let peer_version: PeerVersion =
        parsed(line).with_context(|| format!("what answers on {at} is no podgate agent"))?;
    peer_version.check(&format!("the agent on {at}")).map_err(|error| anyhow!(error))?;
    let response: Response<T> = parsed(line).with_context(|| format!("the answer of the agent on {at}"))?;
    match response.answer {
        Reply::Ok(answer) => Ok(answer),
        Reply::Error(error) => Err(anyhow!(error)),
    }
}

fn exchange(lines: &mut BufReader<UnixStream>, ask: &Ask, patience: Duration) -> anyhow::Result<String> {
    let stream = lines.get_mut();
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let request = Request { version: PROTOCOL, podgate: RELEASE.to_owned(), ask: ask.clone() };
    let line = serde_json::to_string(&request).context("the request")? + "\n";
    stream.write_all(line.as_bytes()).context("the request")?;
    let mut answer = String::new();
    match lines.read_line(&mut answer) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            bail!("did not answer within {} s", patience.as_secs());
        }
        read => read.context("the answer")?,
    };
    if answer.is_empty() {
        let error = io::Error::from(ErrorKind::UnexpectedEof);
        return Err(error).context("closed the connection without an answer");
    }
    Ok(answer)
}
