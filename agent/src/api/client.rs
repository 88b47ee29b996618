//! Asks a running agent, and waits for its answer.

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Write},
    ops::ControlFlow,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, anyhow, bail, ensure};
use podgate_core::printable::make_printable;
use podgate_datapath::{effective_user, peer_user};
use serde::{Serialize, de::DeserializeOwned};

use super::{PROTOCOL, PeerVersion, RELEASE, Reply, Request, Response};

const ROOT: u32 = 0;

/// An agent that is busy compiling answers late, but not this late.
const PATIENCE: Duration = Duration::from_secs(10);

/// A pass over a large cluster takes some seconds.
const LONG_PATIENCE: Duration = Duration::from_secs(60);

/// Asks the agent behind this socket.
///
/// # Errors
///
/// When no agent answers, when it speaks another protocol, or with what the agent says went wrong.
pub fn ask<T: DeserializeOwned>(socket: &Path, ask: &impl Serialize) -> anyhow::Result<T> {
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
    ask: &impl Serialize,
    patience: Duration,
) -> anyhow::Result<Option<T>> {
    let stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error) if is_without_agent(&error) => return Ok(None),
        Err(error) => return Err(error).with_context(|| at(socket)),
    };
    check_peer(&stream, socket)?;
    match exchange(&mut BufReader::new(stream), ask, patience) {
        Ok(line) => read(&line, socket).map(Some),
        Err(error) if error.downcast_ref().is_some_and(is_without_agent) => Ok(None),
        Err(error) => Err(error).with_context(|| at(socket)),
    }
}

/// No one listens, or who has listened is gone.
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
    ask: &impl Serialize,
    take: impl FnMut(T) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<()> {
    let mut lines = BufReader::new(connect(socket)?);
    let line = exchange(&mut lines, ask, PATIENCE).with_context(|| at(socket))?;
    read::<()>(&line, socket)?;
    take_lines(lines, socket, take)
}

/// The same; before there are lines, `act` does what the first answer asks for, and the agent says whether
/// that was enough. `act` may keep the connection: to shut its writing side down ends the answers.
///
/// # Errors
///
/// As [`follow`], and what `act` gives.
pub fn follow_after<A: DeserializeOwned, T: DeserializeOwned>(
    socket: &Path,
    ask: &impl Serialize,
    act: impl FnOnce(A, &UnixStream) -> anyhow::Result<()>,
    take: impl FnMut(T) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<()> {
    let mut lines = BufReader::new(connect(socket)?);
    let line = exchange(&mut lines, ask, PATIENCE).with_context(|| at(socket))?;
    act(read(&line, socket)?, lines.get_ref())?;
    lines.get_mut().write_all(b"done\n").with_context(|| at(socket))?;
    // It may have a pass to finish before.
    lines.get_ref().set_read_timeout(Some(LONG_PATIENCE))?;
    read::<()>(&answer(&mut lines, LONG_PATIENCE).with_context(|| at(socket))?, socket)?;
    take_lines(lines, socket, take)
}

fn take_lines<T: DeserializeOwned>(
    lines: BufReader<UnixStream>,
    socket: &Path,
    mut take: impl FnMut(T) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<()> {
    let at = socket.display();
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
    let stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => anyhow!("{at}: {error}: only root may ask the agent (try `sudo`)"),
        _ => anyhow!("no agent answers on {at}: {error} (is `podgate agent` running?)"),
    })?;
    check_peer(&stream, socket)?;
    Ok(stream)
}

/// An agent is root's, or one's own: what another user says is not what is enforced.
fn check_peer(stream: &UnixStream, socket: &Path) -> anyhow::Result<()> {
    let peer = peer_user(stream).with_context(|| at(socket))?;
    ensure!(
        is_trusted(peer, effective_user()),
        "what answers on {} is no podgate agent: it is a process of user {peer}",
        socket.display()
    );
    Ok(())
}

/// Whether a user may speak for what is enforced.
fn is_trusted(peer: u32, own: u32) -> bool {
    [ROOT, own].contains(&peer)
}

/// Control characters are escaped: the text may be printed to a terminal.
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

fn exchange(
    lines: &mut BufReader<UnixStream>,
    ask: &impl Serialize,
    patience: Duration,
) -> anyhow::Result<String> {
    let stream = lines.get_mut();
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let request = Request { version: PROTOCOL, podgate: RELEASE.to_owned(), ask };
    let line = serde_json::to_string(&request).context("the request")? + "\n";
    stream.write_all(line.as_bytes()).context("the request")?;
    answer(lines, patience)
}

fn answer(lines: &mut BufReader<UnixStream>, patience: Duration) -> anyhow::Result<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_user_answers_is_not_taken_for_an_agent() {
        for (peer, own, expected) in
            [(ROOT, ROOT, true), (ROOT, 7, true), (7, 7, true), (7, ROOT, false), (8, 7, false)]
        {
            assert_eq!(is_trusted(peer, own), expected, "{own} asks {peer}");
        }
    }
}
