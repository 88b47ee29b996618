//! Asks a running agent, and waits for its answer.

use std::{
    io::{BufRead, BufReader, ErrorKind, Write},
    ops::ControlFlow,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use serde::de::DeserializeOwned;

use super::{Answer, Ask, PROTOCOL, RELEASE, Request, Response, Speaker};

/// An agent that is busy compiling answers late, but not this late.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the agent behind this socket.
///
/// # Errors
///
/// When no agent answers, when it speaks another protocol, or with what the agent says went wrong.
pub fn ask<T: DeserializeOwned>(socket: &Path, ask: &Ask) -> anyhow::Result<T> {
    let mut lines = BufReader::new(connect(socket)?);
    let line = exchange(&mut lines, ask).with_context(|| format!("the agent on {}", socket.display()))?;
    read(&line, socket)
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
    let line = exchange(&mut lines, ask).with_context(|| format!("the agent on {at}"))?;
    read::<()>(&line, socket)?;
    // The next one may be long in coming.
    lines.get_ref().set_read_timeout(None)?;
    for line in lines.lines() {
        let line = line.with_context(|| format!("the agent on {at}"))?;
        let item = serde_json::from_str(&line).with_context(|| format!("a line of the agent on {at}"))?;
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

fn read<T: DeserializeOwned>(line: &str, socket: &Path) -> anyhow::Result<T> {
    let at = socket.display();
    let speaker: Speaker =
        serde_json::from_str(line).with_context(|| format!("what answers on {at} is no podgate agent"))?;
    speaker.check(&format!("the agent on {at}")).map_err(|error| anyhow!(error))?;
    let response: Response<T> =
        serde_json::from_str(line).with_context(|| format!("the answer of the agent on {at}"))?;
    match response.answer {
        Answer::Ok(answer) => Ok(answer),
        Answer::Error(error) => Err(anyhow!(error)),
    }
}

fn exchange(lines: &mut BufReader<UnixStream>, ask: &Ask) -> anyhow::Result<String> {
    let stream = lines.get_mut();
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = Request { version: PROTOCOL, podgate: RELEASE.to_owned(), ask: ask.clone() };
    let line = serde_json::to_string(&request).context("the request")? + "\n";
    stream.write_all(line.as_bytes()).context("the request")?;
    let mut answer = String::new();
    match lines.read_line(&mut answer) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            bail!("did not answer within {} s", PATIENCE.as_secs());
        }
        read => read.context("the answer")?,
    };
    if answer.is_empty() {
        bail!("closed the connection without an answer");
    }
    Ok(answer)
}
