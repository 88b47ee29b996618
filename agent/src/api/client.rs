//! Asks a running agent, and waits for its answer.

use std::{
    io::{BufRead, BufReader, ErrorKind, Write},
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
    let at = socket.display();
    let stream = UnixStream::connect(socket)
        .map_err(|error| anyhow!("no agent answers on {at}: {error} (is `podgate agent` running?)"))?;
    let line = exchange(stream, ask).with_context(|| format!("the agent on {at}"))?;
    let speaker: Speaker =
        serde_json::from_str(&line).with_context(|| format!("what answers on {at} is no podgate agent"))?;
    speaker.check(&format!("the agent on {at}")).map_err(|error| anyhow!(error))?;
    let response: Response<T> =
        serde_json::from_str(&line).with_context(|| format!("the answer of the agent on {at}"))?;
    match response.answer {
        Answer::Ok(answer) => Ok(answer),
        Answer::Error(error) => Err(anyhow!(error)),
    }
}

fn exchange(mut stream: UnixStream, ask: &Ask) -> anyhow::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = Request { version: PROTOCOL, podgate: RELEASE.to_owned(), ask: ask.clone() };
    let line = serde_json::to_string(&request).context("the request")? + "\n";
    stream.write_all(line.as_bytes()).context("the request")?;
    let mut answer = String::new();
    match BufReader::new(stream).read_line(&mut answer) {
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
